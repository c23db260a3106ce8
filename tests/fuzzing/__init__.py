"""Inputs made at random from a seed: valid ones with accidents, each opened by the command as a user would."""
