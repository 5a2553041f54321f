"""Base classes and mixins of the models: validation, saved random state, custom losses."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_genai.conditioning import count_classes
from keras_genai.validation import check_images, check_labels
from keras_genai.version import __version__

VERSION_KEY = "keras_genai_version"


class SeedStateMixin:
    """Saving of the state of `self.seed_generator`, which Keras leaves out of its files.

    Without it, training resumed from a file would repeat its first noise. It replaces Keras's own
    saving, so that the class may own no other variable.
    """

    def save_own_variables(self, store):
        store["seed_generator_state"] = np.asarray(self.seed_generator.state)

    def load_own_variables(self, store):
        self.seed_generator.state.assign(store["seed_generator_state"])


@keras.saving.register_keras_serializable(package="keras_genai")
class Dropout(SeedStateMixin, layers.Dropout):
    """`keras.layers.Dropout` with a random state that is saved and restored."""

    def save_own_variables(self, store):
        if self.rate > 0:  # Keras creates no seed generator at rate 0
            super().save_own_variables(store)

    def load_own_variables(self, store):
        if self.rate > 0:
            super().load_own_variables(store)


class NestedConfigMixin:
    """Deserialization of a model whose config contains networks, schedules or tokenizers."""

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**keras.saving.deserialize_keras_object(config, custom_objects))


class CustomLossMixin:
    """Mixin for a `keras.Model` that computes its own loss.

    A subclass defines `compute_loss_and_logs(data, training)`, which returns the scalar loss and
    the metric results, a `train_step`, and a metric `loss_tracker`.
    """

    def compile(self, optimizer="adam", loss=None, **kwargs):
        """Configure training like `keras.Model.compile`, without a loss.

        Args:
            optimizer: Keras optimizer or its name. Defaults to `"adam"`.
            loss: Must be `None`: the model has its own loss.
            **kwargs: Other arguments of `keras.Model.compile`, such as `jit_compile`.

        Raises:
            ValueError: if a loss is given.
        """
        if loss is not None:
            raise ValueError(f"loss: expected None, as the model has its own, got {loss!r}.")
        super().compile(optimizer, **kwargs)
        # Built before training, so that a saved optimizer state can be restored.
        self.optimizer.build(self.trainable_variables)

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))

    def test_step(self, data):
        return self.compute_loss_and_logs(data, training=False)[1]

    def reduce_and_log(self, losses, sample_weight=None):
        """Reduce losses `(batch,)` to their mean, update `loss_tracker`, and collect all metrics.

        Returns:
            The mean loss and a dict of metric results.
        """
        self.loss_tracker.update_state(losses, sample_weight)
        # Gradients of replicas are summed: a plain mean on each would double the gradient on two.
        loss = tf.nn.compute_average_loss(losses, sample_weight=sample_weight)
        return loss, {metric.name: metric.result() for metric in self.metrics}


class ValidatedModel(keras.Model):
    """A `keras.Model` that validates arrays before training and evaluation.

    A subclass defines `check_data(x, y)`. Arrays are checked as a whole; a `tf.data.Dataset`, which
    may be infinite, is not.

    Raises:
        TypeError: for a constructor argument that does not exist. Keras would ignore it.
    """

    def __init__(self, *args, **kwargs):
        unknown = set(kwargs) - {"inputs", "outputs", "name", "trainable"}
        if unknown:
            raise TypeError(
                f"{type(self).__name__}: unexpected arguments {', '.join(sorted(unknown))}."
            )
        super().__init__(*args, **kwargs)

    # The build configuration is part of every saved model: it carries the version of the package.

    def get_build_config(self):
        return {**(super().get_build_config() or {}), VERSION_KEY: __version__}

    def build_from_config(self, config):
        super().build_from_config({k: v for k, v in config.items() if k != VERSION_KEY})

    def fit(self, x=None, y=None, *args, validation_data=None, **kwargs):
        if is_array(x):
            self.check_data(x, y)
        if isinstance(validation_data, (list, tuple)):
            self.check_data(*validation_data[:2])
        return super().fit(x, y, *args, validation_data=validation_data, **kwargs)

    def evaluate(self, x=None, y=None, *args, **kwargs):
        if is_array(x):
            self.check_data(x, y)
        return super().evaluate(x, y, *args, **kwargs)


@keras.saving.register_keras_serializable(package="keras_genai")
class ImageModel(ValidatedModel):
    """A functional model of images that validates its images and labels."""

    @property
    def image_shape(self) -> tuple:
        return tuple(self.inputs[0].shape[1:])

    def check_data(self, x, y=None):
        """Raise ValueError unless the arrays are valid for `fit(x, y)` or `fit([x, labels], y)`.

        Targets of the images' own shape are validated as images, integers `(n,)` as class labels.
        """
        x, labels = (*x, None)[:2] if isinstance(x, (list, tuple)) else (x, None)
        check_images("x", x, self.image_shape)
        check_labels(labels, count_classes(self), len(x))
        if y is not None and self.outputs[0].shape[1:] == self.image_shape:
            check_images("y", y, self.image_shape)
        elif y is not None and np.ndim(y) == 1:
            check_labels(y, self.outputs[0].shape[-1], len(x))


class GenerativeImageModel(ImageModel):
    """An image model trained by `fit(x)`, or by `fit(x, labels)` if it is conditional."""

    def check_data(self, x, labels=None):
        check_images("x", x, self.image_shape)
        check_labels(labels, self.num_classes, len(x))


def is_array(x) -> bool:
    """Return whether x is an array or a list of arrays, not a dataset."""
    return hasattr(x, "shape") or isinstance(x, (list, tuple))
