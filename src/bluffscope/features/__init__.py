"""Which SAE features differ between fact and hallucination: effects, ablation, logit lens."""
