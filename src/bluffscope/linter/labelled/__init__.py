"""The linter of labelled texts: what would make a difference between true and false ones wrong or doubtful."""
