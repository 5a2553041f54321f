"""Task on time series: forecasting."""

import typing

import numpy as np

from keras_genai import datasets, metrics
from keras_genai.callbacks import save_figure
from keras_genai.pipelines import make_dataset
from keras_genai.plotting import plot_forecasts
from keras_genai.tasks.base import Data, Task, check_no_cache, split_train_test


class SeriesSplit(typing.NamedTuple):
    """A whole series `(n,)` and the index of its first test value."""

    series: np.ndarray
    start: int


class ForecastingTask(Task):
    """A series whose last tenth is held out.

    The metric is the mean absolute error one step ahead, in the unit of the series. `Data.train` is
    a tuple of windows (past, future), `Data.test` a `SeriesSplit`.

    Args:
        window: Int. Number of past values that a forecast is made from. Defaults to `260`.
        horizon: Int. Number of forecast values; the error of the last one is reported too. Defaults
            to `52`.
    """

    example_unit = "windows"

    def __init__(self, window=260, horizon=52):
        self.window, self.horizon = window, horizon

    def load(self, source=None, cache=None) -> Data:
        check_no_cache(cache, "series")
        series = datasets.load_co2() if source is None else datasets.load_series(source)
        train, test = split_train_test(series)
        if len(train) < self.window + self.horizon or len(test) < self.horizon:
            raise ValueError(
                f"{source}: expected at least {self.window + self.horizon} values to train on and "
                f"{self.horizon} held out, the last tenth, got {len(train)} and {len(test)}."
            )
        windows = datasets.series_windows(train, self.window, self.horizon)
        dataset_info = {"window": self.window, "horizon": self.horizon}
        return Data(windows, SeriesSplit(series, len(train)), len(windows[0]), dataset_info)

    def train_dataset(self, data, batch_size, seed, epoch, input_context=None):
        return make_dataset(data.train, batch_size, seed, epoch, input_context)

    def validation_data(self, data):
        series, start = data.test
        windows = datasets.series_windows(series, self.window, self.horizon, start)
        return {"validation_data": windows, "validation_batch_size": 500}

    def forecasts(self, model, data, steps_ahead: int) -> np.ndarray:
        """Return the forecast of each test value from the values up to `steps_ahead` before it."""
        series, start = data.test
        past, _ = datasets.series_windows(series, self.window, steps_ahead, start + 1 - steps_ahead)
        return model.predict(past, batch_size=500, verbose=0)[:, steps_ahead - 1]

    def evaluate(self, model, data):
        values = data.test.series[data.test.start :]
        one_step, last_step = (
            metrics.mean_absolute_error(self.forecasts(model, data, steps_ahead), values)
            for steps_ahead in (1, self.horizon)
        )
        return {"value": one_step, f"{self.horizon} steps ahead": last_step}

    def save_samples(self, model, data, folder):
        """Write a picture of the test values and their forecasts."""
        forecasts = {
            f"{steps_ahead} ahead": self.forecasts(model, data, steps_ahead)
            for steps_ahead in (1, self.horizon)
        }
        save_figure(plot_forecasts(*data.test, forecasts), folder / "forecast.png")
