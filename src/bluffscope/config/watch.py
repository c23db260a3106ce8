"""Options of a model that writes while a detector watches it."""

from __future__ import annotations

from dataclasses import dataclass

from bluffscope.errors import InputError


@dataclass(frozen=True, kw_only=True)
class WatchOptions:
    """How the model writes."""

    chat: bool = False
    """Put prompts through the model's own chat template; a detector trained on conversations always does."""
    system: str | None = None
    """Text of a system message (in a conversation)."""
    max_new_tokens: int = 128
    """Most tokens to write."""
    temperature: float = 0.0
    """Temperature of the draw; 0 takes the most probable token."""
    seed: int = 0
    """Seed of the draw."""
    stop: tuple[str, ...] = ()
    """Texts that end the writing, themselves included."""

    def check(self) -> None:
        """Refuse values that make no sense.

        Raises:
            InputError: naming the option.
        """
        for name, least in (("max_new_tokens", 1), ("seed", 0)):
            value = getattr(self, name)
            if not least <= value < 2**31:
                raise InputError(f"--{name.replace('_', '-')} {value}: give a whole number that is {least} or more")
        if not 0 <= self.temperature < 100:
            raise InputError(f"--temperature {self.temperature:g}: give a number that is 0 or more")
        if "" in self.stop:
            raise InputError('--stop "": give a text that is not empty')
