"""Accidents of values, documents and files."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "explore"
"""`make soak`."""
SEED = int(os.environ.get("FUZZ_SEED") or (random.SystemRandom().randrange(10**9) if LONG else 1))
"""Everything random follows from it; soak runs draw one and print it."""
HUGE = "@a whole number of 5,000 digits@"
"""Stands for one in a document: Python refuses to print it."""
NAMES = ("constructor", "toString", "hasOwnProperty", "__proto__", "__class__", "valueOf")
TEXTS = (
    *("", " ", "x", "0", "-1", "nan", "true", "null", "auto", "None", "é\u0301", "\u202eright to left", "\ud7ff"),
    *("\x00", "a\nb", "a\u2028b", "\ufeff", "../../x", "/dev/null", "~nobody/x", "%s{0}${x}", "=cmd|' /C calc'!A0"),
    *("</script><script>window.hacked=1</script>", "[red]x[/red]", "x" * 20_000, "word " * 5_000, *NAMES),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 255, 65_536, 2**31, 2**32, 2**63, -(2**63), 2**64, 10**30, HUGE),
    *(0.5, -0.0, 1e-300, 1e300, math.nan, math.inf, -math.inf, [], [[]], [None], [0], [-1, "x"], {}, {"a": 1}),
    *({"": None}, [1] * 1_000, [[[[[[[[]]]]]]]], {"a": {"b": {"c": {}}}}, *TEXTS),
)


def value(rng: random.Random, old: Any = None) -> Any:
    """Some value in place of another: any, or a near one."""
    if isinstance(old, bool) or old is None or rng.random() < 0.5:
        return rng.choice(VALUES)
    if isinstance(old, int):
        return rng.choice([old + 1, old - 1, old * 2, old // 2, -old, old * 1000, 0, float(old), str(old)])
    if isinstance(old, float):
        return rng.choice([-old, old * 1e6, 0.0, str(old), int(old) if math.isfinite(old) else 0])
    if isinstance(old, str):
        return rng.choice([old + "x", old[:-1], old.upper(), old * 2, [old], {old: old}])
    if isinstance(old, list):
        return rng.choice([old * 2, old[:-1], old[::-1], [old], dict(enumerate(old[:5]))])
    return rng.choice([list(old), {}, [old]])


def mutate(rng: random.Random, document: Any, *, keys: tuple[str, ...] = ()) -> str:
    """One accident in a document of dicts and lists, in place; says which.

    Args:
        rng: decides.
        document: what `json.loads` gives.
        keys: of the top, taken more often than others.
    """
    place, path = document, ""
    if not isinstance(place, dict | list) or not place:
        return "nothing to change"
    key: Any = rng.choice([name for name in keys if name in place] or list(_keys(place))) if keys else None
    if key is None or rng.random() < 0.3:
        key = rng.choice(list(_keys(place)))
    while isinstance(place[key], dict | list) and place[key] and rng.random() < 0.7:
        place, path = place[key], f"{path}/{key}"
        key = rng.choice(list(_keys(place)))
    path = f"{path}/{key}"
    how = rng.choice(["value"] * 5 + ["drop", "rename", "add", "swap"])
    if how == "drop":
        del place[key]
    elif how == "rename" and isinstance(place, dict):
        place[rng.choice([f"{key}x", *NAMES])] = place.pop(key)
    elif how == "add" and isinstance(place, dict):
        place[rng.choice(["extra", "", *NAMES])] = value(rng)
    elif how == "swap":
        other = rng.choice(list(_keys(place)))
        place[key], place[other] = place[other], place[key]
    else:
        place[key] = value(rng, place[key])
        return f"{path} = {str(place[key])[:60]!r}"
    return f"{path}: {how}"


def _keys(place: Any) -> Any:
    return place if isinstance(place, dict) else range(len(place))


def dumped(document: Any) -> str:
    """As JSON, huge numbers and all."""
    return json.dumps(document).replace(json.dumps(HUGE), "9" * 5_000)


def rewrite(
    rng: random.Random, file: Path, change: Callable[[random.Random, Any], str] = mutate, times: int = 1
) -> str:
    """Accidents inside a JSON file, or to one that is damaged already."""
    if not file.is_file():
        return f"{file.name} is gone"
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return damage_file(rng, file)
    said = [change(rng, document) for _ in range(times)]
    file.write_text(dumped(document), encoding="utf-8")
    return f"{file.name} {', '.join(said)}"


PIECES = (
    b"\0",
    b"\xff\xfe",
    b"[" * 5_000,
    b'{"a":' * 3_000,
    b"9" * 5_000,
    b"NaN",
    b"1e999",
    b"\xed\xa0\x80",
    b"\n",
    b'"',
)


def damage_bytes(rng: random.Random, content: bytes) -> bytes:
    """Content after an accident of the disk or an editor."""
    place = rng.randrange(len(content) + 1)
    how = rng.choice(["cut", "over", "insert", "flip", "empty", "noise", "again"])
    piece = rng.choice(PIECES)
    if how == "cut":
        return content[:place]
    if how == "over":
        return content[:place] + piece + content[place + len(piece) :]
    if how == "insert":
        return content[:place] + piece + content[place:]
    if how == "flip" and content:
        place = min(place, len(content) - 1)
        return content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :]
    if how == "again":
        return content + content[place:]
    return rng.randbytes(rng.randrange(300)) if how == "noise" else b""


def damage_file(rng: random.Random, file: Path) -> str:
    """An accident of a whole file: its bytes, or its place."""
    how = rng.choice(["bytes"] * 6 + ["gone", "folder", "nowhere"])
    if how == "bytes":
        file.write_bytes(damage_bytes(rng, file.read_bytes()))
        return f"{file.name}: bytes"
    file.unlink()
    if how == "folder":
        file.mkdir()
    elif how == "nowhere":
        file.symlink_to("nowhere")
    return f"{file.name}: {how}"


def copied(source: Path, target: Path) -> Path:
    """A copy to damage."""
    shutil.copytree(source, target, symlinks=True)
    return target


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
