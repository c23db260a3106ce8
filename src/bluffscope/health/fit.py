"""Does the SAE fit what it reads? Explained variance there, at every other site that is loaded, and without BOS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import torch
from jaxtyping import Float

from bluffscope.health.check import Check, Severity, declared, found, graded, judged
from bluffscope.health.loaded_model import AFTER_NORM, Plain, Subject, site_of
from bluffscope.model.hooks import HookPoint
from bluffscope.sae import Coder
from bluffscope.sae.load import as_saelens, is_saelens

FEWEST_TOKENS: Final = 20
"""Fewer say little about a variance: then nothing is concluded from it."""
MOST_TOKENS: Final = 256
"""Tokens that an SAE is tried on at its own site."""
MOST_TRIED: Final = 48
"""Tokens that it is tried on at each of the others."""


class Fit(NamedTuple):
    """How well an SAE reconstructs some activations."""

    explained: float
    """1 - sum ||x - y||^2 / sum ||x - mean(x)||^2; NaN where nothing varies."""
    tokens: int


def explained_variance(
    x: Float[torch.Tensor, "token d_model"], y: Float[torch.Tensor, "token d_model"]
) -> Float[torch.Tensor, ""]:
    """Explained variance of reconstructions, over all tokens and dimensions: 1 - sum ||x - y||^2 / sum ||x - mean||^2.

    The mean is that of each dimension over the tokens. Not the mean of per-dimension or per-token ratios, which weigh
    dimensions without variance as much as those with all of it. x = [[2,0],[0,4]], y = [[2,1],[0,3]] gives 0.8.
    """
    x, y = x.double(), y.double()
    return 1 - (x - y).square().sum() / (x - x.mean(dim=0)).square().sum()


def check_fit(
    subject: Subject, plain: Sequence[Plain], other_bos: Sequence[Plain], saelens: bool = False
) -> Iterator[Check]:
    """Explained variance of every SAE, and whether it fits another site or another BOS better.

    Args:
        subject: the SAEs.
        plain: texts as they should be fed.
        other_bos: the same with a BOS where there should be none, or the other way round; may be empty.
        saelens: whether features are compared with SAELens's in any case, which takes seconds to import.
    """
    for layer, coder in subject.coders.items():
        here = _fit_at(subject, layer, plain, MOST_TOKENS)
        if not _enough(here):
            yield found("explained variance: too little text", "note", f"{here.tokens} tokens, too few", layer=layer)
            continue
        published = coder.identity.get("trained_on", {}).get("model_name") or "no model"
        seen = f"{here.explained:.2f} over {here.tokens} tokens"
        names = {"model": published, "hook_name": coder.hook_name}
        yield judged("explained variance", here.explained, seen, layer=layer, **names)
        yield _check_sites(subject, layer, plain)
        if other_bos:
            yield _check_bos(layer, here, _fit_at(subject, layer, other_bos, MOST_TOKENS), bos=plain[0].bos)
        point = subject.points[layer]
        yield _check_encoding(coder, _stacked(plain, site_of(point), point, MOST_TRIED), saelens)


@torch.inference_mode()
def fit(coder: Coder, states: Float[torch.Tensor, "token d_model"]) -> Fit:
    """How well an SAE reconstructs these activations."""
    if len(states) == 0 or not bool(states.isfinite().all()):
        return Fit(float("nan"), 0)
    x = states.to(coder.decoder)
    _, reconstruction = coder.encode_decode(x)
    return Fit(float(explained_variance(x, reconstruction)) if len(x) > 1 else float("nan"), len(x))


def _enough(found: Fit) -> bool:
    return found.tokens >= FEWEST_TOKENS and found.explained == found.explained


def _stacked(plain: Sequence[Plain], site: str, point: HookPoint, most: int) -> torch.Tensor:
    """The activations of all tokens but BOS at a site, evenly thinned out to at most so many."""
    states = torch.cat([one.at(site, point)[int(one.bos) :] for one in plain])  # (token, d_model)
    if len(states) <= most:
        return states
    return states[torch.linspace(0, len(states) - 1, most).long().to(states.device)]


def _fit_at(subject: Subject, layer: int, plain: Sequence[Plain], most: int, site: str | None = None) -> Fit:
    """A layer's SAE at a site, its own by default."""
    point = subject.points[layer]
    return fit(subject.coders[layer], _stacked(plain, site or site_of(point), point, most))


def _check_sites(subject: Subject, layer: int, plain: Sequence[Plain]) -> Check:
    """Tries the SAE wherever the same kind of activation stands."""
    point = subject.points[layer]
    own = site_of(point)
    sites = _rivals(point, plain[0].sites)
    tried = {site: _fit_at(subject, layer, plain, MOST_TRIED, site) for site in sites}
    here = tried.pop(own)
    rivals = {site: fits for site, fits in tried.items() if _enough(fits)}
    if not rivals:
        return found("hook point", "note", "nowhere else to try it", layer=layer, own=_name(own, point))
    best = max(rivals, key=lambda site: rivals[site].explained)
    severity = _better(rivals[best], here)
    seen = f"{rivals[best].explained:.2f} at {best}, {here.explained:.2f} here"
    seen = f"next best {seen}" if severity == "ok" else f"explained variance {seen}"
    words = {"own": _name(own, point), "there": _described(best), "here": _described(own)}
    return found("hook point", severity, seen, layer=layer, **words)


def _rivals(point: HookPoint, sites: Mapping[str, torch.Tensor]) -> list[str]:
    """Sites where a hook point's SAE might belong: the residual stream, and its own kind in other blocks."""
    own = site_of(point)
    kinds = ("hook_resid_post", "hook_resid_pre", point.point)
    return [site for site in sites if site in (own, AFTER_NORM) or site.endswith(kinds)]


def _better(there: Fit, here: Fit) -> Severity:
    """How much it matters what is explained there; "ok" if it is next to nothing, or not clearly more than here."""
    if there.explained < declared()["explained variance"]["warning"]:
        return "ok"
    return graded("hook point", (1 - there.explained) / (1 - here.explained))


def _name(site: str, point: HookPoint) -> str:
    stated = f"blocks.{point.block}.{point.point}"
    return site if stated == site else f"{stated} (= {site})"


def _described(site: str) -> str:
    """A site in words: `layer 4 (blocks.4.hook_resid_post)`."""
    parts = site.split(".")
    if len(parts) == 3 and parts[2] == "hook_resid_post":
        return f"layer {parts[1]} ({site})"
    return site


def _check_bos(layer: int, here: Fit, there: Fit, *, bos: bool) -> Check:
    """The SAE's fit to the same texts with (without) the BOS that is not (is) fed."""
    fed, otherwise = ("with a BOS", "without BOS") if bos else ("without BOS", "with a BOS")
    seen = f"explained variance {here.explained:.2f} {fed}, {there.explained:.2f} {otherwise}"
    return found("BOS as in training", _better(there, here), seen, layer=layer, fed=fed, otherwise=otherwise)


def _check_encoding(coder: Coder, states: torch.Tensor, saelens: bool) -> Check:
    """The sparse features against a dense encode: SAELens's own where it is at hand or asked for, else our reader's."""
    sae = as_saelens(coder.sae) if saelens else coder.sae
    whose = "SAELens" if is_saelens(sae) else "a dense encode"
    with torch.inference_mode():
        x = states.to(coder.decoder)
        dense = sae.encode(x)
        ours = coder.encode(x)
    active = int((dense > 0).sum())
    rows = torch.repeat_interleave(torch.arange(len(x), device=x.device), ours.counts)
    others = len(ours.indices) - int((dense[rows, ours.indices] > 0).sum())
    flips = others + active - (len(ours.indices) - others)  # active in one of the two only
    wrong = flips > max(1, active // 1000)  # of those at their threshold
    seen = f"{len(ours.indices)}; {flips} differ"
    return found("features = reference", wrong, seen, layer=coder.layer, whose=whose, active=active)
