"""The options of a run, and presets: named sets of model, SAEs and layers, the embedded demo among them."""

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
