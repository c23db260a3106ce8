"""What the benchmark's records say, as rows to print: ratios are formed within one run only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Record = Mapping[str, Any]
GIGABYTE = 1e9


class Table(NamedTuple):
    """A table to print."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: tuple[str, ...] = ()


def ladder_table(records: Sequence[Record]) -> Table:
    """Each step's time a pair, its gain over the step before, and over sequential."""
    base = _seconds(records, "sequential")
    rows: list[tuple[str, ...]] = []
    before: float | None = None
    for record in records:
        seconds = record["seconds_per_pair"]
        rows.append(
            (
                record["step"],
                record["dtype"] + ("" if record["quantize"] == "none" else f" + {record['quantize']}"),
                str(record["pairs"]),
                _time(seconds),
                "" if before is None else f"{before / seconds:.2f}x",
                "" if base is None else f"{base / seconds:.1f}x",
                f"{record['peak_bytes'] / GIGABYTE:.1f}",
                ", ".join(record["marks"]),
            )
        )
        before = seconds
    notes = tuple(note for record in records for note in _baseline_notes(record))
    columns = ("step", "dtype", "pairs", "s a pair", "gain", "to sequential", "peak GB", "marks")
    return Table(f"The ladder, shape {records[0]['shape']}", columns, rows, notes)


def _baseline_notes(record: Record) -> list[str]:
    if record["strategy"] not in ("sequential", "separate"):
        return []
    done, pairs = record["computed"], record["pairs"]
    counts = ", ".join(f"{done[name] / pairs:g} {name}" for name in ("forwards", "encodes", "eigendecompositions"))
    times = "five times" if record["strategy"] == "separate" else "once"
    built = f"it builds the shape {times} ({record['load_seconds']:.0f} s each), which is not counted"
    notes = [f"{record['step']}: {counts} a pair; {built}"]
    if "plain_forward_seconds" in record:
        ours, plain = record["baseline_forward_seconds"], record["plain_forward_seconds"]
        notes.append(
            f"{record['step']}: a forward takes {ours:.3f} s, a plain AutoModelForCausalLM call {plain:.3f} s beside it"
        )
    return notes


def batch_table(records: Sequence[Record]) -> Table:
    """Time, speed-up, rate and memory by pairs a forward."""
    rows: list[tuple[str, ...]] = []
    for strategy in dict.fromkeys(record["strategy"] for record in records):
        of_strategy = [record for record in records if record["strategy"] == strategy]
        first = of_strategy[0]["seconds_per_pair"]
        for record in of_strategy:
            seconds = record["seconds_per_pair"]
            rows.append(
                (
                    strategy,
                    str(record["batch_size"]),
                    str(record["pairs"]),
                    _time(seconds),
                    f"{first / seconds:.2f}x",
                    f"{1 / seconds:.1f}",
                    f"{record['peak_bytes'] / GIGABYTE:.2f}",
                    ", ".join(record["marks"]),
                )
            )
    best = {
        strategy: min(r["seconds_per_pair"] for r in records if r["strategy"] == strategy)
        for strategy in dict.fromkeys(record["strategy"] for record in records)
    }
    notes = ()
    if {"packed", "batched"} <= best.keys():
        notes = (f"packed at its best is {best['batched'] / best['packed']:.2f} times as fast as batched at its best",)
    columns = ("strategy", "batch size", "pairs", "s a pair", "speed-up", "pairs a second", "peak GB", "marks")
    return Table(f"Pairs a forward, shape {records[0]['shape']}", columns, rows, notes)


def limit_table(limits: Sequence[Record], ladder: Sequence[Record]) -> Table:
    """What the machine could do at most, and what share of it was done, by stage."""
    rows: list[tuple[str, ...]] = []
    notes: list[str] = []
    for limit in limits:
        run = next(r for r in ladder if r["dtype"] == limit["dtype"] and "reads" in r["computed"] and r["limit"])
        possible = possible_seconds(limit, run)
        total = run["seconds"]
        for stage, least in possible.items():
            taken = run["stages"][stage]
            share = f"{least / taken:.0%}" if least else ""
            rows.append(
                (limit["dtype"], stage, f"{taken:.2f}", f"{taken / total:.1%}", f"{least:.2f}" if least else "", share)
            )
        others = sum(run["stages"].get(stage, 0.0) for stage in ("sae", "geometry", "write", "tokenise"))
        tokens, slots = run["computed"]["tokens"], run["computed"]["slots"]
        notes.append(
            f"{limit['dtype']}: matrix products at {limit['peak_flops'] / 1e9:.0f} GFLOP/s at the model's sizes "
            f"({limit['threads']} threads); {tokens} distinct tokens in {slots} slots for {run['pairs']} pairs; SAE, "
            f"geometry, writing and tokenising together {others / total:.1%} of the run"
        )
        if run.get("predicted_bytes"):
            ratio = run["peak_bytes"] / run["predicted_bytes"]
            notes.append(
                f"{limit['dtype']}: peak memory {run['peak_bytes'] / GIGABYTE:.2f} GB, {ratio:.2f} of the prediction; "
                f"weights and SAEs are {run['held_bytes'] / GIGABYTE:.2f} GB"
            )
    columns = ("dtype", "stage", "seconds", "share", "possible", "of the limit")
    return Table(f"The limit, shape {limits[0]['shape']}", columns, rows, tuple(notes))


def possible_seconds(limit: Record, run: Record, noise_draws: int = 8) -> dict[str, float]:
    """Seconds that each stage's matrix products take at the peak; 0 where a stage has no such bound.

    Args:
        limit: what `bench.limit.matrix_peak` found.
        run: a record of the engine.
        noise_draws: further encodings of fact and hall at the first layer.
    """
    done = run["computed"]
    layers = run["layers"]
    encodes = done["reads"] * layers + done["reads"] * 2 // 3 * noise_draws
    return {
        "forward": done["tokens"] * limit["flops_per_token"] / limit["peak_flops"],
        "sae": encodes * limit["flops_per_encode"] / limit["encode_peak_flops"],
        "geometry": 0.0,
        "write": 0.0,
        "tokenise": 0.0,
    }


def growth_table(records: Sequence[Record]) -> Table:
    """Time and peak memory as the number of pairs grows."""
    rows = [
        (
            f"{record['pairs']:,}",
            f"{record['seconds']:.1f}",
            _time(record["seconds_per_pair"]),
            f"{record['peak_bytes'] / GIGABYTE:.3f}",
            ", ".join(record["marks"]),
        )
        for record in records
    ]
    notes = ()
    if len(records) > 1:
        one, other = records[-2:]
        time = other["seconds_per_pair"] / one["seconds_per_pair"]
        memory = other["peak_bytes"] / one["peak_bytes"]
        notes = (
            f"from {one['pairs']:,} to {other['pairs']:,} pairs: time a pair x{time:.3f}, peak memory x{memory:.3f}",
        )
    return Table("Growth, the embedded model", ("pairs", "seconds", "s a pair", "peak GB", "marks"), rows, notes)


def sharing_table(records: Sequence[Record]) -> Table:
    """What prompts that share their beginning cost, packed and batched."""
    rows: list[tuple[str, ...]] = []
    for kind in dict.fromkeys(record["sharing"] for record in records):
        pair = {record["strategy"]: record for record in records if record["sharing"] == kind}
        packed, batched = pair.get("packed"), pair.get("batched")
        ratio = f"{batched['seconds_per_pair'] / packed['seconds_per_pair']:.1f}x" if packed and batched else ""
        for strategy, record in pair.items():
            rows.append(
                (
                    kind,
                    strategy,
                    str(record["pairs"]),
                    _time(record["seconds_per_pair"]),
                    f"{record['computed']['tokens'] / record['pairs']:.1f}",
                    ratio if strategy == "packed" else "",
                    ", ".join(record["marks"]),
                )
            )
    columns = ("shared prompt", "strategy", "pairs", "s a pair", "tokens a pair", "to batched", "marks")
    return Table(f"Prefix sharing, shape {records[0]['shape']}", columns, rows)


def _seconds(records: Sequence[Record], step: str) -> float | None:
    return next((record["seconds_per_pair"] for record in records if record["step"] == step), None)


def _time(seconds: float) -> str:
    return f"{seconds:.3f}" if seconds >= 0.1 else f"{seconds:.5f}"
