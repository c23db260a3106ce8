"""How well the judge of `bluffscope ask` does on cases with verdicts given by hand: precision and recall of "right".

    python tools/judge_cases.py [--part first|held-out|another-hand|second|third-hand|all] [--misses]

The first cases are by the author of the rules; a third of them, by a hash of each, is held out: the first rules were
written with a view to the others. The cases by another hand, the author's second round, and those by a third hand came
later.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from bluffscope.runs.ask.judge import judge

PARTS = ("all", "first", "held-out", "another-hand", "second", "third-hand")
CASES = Path(__file__).parents[1] / "tests" / "ask" / "cases.jsonl"


def cases(part: str = "all") -> list[dict[str, Any]]:
    """The cases of a part, in the file's order."""
    found = [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]
    return [case for case in found if part == "all" or case.get("source", "first") == part or held_out(case, part)]


def held_out(case: dict[str, Any], part: str = "held-out") -> bool:
    """Whether a case is one of the first that were not looked at while the first rules were written."""
    if part != "held-out" or "source" in case:
        return False
    return hashlib.sha256(f"{case['question']}\n{case['answer']}".encode()).digest()[0] % 3 == 0


def verdict(case: dict[str, Any]) -> str:
    """What the judge says."""
    return judge(case["question"], case["answer"], case["golds"], case.get("judge", "contains")).verdict


def figures(chosen: list[dict[str, Any]]) -> dict[str, float]:
    """Precision and recall of "right", and the share of cases with the verdict that was given by hand."""
    pairs = [(case["verdict"], verdict(case)) for case in chosen]
    said = sum(found == "right" for _, found in pairs)
    true = sum(wanted == "right" for wanted, _ in pairs)
    both = sum(wanted == found == "right" for wanted, found in pairs)
    nan = float("nan")
    return {
        "cases": len(pairs),
        "precision": both / said if said else nan,
        "recall": both / true if true else nan,
        "agreement": sum(wanted == found for wanted, found in pairs) / len(pairs),
    }


def main(arguments: list[str] | None = None) -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=PARTS, default="all")
    parser.add_argument("--misses", action="store_true", help="list the cases with another verdict")
    options = parser.parse_args(arguments)
    chosen = cases(options.part)
    kinds: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for case in chosen:
        kinds[case["kind"]].append(case)
    sys.stdout.write(f"{'kind':24}{'cases':>6}{'precision':>11}{'recall':>8}{'agreement':>11}\n")
    for name, some in [*sorted(kinds.items()), ("all", chosen)]:
        row = figures(some)
        sys.stdout.write(
            f"{name:24}{row['cases']:6.0f}{row['precision']:11.3f}{row['recall']:8.3f}{row['agreement']:11.3f}\n"
        )
    if options.misses:
        for case in chosen:
            if (found := verdict(case)) != case["verdict"]:
                golds = "; ".join(case["golds"])
                sys.stdout.write(
                    f"{case['kind']}: {case['question']} [{golds}] {case['answer']!r}: {found}, not {case['verdict']}\n"
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
