"""Options of a run, and the presets: named sets of model, SAEs and layers, and the embedded demo model."""

from bluffscope.config.ask import AskOptions as AskOptions
from bluffscope.config.ask import QuestionOptions as QuestionOptions
from bluffscope.config.ask import StudyOptions as StudyOptions
from bluffscope.config.ask import WatchOptions as WatchOptions
from bluffscope.config.lint import LintConfig as LintConfig
from bluffscope.config.lint import TokenizerOptions as TokenizerOptions
from bluffscope.config.options import NO_SAE as NO_SAE
from bluffscope.config.options import ONCE_TRUE_OR_FALSE as ONCE_TRUE_OR_FALSE
from bluffscope.config.options import READ_WHOLE as READ_WHOLE
from bluffscope.config.options import DataOptions as DataOptions
from bluffscope.config.options import EngineOptions as EngineOptions
from bluffscope.config.options import ForecastOptions as ForecastOptions
from bluffscope.config.options import MeasureOptions as MeasureOptions
from bluffscope.config.options import ModelOptions as ModelOptions
from bluffscope.config.options import Options as Options
from bluffscope.config.options import OutputOptions as OutputOptions
from bluffscope.config.options import Position as Position
from bluffscope.config.options import RunConfig as RunConfig
from bluffscope.config.options import Switch as Switch
from bluffscope.config.options import refuse_endless as refuse_endless
from bluffscope.config.options import run_config as run_config
from bluffscope.config.options import with_values as with_values
from bluffscope.config.values import from_words as from_words
from bluffscope.config.values import takes_several as takes_several
from bluffscope.config.workers import WorkerOptions as WorkerOptions
