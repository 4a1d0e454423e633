"""`shipway exec`: the pipelines of a working tree on this machine's engine, without a server.

ci.pipeline (plan) -> cut -> runners.execution, with the working tree in place of a clone -> screen
"""
