"""`bluffscope features`: which SAE features of a run differ between fact and hallucination."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from bluffscope.cli import exit_codes
from bluffscope.cli.console import message_console, messages_on, output_console
from bluffscope.cli.options import Command
from bluffscope.errors import InputError

if TYPE_CHECKING:
    import polars as pl

    from bluffscope.features.ablation import Ablation
    from bluffscope.features.effects import FeatureStudy
    from bluffscope.table.reader import Run

Promoted = Mapping[tuple[int, int], list[str]]


@dataclass(frozen=True, kw_only=True)
class Features(Command):
    """Show which SAE features of a run differ between fact and hallucination.

    Reads only the folder of the run; --tokens and --ablate also load the model.
    """

    run: tyro.conf.Positional[Path]
    """The folder of a run."""
    layer: tuple[int, ...] = ()
    """Layers to test (default: all layers of the run)."""
    domain: tuple[str, ...] = ()
    """Only pairs of these domains."""
    where: tuple[str, ...] = ()
    """Only pairs with these values, as COLUMN=VALUE: known=true."""
    by: str = "domain"
    """Also test the features found within each value of this column."""
    top: int = 10
    """Features shown per layer; --out has all that were tested."""
    family: Literal["layer", "all"] = "layer"
    """Correct for multiple testing within each layer, or across all layers."""
    tokens: bool = False
    """Also show the tokens that a feature promotes (logit lens); loads model and SAEs."""
    ablate: int | None = None
    """Run the pairs again without the K strongest features of a layer, and without K random ones."""
    limit: int | None = None
    """With --ablate: use only N pairs, evenly spaced."""
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
        least = {"top": 1, "sets": 2, "limit": 1, "ablate": 0, "seed": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise InputError(f"--{name} {value}: give at least {low}")
        if self.limit is not None and self.ablate is None:
            raise InputError("--limit: only with --ablate; --where and --domain choose pairs")
        return features(self)


def features(options: Features) -> int:
    """Look at a run's features and say what was found."""
    # Polars and scipy take a second to import: --help and a mistyped flag should not.
    from bluffscope.features.effects import feature_effects
    from bluffscope.features.neuronpedia import feature_pages
    from bluffscope.report.features import render_features
    from bluffscope.table.atomic import table_errors
    from bluffscope.table.exports import check_export, export_table
    from bluffscope.table.folder import as_json
    from bluffscope.table.health import read_health
    from bluffscope.table.reader import read_run

    if options.out is not None:
        check_export(options.out)
    run = read_run(options.run)
    pairs = _chosen(run, options)
    with table_errors(run.path / "features.parquet"):
        study = feature_effects(
            run.features, pairs, layers=options.layer, by=options.by, family=options.family, seed=options.seed
        )
    pages = {layer: page for layer in study.layers["layer"] if (page := feature_pages(run.manifest, layer))}
    with messages_on(message_console()):
        promoted = _promoted(run, study, options) if options.tokens else {}
        ablations = [] if options.ablate is None else _ablated(run, pairs, study, options)
    health = read_health(run.manifest)
    failures = health.failures
    withheld = () if options.allow_unsound else health.withheld
    table = _exported(study, pages, promoted)
    document = _document(options, study, table, failures, ablations)
    if options.out is not None:
        export_table(options.out, table, document)
    if options.format == "json":
        shown = table.group_by("layer", maintain_order=True).head(options.top)
        sys.stdout.write(as_json(document | {"rows": shown.to_dicts()}))
        return exit_codes.UNSOUND if withheld else exit_codes.DONE
    console = output_console()
    if failures:
        banner = f"The run failed its health gate: {'; '.join(failures)}. See bluffscope doctor."
        console.print(banner, style="bold red", markup=False, highlight=False)
    console.print(render_features(study, options.top, pages, promoted))
    for ablation in ablations:
        from bluffscope.report.ablation import render_ablation

        console.print(render_ablation(ablation))
    if options.out is not None:
        console.say(f"Features: {options.out} ({table.height:,} rows)")
    return exit_codes.UNSOUND if withheld else exit_codes.DONE


def _chosen(run: Run, options: Features) -> pl.DataFrame:
    """The pairs looked at."""
    from bluffscope.features.selection import matching, pairs_of

    pairs = pairs_of(run.metrics, run.pairs if (run.path / "pairs.parquet").exists() else None)
    conditions = [*(f"domain={name}" for name in options.domain), *options.where]
    try:
        return pairs.filter(matching(pairs, conditions))
    except InputError as error:
        raise InputError(f"{options.run}: {error}") from error


def _promoted(run: Run, study: FeatureStudy, options: Features) -> Promoted:
    """Tokens of the features shown."""
    from bluffscope.features.logit_lens import promoted_tokens

    shown = study.rows.group_by("layer", maintain_order=True).head(options.top)
    wanted = {layer: rows["feature"].to_list() for (layer,), rows in shown.group_by("layer", maintain_order=True)}
    return promoted_tokens(run, wanted, options.device)


def _ablated(run: Run, pairs: pl.DataFrame, study: FeatureStudy, options: Features) -> list[Ablation]:
    """One ablation for each layer."""
    from bluffscope.features.ablation import ablate

    assert options.ablate is not None
    return ablate(
        run,
        pairs,
        study,
        options.ablate,
        device=options.device,
        limit=options.limit,
        sets=options.sets,
        seed=options.seed,
    )


def _exported(study: FeatureStudy, pages: Mapping[int, str], promoted: Promoted) -> pl.DataFrame:
    """Every tested feature, with its page and tokens where they are known."""
    import polars as pl

    rows = study.rows
    keys = list(zip(rows["layer"].to_list(), rows["feature"].to_list(), strict=True))
    page = [f"{pages[layer]}/{feature}" if layer in pages else None for layer, feature in keys]
    columns = [pl.Series("page", page, dtype=pl.String)]
    if promoted:
        columns.append(pl.Series("promotes", [promoted.get(key) for key in keys], dtype=pl.List(pl.String)))
    return rows.with_columns(columns)


def _document(
    options: Features,
    study: FeatureStudy,
    table: pl.DataFrame,
    failures: Sequence[str],
    ablations: Sequence[Ablation],
) -> dict[str, Any]:
    return {
        "run": str(options.run),
        "health": list(failures),
        "where": [*(f"domain={name}" for name in options.domain), *options.where],
        "about": study.about,
        "layers": study.layers.to_dicts(),
        "rows": table.to_dicts(),
        "ghosts": study.ghosts.to_dicts(),
        "ablations": [ablation.as_dict() for ablation in ablations],
    }


COMMAND = Features
__all__ = ["COMMAND", "Features", "features"]
