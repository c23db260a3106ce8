"""This machine and process: memory, threads, warnings, signals, the hub, redaction, portable random numbers."""
