"""How questions are put to a model: their prompts as it knows them, what ends an answer, and how many a batch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from bluffscope.errors import PairError
from bluffscope.host.chat import Chat
from bluffscope.model import LanguageModel
from bluffscope.runs.ask.draw import Answer, Drawing, Prompt

BATCH_BYTES: Final = 1 << 30
"""Most bytes of keys and values, and of one step's probabilities, that a batch may hold."""
MOST_ROWS: Final = 256
"""Most samples a batch: beyond, a step gains nothing on any processor seen so far."""


@dataclass(frozen=True)
class Asked:
    """A question with the texts that its prompt is made of."""

    id: str
    text: str
    answer: str
    """A right one, for those that are examples."""


def written(question: str, shots: Sequence[Asked], *, chat: bool) -> str:
    """The prompt of a question as `bluffscope analyze` reads it: text, or messages as JSON.

    Args:
        question: its text.
        shots: examples in front of it.
        chat: whether it is asked by a chat template.
    """
    if not chat:
        examples = "".join(f"Q: {shot.text}\nA: {shot.answer}\n\n" for shot in shots)
        return f"{examples}Q: {question}\nA:"
    if not shots:
        return question
    turns = [(shot.text, shot.answer) for shot in shots]
    roles = ("user", "assistant")
    said = [{"role": role, "content": text} for turn in turns for role, text in zip(roles, turn, strict=True)]
    return json.dumps([*said, {"role": "user", "content": question}], ensure_ascii=False)


@dataclass(frozen=True)
class Asking:
    """How questions are put to a model."""

    model: LanguageModel
    drawing: Drawing
    chat: Chat | None
    shots: Sequence[Asked]
    """Examples in front of every question."""

    def prompts(self, questions: Sequence[Asked]) -> tuple[list[Prompt], dict[str, str]]:
        """Token ids of each question's prompt; and why a question cannot be asked, by its id."""
        texts = [written(question.text, self.shots, chat=self.chat is not None) for question in questions]
        room = None if self.model.context is None else self.model.context - self.drawing.most_tokens
        prompts, refused = list[Prompt](), dict[str, str]()
        for index, (question, ids) in enumerate(zip(questions, self._encoded(texts), strict=True)):
            if isinstance(ids, PairError):
                refused[question.id] = str(ids)
            elif room is not None and len(ids) > room:
                refused[question.id] = (
                    f"its prompt has {len(ids):,} tokens, and the model's context holds {self.model.context:,} with "
                    f"the answer's {self.drawing.most_tokens}"
                )
            else:
                prompts.append(Prompt(question.id, ids, index))
        return prompts, refused

    def _encoded(self, texts: Sequence[str]) -> list[tuple[int, ...] | PairError]:
        """Token ids of each prompt, or why the chat template refuses it."""
        if self.chat is None:
            tokenizer: Any = self.model.tokenizer
            encoded: Any = tokenizer(texts, add_special_tokens=False, split_special_tokens=True, verbose=False)
            bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
            return [(*bos, *text) for text in encoded["input_ids"]]
        try:
            openings = self.chat.openings(texts)
            return [tuple(openings[text]) for text in texts]
        except PairError as error:
            if len(texts) == 1:
                return [error]
            return [found for text in texts for found in self._encoded([text])]  # to find which

    def stops(self) -> list[int]:
        """Tokens that end an answer: those that the model ends texts with; of plain prompts, also any line's end."""
        tokenizer: Any = self.model.tokenizer
        config = getattr(self.model.network, "generation_config", None)
        named = getattr(config, "eos_token_id", None)
        found = {tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])}
        if self.chat is not None:
            found.add(self.chat.end_of_turn)
        else:
            words = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
            found |= {token for token, word in enumerate(words) if "\n" in word}
        return sorted(token for token in found if isinstance(token, int))

    def text(self, answer: Answer) -> str:
        """An answer as text."""
        return str(self.model.tokenizer.decode([*answer.tokens], skip_special_tokens=True)).strip()

    def questions_a_batch(self, prompts: Sequence[Prompt]) -> int:
        """As many as memory allows, whatever their number: batches follow from the longest prompt and the model."""
        config = self.model.config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        tokens = max(len(one.ids) for one in prompts) + self.drawing.most_tokens
        kept = 2 * int(config.num_hidden_layers) * heads * width * self.model.dtype.itemsize * tokens
        row = kept + 3 * 8 * int(config.vocab_size)  # logits, probabilities and their sums in float64
        rows = max(1, min(MOST_ROWS, BATCH_BYTES // row))
        return max(1, rows // self.drawing.samples)
