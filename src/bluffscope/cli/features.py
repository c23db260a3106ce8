"""`bluffscope features`: which SAE features of a run differ between fact and hallucination, or true and false texts."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import tyro

from bluffscope.cli.console import message_console, messages_on, output_console
from bluffscope.cli.health import exit_code, print_failed_gate
from bluffscope.cli.options import Command
from bluffscope.errors import InputError

if TYPE_CHECKING:
    import polars as pl

    from bluffscope.features.ablation import Ablation
    from bluffscope.features.study import FeatureStudy
    from bluffscope.table.reader import Run

Promoted = Mapping[tuple[int, int], list[str]]
_LEAST: Final = {"top": 1, "sets": 2, "limit": 1, "ablate": 0, "seed": 0}
"""Smallest values of options."""


@dataclass(frozen=True, kw_only=True)
class Features(Command):
    """Show which SAE features of a run differ between fact and hallucination, or between true and false texts.

    Reads only the folder of the run; --tokens and --ablate also load the model.
    """

    run: tyro.conf.Positional[Path]
    """The folder of a run."""
    layer: tuple[int, ...] = ()
    """Layers to test (default: all layers of the run)."""
    domain: tuple[str, ...] = ()
    """Only pairs or texts of these domains."""
    where: tuple[str, ...] = ()
    """Only pairs or texts with these values, as COLUMN=VALUE: known=true."""
    by: str = "domain"
    """Also test the features found within each value of this column."""
    top: int = 10
    """Features shown per layer; --out has all that were tested."""
    family: Literal["layer", "all"] = "layer"
    """Correct for multiple testing within each layer, or across all layers."""
    tokens: bool = False
    """Also show the tokens that a feature promotes (logit lens); loads model and SAEs."""
    ablate: int | None = None
    """Run the pairs or texts again without the K strongest features of a layer, and without K random ones."""
    limit: int | None = None
    """With --ablate: use only N pairs or texts, evenly spaced."""
    sets: int = 5
    """With --ablate: number of random sets of features for comparison."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device for the model, with --tokens and --ablate."""
    seed: int = 0
    """Seed for sign flips and random features."""
    allow_unsound: bool = False
    """Exit with 0 even if the run failed its health gate."""
    format: Literal["text", "json"] = "text"
    """Print text, or one JSON object."""
    out: Path | None = None
    """Also write all tested features to this file: .csv, .parquet or .json."""

    def execute(self) -> int:
        """Look at the features, print and write."""
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"--{name} {value}: give at least {least}")
        if self.limit is not None and self.ablate is None:
            raise InputError("--limit: only with --ablate; --where and --domain choose pairs")
        # Polars and scipy take a second to import: --help and a mistyped flag should not.
        from bluffscope.features.effects import feature_effects
        from bluffscope.features.neuronpedia import feature_pages
        from bluffscope.report.features import render_ablation, render_features
        from bluffscope.table.atomic import table_errors
        from bluffscope.table.exports import check_export, export_table
        from bluffscope.table.folder import as_json
        from bluffscope.table.health import read_health
        from bluffscope.table.reader import read_run

        if self.out is not None:
            check_export(self.out)
        run = read_run(self.run)
        if not run.manifest.get("saes"):
            raise InputError(f"{self.run}: measured without SAEs, so it has no features; analyze with --sae")
        conditions = [*(f"domain={name}" for name in self.domain), *self.where]
        pairs = self._pairs(run, conditions)
        with table_errors(run.path / "features.parquet"):
            study = feature_effects(
                run.features, pairs, layers=self.layer, by=self.by, family=self.family, seed=self.seed
            )
        pages = {layer: page for layer in study.layers["layer"] if (page := feature_pages(run.manifest, layer))}
        with messages_on(message_console()):
            promoted, ablations = self._with_model(run, pairs, study)
        health = read_health(run.manifest)
        table = _exported(study, pages, promoted)
        document = {
            "run": str(self.run),
            "health": health.failures,
            "where": conditions,
            "about": study.about,
            "layers": study.layers.to_dicts(),
            "rows": table.to_dicts(),
            "ghosts": study.ghosts.to_dicts(),
            "ablations": [ablation.as_dict() for ablation in ablations],
        }
        if self.out is not None:
            export_table(self.out, table, document)
        if self.format == "json":
            shown = table.group_by("layer", maintain_order=True).head(self.top)
            sys.stdout.write(as_json(document | {"rows": shown.to_dicts()}))
        else:
            console = output_console()
            print_failed_gate(console, health)
            console.print(render_features(study, self.top, pages, promoted), *map(render_ablation, ablations))
            if self.out is not None:
                console.say(f"Features: {self.out} ({table.height:,} rows)")
        return exit_code(health, allowed=self.allow_unsound)

    def _pairs(self, run: Run, conditions: Sequence[str]) -> pl.DataFrame:
        """The pairs, or labelled texts, that meet all conditions."""
        from bluffscope.features.selection import items_of, matching

        pairs = items_of(run)
        try:
            return pairs.filter(matching(pairs, conditions))
        except InputError as error:
            raise InputError(f"{self.run}: {error}") from error

    def _with_model(self, run: Run, pairs: pl.DataFrame, study: FeatureStudy) -> tuple[Promoted, list[Ablation]]:
        """Tokens of the features shown, and one ablation for each layer, where they are asked for."""
        promoted: Promoted = {}
        ablations: list[Ablation] = []
        if self.tokens:
            from bluffscope.features.logit_lens import promoted_tokens

            shown = study.rows.group_by("layer", maintain_order=True).head(self.top)
            wanted = dict(shown.group_by("layer", maintain_order=True).agg("feature").iter_rows())
            promoted = promoted_tokens(run, wanted, self.device)
        if self.ablate is not None:
            from bluffscope.features.ablation import ablate

            ablations = ablate(
                run, pairs, study, self.ablate, device=self.device, limit=self.limit, sets=self.sets, seed=self.seed
            )
        return promoted, ablations


def _exported(study: FeatureStudy, pages: Mapping[int, str], promoted: Promoted) -> pl.DataFrame:
    """Every tested feature, with its page and tokens where they are known."""
    import polars as pl

    page = pl.col("layer").replace_strict(pages, default=None, return_dtype=pl.String)
    table = study.rows.with_columns(page=pl.format("{}/{}", page, "feature"))
    if promoted:
        keys = study.rows.select("layer", "feature").iter_rows()
        tokens = pl.Series("promotes", [promoted.get(key) for key in keys], dtype=pl.List(pl.String))
        table = table.with_columns(tokens)
    return table


COMMAND = Features
