"""Runs over the same pairs, compared: which effects agree, how much they differ, and what a run's precision changed.

A run over pairs and one over labelled texts are compared metric by metric, by `mixed_rows`.

Each run is compared with the first. Pairs are the same where id and texts are; metrics where their names are, and
layers as `match_layers` says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import polars as pl
from scipy.stats import rankdata

from bluffscope.compare.agreement import NEEDS_NO_CHANCE, mixed_rows, only_metrics, with_agreement
from bluffscope.compare.matching import Matched, matched_items, matched_questions
from bluffscope.compare.precision import FEATURES, compare_runs
from bluffscope.compare.text_runs import TEXTS_JUDGED, judged_texts, text_changes
from bluffscope.config import ONCE_TRUE_OR_FALSE, run_config
from bluffscope.errors import InputError
from bluffscope.host import notebook
from bluffscope.host.exclusive import exclusive
from bluffscope.host.terminal import count
from bluffscope.records import PAIRS
from bluffscope.stats.analysis import analyse_table
from bluffscope.stats.effects import varies
from bluffscope.stats.linear_model import design
from bluffscope.stats.multiplicity import benjamini_hochberg
from bluffscope.stats.sampling import MOST_TESTED
from bluffscope.stats.scopes import POOLED
from bluffscope.stats.signed_rank import wilcoxon
from bluffscope.stats.study import Study, build_study, numbered
from bluffscope.stats.text_study import TextStudy, build_text_study
from bluffscope.stats.verdicts import MIN_PAIRS
from bluffscope.table.metric_pairs import metric_pairs, not_interpretable
from bluffscope.table.reader import Run

_NAMES: Final = ("run", "metric", "metric_other", "scope")
_MEANS: Final = ("mean_first", "mean_other", "mean_change", "sd_change")
_TESTED: Final = (*_MEANS, "dz_change", "dz_change_lo", "dz_change_hi", "change_in_sd", "p", "p_wilcoxon")
_CHANGE: Final = (*_TESTED, "pearson", "spearman")
_JUDGED: Final = ("dz", "adj_dz", "verdict", "mean_diff")
COMPARE_SCHEMA: Final = pl.Schema(
    dict.fromkeys(_NAMES, pl.String())
    | {"n": pl.Int64()}
    | dict.fromkeys((*_TESTED, "q", "pearson", "spearman"), pl.Float64())
    | dict.fromkeys(("dz_first", "dz_other", "adj_dz_first", "adj_dz_other"), pl.Float64())
    | dict.fromkeys(("verdict_first", "verdict_other"), pl.String())
    | dict.fromkeys(("same_verdict", "same_sign", "agrees"), pl.Boolean())
)
"""Columns of compare.parquet, one row a run, metric and scope; docs/compare.md says what each is."""
LABELLED_COMPARE_SCHEMA: Final = pl.Schema(
    {name.replace("dz", "g"): kind for name, kind in COMPARE_SCHEMA.items() if name != "p_wilcoxon"}
)
"""The same of runs over labelled texts: Hedges' g, and no signed ranks."""

_KINDS: Final = {PAIRS.key: "pairs", "text_id": "labelled texts"}


@dataclass(frozen=True)
class RunPair:
    """One run against the first."""

    run: str
    """The run's folder, as given."""
    shared: int
    """Pairs that both measured; or, of pairs against texts, questions that both ask."""
    pairs: tuple[int, int]
    """Pairs that each measured: the first run, this one."""
    other_texts: int
    """Pairs of the same id that are left out because their texts differ."""
    differences: Mapping[str, tuple[Any, Any]]
    """Options that differ, by part and name: their values in the first run and in this one."""
    same_model: bool
    layers: tuple[tuple[int, int], ...]
    """Layers that are compared: of the first run, of this one."""
    unmatched: tuple[str, ...]
    """Metrics that only one of the two has."""
    fidelity: pl.DataFrame | None
    """`bluffscope.compare.precision.SCHEMA`, the first run in float32's place; None for another model or other SAEs."""
    notes: tuple[str, ...]
    """What else a reader must know: sentences."""
    compared: tuple[int, ...] | None = None
    """Of a run over pairs against one over texts, items of each that are compared."""
    pairs_first: bool = True
    """Whether the first run is the one over pairs."""
    own_answers: bool = False
    """Whether the texts are a model's own answers."""


@dataclass(frozen=True)
class RunComparison:
    """What comparing runs found."""

    first: str
    """The folder of the run that the others are compared with."""
    others: tuple[RunPair, ...]
    rows: pl.DataFrame
    """`COMPARE_SCHEMA`, `LABELLED_COMPARE_SCHEMA` or `MIXED_SCHEMA`: runs in the order given, scopes in that of the
    first run, metrics in its table's order."""

    def _repr_html_(self) -> str:
        """In how many metrics the verdicts agree, and in which they do not, for a notebook."""
        parts: list[str] = []
        for other in self.others:
            rows = self.rows.filter(pl.col("agrees").is_not_null(), run=other.run, scope=POOLED)
            agree = rows.filter("agrees").height
            said = f"{other.run}: {other.shared:,} shared; verdicts agree in {agree} of {count(rows.height, 'metric')}"
            apart = rows.filter(~pl.col("agrees")).select("metric", "verdict_first", "verdict_other")
            parts += [
                notebook.line(said),
                notebook.table(["metric", "first run", "this run"], apart.head(8).iter_rows()),
            ]
        return notebook.block(self.first, [f"compared with {count(len(self.others), 'run')}"], parts)


@exclusive()
def compare_all(runs: Sequence[Run], by: Sequence[str] = (), *, most: int = MOST_TESTED) -> RunComparison:
    """Compare every run with the first.

    Args:
        runs: two or more; their folders are complete.
        by: further columns of the pairs whose values are scopes, beside the domains and all pairs pooled.
        most: pairs that are looked at; of more that two runs share, whole groups are drawn at random.

    Raises:
        InputError: fewer than two runs, one twice, no pair or no metric in common, an unknown column, a damaged folder.
    """
    if len(runs) < 2:
        raise InputError(f"expected two or more runs to compare, got {len(runs)}: give the folders of all")
    folders = [run.path.resolve() for run in runs]
    if repeated := next((run for place, run in enumerate(runs) if folders.index(folders[place]) < place), None):
        raise InputError(f"{repeated.path} is given twice: give different runs")
    for run in runs[2:]:
        if run.key != runs[1].key:
            kinds = [f"{each.path} holds {_KINDS[each.key]}" for each in (runs[1], run)]
            raise InputError(f"{' and '.join(kinds)}: compare the first run with one kind at a time")
    found = [_compare(runs[0], other, by, most) for other in runs[1:]]
    return RunComparison(str(runs[0].path), tuple(pair for pair, _ in found), pl.concat([rows for _, rows in found]))


def match_layers(first: Sequence[int], other: Sequence[int], *, same_model: bool) -> tuple[tuple[int, int], ...]:
    """Which layers are compared: in one model the same ones, then what is left in order; in two, all in order."""
    same = [layer for layer in first if same_model and layer in other]
    rest = zip((x for x in first if x not in same), (x for x in other if x not in same), strict=False)
    pairs = [*((layer, layer) for layer in same), *rest]
    return tuple(sorted(pairs, key=lambda pair: first.index(pair[0])))


def _compare(first: Run, other: Run, by: Sequence[str], most: int) -> tuple[RunPair, pl.DataFrame]:
    mixed = first.key != other.key
    matched = matched_questions(first, other, most) if mixed else matched_items(first, other, by, most)
    same_model = _same_model(first.manifest, other.manifest)
    configs = [run_config(run.config, str(run.path / "config.yaml")) for run in (first, other)]
    layers = match_layers(configs[0].model.measured_layers, configs[1].model.measured_layers, same_model=same_model)
    studies = [
        build_study(table, items, by)
        if run.key == PAIRS.key
        else build_text_study(table, items, by, measured=run.measured)
        for table, items, run in zip(matched.tables, matched.items, (first, other), strict=True)
    ]
    columns, unmatched = _same_metrics(matched.tables, studies, layers)
    if not columns:
        raise InputError(f"{first.path} and {other.path} have no metric in common: compare runs of the same analyses")
    folder = str(other.path)
    rows = mixed_rows(folder, matched, columns, by) if mixed else _rows(folder, matched, studies, columns, by)
    fidelity = None
    if first.key == other.key == PAIRS.key and (
        shared := _same_saes(first.manifest, other.manifest, [a for a, b in layers if a == b]) if same_model else ()
    ):
        config = replace(configs[0], model=replace(configs[0].model, layers=shared))
        fidelity = compare_runs(other, first, config, matched.tables[0]["pair_id"].to_list()).filter(
            pl.col("metric").ne(FEATURES) | pl.col("layer").is_in(shared)
        )
    pair = RunPair(
        run=str(other.path),
        shared=matched.tables[0].height if matched.questions is None else matched.questions,
        compared=tuple(table.height for table in matched.tables) if mixed else None,
        pairs_first=first.key == PAIRS.key,
        own_answers=any(run.of_answers for run in (first, other)),
        pairs=(first.metrics.height, other.metrics.height),
        other_texts=matched.other_texts,
        differences=_differences(first.config, other.config),
        same_model=same_model,
        layers=layers,
        unmatched=unmatched,
        fidelity=fidelity,
        notes=(*([] if matched.sample is None else [matched.sample]), *_notes(first, other, columns)),
    )
    return pair, rows


def _same_metrics(
    tables: Sequence[pl.DataFrame], studies: Sequence[Study | TextStudy], layers: Sequence[tuple[int, int]]
) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    """Names of the metrics that are compared, and those that only one run has."""
    own, theirs = (_places(table, study) for table, study in zip(tables, studies, strict=True))
    of_layer = dict(layers)
    found: list[tuple[str, str]] = []
    for name, (layer, metric) in own.items():
        match = name
        if layer is not None:
            match = f"l{of_layer[layer]}_{metric}" if layer in of_layer else ""
        if match in theirs:
            found.append((name, match))
    ours, others = {name for name, _ in found}, {name for _, name in found}
    return found, (*(name for name in own if name not in ours), *(name for name in theirs if name not in others))


def _places(table: pl.DataFrame, study: Study | TextStudy) -> dict[str, tuple[int | None, str]]:
    """Layer, if any, and name without it, of each metric by its name."""
    if isinstance(study, Study):
        return {pair.name: pair[1:3] for pair in metric_pairs(table.columns) if pair.name in study.metrics}
    named = {name: re.fullmatch(r"l(\d+)_(.+)", name) for name in study.metrics}
    return {name: (int(found[1]), found[2]) if found else (None, name) for name, found in named.items()}


def _rows(
    run: str,
    matched: Matched,
    studies: Sequence[Study | TextStudy],
    columns: Sequence[tuple[str, str]],
    by: Sequence[str],
) -> pl.DataFrame:
    """`COMPARE_SCHEMA` of every metric in every scope, or `LABELLED_COMPARE_SCHEMA`."""
    # One family on both sides: q of the same numbers must not differ because one run measured more.
    names = [[both[side] for both in columns] for side in (0, 1)]
    if texts := [study for study in studies if isinstance(study, TextStudy)]:
        schema, judging, changes = LABELLED_COMPARE_SCHEMA, TEXTS_JUDGED, text_changes(texts, names)
        tested = [judged_texts(*one, matched.items[0], by) for one in zip(matched.tables, names, strict=True)]
    else:
        schema, judging = COMPARE_SCHEMA, _JUDGED
        changes = _pair_changes([study for study in studies if isinstance(study, Study)], names)
        tables = [only_metrics(*one) for one in zip(matched.tables, names, strict=True)]
        tested = [analyse_table(table, matched.items[0], by=by, resampling=NEEDS_NO_CHANCE).rows for table in tables]
    kinds = {name: kind for name, kind in schema.items() if name in ("metric", "metric_other", "scope", *changes[0])}
    found = pl.DataFrame(changes, schema=kinds).with_columns(run=pl.lit(run))
    counted = np.array([not not_interpretable(name) for name, _ in columns])
    p_values = found["p"].to_numpy().reshape(-1, len(columns))  # (scope, metric)
    found = found.with_columns(q=benjamini_hochberg(np.where(counted, p_values, np.nan)).ravel())
    for side, rows, metric in zip(("first", "other"), tested, ("metric", "metric_other"), strict=True):
        judged = rows.select("scope", pl.col(*judging).name.suffix(f"_{side}"), pl.col("metric").alias(metric))
        found = found.join(judged, on=[metric, "scope"], how="left", maintain_order="left")
    return with_agreement(found).select(list(schema)).with_columns(pl.col(pl.Float64).fill_nan(None))


def _pair_changes(studies: Sequence[Study], names: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """metric, metric_other, scope, n and `_CHANGE` of every metric in every scope."""
    ours, theirs = (
        (study.hall - study.fact)[:, [study.metrics.index(name) for name in names[side]]]  # (pair, metric)
        for side, study in enumerate(studies)
    )
    return [
        {"metric": name, "metric_other": match, "scope": scope.name, **_change(first, other, groups)}
        for scope in studies[0].scopes
        for groups in [studies[0].groups[scope.rows]]
        for name, match, first, other in zip(*names, ours[scope.rows].T, theirs[scope.rows].T, strict=True)
    ]


def _change(first: np.ndarray, other: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    """How the differences (pair,) of one metric change from one run to the other; NaN where undefined."""
    defined = np.isfinite(first) & np.isfinite(other)
    first, other, groups = first[defined], other[defined], numbered(groups[defined])
    row: dict[str, Any] = dict.fromkeys(_CHANGE, np.nan) | {"n": len(first)}
    if not len(first):
        return row
    change = other - first
    row |= {"mean_first": first.mean(), "mean_other": other.mean(), "mean_change": change.mean()}
    if len(first) < 2:
        return row
    row["sd_change"] = change.std(ddof=1)
    if (spread := first.std(ddof=1)) > 0:
        row["change_in_sd"] = row["mean_change"] / spread
    if varies(first[:, None], other[:, None])[0]:
        row["dz_change"] = row["mean_change"] / row["sd_change"]
        fitted = design(np.ones(len(first)), np.empty((len(first), 0)), groups)
        if len(first) >= MIN_PAIRS and not isinstance(fitted, str):
            tested = fitted.estimate(change[:, None])
            row["dz_change_lo"], row["dz_change_hi"] = tested.interval()[:, 0]
            row |= {"p": tested.p[0], "p_wilcoxon": wilcoxon(change[:, None])[0]}
    row["pearson"] = _correlation(first, other)
    row["spearman"] = _correlation(rankdata(first), rankdata(other))
    return row


def _correlation(first: np.ndarray, other: np.ndarray) -> float:
    """Pearson's r; NaN for fewer than 3 pairs, or where one side is constant up to rounding."""
    zeros = np.zeros((len(first), 1))
    if len(first) < 3 or not all(varies(zeros, side[:, None])[0] for side in (first, other)):
        return float("nan")
    return float(np.clip(np.corrcoef(first, other)[0, 1], -1, 1))


def _same_model(first: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two manifests name one model: the same weights, or the same name where precision hides whether they are.

    The digest is of what was loaded: it changes with the number of layers, the dtype and quantisation.
    """
    ours, theirs = first.get("model", {}), other.get("model", {})
    if ours.get("weights") and ours.get("weights") == theirs.get("weights"):
        return True
    if any(ours.get(name) != theirs.get(name) for name in ("name", "revision", "layers", "d_model")):
        return False
    loaded = [
        (run.get("dtype"), run.get("quantize"), run.get("model", {}).get("architecture"), model.get("layers_loaded"))
        for run, model in ((first, ours), (other, theirs))
    ]
    return loaded[0] != loaded[1]


def _same_saes(first: Mapping[str, Any], other: Mapping[str, Any], layers: Sequence[int]) -> tuple[int, ...]:
    """Of these layers those that both runs read with the same SAE; float64 runs hold its weights in float64."""
    found: list[int] = []
    precision = [run.get("dtype") == "float64" for run in (first, other)]
    for layer in layers:
        ours, theirs = (dict(run.get("saes", {}).get(str(layer), {})) for run in (first, other))
        digests = ours.pop("weights", None), theirs.pop("weights", None)
        if digests[0] == digests[1] if precision[0] == precision[1] else ours == theirs:
            found.append(layer)
    return tuple(found)


def _differences(first: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Options of two config.yaml that differ, by part.name; None where one has none."""
    ours, theirs = _flat(first), _flat(other)
    return {
        name: (ours.get(name), theirs.get(name))
        for name in dict.fromkeys([*ours, *theirs])
        if ours.get(name) != theirs.get(name)
    }


_ON_OR_OFF: Final = {True: "on", False: "off"}


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{part}.{name}": _ON_OR_OFF.get(value, value) if name in ONCE_TRUE_OR_FALSE else value
        for part, values in config.items()
        if isinstance(values, Mapping)
        for name, value in values.items()
    }


def _notes(first: Run, other: Run, columns: Sequence[tuple[str, str]]) -> list[str]:
    notes: list[str] = []
    versions = [str(run.manifest.get("packages", {}).get("bluffscope")) for run in (first, other)]
    if versions[0] != versions[1]:
        notes.append(f"The runs were made by bluffscope {versions[0]} and {versions[1]}.")
    if redefined := [name for name, match in columns if _version(first, name) != _version(other, match)]:
        notes.append(f"Defined otherwise in the two versions, so not comparable: {', '.join(redefined)}.")
    return notes


def _version(run: Run, metric: str) -> int | None:
    """The version of a metric's definition in a run; None where its manifest has none."""
    versions: Mapping[str, int] = run.manifest.get("metric_versions", {})
    layer, _, name = metric.partition("_")
    columns = (metric, f"{metric}_fact", f"{layer}_fact_{name}")  # of texts, or of pairs
    return next((versions[column] for column in columns if column in versions), None)
