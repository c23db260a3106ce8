"""A kept detector as an object: on any call of `generate`, while a model writes, or as a file of weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bluffscope.config import WatchOptions
from bluffscope.detectors import files
from bluffscope.detectors.export import export
from bluffscope.host import notebook
from bluffscope.host.terminal import interval

if TYPE_CHECKING:
    from bluffscope.detectors.attach import Attached, Each
    from bluffscope.detectors.stream import Watcher

_IN_NOTEBOOK: Final = 12
"""Rows of the evaluation that a notebook shows."""


@dataclass(frozen=True)
class Detector(files.Detector):
    """A kept detector. Its model is loaded when it is first needed."""

    @classmethod
    def read(cls, folder: str | Path) -> Detector:
        """The detector of a folder; see `bluffscope.load_detector`."""
        return cls(**vars(files.read_detector(folder)), loaded={})

    loaded: dict[Any, Watcher]
    """Models that `stream` has loaded, by their options; clear it to free their memory."""

    def _repr_html_(self) -> str:
        """What it looks at, and how it did beside its baselines, for a notebook."""
        found = self.about["evaluation"].get("cross_validated")
        rows = [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
        cells = [[str(row.get("detector")), str(row.get("scope")), _shown(row)] for row in rows if "auroc" in row]
        facts = [f"on {self.keys.on}", str(self.about["model"].get("name")), f"read at {self.position}"]
        heads = ["detector", "scope", "AUROC, cross-validated"]
        return notebook.block(self.path.name, facts, [notebook.table(heads, cells[:_IN_NOTEBOOK])])

    def stream(
        self,
        prompt: str,
        *,
        model: Any = None,
        tokenizer: Any = None,
        sae: Any = None,
        revision: str | None = None,
        device: str = "auto",
        **options: Any,
    ) -> Iterator[tuple[str, float]]:
        """Have the model go on from a prompt; each token comes with the probability that the text is hallucinated.

        A detector of whole texts judges the text up to the token. The token that ends the text is not among them.

        Args:
            prompt: a text; with ``chat``, or for a detector trained on conversations, the user's turn, or a
                conversation as JSON.
            model: where the model is, if no longer where it was, or the model itself, with its tokenizer.
            tokenizer: of a model in memory.
            sae: where the SAEs are, if no longer where they were, or SAEs by layer.
            revision: of a model on the Hub.
            device: "auto" or a torch device.
            **options: ``max_new_tokens`` (128), ``temperature`` (0: greedy), ``seed``, ``stop`` (texts), ``chat``,
                ``system``.

        Yields:
            The token's text and the calibrated probability.

        Raises:
            InputError: another model than that of the training, or a detector that cannot judge a text that grows.
            TypeError: an option that does not exist.

        Example:
            >>> import bluffscope
            >>> detector = bluffscope.load_detector("detectors/known")  # doctest: +SKIP
            >>> for text, probability in detector.stream("The capital of France is"):  # doctest: +SKIP
            ...     print(f"{text}[{probability:.2f}]", end="")
        """
        how = WatchOptions(**options)
        how.check()
        watcher = self._watcher(model, tokenizer, sae, revision, device, how)
        return ((token.text, token.probability) for token in watcher.write([prompt], how))

    def attach(
        self, model: Any, *, sae: str | None = None, allow_other: bool = False, on_token: Each | None = None
    ) -> AbstractContextManager[Attached]:
        """Score every call of a model's `generate` within a `with` block; afterwards the model is as it was.

        Args:
            model: a Hugging Face causal language model on one device: the one that the detector was trained on.
            sae: where the SAEs are, if no longer where they were.
            allow_other: take a model whose weights, precision or revision differ.
            on_token: called at each forward with a `Scored` (id, probability, logit) for each row of the batch, None
                for a row that has ended.

        Returns:
            A context manager, whose object has `rows`: of the latest call, each row's generated tokens as `Scored`.

        Raises:
            InputError: another model, a detector that cannot judge a text that grows, or a `generate` with beams or
                candidates.

        Example:
            >>> with detector.attach(model) as scores:  # doctest: +SKIP
            ...     model.generate(**tokenizer("The capital of France is", return_tensors="pt"))
            >>> [token.probability for token in scores.rows[0]]  # doctest: +SKIP
        """
        # Only now: torch takes seconds to import.
        from bluffscope.detectors.attach import attached

        return attached(self, model, sae=sae, allow_other=allow_other, on_token=on_token)

    def export(self, path: str | Path) -> Path:
        """Write the linear weights as one safetensors file, for scoring without Bluffscope (docs/detect.md).

        Raises:
            InputError: a detector of metrics, or a file that is there already.
        """
        return export(self, Path(path))

    def _watcher(
        self, model: Any, tokenizer: Any, sae: Any, revision: str | None, device: str, how: WatchOptions
    ) -> Watcher:
        # Only now: torch takes seconds to import.
        from bluffscope.detectors.stream import open_watcher
        from bluffscope.pipeline.given import named_and_given

        key = (
            id(model) if not isinstance(model, str | Path) else model,
            id(sae),
            revision,
            device,
            how.chat,
            how.system,
        )
        if key not in self.loaded:
            named, given = named_and_given(model, sae, tokenizer)
            places: dict[str, Any] = {name: str(value) for name, value in named.items()}
            self.loaded[key] = open_watcher(
                self, **places, revision=revision, device=device, chat=how.chat, system=how.system, given=given
            )
        return self.loaded[key]


def _shown(row: dict[str, Any]) -> str:
    """An AUROC with its interval."""
    value: float | None = row["auroc"]
    return "-" if value is None else f"{value:.2f} ({interval(row)})"


def load_detector(folder: str | Path) -> Detector:
    """Read a detector that `bluffscope detect train` saved.

    Args:
        folder: it holds detector.json and weights.safetensors.

    Raises:
        InputError: there is none, or it is damaged.
    """
    return Detector.read(folder)


__all__ = ["Detector", "load_detector"]
