"""Step 2: texts become token ids, token tries, and packed batches."""

from bluffscope.plan.batches import BatchLimits, plan_batches
from bluffscope.plan.tokens import TextTokenizer
from bluffscope.plan.tries import pack, pad

__all__ = ["BatchLimits", "TextTokenizer", "pack", "pad", "plan_batches"]
