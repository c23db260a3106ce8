"""What the benchmark's records say, as rows to print: ratios are formed within one run only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Record = Mapping[str, Any]
GIGABYTE = 1e9


class Table(NamedTuple):
    """A table to print."""

    title: str
    rows: list[dict[str, str]]
    """Cells by the name of their column, the same columns in each."""
    notes: Sequence[str] = ()


Cells = dict[str, str]


def _row(record: Record, before: Cells, after: Cells, decimals: int | None = None) -> Cells:
    """A row: cells of its own before and after the time a pair; at the end memory, where it is shown, and marks."""
    time = {"s a pair": _time(record["seconds_per_pair"])}
    memory = {} if decimals is None else {"peak GB": f"{record['peak_bytes'] / GIGABYTE:.{decimals}f}"}
    return {**before, **time, **after, **memory, "marks": ", ".join(record["marks"])}


def ladder_table(records: Sequence[Record]) -> Table:
    """Each step's time a pair, its gain over the step before, and over sequential."""
    base = next((record["seconds_per_pair"] for record in records if record["step"] == "sequential"), None)
    rows: list[dict[str, str]] = []
    previous: float | None = None
    for record in records:
        seconds = record["seconds_per_pair"]
        dtype = record["dtype"] + ("" if record["quantize"] == "none" else f" + {record['quantize']}")
        gains = {
            "gain": "" if previous is None else f"{previous / seconds:.2f}x",
            "to sequential": "" if base is None else f"{base / seconds:.1f}x",
        }
        rows.append(_row(record, {"step": record["step"], "dtype": dtype, "pairs": str(record["pairs"])}, gains, 1))
        previous = seconds
    notes = [note for record in records for note in _baseline_notes(record)]
    return Table(f"The ladder, shape {records[0]['shape']}", rows, notes)


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
    rows: list[dict[str, str]] = []
    times: dict[str, list[float]] = {}
    for record in records:
        strategy, seconds = record["strategy"], record["seconds_per_pair"]
        times.setdefault(strategy, []).append(seconds)
        named = {"strategy": strategy, "batch size": str(record["batch_size"]), "pairs": str(record["pairs"])}
        rates = {"speed-up": f"{times[strategy][0] / seconds:.2f}x", "pairs a second": f"{1 / seconds:.1f}"}
        rows.append(_row(record, named, rates, 2))
    notes = ()
    if {"packed", "batched"} <= times.keys():
        ratio = min(times["batched"]) / min(times["packed"])
        notes = (f"packed at its best is {ratio:.2f} times as fast as batched at its best",)
    return Table(f"Pairs a forward, shape {records[0]['shape']}", rows, notes)


def limit_table(limits: Sequence[Record], ladder: Sequence[Record]) -> Table:
    """What the machine could do at most, and what share of it was done, by stage."""
    rows: list[dict[str, str]] = []
    notes: list[str] = []
    for limit in limits:
        dtype = limit["dtype"]
        run = next(r for r in ladder if r["dtype"] == dtype and "reads" in r["computed"] and r["limit"])
        total = run["seconds"]
        for stage, least in possible_seconds(limit, run).items():
            taken = run["stages"][stage]
            rows.append(
                {
                    "dtype": dtype,
                    "stage": stage,
                    "seconds": f"{taken:.2f}",
                    "share": f"{taken / total:.1%}",
                    "possible": f"{least:.2f}" if least else "",
                    "of the limit": f"{least / taken:.0%}" if least else "",
                }
            )
        others = sum(run["stages"].get(stage, 0.0) for stage in ("sae", "geometry", "write", "tokenise"))
        tokens, slots = run["computed"]["tokens"], run["computed"]["slots"]
        notes.append(
            f"{dtype}: matrix products at {limit['peak_flops'] / 1e9:.0f} GFLOP/s at the model's sizes "
            f"({limit['threads']} threads); {tokens} distinct tokens in {slots} slots for {run['pairs']} pairs; SAE, "
            f"geometry, writing and tokenising together {others / total:.1%} of the run"
        )
        if run.get("predicted_bytes"):
            ratio = run["peak_bytes"] / run["predicted_bytes"]
            notes.append(
                f"{dtype}: peak memory {run['peak_bytes'] / GIGABYTE:.2f} GB, {ratio:.2f} of the prediction; "
                f"weights and SAEs are {run['held_bytes'] / GIGABYTE:.2f} GB"
            )
    return Table(f"The limit, shape {limits[0]['shape']}", rows, notes)


def possible_seconds(limit: Record, run: Record, noise_draws: int = 8) -> dict[str, float]:
    """Seconds that each stage's matrix products take at the peak; 0 where a stage has no such bound.

    Args:
        limit: what `bench.measure.Built.limit` found.
        run: a record of the engine.
        noise_draws: further encodings of fact and hall at the first layer.
    """
    done = run["computed"]
    encodes = done["reads"] * run["layers"] + done["reads"] * 2 // 3 * noise_draws
    bounds = {
        "forward": done["tokens"] * limit["flops_per_token"] / limit["peak_flops"],
        "sae": encodes * limit["flops_per_encode"] / limit["encode_peak_flops"],
    }
    return bounds | dict.fromkeys(("geometry", "write", "tokenise"), 0.0)


def growth_table(records: Sequence[Record]) -> Table:
    """Time and peak memory as the number of pairs grows."""
    sizes = [{"pairs": f"{record['pairs']:,}", "seconds": f"{record['seconds']:.1f}"} for record in records]
    rows = [_row(record, size, {}, 3) for record, size in zip(records, sizes, strict=True)]
    notes = ()
    if len(records) > 1:
        one, other = records[-2:]
        time, memory = (other[name] / one[name] for name in ("seconds_per_pair", "peak_bytes"))
        notes = (
            f"from {one['pairs']:,} to {other['pairs']:,} pairs: time a pair x{time:.3f}, peak memory x{memory:.3f}",
        )
    return Table("Growth, the embedded model", rows, notes)


def sharing_table(records: Sequence[Record]) -> Table:
    """What prompts that share their beginning cost, packed and batched."""
    kinds = list(dict.fromkeys(record["sharing"] for record in records))
    batched = {record["sharing"]: record["seconds_per_pair"] for record in records if record["strategy"] == "batched"}
    rows: list[dict[str, str]] = []
    for record in sorted(records, key=lambda record: kinds.index(record["sharing"])):
        kind, strategy, seconds = record["sharing"], record["strategy"], record["seconds_per_pair"]
        named = {"shared prompt": kind, "strategy": strategy, "pairs": str(record["pairs"])}
        found = {
            "tokens a pair": f"{record['computed']['tokens'] / record['pairs']:.1f}",
            "to batched": f"{batched[kind] / seconds:.1f}x" if strategy == "packed" and kind in batched else "",
        }
        rows.append(_row(record, named, found))
    return Table(f"Prefix sharing, shape {records[0]['shape']}", rows)


def _time(seconds: float) -> str:
    return f"{seconds:.3f}" if seconds >= 0.1 else f"{seconds:.5f}"


def against_table(records: Sequence[Record]) -> Table:
    """Each way's time for all pairs, beside the engine's time for the same work.

    Args:
        records: of the ways, the engine's too (`bluffscope.compare.bench.against.Measured.record`).
    """
    engine = {record["does"]: record for record in records if record["way"] == "packed"}
    pairs = max(record["pairs"] for record in records)
    order = {"sequential": 0, "careful": 1, "packed": 2}
    rows: list[dict[str, str]] = []
    for record in sorted(records, key=lambda record: (record["does"], order[record["way"]])):
        mine = {name: record[name] / engine[record["does"]][name] for name in ("seconds_per_pair", "cpu_per_pair")}
        ratios = {name: "" if record["way"] == "packed" else f"{ratio:.1f}x" for name, ratio in mine.items()}
        rows.append(
            {
                "way": record["name"],
                "does": record["does"],
                "pairs": str(record["pairs"]),
                f"s for {pairs}": f"{record['seconds_per_pair'] * pairs:.2f}",
                "to packed": ratios["seconds_per_pair"],
                "CPU s": f"{record['cpu_per_pair'] * pairs:.2f}",
                "to packed, CPU": ratios["cpu_per_pair"],
                "marks": ", ".join(record["marks"]),
            }
        )
    layers = " ".join(map(str, records[0]["layers"]))
    return Table(f"Against other ways: float32, layers {layers}, {records[0]['threads']} threads", rows)
