"""The life of a run: options, workers, shards, resuming, the merged table and the manifest."""
