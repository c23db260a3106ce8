"""A model's answers to questions: prompts as it knows them, batch after batch, kept on disk as they come."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch

from bluffscope.config import AskOptions
from bluffscope.errors import InputError
from bluffscope.host.chat import Chat
from bluffscope.model import LanguageModel, load_model
from bluffscope.model.load import choose_device
from bluffscope.runs.ask.draw import Answer, Drawing, Prompt, batched, draw
from bluffscope.runs.identity import placeless
from bluffscope.table.atomic import writing
from bluffscope.table.links import open_plain

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


@dataclass(frozen=True)
class Sample:
    """One answer as text."""

    text: str
    logprob: float
    """In nats, what ended it included."""
    ended: bool


@dataclass(frozen=True)
class Asking:
    """How questions are put to a model."""

    model: LanguageModel
    drawing: Drawing
    chat: Chat | None
    shots: Sequence[Asked]
    """Examples in front of every question."""

    def written(self, question: str) -> str:
        """The prompt of a question as `bluffscope analyze` reads it: text, or messages as JSON."""
        if self.chat is None:
            examples = "".join(f"Q: {shot.text}\nA: {shot.answer}\n\n" for shot in self.shots)
            return f"{examples}Q: {question}\nA:"
        if not self.shots:
            return question
        turns = [(shot.text, shot.answer) for shot in self.shots]
        roles = ("user", "assistant")
        said = [{"role": role, "content": text} for turn in turns for role, text in zip(roles, turn, strict=True)]
        return json.dumps([*said, {"role": "user", "content": question}], ensure_ascii=False)

    def prompts(self, questions: Sequence[Asked]) -> list[Prompt]:
        """Token ids of each question's prompt.

        Raises:
            InputError: one leaves no room for an answer in the model's context.
        """
        texts = [self.written(question.text) for question in questions]
        if self.chat is not None:
            openings = self.chat.openings(texts)
            ids = [tuple(openings[text]) for text in texts]
        else:
            tokenizer: Any = self.model.tokenizer
            encoded: Any = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)
            bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
            ids = [(*bos, *text) for text in encoded["input_ids"]]
        room = None if self.model.context is None else self.model.context - self.drawing.most_tokens
        for question, found in zip(questions, ids, strict=True):
            if room is not None and len(found) > room:
                raise InputError(
                    f"question {question.id!r}: its prompt has {len(found):,} tokens, and the model's context holds "
                    f"{self.model.context:,} with the answer's {self.drawing.most_tokens}; shorten it, or leave it out"
                )
        return [Prompt(question.id, found) for question, found in zip(questions, ids, strict=True)]

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


class Kept:
    """Answers on disk, a line a question, so that nothing is asked twice; the first line says what they answer to."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._path = path
        self._head = json.dumps(identity, sort_keys=True)
        self.samples: dict[str, list[Sample]] = {}

    def open(self) -> None:
        """Take in what is there.

        Raises:
            InputError: it answers to other questions, options or another model.
        """
        with writing(self._path):
            if self._path.is_symlink():
                raise InputError(f"{self._path}: a link; remove it, or give --out another name")
            if not self._path.exists():
                self._append(self._head)
                return
            lines = self._path.read_bytes().split(b"\n")
        if lines[0] != self._head.encode():
            raise InputError(
                f"{self._path}: answers of other options, questions or another model, not finished; remove it, or give "
                "--out another name"
            )
        whole = 0
        for line in lines[:-1]:  # what follows the last end of line was cut off
            whole += len(line) + 1
            if line != lines[0]:
                try:
                    found = json.loads(line)
                    self.samples[found["id"]] = [Sample(**sample) for sample in found["samples"]]
                except (ValueError, LookupError, TypeError, RecursionError) as error:
                    raise InputError(f"{self._path}: damaged; remove it, and the questions are asked again") from error
        with writing(self._path):
            os.truncate(self._path, whole)

    def add(self, question: str, samples: Sequence[Sample]) -> None:
        """Keep a question's answers for good."""
        self._append(json.dumps({"id": question, "samples": [asdict(sample) for sample in samples]}))
        self.samples[question] = list(samples)

    def _append(self, line: str) -> None:
        left = line.encode() + b"\n"
        with writing(self._path):
            descriptor = open_plain(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            try:
                while left:  # once, but on a disk that is nearly full
                    left = left[os.write(descriptor, left) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def remove(self) -> None:
        """Everything is elsewhere now."""
        self._path.unlink(missing_ok=True)


def identity(asking: Asking, prompts: Sequence[Prompt], size: int) -> dict[str, Any]:
    """What answers follow from."""
    digest = hashlib.blake2b(json.dumps([[one.id, one.ids] for one in prompts]).encode(), digest_size=16).hexdigest()
    weights, dtype = placeless(asking.model.identity), str(asking.model.dtype)
    return {"prompts": digest, "model": weights, "dtype": dtype, "drawing": asdict(asking.drawing), "batch": size}


def ask(
    asking: Asking,
    questions: Sequence[Asked],
    kept: Callable[[Mapping[str, Any]], Kept],
    batch_size: int | None,
    advance: Callable[[int], None],
) -> Kept:
    """All answers, those on disk not drawn again.

    Args:
        asking: model, prompts and how answers are drawn.
        questions: whose ids are unique.
        kept: opens what is on disk, given what the answers follow from.
        batch_size: questions a batch; None for as many as memory allows.
        advance: called with the number of questions just answered.
    """
    prompts = asking.prompts(questions)
    size = batch_size or asking.questions_a_batch(prompts)
    found = kept(identity(asking, prompts, size))
    found.open()
    advance(len(found.samples))
    stops = asking.stops()
    for places in batched(prompts, size):
        batch = [prompts[place] for place in places]
        if all(one.id in found.samples for one in batch):
            continue
        for one, answers in zip(batch, draw(asking.model, batch, asking.drawing, stops), strict=True):
            if one.id not in found.samples:
                found.add(one.id, [Sample(asking.text(answer), answer.logprob, answer.ended) for answer in answers])
                advance(1)
    return found


def asked(options: AskOptions, questions: Sequence[Asked], out: Path, progress: Any) -> tuple[Asking, Kept]:
    """Load the model and put the questions to it.

    Args:
        options: model, draw and examples.
        questions: all of them; the first `options.shots` are examples.
        out: where judged answers will stand; what is asked so far is kept beside it until then.
        progress: told how many questions are answered.

    Raises:
        InputError: options, a model or questions that cannot be used.
    """
    options.check()
    assert options.model is not None
    if options.shots >= len(questions):
        raise InputError(f"--shots {options.shots}: leaves none of {len(questions)} questions to ask; give fewer")
    device = choose_device(options.device)
    model = load_model(
        options.model,
        revision=options.revision,
        blocks=None,
        device=device,
        dtype=getattr(torch, options.dtype),
        head=True,
    )
    chat = Chat.of(model.name, model.tokenizer, options.system) if options.chat else None
    drawing = Drawing(options.samples, options.temperature, options.max_new_tokens, options.seed)
    asking = Asking(model, drawing, chat, questions[: options.shots])
    rest = questions[options.shots :]
    progress.start(len(rest))
    try:
        path = out.with_name(f"{out.name}.part")
        return asking, ask(asking, rest, lambda about: Kept(path, about), options.batch_size, progress.advance)
    finally:
        progress.finish()
