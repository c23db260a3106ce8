"""This machine and process: memory, threads, warnings, signals, the hub, random numbers equal on every machine."""
