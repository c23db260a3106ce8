"""Does the SAE fit what it reads? Explained variance there, at every other site that is loaded, and without BOS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import torch
from jaxtyping import Float

from bluffscope.health.check import Check, Severity
from bluffscope.health.loaded_model import AFTER_NORM, Plain, Subject, site_of
from bluffscope.model.hooks import HookPoint
from bluffscope.sae import Coder
from bluffscope.sae.load import as_saelens, is_saelens

LEAST_EXPLAINED: Final = (0.5, 0.2)
"""Explained variance below which there is a warning, and an error."""
FITS_BETTER: Final = (0.9, 0.75)
"""Another site fits better where its unexplained variance is below these shares of the one at the SAE's own: warning
and error. Neighbouring blocks of a deep model differ little, and an SAE is trained to be best at its own."""
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
    l0: float
    """Mean number of active features."""
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
        point = subject.points[layer]
        own = site_of(point)
        here = fit(coder, _stacked(plain, own, point, MOST_TOKENS))
        if not _enough(here):
            seen = f"{here.tokens} tokens, too few"
            yield Check(check="explained variance", layer=layer, severity="note", expected="enough text", seen=seen)
            continue
        yield _check_explained(layer, coder, here)
        yield _check_sites(subject, layer, plain)
        if other_bos:
            yield _check_bos(subject, layer, plain, other_bos)
        yield _check_encoding(coder, _stacked(plain, own, point, MOST_TRIED), saelens)


@torch.inference_mode()
def fit(coder: Coder, states: Float[torch.Tensor, "token d_model"]) -> Fit:
    """How well an SAE reconstructs these activations."""
    if len(states) == 0 or not bool(states.isfinite().all()):
        return Fit(float("nan"), float("nan"), 0)
    x = states.to(coder.decoder)
    features, reconstruction = coder.encode_decode(x)
    explained = float(explained_variance(x, reconstruction)) if len(x) > 1 else float("nan")
    return Fit(explained, float(features.counts.double().mean()), len(x))


def _enough(found: Fit) -> bool:
    return found.tokens >= FEWEST_TOKENS and found.explained == found.explained


def _stacked(plain: Sequence[Plain], site: str, point: HookPoint, most: int) -> torch.Tensor:
    """The activations of all tokens but BOS at a site, evenly thinned out to at most so many."""
    states = torch.cat([one.at(site, point)[int(one.bos) :] for one in plain])  # (token, d_model)
    if len(states) <= most:
        return states
    return states[torch.linspace(0, len(states) - 1, most).long().to(states.device)]


def _check_explained(layer: int, coder: Coder, here: Fit) -> Check:
    warn, fail = LEAST_EXPLAINED
    published = coder.identity.get("trained_on", {}).get("model_name")
    severity = "error" if here.explained < fail else "warning" if here.explained < warn else "ok"
    trained = f"it names {published or 'no model'}, {coder.hook_name}"
    return Check(
        check="explained variance",
        layer=layer,
        severity=severity,
        expected=f"at least {warn:g}",
        seen=f"{here.explained:.2f} over {here.tokens} tokens",
        means="The SAE does not reconstruct what it reads: its features say little of it",
        do=f"Check model, layer and hook point of the SAE ({trained})",
    )


def _check_sites(subject: Subject, layer: int, plain: Sequence[Plain]) -> Check:
    """Tries the SAE wherever the same kind of activation stands."""
    coder, point = subject.coders[layer], subject.points[layer]
    own = site_of(point)
    tried = {site: fit(coder, _stacked(plain, site, point, MOST_TRIED)) for site in _rivals(point, plain[0].sites)}
    here = tried.pop(own)
    rivals = {site: found for site, found in tried.items() if _enough(found)}
    row: dict[str, Any] = {
        "check": "hook point",
        "layer": layer,
        "expected": f"no better fit than at {_name(own, point)}",
    }
    if not rivals:
        return Check(**row, severity="note", seen="nowhere else to try it")
    best = max(rivals, key=lambda site: rivals[site].explained)
    there = f"{rivals[best].explained:.2f} at {best}, {here.explained:.2f} here"
    severity = _better(rivals[best], here)
    if severity == "ok":
        return Check(**row, seen=f"next best {there}")
    return Check(
        **row,
        severity=severity,
        seen=f"explained variance {there}",
        means=f"The SAE fits {_described(best)} better than {_described(own)}, which it is given",
        do="Give the SAE that was trained at this hook point, or correct layer and hook_name",
    )


def _rivals(point: HookPoint, sites: Mapping[str, torch.Tensor]) -> list[str]:
    """Sites where a hook point's SAE might belong: the residual stream, and its own kind in other blocks."""
    own = site_of(point)
    kinds = ("hook_resid_post", "hook_resid_pre", point.point)
    return [site for site in sites if site in (own, AFTER_NORM) or site.endswith(kinds)]


def _better(there: Fit, here: Fit) -> Severity:
    """How much it matters what is explained there; "ok" if it is next to nothing, or not clearly more than here."""
    if there.explained < LEAST_EXPLAINED[0]:
        return "ok"
    ratio = (1 - there.explained) / (1 - here.explained)
    warn, fail = FITS_BETTER
    return "error" if not ratio >= fail else "warning" if ratio < warn else "ok"


def _name(site: str, point: HookPoint) -> str:
    stated = f"blocks.{point.block}.{point.point}"
    return site if stated == site else f"{stated} (= {site})"


def _described(site: str) -> str:
    """A site in words: `layer 4 (blocks.4.hook_resid_post)`."""
    parts = site.split(".")
    if len(parts) == 3 and parts[2] == "hook_resid_post":
        return f"layer {parts[1]} ({site})"
    return site


def _check_bos(subject: Subject, layer: int, plain: Sequence[Plain], other: Sequence[Plain]) -> Check:
    """Tries the SAE on the same texts with (without) the BOS that is not (is) fed."""
    coder, point = subject.coders[layer], subject.points[layer]
    here = fit(coder, _stacked(plain, site_of(point), point, MOST_TOKENS))
    there = fit(coder, _stacked(other, site_of(point), point, MOST_TOKENS))
    fed = "with a BOS" if plain[0].bos else "without BOS"
    otherwise = "without BOS" if plain[0].bos else "with a BOS"
    return Check(
        check="BOS as in training",
        layer=layer,
        severity=_better(there, here),
        expected=f"the better fit {fed}",
        seen=f"explained variance {here.explained:.2f} {fed}, {there.explained:.2f} {otherwise}",
        means=f"The SAE fits texts {otherwise} better: it was probably trained on such",
        do="Correct prepend_bos in the SAE's metadata",
    )


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
    return Check(
        check=f"features = {whose}",
        layer=coder.layer,
        severity="error" if wrong else "ok",
        expected=f"the {active} features that {whose} finds",
        seen=f"{len(ours.indices)}; {flips} differ",
        means=f"Features are not those of {whose}",
        do="Report this with the SAE's name and the version of SAELens",
    )
