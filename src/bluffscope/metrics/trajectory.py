"""Analysis 6, trajectory: what each layer would predict, and how far the residual stream has come, layer by layer."""

from __future__ import annotations

import numpy as np

from bluffscope.metrics.angles import cosine
from bluffscope.metrics.declaration import Analysis, Metric, Values
from bluffscope.metrics.measurement import Measurement


def trajectory(measurement: Measurement) -> dict[str, Values]:
    """The columns `l{layer}_{view}_{metric}`: of the logit lens for completions, of the residual for every view.

    NaN where a completion has no token that follows another, and where there is no prompt to compare with.
    """
    import torch  # seconds that reading a declaration should not take

    arrangement, columns = measurement.arrangement, dict[str, Values]()
    prompts = torch.from_numpy(measurement.prompt_read) if "prompt" in arrangement.views else None
    for layer, state in measurement.states.items():
        residual = state.residual.double()
        metrics = {"residual_norm": measurement.by_view(residual.norm(dim=1))}
        metrics["prompt_cosine"] = np.full_like(metrics["residual_norm"], np.nan)
        if prompts is not None:
            metrics["prompt_cosine"] = measurement.by_view(cosine(residual, residual[prompts.to(residual.device)]))
        metrics |= _through_lens(measurement, layer)
        for metric in ANALYSIS.metrics:
            for view in arrangement.completions if metric.of_completions else arrangement.views:
                values = metrics[metric.name][:, arrangement.views.index(view)]
                columns[arrangement.at_layer(layer, view, metric.name)] = values
    return columns


def _through_lens(measurement: Measurement, layer: int) -> dict[str, np.ndarray]:
    """(item, view) of each metric of the lens; NaN for views without a completion."""
    empty = np.full((len(measurement.item_ids), len(measurement.arrangement.views)), np.nan)
    targets, lens = measurement.targets, measurement.lens
    if targets is None or lens is None:
        return {f"lens_{name}": empty for name in ("logprob", "entropy", "js", "rank")}
    values = {name: part.cpu().double().numpy() for name, part in lens[layer]._asdict().items()}  # (target,) each
    found = {"lens_rank": _medians(measurement, values.pop("rank"))}
    for name, of_targets in values.items():
        sums, counts = measurement.totals(targets.item, targets.view, of_targets)
        found[f"lens_{name}"] = np.divide(sums, counts, out=empty.copy(), where=counts > 0)
    return found


def _medians(measurement: Measurement, values: np.ndarray) -> np.ndarray:
    """(item, view) median over the targets of each; NaN where there are none."""
    assert measurement.targets is not None
    views = len(measurement.arrangement.views)
    cell = measurement.targets.item * views + measurement.targets.view
    ordered = values[np.lexsort((values, cell))]  # cell after cell, ascending in each
    counts = np.bincount(cell, minlength=len(measurement.item_ids) * views)
    starts = np.cumsum(counts) - counts
    filled = np.flatnonzero(counts)
    lower, upper = starts[filled] + (counts[filled] - 1) // 2, starts[filled] + counts[filled] // 2
    medians = np.full(len(counts), np.nan)
    medians[filled] = (ordered[lower] + ordered[upper]) / 2
    return medians.reshape(-1, views)


_HEAD = """In runs with `--trajectory`, and without SAEs by default. The logit lens applies to the residual stream of a
layer what the model applies behind its last block: final norm, LM head, scale and soft-capping, whatever the model has.
Lens columns are over the positions that predict a completion's tokens, so the prompt has none; the last two are at the
read position.
"""
_NOTE = """At the model's last layer `lens_logprob` is `logprob_per_token`, and `lens_js` is 0 by definition, so it is
tested nowhere. Null as the log-probabilities are. A `prompt_cosine` is null without a prompt.
"""

ANALYSIS = Analysis(
    "trajectory",
    trajectory,
    title="Trajectory",
    metrics=(
        Metric(
            "lens_logprob",
            "nats",
            None,
            0,
            "Log-probability of {view}'s completion through the logit lens, mean over its tokens",
            label="Log-probability through the lens",
            higher="completion more likely through the lens",
            lower="completion less likely through the lens",
            of_completions=True,
        ),
        Metric(
            "lens_entropy",
            "nats",
            0,
            None,
            "Entropy of the predictions of {view}'s completion through the logit lens, mean over its tokens",
            label="Entropy through the lens",
            higher="predictions less certain through the lens",
            lower="predictions more certain through the lens",
            of_completions=True,
        ),
        Metric(
            "lens_js",
            "bits",
            0,
            1,
            "Jensen-Shannon divergence between the logit lens and the model's own predictions of {view}'s completion, "
            "mean over its tokens",
            label="Divergence from the last layer",
            higher="predictions further from the last layer's",
            lower="predictions closer to the last layer's",
            of_completions=True,
        ),
        Metric(
            "lens_rank",
            "dimensionless",
            1,
            None,
            "Rank of the tokens of {view}'s completion through the logit lens, 1 for the most likely, median over them",
            label="Rank through the lens",
            higher="tokens of worse rank through the lens",
            lower="tokens of better rank through the lens",
            of_completions=True,
        ),
        Metric(
            "residual_norm",
            "activation units",
            0,
            None,
            "Length of the residual of {view} at the read position",
            label="Length of the residual",
            higher="longer residual",
            lower="shorter residual",
        ),
        Metric(
            "prompt_cosine",
            "dimensionless",
            -1,
            1,
            "Cosine of the residuals of {view} at the read position and of the prompt at its last token",
            label="Cosine with the prompt",
            higher="residual closer to the prompt's",
            lower="residual further from the prompt's",
            of_completions=True,
        ),
    ),
    per_layer=True,
    needs_sae=False,
    head=_HEAD,
    note=_NOTE,
)
