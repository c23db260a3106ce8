"""Analysis 2, semantic misalignment: how far a completion moves the prompt's centroid and axis."""

from __future__ import annotations

from bluffscope.metrics.angles import angle, line_angle
from bluffscope.metrics.declaration import Analysis, Metric, Values
from bluffscope.metrics.measurement import Measurement


def semantic_misalignment(measurement: Measurement) -> dict[str, Values]:
    """Centroid drift (0-180 degrees) and axis twist (0-90 degrees) against the prompt, at the first layer."""
    import torch  # seconds that reading a declaration should not take

    geometry = measurement.geometry(measurement.layers[0])
    prompt = torch.from_numpy(measurement.prompt_read).to(geometry.centroid.device)
    drift = angle(geometry.centroid, geometry.centroid[prompt])
    twist = line_angle(geometry.axis, geometry.axis[prompt])
    return measurement.fact_hall_diff("centroid_drift", drift) | measurement.fact_hall_diff("axis_twist", twist)


ANALYSIS = Analysis(
    "semantic_misalignment",
    semantic_misalignment,
    title="Semantic misalignment",
    needs_prompt=True,
    metrics=(
        Metric(
            "centroid_drift",
            "degrees",
            0,
            180,
            "Angle between the centroids of the prompt and of {view}, first layer",
            label="Centroid drift from the prompt",
            higher="feature cloud further from the prompt's",
            lower="feature cloud closer to the prompt's",
        ),
        Metric(
            "axis_twist",
            "degrees",
            0,
            90,
            "Angle between the lines of the principal axes of the prompt and of {view}, first layer",
            label="Axis twist from the prompt",
            higher="feature cloud more twisted against the prompt's",
            lower="feature cloud less twisted against the prompt's",
        ),
    ),
)
