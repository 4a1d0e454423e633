"""The contract between Shipway's processes, the language, and the server's state."""

__version__ = "0.1.0"
