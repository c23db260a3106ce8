"""Where shards run: in this process, or in others through Ray."""
