"""Our agent on a machine: supervisor, job processes and the engines they start containers with."""
