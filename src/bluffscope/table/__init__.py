"""A run's tables and folder: the schema, atomic shards and their journal, the manifest, the reader."""
