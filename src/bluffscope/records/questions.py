"""What a model is asked about a text, to hear whether it finds it true."""

from __future__ import annotations

from typing import Final

STATEMENT_QUESTION: Final = "\nIs the statement above true? Answer True or False.\nAnswer:"
"""Follows prompt and completion as they are measured."""
CHAT_QUESTION: Final = "Is that true? Answer True or False."
"""The user's next turn, in a conversation in which the completion was the assistant's."""
ANSWERS: Final = (" True", " False")
"""What follows the question; the assistant's turn begins without the space."""
