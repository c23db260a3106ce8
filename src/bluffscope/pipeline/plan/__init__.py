"""Texts become token ids, token tries and packed batches."""

from bluffscope.pipeline.plan.batches import BatchLimits, plan_batches
from bluffscope.pipeline.plan.questions import with_questions
from bluffscope.pipeline.plan.tokens import TextTokenizer, as_far_as_read
from bluffscope.pipeline.plan.tries import pack, pad

__all__ = ["BatchLimits", "TextTokenizer", "as_far_as_read", "pack", "pad", "plan_batches", "with_questions"]
