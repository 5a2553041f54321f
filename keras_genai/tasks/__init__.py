"""Tasks: a class for each kind of data, with its metric and its samples; see `Task`."""

from keras_genai.tasks.base import Data, Experiment, Task, cycle_labels, split_train_test
from keras_genai.tasks.classification import TextClassificationTask
from keras_genai.tasks.images import (
    ClassificationTask,
    DiffusionTask,
    GANTask,
    ImageTask,
    PixelCNNTask,
    VAETask,
)
from keras_genai.tasks.language import FineTuningTask, LanguageModelingTask
from keras_genai.tasks.music import MusicTask
from keras_genai.tasks.series import ForecastingTask, SeriesSplit
from keras_genai.tasks.sound import SOUND_TEMPERATURE, AudioTask, SpectrogramTask
from keras_genai.tasks.text_to_image import TextToImageTask, caption_test_digits
from keras_genai.tasks.translation import EncodedPairs, TranslationTask

__all__ = [
    "SOUND_TEMPERATURE",
    "AudioTask",
    "ClassificationTask",
    "Data",
    "DiffusionTask",
    "EncodedPairs",
    "Experiment",
    "FineTuningTask",
    "ForecastingTask",
    "GANTask",
    "ImageTask",
    "LanguageModelingTask",
    "MusicTask",
    "PixelCNNTask",
    "SeriesSplit",
    "SpectrogramTask",
    "Task",
    "TextClassificationTask",
    "TextToImageTask",
    "TranslationTask",
    "VAETask",
    "caption_test_digits",
    "cycle_labels",
    "split_train_test",
]
