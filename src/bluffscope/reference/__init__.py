"""The slow, obvious implementation of every number, one text at a time; the fast one is checked against it."""
