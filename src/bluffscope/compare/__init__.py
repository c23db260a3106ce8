"""Do two results say the same? Two runs, two precisions, the fast path against the reference; and how fast each is."""
