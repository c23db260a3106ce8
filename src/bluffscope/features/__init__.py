"""Which SAE features tell facts from hallucinations: their effects, what ablating them does, what they promote."""
