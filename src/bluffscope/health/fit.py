"""Does the SAE fit what it reads? Explained variance there, at every other site that is loaded, and without BOS.

Real models have sink tokens: the first of a text, and a few others, whose residuals are 10 to 200 times as long as the
rest and hold no text. One of them decides any variance taken over tokens. So the first token and sinks are left out,
on both sides of a comparison, and the tokens that remain weigh alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

import torch
from jaxtyping import Bool, Float

from bluffscope.health.check import Check, Severity, declared, found, graded
from bluffscope.health.loaded_model import AFTER_NORM, Activations, Subject, site_of
from bluffscope.model.hooks import HOOK_Z, HookPoint
from bluffscope.sae import Coder
from bluffscope.sae.load import as_saelens, is_saelens

FEWEST_TOKENS: Final = 20
"""Fewer say little about a variance: then nothing is concluded from it."""
MOST_TRIED: Final = 48
"""Tokens that an SAE is tried on at each site but its own; at the best of them it is tried on all."""
SINK: Final = 5.0
"""A residual longer than so many times the median is a sink's."""
CHANCE: Final = 0.001
"""An SAE is at fault only where chance alone shows as much this rarely: ten pairs at least are needed."""


def explained_variance(
    x: Float[torch.Tensor, "token d_model"], y: Float[torch.Tensor, "token d_model"]
) -> Float[torch.Tensor, ""]:
    """Explained variance of reconstructions, over all tokens and dimensions: 1 - sum ||x - y||^2 / sum ||x - mean||^2.

    The mean is that of each dimension over the tokens. Not the mean of per-dimension or per-token ratios, which weigh
    dimensions without variance as much as those with all of it. x = [[2,0],[0,4]], y = [[2,1],[0,3]] gives 0.8.
    """
    missed, total = _squares(x, y, torch.ones(len(x), device=x.device))
    return 1 - missed.sum() / total.sum()


def _squares(
    x: Float[torch.Tensor, "token d_model"],
    y: Float[torch.Tensor, "token d_model"],
    weight: Float[torch.Tensor, " token"],
) -> tuple[Float[torch.Tensor, " token"], Float[torch.Tensor, " token"]]:
    """||x - y||^2 and ||x - mean||^2 of every token, weighted, in float64; the mean is weighted as well."""
    x, y, weight = x.double(), y.double(), weight.double()
    mean = weight @ x / weight.sum()
    return weight * (x - y).square().sum(dim=1), weight * (x - mean).square().sum(dim=1)


class Sums(NamedTuple):
    """Squares over the tokens of each pair's texts, each token's divided by ||x||^2."""

    missed: Float[torch.Tensor, " pair"]
    """||x - y||^2."""
    total: Float[torch.Tensor, " pair"]
    """||x - mean||^2, of the mean of all tokens, weighted alike."""

    @property
    def unexplained(self) -> float:
        """Share of the variance."""
        return float(self.missed.sum() / self.total.sum())

    @property
    def of_pairs(self) -> Float[torch.Tensor, " pair"]:
        """Share of each pair's variance that is unexplained, as a logarithm."""
        return (self.missed.clamp_min(1e-30) / self.total).log()


@dataclass(frozen=True)
class Fit:
    """How an SAE reconstructs some activations, token by token; without tokens where they are not finite."""

    x: Float[torch.Tensor, "token d_model"]
    y: Float[torch.Tensor, "token d_model"]
    """The reconstructions."""
    pair: torch.Tensor
    """(token,) number of the pair that each token belongs to."""

    @cached_property
    def plain(self) -> Bool[torch.Tensor, " token"]:
        """Tokens that are no sinks."""
        norms = self.x.norm(dim=1)
        return norms <= SINK * norms.median()

    def sums(self, kept: Bool[torch.Tensor, " token"]) -> Sums:
        """Over the tokens that are kept."""
        x, y, pair = self.x[kept], self.y[kept], self.pair[kept]
        weight = 1 / x.double().square().sum(dim=1).clamp_min(1e-30)
        none = torch.zeros(int(self.pair.max()) + 1, dtype=torch.float64, device=x.device)
        missed, total = (none.index_add(0, pair, square) for square in _squares(x, y, weight))
        there = total > 0  # pairs that have tokens
        return Sums(missed[there], total[there])

    @property
    def tokens(self) -> int:
        """Those that count."""
        return int(self.plain.sum())

    @cached_property
    def explained(self) -> float:
        """Explained variance over tokens that are no sinks, each weighing alike; NaN where nothing varies."""
        return 1 - self.sums(self.plain).unexplained if self.tokens > 1 else float("nan")

    @property
    def enough(self) -> bool:
        """Whether it says anything."""
        return self.tokens >= FEWEST_TOKENS and self.explained == self.explained


class Comparison(NamedTuple):
    """How much an SAE misses there, as a share of what it misses here, over tokens that are sinks in neither."""

    ratio: float
    there: float
    """Explained variance."""
    here: float
    """Explained variance."""
    logs: Float[torch.Tensor, " pair"]
    """The logarithm of each pair's own ratio."""

    @classmethod
    def of(cls, there: Fit, here: Fit) -> Comparison:
        """Of two fits to the same tokens."""
        kept = there.plain & here.plain
        ours, theirs = here.sums(kept), there.sums(kept)
        there_is, here_is = theirs.unexplained, ours.unexplained
        return cls(there_is / here_is, 1 - there_is, 1 - here_is, theirs.of_pairs - ours.of_pairs)

    def severity(self, title: str) -> Severity:
        """How bad it is; an error takes clear evidence that it is bad at all, a warning that there is a difference."""
        limits = declared()[title]
        if self.there < declared()["explained variance"]["warning"]:
            return "ok"  # next to nothing is explained there either
        if self.ratio < limits["error"] and _below(self.logs, limits["warning"]):
            return "error"
        return "warning" if self.ratio < limits["warning"] and _below(self.logs, 1) else "ok"


def _below(logs: Float[torch.Tensor, " pair"], limit: float) -> bool:
    """Whether ratios are clearly below a limit: by their signed ranks, which no single pair decides."""
    from scipy.stats import wilcoxon

    if not len(logs):
        return False
    found: Any = wilcoxon((logs - math.log(limit)).cpu().numpy(), zero_method="zsplit", alternative="less")
    return bool(found.pvalue < CHANCE)


def check_fit(
    subject: Subject, given: Activations, other_bos: Activations | None, saelens: bool = False
) -> Iterator[Check]:
    """Explained variance of every SAE, and whether it fits another site or another BOS better.

    Args:
        subject: the SAEs.
        given: activations of texts as they should be fed.
        other_bos: of the same tokens with a BOS where there should be none, or the other way round; None where the
            tokenizer has none.
        saelens: whether features are compared with SAELens's in any case, which takes seconds to import.
    """
    for layer, coder in subject.coders.items():
        point = subject.points[layer]
        here = fit(coder, given, site_of(point), point)
        if not here.enough:
            yield found("explained variance: too little text", "note", f"{here.tokens} tokens, too few", layer=layer)
            continue
        yield _check_explained(layer, coder, here)
        yield _check_sites(layer, coder, point, given, here)
        if other_bos is not None:
            yield _check_bos(layer, fit(coder, other_bos, site_of(point), point), here, bos=given.bos)
        yield _check_encoding(coder, given.at(site_of(point), point)[:MOST_TRIED], saelens)


@torch.inference_mode()
def fit(coder: Coder, activations: Activations, site: str, point: HookPoint, every: int = 1) -> Fit:
    """How well an SAE reconstructs the activations at a site.

    Args:
        coder: the SAE.
        activations: of some texts.
        site: by its name in `Activations.sites`.
        point: what the SAE reads there.
        every: take one of so many tokens.
    """
    x, pair = activations.at(site, point)[::every], activations.pair[::every]
    if len(x) == 0 or not bool(x.isfinite().all()):
        x, pair = x[:0], pair[:0]  # nothing can be said
    x = x.to(coder.decoder)
    return Fit(x, coder.encode_decode(x)[1] if len(x) else x, pair.to(x.device))


def _check_explained(layer: int, coder: Coder, here: Fit) -> Check:
    """The explained variance; an error takes clear evidence that it is less than expected."""
    title = "explained variance"
    severity = graded(title, here.explained)
    enough = 1 - declared()[title]["warning"]  # may be left unexplained
    if severity == "error" and not _below(-here.sums(here.plain).of_pairs, 1 / enough):
        severity = "warning"
    published = coder.identity.get("trained_on", {}).get("model_name") or "no model"
    words = {"model": published, "hook_name": coder.hook_name}
    return found(title, severity, f"{here.explained:.2f} over {here.tokens} tokens", layer=layer, **words)


def _check_sites(layer: int, coder: Coder, point: HookPoint, given: Activations, here: Fit) -> Check:
    """Tries the SAE wherever the same kind of activation stands."""
    own, every = site_of(point), max(1, len(given.pair) // MOST_TRIED)
    tried = {site: fit(coder, given, site, point, every) for site in _rivals(point, given.sites) if site != own}
    rivals = {site: fits.explained for site, fits in tried.items() if fits.enough}
    if not rivals:
        return found("hook point", "note", "nowhere else to try it", layer=layer, own=_name(own, point))
    best = max(rivals, key=lambda site: rivals[site])
    there = fit(coder, given, best, point)
    if not there.enough:
        seen = f"activations at {best} are not finite"
        return found("hook point", "note", seen, layer=layer, own=_name(own, point))
    compared = Comparison.of(there, here)
    severity = compared.severity("hook point")
    seen = f"{compared.there:.2f} at {best}, {compared.here:.2f} here"
    seen = f"next best {seen}" if severity == "ok" else f"explained variance {seen}"
    words = {"own": _name(own, point), "there": _described(best), "here": _described(own)}
    return found("hook point", severity, seen, layer=layer, **words)


def _rivals(point: HookPoint, sites: Mapping[str, torch.Tensor]) -> list[str]:
    """Sites where a hook point's SAE might belong: the residual stream, and its own kind in other blocks."""
    if point.point == HOOK_Z:  # of a width of its own
        return [site for site in sites if site.endswith(HOOK_Z)]
    own = site_of(point)
    kinds = ("hook_resid_post", "hook_resid_pre", point.point)
    return [site for site in sites if site in (own, AFTER_NORM) or site.endswith(kinds)]


def _name(site: str, point: HookPoint) -> str:
    stated = f"blocks.{point.block}.{point.point}"
    return site if stated == site else f"{stated} (= {site})"


def _described(site: str) -> str:
    """A site in words: `layer 4 (blocks.4.hook_resid_post)`."""
    parts = site.split(".")
    if len(parts) == 3 and parts[2] == "hook_resid_post":
        return f"layer {parts[1]} ({site})"
    return site


def _check_bos(layer: int, there: Fit, here: Fit, *, bos: bool) -> Check:
    """The SAE's fit to the same tokens with (without) the BOS that is not (is) fed."""
    title = "BOS as in training"
    fed, otherwise = ("with a BOS", "without BOS") if bos else ("without BOS", "with a BOS")
    if not there.enough:
        seen = f"activations {otherwise} are not finite"
        return found(title, "note", seen, layer=layer, fed=fed, otherwise=otherwise)
    compared = Comparison.of(there, here)
    seen = f"explained variance {compared.here:.3f} {fed}, {compared.there:.3f} {otherwise}"
    return found(title, compared.severity(title), seen, layer=layer, fed=fed, otherwise=otherwise)


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
