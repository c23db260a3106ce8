"""Options of a run, and the presets: named sets of model, SAEs and layers, and the embedded demo model."""

from bluffscope.config.options import (
    DataOptions,
    EngineOptions,
    ForecastOptions,
    LintConfig,
    MeasureOptions,
    ModelOptions,
    Options,
    OutputOptions,
    Position,
    RunConfig,
    TokenizerOptions,
    from_words,
    refuse_endless,
    run_config,
    with_values,
)

__all__ = [
    "DataOptions",
    "EngineOptions",
    "ForecastOptions",
    "LintConfig",
    "MeasureOptions",
    "ModelOptions",
    "Options",
    "OutputOptions",
    "Position",
    "RunConfig",
    "TokenizerOptions",
    "from_words",
    "refuse_endless",
    "run_config",
    "with_values",
]
