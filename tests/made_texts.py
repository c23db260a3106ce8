"""Folders of runs over labelled texts made up without a model, with statistics that are written down here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from bluffscope.stats.labelled import LABELLED_SCHEMA
from made_runs import DOMAINS, MANIFEST

METRICS = {"l2_gini": 0.4, "l5_gini": 0.5, "l2_lens_logprob": -5.0, "l5_lens_logprob": -4.0, "entropy": 3.0}
SWEEP = {f"stability_s{level}": 0.9 - level / 4 for level in (0.1, 0.3, 1)}
PROMPT = {"l2_prompt_gini": 0.3, "l5_prompt_gini": 0.3}
"""The prompt's own, which no label can change."""
SHIFT = 0.6
"""Of the entropy of false texts."""


def make_texts(
    folder: Path,
    texts: int = 60,
    *,
    said: tuple[str, ...] = ("one", "another"),
    labels: tuple[bool, ...] = (True, False),
    domains: tuple[str, ...] = DOMAINS,
    prompts: bool = True,
    stats: bool = True,
    sweep: bool = False,
    manifest: dict[str, Any] | None = None,
    seed: int = 0,
) -> Path:
    """Write the folder of a run over labelled texts.

    Args:
        folder: made.
        texts: how many.
        said: completions, in turn.
        labels: in turn.
        domains: of each two texts, in turn.
        prompts: whether there are any.
        stats: whether it has `statistics`.
        sweep: with a noise sweep.
        manifest: replaces entries of the manifest.
        seed: of all numbers.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    ids = [f"text-{i:05d}" for i in range(texts)]
    of_text = [labels[i % len(labels)] for i in range(texts)]
    measured = (PROMPT if prompts else {}) | METRICS | (SWEEP if sweep else {})
    names = {"text_id": ids, "label": of_text}
    names |= {
        "domain": [domains[i // 2 % len(domains)] for i in range(texts)],
        "group": [f"g{i // 2}" for i in range(texts)],
    }
    columns: dict[str, Any] = dict(names)
    columns |= {"prompt_tokens": [5] * texts, "prompt_read_token": [" is"] * texts} if prompts else {}
    columns |= {"text_tokens": rng.integers(1, 4, texts), "read_token": [" </b>"] * texts}
    for name, mean in measured.items():
        columns[name] = rng.normal(mean, abs(mean) / 10, texts) + (
            SHIFT * ~np.array(of_text) if name == "entropy" else 0
        )
    carried = {
        "source": [f"book {i}" for i in range(texts)],
        "score_fact": np.ones(texts),
        "score_hall": np.ones(texts),
    }
    metrics = pl.DataFrame(columns | carried).with_columns(
        entropy=pl.when(pl.int_range(pl.len()) == 3).then(None).otherwise("entropy")
    )
    known = {"schema_version": "1", "metric_versions": json.dumps(dict.fromkeys(measured, 1))}
    metrics.write_parquet(folder / "metrics.parquet", metadata=known)
    completions = [said[i % len(said)] for i in range(texts)]
    prompt = ["The capital of France is" if prompts else ""] * texts
    written = pl.DataFrame(names | {"prompt": prompt, "completion": completions} | carried)
    written.write_parquet(folder / "texts.parquet")
    _features(rng, ids, of_text).write_parquet(folder / "features.parquet")
    about = MANIFEST | {"metric_versions": dict.fromkeys(measured, 1), "counts": {"pairs": texts, "measured": texts}}
    (folder / "manifest.json").write_text(json.dumps(about | {"data": {"name": "made-up texts"}} | (manifest or {})))
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": {"layers": [2, 5]}, "measure": {"position": "last"}}))
    if stats:
        statistics(texts, [*METRICS], list(domains)).write_parquet(
            folder / "stats.parquet", metadata={"stats_version": "2"}
        )
        (folder / "stats.json").write_text(json.dumps(ABOUT | {"texts": texts}))
    return folder


ABOUT: dict[str, Any] = {
    "stats_version": 2,
    "items": "texts",
    "groups": 30,
    "largest_group": 2,
    "cluster_by": "group",
    "errors": "CR3 over clusters",
    "intervals": "95 %",
    "corrections": "Benjamini-Hochberg",
    "families": [{"family": "pooled", "tests": 5}],
    "seed": 0,
    "notes": [],
}


def statistics(texts: int, metrics: list[str], domains: list[str]) -> pl.DataFrame:
    """Rows in which the entropy separates over all texts and nothing else does."""
    rows = [
        {"metric": metric, "scope": scope, "n": texts, "n_true": texts // 2, "n_false": texts - texts // 2}
        | {"clusters": 30, "mean_true": 3.0, "mean_false": 3.0 + effect, "mean_diff": effect, "g": effect}
        | {"g_lo": effect - 0.25, "g_hi": effect + 0.25, "p": 0.01, "adj_mean_diff": effect, "adj_g": effect - 0.05}
        | {"adj_lo": effect - 0.3, "adj_hi": effect + 0.2, "adj_p": 0.01, "auroc": 0.6, "mde80": 0.5}
        | dict.fromkeys(("q", "raw_q", "adj_q", "skew_q"), 0.01)
        | {"verdict": "separates" if found else "inconclusive", "reason": f"g {effect:+.2f}"}
        for scope in [*domains, "pooled"]
        for metric in metrics
        for found in [(metric, scope) == ("entropy", "pooled")]
        for effect in [1.23 if found else 0.11]
    ]
    return pl.DataFrame(rows, schema=LABELLED_SCHEMA)


def _features(rng: np.random.Generator, ids: list[str], labels: list[bool], features: int = 40) -> pl.DataFrame:
    """Features 1, 2, ... fire by chance, feature 0 in the false texts alone; and all of it for the prompts again."""
    parts = []
    for view in ("prompt", "text"):
        for layer in (2, 5):
            fires = rng.random((len(ids), features)) < 0.2
            fires[:, 0] = ~np.array(labels)
            text, feature = np.nonzero(fires)
            columns = {"text_id": pl.Series(ids)[text], "view": [view] * len(text), "layer": [layer] * len(text)}
            columns |= {"feature": feature, "activation": rng.exponential(2, len(text))}
            kinds = {"layer": pl.Int32, "feature": pl.Int32, "activation": pl.Float32}
            parts.append(pl.DataFrame(columns, schema_overrides=kinds))
    return pl.concat(parts)
