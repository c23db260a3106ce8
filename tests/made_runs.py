"""Folders of runs made up without a model, for the tests of what reads them."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

STRANGE = (
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 2'> & \"quotes\" <b>bold</b>",
    "שלום עולם \u202eright to left\u202c",
    "emoji 😀🎉 and \u2028 a line separator, a nul \x00 and ${window.hacked = 3}",
    "long " * 2000,
)
OBJECT_KEYS = ("constructor", "toString", "hasOwnProperty", "__proto__", "valueOf", "entity")
"""Names that every JavaScript object has, and one that none has."""
UNSOUND = {
    "status": "unsound",
    "allowed": False,
    "findings": [
        {
            "check": "l0",
            "severity": "error",
            "expected": "68",
            "seen": "340",
            "means": "The features are wrong.",
            "do": "Compare the model's revision.",
            "message": "mean L0 of layer 2 is 5 times the published one.",
        }
    ],
}
"""The manifest's `health` of a run whose gate failed."""
DOMAINS = ("entity", "temporal", "logical")
METRICS = {"l2_{}_gini": 0.4, "l5_{}_gini": 0.5, "l2_{}_l0_norm": 60.0, "l5_{}_l0_norm": 50.0, "entropy_{}": 3.0}


def make_run(
    folder: Path,
    pairs: int = 60,
    *,
    effect: float = 0.0,
    texts: tuple[str, ...] = ("The capital of France is",),
    features: int = 40,
    manifest: dict[str, Any] | None = None,
    optional: bool = False,
    domains: tuple[str, ...] = DOMAINS,
    seed: int = 0,
) -> Path:
    """Write a run's folder.

    Args:
        folder: made.
        pairs: how many.
        effect: d_z that is planted in the metric "entropy".
        texts: prompts and completions, in turn.
        features: features a layer; the first fires in hallucinations alone.
        manifest: replaces entries of the manifest.
        optional: with a noise sweep.
        domains: of the pairs, in turn.
        seed: of all numbers.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    ids = [f"pair-{i:05d}" for i in range(pairs)]
    of_pair = [domains[i % len(domains)] for i in range(pairs)]
    lengths = rng.integers(1, 4, (pairs, 2))
    columns: dict[str, Any] = {
        "pair_id": ids,
        "domain": of_pair,
        "complexity": [None] * pairs,
        "group": [f"g{i // 2}" for i in range(pairs)],
        "prompt_tokens": [5] * pairs,
        "fact_tokens": lengths[:, 0],
        "hall_tokens": lengths[:, 1],
        "prompt_read_token": [" is"] * pairs,
        "fact_read_token": [" </b>"] * pairs,
        "hall_read_token": [" Rome"] * pairs,
    }
    sweep = {f"stability_s{s}_{{}}": 0.9 - s / 4 for s in (0.1, 0.3, 1)} if optional else {}
    for name, mean in (METRICS | sweep).items():
        fact = rng.normal(mean, mean / 10, pairs)
        planted = effect * mean / 10 if name.startswith("entropy") else 0.0
        hall = fact + rng.normal(planted, mean / 10, pairs)
        columns |= {name.format("fact"): fact, name.format("hall"): hall}
    metrics = pl.DataFrame(columns, schema_overrides={"complexity": pl.Int64})
    metrics = metrics.with_columns(
        entropy_fact=pl.when(pl.int_range(pl.len()) == 3).then(None).otherwise("entropy_fact")
    )
    metrics.write_parquet(folder / "metrics.parquet", metadata={"schema_version": "1"})
    said = {view: [texts[(i + shift) % len(texts)] for i in range(pairs)] for shift, view in enumerate(_VIEWS)}
    pl.DataFrame(
        {"pair_id": ids, "domain": of_pair, "complexity": columns["complexity"], **said, "group": columns["group"]}
        | {"source": [f"book {i}" for i in range(pairs)]},
        schema_overrides={"complexity": pl.Int64},
    ).write_parquet(folder / "pairs.parquet")
    _features(rng, ids, features).write_parquet(folder / "features.parquet")
    (folder / "manifest.json").write_text(json.dumps(MANIFEST | (manifest or {})))
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": {"layers": [2, 5]}, "measure": {"position": "last"}}))
    return folder


def data_of(page: str) -> dict[str, Any]:
    """What the script of a run's page is given; texts that are shared stand in each row, as the script puts them."""
    held = re.search(r'<script type="application/octet-stream" id="data">(.*?)</script>', page, re.DOTALL)
    assert held is not None
    data = json.loads(zlib.decompress(base64.b64decode(held[1], validate=True)))
    for table in (data["stats"], data["ladder"]):
        shared = {name: column for name, column in table.items() if isinstance(column, dict)}
        table |= {name: [column["texts"][place] for place in column["at"]] for name, column in shared.items()}
    return data


_VIEWS = ("prompt", "fact", "hallucination")
MANIFEST: dict[str, Any] = {
    "schema_version": 1,
    "created": "2026-01-02T03:04:05+00:00",
    "packages": {"python": "3.11", "bluffscope": "0.1.0"},
    "platform": "Linux",
    "model": {"name": "made-up", "revision": "abc"},
    "saes": {"2": {"neuronpedia_id": "gemma-2-2b/2-res"}, "5": {"neuronpedia_id": "javascript:alert(1)//x"}},
    "device": "cpu",
    "dtype": "float32",
    "quantize": "none",
    "seeds": {"noise": 0},
    "counts": {"pairs": 60, "measured": 60, "quarantined": 0},
    "timings": {"load": 1.0, "data": 0.1, "tokenise": 0.1, "forward": 2.0, "sae": 0.5, "total": 4.0},
    "memory": {"peak_bytes": 2_000_000_000},
    "health": {},
    "lint": {"findings": []},
    "data": {"name": "made-up pairs", "digest": "d"},
}


def _features(rng: np.random.Generator, ids: list[str], features: int) -> pl.DataFrame:
    """Features 1, 2, ... fire by chance, feature 0 in the hallucinations alone."""
    parts = []
    for view in ("fact", "hall"):
        for layer in (2, 5):
            fires = rng.random((len(ids), features)) < 0.2
            fires[:, 0] = view == "hall"
            pair, feature = np.nonzero(fires)
            parts.append(
                pl.DataFrame(
                    {
                        "pair_id": pl.Series(ids)[pair],
                        "view": [view] * len(pair),
                        "layer": pl.Series([layer] * len(pair), dtype=pl.Int32),
                        "feature": pl.Series(feature, dtype=pl.Int32),
                        "activation": pl.Series(rng.exponential(2, len(pair)), dtype=pl.Float32),
                    }
                )
            )
    return pl.concat(parts)


def sweep_and_carry(folder: Path, names: Sequence[str] = ("a", "b")) -> None:
    """Put what `bluffscope detect sweep` and `transfer` leave into a run's folder.

    Args:
        folder: of the run.
        names: of the data sets that detectors are carried between.
    """
    ends = {"lo": 0.6, "hi": 0.8}
    cells = [
        {"detector": name, "layer": layer, "n": 60, "auroc": 0.7, **ends, "times": 1}
        for name in ("residual", "sae")
        for layer in (2, 5)
    ]
    chosen = {"detector": "chosen", "layer": None, "n": 60, "auroc": 0.65, **ends, "times": 4}
    pl.DataFrame([*cells, chosen], infer_schema_length=None).write_parquet(folder / "sweep.parquet")
    known: dict[str, Any] = {"n": 60, "auroc": 0.7, **ends, "own": 0.7, "verdict": "partly", "reason": None}
    known |= dict.fromkeys(("loss", "loss_lo", "loss_hi", "text", "gain", "gain_lo", "gain_hi"), 0.1)
    rows = [
        {"detector": name, "train": train, "test": test, **known}
        for name in ("text", "sae")
        for train in names
        for test in names
    ]
    rows.append(dict.fromkeys(rows[0]) | {"detector": "sae", "train": names[0], "test": "c", "reason": "too few"})
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(folder / "transfer_matrix.parquet")
