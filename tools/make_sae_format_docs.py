"""Writes docs/sae-formats.md: `python tools/make_sae_format_docs.py` (`--check` only compares)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bluffscope.sae.layouts import FILES
from bluffscope.sae.plain import ARCHITECTURES
from generated_page import write_or_check

TARGET = Path(__file__).resolve().parents[1] / "docs" / "sae-formats.md"
LIGHT = "light reader"
LAYOUTS = "tests/sae/test_layouts.py"


class Row(NamedTuple):
    """A kind of SAE folder."""

    format: str
    folder: str
    """What it looks like; `{files}` stands for the files of the format."""
    architectures: str
    read_by: str
    """The light reader, SAELens, or what a refusal says."""
    test: str
    """FILE::NAME of the test that holds it."""
    kind: str = ""
    """Its name in `bluffscope.sae.layouts.FILES`."""


OURS = ", ".join(ARCHITECTURES)
READ = (
    Row(
        "SAELens 6",
        "`layer_5/` with {files}",
        OURS,
        LIGHT,
        "tests/sae/test_plain.py::test_every_architecture_with_every_option_encodes_and_decodes_as_saelens_does",
        "SAELens",
    ),
    Row(
        "SAELens 6",
        "the same",
        "BatchTopK, Matryoshka BatchTopK",
        f"{LIGHT}: SAELens saves them as jumprelu",
        f"{LAYOUTS}::test_training_checkpoints_are_read_as_saelens_exports_them",
    ),
    Row(
        "SAELens 6",
        "the same",
        "matching_pursuit, and whatever the light reader does not know to the last field",
        "SAELens",
        "tests/sae/test_plain.py::test_others_are_loaded_by_saelens",
    ),
    Row(
        "SAELens before 6",
        "the same",
        "standard, jumprelu, topk, gated",
        "SAELens",
        "tests/sae/test_load.py::test_a_config_of_saelens_before_version_6_is_read",
    ),
    Row(
        "SAELens, by hook point",
        "`blocks.5.hook_resid_post/` with {files}",
        "all of SAELens's above",
        "as above",
        f"{LAYOUTS}::test_folders_named_by_hook_point_are_read_as_saelens_reads_them",
        "SAELens",
    ),
    Row(
        "one SAE",
        "any folder that is one layer's SAE in a format of this table",
        "as its format",
        "as its format",
        f"{LAYOUTS}::test_a_folder_that_is_one_sae_itself_stands_for_its_layer",
    ),
    Row(
        "SAELens, of `attn.hook_z`",
        "as SAELens 6",
        "all of SAELens's above",
        "as above, all heads one after the other",
        "tests/model/test_hook_z.py::test_features_are_those_of_saelens_which_takes_the_heads_apart",
    ),
    Row(
        "SAELens, training checkpoint",
        "`500/` or `final_1000/` with {files}, activation_scaler.json",
        "all that SAELens trains and exports",
        "SAELens, exported for inference in passing",
        f"{LAYOUTS}::test_training_checkpoints_are_read_as_saelens_exports_them",
        "SAELens",
    ),
    Row(
        "Gemma Scope",
        "`layer_5/width_16k/average_l0_68/{files}`; the repository's name (`-res`, `-mlp`, `-att`) says where it reads",
        "jumprelu",
        LIGHT,
        "tests/sae/test_load.py::test_an_archive_is_encoded_by_gemma_scope_s_formula",
        "Gemma Scope",
    ),
    Row(
        "Gemma Scope 2",
        "`resid_post/layer_7_width_16k_l0_medium/` with {files} and config.json; `attn_out`, `mlp_out` likewise",
        "jumprelu",
        LIGHT,
        f"{LAYOUTS}::test_gemma_scope_2_is_read_as_saelens_reads_it",
        "Gemma Scope 2",
    ),
    Row(
        "sparsify",
        "`layers.5/` or `h.5/` with {files}",
        "topk",
        LIGHT,
        f"{LAYOUTS}::test_sparsify_is_read_by_its_own_formula",
        "sparsify",
    ),
)
REFUSED = (
    Row(
        "sparsify",
        "`layers.5.mlp/`",
        "topk",
        "give SAEs of a layer's output",
        f"{LAYOUTS}::test_sparsify_s_saes_of_a_module_inside_a_block_are_refused",
    ),
    Row(
        "sparsify",
        "`layers.5/`",
        "groupmax",
        "give SAEs with activation topk",
        f"{LAYOUTS}::test_sparsify_s_other_kinds_are_refused_by_name",
    ),
    Row(
        "transcoders",
        "any of the above; `transcoder/` of Gemma Scope 2; `transcode: true`",
        "all",
        "which reconstructs another place than it reads",
        f"{LAYOUTS}::test_folders_of_other_dictionaries_are_refused_by_name",
    ),
    Row(
        "crosscoders, CLTs",
        "`crosscoder/`, `clt/`, weights stacked over layers or models",
        "all",
        "a crosscoder, which reads several layers",
        f"{LAYOUTS}::test_crosscoders_in_an_sae_s_layout_are_refused_by_name",
    ),
    Row(
        "a checkpoint without its scale",
        "a training checkpoint whose activation_scaler.json is missing",
        "all",
        "give what SAELens's save_inference_model(DIR) writes",
        f"{LAYOUTS}::test_a_checkpoint_without_the_factor_that_belongs_to_it_is_refused",
    ),
    Row(
        "pickles",
        "`.pt`, `.bin`, `.pkl`, `.pth`, `.ckpt`",
        "all",
        "is a pickle, which can run code when opened and is refused",
        "tests/cli/test_bad_saes.py::test_pickled_saes_are_refused_with_the_conversion",
    ),
    Row(
        "SAELens",
        "as SAELens 6",
        "temporal, abstopk",
        "give SAEs of another one",
        "tests/sae/test_coder.py::test_architectures_that_cannot_be_measured_residual_by_residual_are_refused",
    ),
    Row(
        "SAELens, one attention head",
        "as SAELens 6, with a hook_head_index",
        "all",
        "give SAEs of all heads' outputs",
        "tests/model/test_hook_z.py::test_single_heads_and_models_whose_values_were_changed_are_refused",
    ),
)

INTRODUCTION = """# SAE formats

This page is made by `python tools/make_sae_format_docs.py`: edit its table, not the page. `--sae FOLDER` reads every
folder of the first table, and refuses those of the second in one line. Releases on the hub are in
[models and SAEs](models.md#saes).

The light reader reads files without SAELens, whose import takes seconds, and is held to SAELens's numbers within 1e-6.
What it does not know to the last field and tensor is left to SAELens.
"""


def table(rows: Sequence[Row], last: str) -> str:
    """A Markdown table of them."""
    lines = [f"| format | folder | architectures | {last} | test |", "|---|---|---|---|---|"]
    for row in rows:
        folder = row.folder.format(files=" + ".join(FILES[row.kind])) if row.kind else row.folder  # pyright: ignore
        file, _, name = row.test.partition("::")
        lines.append(f"| {row.format} | {folder} | {row.architectures} | {row.read_by} | `{name}` in `{file}` |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """The whole page."""
    parts = (INTRODUCTION, "## Read\n", table(READ, "read by"), "## Refused\n", table(REFUSED, "the message says"))
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the page, or says whether it is current."""
    return write_or_check(TARGET, page, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
