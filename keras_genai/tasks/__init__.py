"""Tasks: a class for each kind of data, with its metric and its samples; see `Task`."""

from keras_genai.tasks.base import Data, Task, cycle_labels, split_train_test
from keras_genai.tasks.images import (
    ClassificationTask,
    DiffusionTask,
    GANTask,
    ImageTask,
    PixelCNNTask,
    VAETask,
)
from keras_genai.tasks.language import FineTuningTask, LanguageModelingTask
from keras_genai.tasks.series import ForecastingTask, SeriesSplit
from keras_genai.tasks.sound import SOUND_TEMPERATURE, AudioTask
from keras_genai.tasks.translation import EncodedPairs, TranslationTask

__all__ = [
    "SOUND_TEMPERATURE",
    "AudioTask",
    "ClassificationTask",
    "Data",
    "DiffusionTask",
    "EncodedPairs",
    "FineTuningTask",
    "ForecastingTask",
    "GANTask",
    "ImageTask",
    "LanguageModelingTask",
    "PixelCNNTask",
    "SeriesSplit",
    "Task",
    "TranslationTask",
    "VAETask",
    "cycle_labels",
    "split_train_test",
]
