"""Base classes and mixins of the models: checks of data, saving, custom losses.

What Keras users pass to a model is decided here for all families: which data is valid
(`ValidationMixin`), what a file keeps (`ConfigMixin`), and how a model with its own loss treats
sample weights, regularizers and metrics (`CustomLossMixin`).
"""

import math

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_genai.batch_checks import BatchCheck, fill_missing_targets, is_array
from keras_genai.conditioning import count_classes
from keras_genai.layer_state import (
    dtype_policy_scope,
    get_layer_state,
    set_layer_state,
    uses_float16,
)
from keras_genai.replicas import (
    apply_gradients,
    check_compile_options,
    in_one_of_several_replicas,
    mean_over_replicas,
    needs_summed_gradients,
    num_replicas,
    weight_loss,
)
from keras_genai.validation import (
    check_fraction,
    check_identifier,
    check_images,
    check_labels,
    check_number,
    check_sample_weight,
)
from keras_genai.version import __version__, check_backend

check_backend(keras.config.backend())  # of keras.json

VERSION_KEY = "keras_genai_version"


class ConfigMixin:
    """Configuration of a model that is rebuilt from the arguments of its constructor.

    Arguments may contain networks, schedules or tokenizers. A subclass extends `get_config`.
    """

    def get_config(self):
        config = {"name": self.name, "dtype": self.dtype_policy.name}
        state = get_layer_state(self)
        return {**config, "layer_state": state} if state else config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        policy, state = config.pop("dtype", None), config.pop("layer_state", None)
        config = keras.saving.deserialize_keras_object(config, custom_objects)
        with dtype_policy_scope(policy):
            model = cls(**config)
        if state:
            set_layer_state(model, state)
        return model

    def _run_through_graph(self, inputs, operation_fn=lambda op: op, call_fn=None):
        """Refuse `keras.models.clone_model`, whose clone would be a model of another class."""

        def checked_operation_fn(operation):
            result = operation_fn(operation)
            if isinstance(result, keras.Operation) and result is not operation:
                name = type(self).__name__
                raise ValueError(
                    f"model: expected a model of Keras's own classes, got a {name}, whose loss a "
                    "clone would lose. Use copy.deepcopy(model), or "
                    f"{name}.from_config(model.get_config()) for new weights."
                )
            return result

        return super()._run_through_graph(inputs, checked_operation_fn, call_fn)


class CustomLossMixin:
    """Mixin for a `keras.Model` that computes its own loss.

    A subclass defines `compute_loss_and_logs(data, training)`, which returns the scalar loss and
    the metric results, a `train_step`, and a metric `loss_tracker`; or, like a GAN of two losses,
    its own `compile` and `test_step`.
    """

    def compile(self, optimizer="adam", loss=None, loss_weights=None, **kwargs):
        """Configure training like `keras.Model.compile`, without a loss.

        Args:
            optimizer: Keras optimizer or its name. Defaults to `"adam"`.
            loss: Must be `None`: the model has its own loss.
            loss_weights: Must be `None`: the arguments of the model weight its terms.
            **kwargs: Other arguments of `keras.Model.compile`, such as `metrics` or `jit_compile`.

        Raises:
            ValueError: if a loss or its weights are given.
        """
        for name, value in {"loss": loss, "loss_weights": loss_weights}.items():
            if value is not None:
                raise ValueError(f"{name}: expected None, as the model has its own, got {value!r}.")
        if kwargs.get("auto_scale_loss", True):
            optimizer = with_loss_scaling(optimizer, self)
        super().compile(optimizer, **kwargs)
        # Built before training, so that a saved optimizer state can be restored.
        self.optimizer.build(self.trainable_variables)

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))

    @property
    def metrics(self):
        """Trackers of the loss and its terms, then the metrics of `compile`."""
        # Keras's own tracker of "loss" is not used.
        loss_tracker = getattr(self, "loss_tracker", None)
        metrics = [m for m in super().metrics if m.name != "loss" or m is loss_tracker]
        return sorted(metrics, key=lambda metric: not isinstance(metric, keras.metrics.Mean))

    def test_step(self, data):
        return self.compute_loss_and_logs(data, training=False)[1]

    def reduce_and_log(self, losses, sample_weight, y, y_pred, additional_losses, **terms):
        """Reduce the losses of a batch to their weighted mean, and update and collect all metrics.

        As in Keras, the sum of the weighted losses is divided by the batch size, not by the sum of
        the weights.

        Args:
            losses: Float tensor `(batch,)`. Loss of each example.
            sample_weight: Float tensor `(batch,)` or `None`.
            y, y_pred: Targets and predictions, for the metrics of `compile`.
            additional_losses: List of tensors. Losses of regularizers and of `add_loss`.
            **terms: Float tensors `(batch,)`. Terms of the loss, each with a metric NAME_tracker.

        Returns:
            The scalar loss and a dict of metric results.
        """
        if sample_weight is not None:
            losses = losses * sample_weight
            terms = {name: term * sample_weight for name, term in terms.items()}
        loss = mean_over_replicas(losses)
        if additional_losses:
            added = tf.add_n([ops.sum(ops.cast(x, losses.dtype)) for x in additional_losses])
            loss += tf.nn.scale_regularization_loss(added)
            losses = losses + added
        for name, values in {"loss": losses, **terms}.items():
            getattr(self, f"{name}_tracker").update_state(values)
        try:
            return loss, self.compute_metrics(None, y, y_pred, sample_weight)
        except ValueError as error:
            raise ValueError(
                f"metrics: expected metrics of targets {y.shape} and predictions {y_pred.shape}, "
                f"got an error of one: {error}"
            ) from error


def with_loss_scaling(optimizer, model, name="optimizer"):
    """Return an optimizer or that of a name, with loss scaling if a layer uses float16."""
    optimizer = check_identifier(name, optimizer, keras.optimizers.get, "an optimizer")
    scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    if uses_float16(model) and not scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer


class AdjustableNumberMixin:
    """Mixin with a number that may be set at any time, also by a callback in training.

    It is a variable, which a compiled training step reads anew. It is saved with the weights, but
    is none of them. A subclass gives it a name: `NAME = adjustable_number("NAME")`.
    """

    def create_number(self, value) -> None:
        self.number = tf.Variable(value, trainable=False, dtype="float64")

    def save_own_variables(self, store):
        store["number"] = self.number.numpy()

    def load_own_variables(self, store):
        if "number" in store.keys():  # noqa: SIM118  (a store is no mapping in every Keras)
            self.number.assign(store["number"][()])


def to_number(value):
    """Return the number of a scalar tensor, variable or array; another value unchanged."""
    if isinstance(value, (np.ndarray, keras.Variable, tf.Variable)) or tf.is_tensor(value):
        value = keras.ops.convert_to_numpy(value)
        return value.item() if value.ndim == 0 else value
    return value


def check_scalar(name: str, value, minimum=-math.inf):
    """Return a number, or that of a tensor or variable; see `validation.check_number`."""
    return check_number(name, to_number(value), minimum)


def adjustable_number(name: str, minimum=-math.inf) -> property:
    """Return the property of an `AdjustableNumberMixin`, which refuses a number by its name."""

    def assign(self, value):
        self.number.assign(check_scalar(name, value, minimum))

    return property(lambda self: float(self.number.numpy()), assign)


class SettableFraction:
    """Attribute in [0, 1) of a model, settable at any time: a compiled step is traced anew."""

    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, model, owner=None):
        return self if model is None else model.__dict__.get(self.name)

    def __set__(self, model, value):
        model.__dict__[self.name] = check_fraction(self.name, to_number(value))
        if getattr(model, "train_function", None) is not None:
            model.make_train_function(force=True)


class ValidationMixin:
    """Mixin for a `keras.Model` that checks what is passed to `fit`, `evaluate` and `predict`.

    A subclass defines `check_data(x, y)`, and may define `check_inputs(x)`, for `predict`. Arrays
    are checked as a whole before anything is computed, other sources batch by batch.
    """

    # Keras leaves the dtype policy out of the configuration. It scales the loss by it.

    def get_config(self):
        return {**super().get_config(), "dtype": self.dtype_policy.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        with dtype_policy_scope(config.pop("dtype", None)):
            return super().from_config(config, custom_objects)

    # The build configuration is part of every saved model: it carries the version of the package.

    def get_build_config(self):
        return {**(super().get_build_config() or {}), VERSION_KEY: __version__}

    def build_from_config(self, config):
        super().build_from_config({k: v for k, v in config.items() if k != VERSION_KEY})

    # Training as Keras does it, exact on several replicas.

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        return self.weight_loss(loss, y_pred, sample_weight)

    def weight_loss(self, loss, y_pred, sample_weight=None):
        """Weight the loss of `compile` on a replica; see `replicas.weight_loss`.

        Raises:
            ValueError: for a loss that is no mean over the batch, with several replicas.
        """
        if not in_one_of_several_replicas():
            return loss
        for loss_function in keras.tree.flatten(self.loss):
            reduction = getattr(loss_function, "reduction", "sum_over_batch_size")
            if reduction in ("sum", "none", None):
                raise ValueError(
                    "loss: expected a mean over the batch with several replicas, got the "
                    f"reduction {reduction!r}."
                )
        y_pred = keras.tree.flatten(y_pred)[0]
        num_examples, mask = ops.shape(y_pred)[0], getattr(y_pred, "_keras_mask", None)
        counted = None if mask is None else ops.cast(mask, loss.dtype)
        if reduction == "mean_with_sample_weight" and sample_weight is not None:
            weights = ops.cast(sample_weight, loss.dtype)
            counted = weights if counted is None else counted * weights
        return weight_loss(loss, num_examples, None if counted is None else ops.sum(counted))

    def train_step(self, data):
        if not needs_summed_gradients(self.optimizer):
            return super().train_step(data)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred, sample_weight, training=True)
            scaled_loss = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled_loss, self.trainable_weights)
        apply_gradients(self.optimizer, gradients, self.trainable_weights)
        loss_tracker = next(metric for metric in self.metrics if metric.name == "loss")
        loss_tracker.update_state(loss * num_replicas(), sample_weight=ops.shape(y_pred)[0])
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def check_inputs(self, x) -> None:
        """Raise ValueError unless x is valid for `predict`."""

    def check_sample_weight(self, sample_weight, x, y) -> None:
        """Raise ValueError unless there is one weight for each example."""
        check_sample_weight(sample_weight, (len(keras.tree.flatten(x)[0]),))

    def _check_batch(self, x, y=None, sample_weight=None):
        self.check_data(x, y)
        if sample_weight is not None:
            self.check_sample_weight(sample_weight, x, y)

    def _prepare(self, check, x, y=None, sample_weight=None):
        """Check arrays, or let a source be checked; return the arguments for Keras."""
        if x is not None and not is_array(x):
            return check.apply(x), y, sample_weight
        if x is not None:
            check.check(x, y, sample_weight)
        if sample_weight is not None:
            x, y, sample_weight = fill_missing_targets((x, y, sample_weight))
        return x, y, sample_weight

    def fit(
        self, x=None, y=None, batch_size=None, epochs=1, verbose="auto", callbacks=None,
        validation_split=0.0, validation_data=None, shuffle=True, class_weight=None,
        sample_weight=None, **kwargs,
    ):  # fmt: skip
        """Train the model; see `keras.Model.fit`.

        Raises:
            ValueError: for invalid data, see the class, for a frozen model, and, with several
                replicas, for `steps_per_execution` above 1 and for `jit_compile=True` on CPUs.
        """
        check_compile_options(self)
        if not self.trainable_weights:
            raise ValueError(f"{self.name}: expected trainable weights, got a frozen model.")
        if class_weight is not None and is_array(x) and y is None:
            raise ValueError("class_weight: expected None without labels.")
        check = BatchCheck(self._check_batch)
        if isinstance(validation_data, (list, tuple)):
            validation_data = self._prepare(check, *validation_data)
        elif validation_data is not None:
            validation_data = check.apply(validation_data)
        x, y, sample_weight = self._prepare(check, x, y, sample_weight)
        with check.reraise():
            return super().fit(
                x, y, batch_size, epochs, verbose, callbacks, validation_split, validation_data,
                shuffle, class_weight, sample_weight, **kwargs,
            )  # fmt: skip

    def evaluate(
        self, x=None, y=None, batch_size=None, verbose="auto", sample_weight=None, **kwargs
    ):
        """Evaluate the model; see `keras.Model.evaluate`.

        Raises:
            ValueError: for invalid data; see the class.
        """
        check_compile_options(self)
        check = BatchCheck(self._check_batch)
        if not kwargs.get("_use_cached_eval_dataset"):  # in `fit`, which has checked the data
            x, y, sample_weight = self._prepare(check, x, y, sample_weight)
        with check.reraise():
            return super().evaluate(x, y, batch_size, verbose, sample_weight, **kwargs)

    def predict(self, x, *args, **kwargs):
        check = BatchCheck(lambda x, y, sample_weight: self.check_inputs(x))
        x, _, _ = self._prepare(check, x)
        with check.reraise():
            outputs = super().predict(x, *args, **kwargs)
        # Each replica has predicted a last batch of fewer rows than replicas.
        return self._predicted_once(x, outputs)

    def train_on_batch(self, x, y=None, sample_weight=None, **kwargs):
        self._check_batch(x, y, sample_weight)
        return super().train_on_batch(x, y, sample_weight, **kwargs)

    def test_on_batch(self, x, y=None, sample_weight=None, **kwargs):
        self._check_batch(x, y, sample_weight)
        return super().test_on_batch(x, y, sample_weight, **kwargs)

    def predict_on_batch(self, x):
        self.check_inputs(x)
        return self._predicted_once(x, super().predict_on_batch(x))  # by each replica

    def _predicted_once(self, x, outputs):
        """Return as many rows of predictions as x has, if these are arrays."""
        if self.distribute_strategy.num_replicas_in_sync == 1 or not is_array(x):
            return outputs
        num_rows = len(keras.tree.flatten(x)[0])
        return keras.tree.map_structure(lambda output: output[:num_rows], outputs)


class ValidatedModel(ValidationMixin, keras.Model):
    """A functional `keras.Model` with the checks of `ValidationMixin`.

    Raises:
        TypeError: for a constructor argument that does not exist. Keras would ignore it.
    """

    # With this signature, Keras takes a subclass for functional, and clones and loads it as such.
    def __init__(self, *args, **kwargs):
        if unknown := set(kwargs) - {"inputs", "outputs", "name", "trainable"}:
            raise TypeError(
                f"{type(self).__name__}: unexpected arguments {', '.join(sorted(unknown))}."
            )
        super().__init__(*args, **kwargs)


@keras.saving.register_keras_serializable(package="keras_genai")
class ImageModel(ValidatedModel):
    """A functional model of images that validates its images and labels."""

    @property
    def image_shape(self) -> tuple:
        return tuple(self.inputs[0].shape[1:])

    def check_inputs(self, x):
        x, labels = (*x, None)[:2] if isinstance(x, (list, tuple)) else (x, None)
        check_images("x", x, self.image_shape)
        check_labels(labels, count_classes(self), len(x))

    def check_data(self, x, y):
        """Raise ValueError unless the arrays are valid for `fit(x, y)` or `fit([x, labels], y)`.

        Targets of the images' own shape are validated as images, integers `(n,)` as class labels.
        """
        self.check_inputs(x)
        if y is None:
            raise ValueError("y: expected targets, got None.")
        if self.outputs[0].shape[1:] == self.image_shape:
            check_images("y", y, self.image_shape)
        elif np.ndim(y) == 1:
            num_samples = len(keras.tree.flatten(x)[0])
            check_labels(y, self.outputs[0].shape[-1], num_samples)


class GenerativeImageModel(ImageModel):
    """An image model trained by `fit(x)`, or by `fit(x, labels)` if it is conditional."""

    def check_data(self, x, labels=None):
        check_images("x", x, self.image_shape)
        check_labels(labels, self.num_classes, len(x))

    def unpack(self, data):
        """Return images and sample weights `(batch,)` of a batch as floats, labels as integers."""
        x, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        x = ops.cast(x, keras.config.floatx())
        labels = None if self.num_classes is None else ops.cast(labels, "int32")
        if sample_weight is not None:
            sample_weight = ops.reshape(ops.cast(sample_weight, x.dtype), (-1,))
        return x, labels, sample_weight
