"""How folders hold SAEs: the files of each format, the names of layers' folders, and which SAE of a layer is taken."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from bluffscope.errors import InputError
from bluffscope.host.hub import gone

Format = Literal["SAELens", "sparsify", "Gemma Scope", "Gemma Scope 2"]
FILES: Final[dict[Format, tuple[str, ...]]] = {
    "SAELens": ("cfg.json", "sae_weights.safetensors"),
    "sparsify": ("cfg.json", "sae.safetensors"),
    "Gemma Scope": ("params.npz",),
    "Gemma Scope 2": ("params.safetensors",),
}
"""What a folder must hold to be an SAE of the format; the last file has the weights."""
NAMES: Final = (
    re.compile(r"layer_(?P<layer>[0-9]{1,4})"),
    re.compile(r"blocks\.(?P<layer>[0-9]{1,4})\.(?P<point>(?:\w+\.)?hook_\w+)"),  # SAELens
    re.compile(r"(?:layers|h)\.(?P<layer>[0-9]{1,4})(?P<point>(?:\.\w+)*)"),  # sparsify: the model's own modules
    re.compile(  # Gemma Scope 2
        r"layer_(?P<layer>[0-9]{1,4})_width_(?P<width>[0-9]+[km])_l0_(?P<l0>small|medium|big)(?P<seed>_seed_[0-9]+)?"
    ),
)
"""How the folder of a layer's SAE, or SAEs, may be called."""
POINTS: Final = {
    "resid_post": "hook_resid_post",
    "mlp_out": "hook_mlp_out",
    "attn_out": "attn.hook_z",
}
"""Gemma Scope 2's folders above those of the layers, also with `_all` at the end, and what SAEs in them read."""
CANONICAL_L0: Final = 100
"""Gemma Scope calls the SAE with the mean L0 nearest to this the canonical one of its width."""
_USUAL_L0: Final = {"small": 20.0, "medium": 60.0, "big": 120.0}
"""What Gemma Scope 2's words mean where config.json states no number."""
_SCOPE = re.compile(r"width_(?P<width>[0-9]+[km])/average_l0_(?P<l0>[0-9]+)")
_BLOCK = re.compile(r"blocks\.([0-9]{1,4})\.")
_OTHER_KINDS: Final = {
    "a crosscoder, which reads several layers at once": re.compile(r"crosscoder|(?:^|_)clt(?:_|$)|layer_\d+(?:_\d+)+"),
    "a transcoder, which reconstructs another place than it reads": re.compile("transcoder"),
}
_PICKLES: Final = (".pt", ".bin", ".pkl", ".pth", ".ckpt")


class Variant(NamedTuple):
    """One of the SAEs that a folder holds of a layer."""

    layer: int
    place: Path
    """Its folder, or its params.npz."""
    name: str
    """The path of its folder below the one given."""
    point: str
    """What the names say of where it reads; SAEs of several points are never chosen among."""
    rank: tuple[bool, int, float, bool]
    """Of one point, the least is taken: width 16k if it is there, else the smallest; then the canonical L0; then the
    first seed."""


def format_of(place: Path) -> Format | None:
    """The format of an SAE, by the files in its folder; a params.npz stands for its folder."""
    folder = place.parent if place.name in FILES["Gemma Scope"] else place
    return next((name for name, files in FILES.items() if all((folder / file).is_file() for file in files)), None)


def weights_file(place: Path) -> Path:
    """The file that holds an SAE's weights."""
    kind = format_of(place)
    assert kind is not None  # it was found by its files
    return place if place.is_file() else place / FILES[kind][-1]


def search(path: Path) -> tuple[dict[int, list[Variant]], dict[int, str]]:
    """The SAEs in a folder, by layer, and why further folders of layers hold none."""
    found: dict[int, list[Variant]] = {}
    unusable: dict[int, str] = {}
    for folder in _folders(path):
        if (match := _named(folder.name)) is None:
            continue
        layer, variants = int(match["layer"]), list(_variants(folder, path, match))
        if variants:
            found.setdefault(layer, []).extend(variants)
        else:
            unusable[layer] = what_is_wrong(folder)
    return found, {layer: reason for layer, reason in unusable.items() if layer not in found}


def itself(path: Path) -> list[Variant]:
    """The SAEs of a folder that is one layer's own.

    Raises:
        InputError: nothing says which layer's.
    """
    own, *above = reversed(path.absolute().parts)
    match = _named(own)
    if match is None and format_of(path) == "SAELens" and (layer := _stated_layer(path)) is not None:
        match = _named(f"layer_{layer}")
    match = match or next((match for part in above if (match := _named(part))), None)
    if match is None:
        if format_of(path) is None:
            return []
        raise InputError("it is itself one SAE, but nothing says of which layer; name its folder layer_K")
    return list(_variants(path, path, match))


def chosen(variants: Sequence[Variant], where: str) -> Path:
    """The SAE of a layer that is taken.

    Args:
        variants: its SAEs, at least one.
        where: put in front of messages.

    Raises:
        InputError: several fit.
    """
    least = min(variant.rank for variant in variants)
    fitting = [variant for variant in variants if variant.rank == least]
    if len({variant.point for variant in variants}) > 1:
        fitting = list(variants)
    if len(fitting) == 1:
        return fitting[0].place
    names = some([variant.name for variant in fitting])
    raise InputError(
        f"{where}: several SAEs for layer {fitting[0].layer}: {names}; give one, as --sae FOLDER/{fitting[0].name}, or "
        "a folder that holds one of each layer"
    )


def sae_in(folder: Path, where: str) -> Path | None:
    """The SAE of a folder that is one layer's, whatever its name; None where it holds none.

    Args:
        folder: the folder.
        where: put in front of messages.

    Raises:
        InputError: several fit.
    """
    match = _named(folder.name) or _named("layer_0")
    assert match is not None
    variants = list(_variants(folder, folder.parent, match))
    return chosen(variants, where) if variants else None


def expected(path: Path) -> str:
    """What a folder in which no SAE was found should have held."""
    if _named(path.name):
        return what_is_wrong(path)
    names = [child.name for child in sorted(path.iterdir()) if child.is_dir()]
    if unnamed := [name for name in names if format_of(path / name)]:
        one = f"give one, as --sae FOLDER/{unnamed[-1]}, or name each layer_K"
        return f"the names of {some(unnamed)} give no layer: {one}"
    for name in (path.name, *names):
        if kind := other_kind(name):
            return f"{name} is {kind}; give SAEs that read and reconstruct one place each"
    return f"expected layer_K/ with {' + '.join(FILES['SAELens'])}, or another layout of docs/sae-formats.md"


def what_is_wrong(folder: Path) -> str:
    """Why a layer's folder holds no SAE that can be loaded."""
    if said := gone(folder):
        return said
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    if pickled := next((file for file in files if file.suffix in _PICKLES), None):
        return (
            f"{folder.name}/{pickled.relative_to(folder)} is a pickle, which can run code when opened and is refused; "
            "convert it where you trust it: SAE.load_from_disk(FROM).save_model(DIR), of SAELens, writes safetensors"
        )
    needed = FILES["SAELens"]
    absent = next(name for name in needed if not (folder / name).is_file())
    if any((folder / name).is_file() for name in needed):
        return f"{folder.name} has no {absent}; copy it there"
    return f"{folder.name} holds no SAE; expected {' + '.join(needed)}, or width_*/average_l0_*/params.npz in it"


def other_kind(name: str) -> str | None:
    """What a folder of this name holds that is no SAE of one place; None where the name says nothing of the kind."""
    return next((kind for kind, pattern in _OTHER_KINDS.items() if pattern.search(name)), None)


def some(names: Sequence[str]) -> str:
    """Names in a row, the middle left out where there are many."""
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])}, ..., {names[-1]}"


def _named(name: str) -> re.Match[str] | None:
    return next((match for pattern in NAMES if (match := pattern.fullmatch(name))), None)


def _folders(path: Path) -> Iterator[Path]:
    for child in sorted(path.iterdir()):
        if child.is_dir():
            yield child
            if child.name.removesuffix("_all") in POINTS:
                yield from (folder for folder in sorted(child.iterdir()) if folder.is_dir())


def _variants(folder: Path, path: Path, match: re.Match[str]) -> Iterator[Variant]:
    """The SAEs in a layer's folder: itself, or those of Gemma Scope's widths and L0s."""
    said = match.groupdict()
    layer, parent = int(match["layer"]), folder.parent.name.removesuffix("_all")
    point = said.get("point") or (parent if parent in POINTS else "")
    kind = format_of(folder)
    if kind is not None:
        place = folder / FILES[kind][0] if kind == "Gemma Scope" else folder
        rank = (False, 0, 0.0, False)
        if said.get("width"):
            l0 = stated(folder / "config.json").get("l0")
            rank = _rank(match, float(l0) if isinstance(l0, int | float) else _USUAL_L0[match["l0"]])
        yield Variant(layer, place, str(folder.relative_to(path)), point, rank)
        return
    for archive in sorted(folder.glob("width_*/average_l0_*/params.npz")):
        if scope := _SCOPE.fullmatch(archive.parent.relative_to(folder).as_posix()):
            rank = _rank(scope, float(scope["l0"]))
            yield Variant(layer, archive, str(archive.parent.relative_to(path)), point, rank)


def _rank(match: re.Match[str], l0: float) -> tuple[bool, int, float, bool]:
    width = int(match["width"][:-1]) * (1 if match["width"].endswith("k") else 1000)
    return width != 16, width, abs(l0 - CANONICAL_L0), bool(match.groupdict().get("seed"))


def stated(file: Path) -> dict[str, Any]:
    """A JSON object as far as it can be read, for what may be missing; else empty."""
    try:
        said: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _stated_layer(folder: Path) -> int | None:
    """The block of the hook point in an SAE's cfg.json."""
    said = stated(folder / FILES["SAELens"][0])
    metadata: Any = said.get("metadata") or {}
    hook = metadata.get("hook_name") if isinstance(metadata, dict) else None
    match = _BLOCK.match(str(hook or said.get("hook_name") or said.get("hook_point")))
    return int(match[1]) if match else None
