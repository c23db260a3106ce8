"""The slow, obvious implementation of every number, one text at a time; tests hold the fast one to it."""
