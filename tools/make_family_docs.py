"""Writes docs/families.md from what is read of tiny models: `python tools/make_family_docs.py` (`--check` compares).

The survey is that of `tests/model/test_families.py`, which also holds the page to be current; it takes a minute or two.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import transformers

from generated_page import write_or_check

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "families.md"
sys.path.insert(0, str(ROOT / "tests"))

if TYPE_CHECKING:
    from family_survey import Seen, Survey

_INTRODUCTION = """# Model families

This page is made by `python tools/make_family_docs.py` from tiny random models of every family that transformers
{version} lists: edit the code, not the page. {summary}

**Equal**: the residual stream at every block is that of a plain forward pass of each text alone, within 2e-5 relative
in float32. **Rows**: `packed` where texts with shared prefixes share a row and each prefix is computed once, `padded`
where each text has its own because the model ignores custom masks or positions (slower, same numbers). **Points**:
`hook_attn_out` and `hook_mlp_out` are read, and with the residual stream before a block they sum to the one after it
within 1e-5; `some` where a part of the blocks has them. A family that is refused is refused in one line, before
anything is written.
"""
_INSIDE = """
## Language models of multimodal checkpoints

The language model is loaded alone: from names as published and as transformers {version} has them, whole and truncated,
with its LM head and without. Its residuals, and with the head its logits, are those of the whole model that is given
text only (1e-5 relative, float32). Where a family reads no text without a picture, they are those of its language model
as a part of the whole. Vision, sound and other parts take no memory. Every weight of the file must belong to what was
loaded, to another part or to a later block.
"""


def page(found: Survey) -> str:
    """The page's own part."""
    version = ".".join(transformers.__version__.split(".")[:2])
    text, inside = (
        {name: one for name, one in part.items() if not _other_kind(one)} for part in (found.text, found.inside)
    )
    return "\n".join(
        [
            _INTRODUCTION.format(version=version, summary=_summary(text, inside)),
            "## Language models\n",
            *_table(text),
            _INSIDE.format(version=version),
            *_table(inside),
            "\n## Not tried\n",
            "No model small enough to test could be made from the configuration alone: "
            f"{_names(text)}. Of multimodal families: {_names(inside)}. Encoder-decoders are refused.\n",
        ]
    )


def _other_kind(seen: Seen) -> bool:
    """No language model that could be meant: an encoder-decoder, or listed among the other table's families."""
    return seen.unbuilt.partition(": ")[2] in (
        *("of an encoder-decoder", "of one modality", "of several modalities", "no configuration of its own"),
    )


def _summary(text: Mapping[str, Seen], inside: Mapping[str, Seen]) -> str:
    read = [one for one in text.values() if one.is_read]
    within = [one for one in inside.values() if one.is_read]
    refused = sum(bool(one.refused) for one in (*text.values(), *inside.values()))
    return (
        f"{len(read)} families of\nlanguage models are read and equal ({sum(one.packs for one in read)} packed, "
        f"{sum(one.complete > 0 for one in read)} with attention and MLP points), and the language\nmodels of "
        f"{len(within)} multimodal families ({sum(one.packs for one in within)} packed, "
        f"{sum(one.complete > 0 for one in within)} with points); {refused} are refused."
    )


def _table(found: Mapping[str, Seen]) -> Iterator[str]:
    yield "| Family | Architecture | Equal | Rows | Points | Remark |"
    yield "|---|---|---|---|---|---|"
    for name, one in found.items():
        if one.unbuilt:
            continue
        remark = _reason(one.refused) if one.refused else "; ".join(sorted({*map(_reason, one.reasons)}))
        if one.refused:
            yield f"| `{name}` | {one.architecture} | refused | | | {remark} |"
            continue
        points = "no" if not one.complete else "some" if one.reasons else "yes"
        equal = "yes" if one.error < 2e-5 and not one.unequal else "no"
        rows = "packed" if one.packs else "padded"
        yield f"| `{name}` | {one.architecture} | {equal} | {rows} | {points} | {remark} |"


def _reason(said: str) -> str:
    """Without the name that begins it, and the figures of one model."""
    short = re.sub(r"^--model [^:]*: ", "", said)
    short = re.sub(r" \([^()]*% off\)", "", short)
    return re.sub(r"(?<=[A-Za-z]) \d+(?= has no| looks| does not)", "", short).replace("|", "\\|")


def _names(found: Mapping[str, Seen]) -> str:
    return ", ".join(f"`{name}`" for name, one in found.items() if one.unbuilt)


def made() -> str:
    """The whole page, of a new survey."""
    from family_survey import survey  # seconds-slow, and lies among the tests

    return page(survey())


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the page, or says whether it is current."""
    return write_or_check(TARGET, made, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
