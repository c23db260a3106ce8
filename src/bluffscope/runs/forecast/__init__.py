"""What a run will take, before it is started: its work, counted on a sample, and time from measured rates."""

from bluffscope.runs.forecast.predict import Forecast, Prediction, forecast
from bluffscope.runs.forecast.rates import GPUS

__all__ = ["GPUS", "Forecast", "Prediction", "forecast"]
