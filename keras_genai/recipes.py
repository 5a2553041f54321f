"""Training of the recipes: `train(name)` returns the model, its history and its metrics."""

import math
import os
import time
import typing

import keras
import tensorflow as tf
from keras.optimizers import schedules

from keras_genai import catalog, distribution, saving
from keras_genai.callbacks import AtomicModelCheckpoint, RaiseOnNaN, SampleGrid, save_figure
from keras_genai.catalog import RECIPES
from keras_genai.experiments import EXPERIMENTS
from keras_genai.files import to_path
from keras_genai.layer_state import dtype_policy_scope
from keras_genai.plotting import plot_history
from keras_genai.runs import (
    DTYPES,
    RunFolder,
    check_keras_settings,
    check_same_data,
    describe_environment,
    merge_settings,
)
from keras_genai.validation import check_bools, check_choice, check_size

__all__ = [
    "RECIPES",
    "Training",
    "TrainingResult",
    "create",
    "prepare",
    "reset_decay_steps",
    "train",
]


class TrainingResult(typing.NamedTuple):
    """Result of `train`.

    Attributes:
        model: `keras.Model`. The trained model.
        history: Dict. A list of values per metric, one value per epoch.
        metrics: Dict. Metrics of the test data; `"value"` is the recipe's metric, `None` if it was
            not measured.
    """

    model: keras.Model
    history: dict
    metrics: dict


def create(name: str, seed: int = 0, steps: int = 1, **dataset_info) -> keras.Model:
    """Build and compile the model of a recipe.

    Args:
        name: String. Name of the recipe.
        seed: Int. Seed of the weights and of the model's noise. Defaults to `0`.
        steps: Int. Number of training steps, for a learning rate that decays. Defaults to `1`.
        **dataset_info: What the builder takes from the data; see `tasks.Data`.

    Returns:
        A compiled `keras.Model`.

    Raises:
        ValueError: for an unknown recipe.
    """
    experiment = EXPERIMENTS[catalog.find(name).name]
    seed, steps = check_size("seed", seed, 0, 2**32 - 1), check_size("steps", steps)
    keras.utils.set_random_seed(seed)
    model = experiment.build(seed, **dataset_info)
    experiment.compile(model, steps)
    return model


def train(
    name: str,
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    data=None,
    image_size: int | None = None,
    channels: int | None = None,
    folder=None,
    resume: bool = False,
    cache=None,
    distribute=None,
    dtype: str | None = None,
    jit_compile: bool | None = None,
    verbose="auto",
) -> TrainingResult:
    """Train a recipe, and measure it on its test data.

    Args:
        name: String. Name of the recipe.
        epochs: Int or `None`. Number of epochs; `None` uses the recipe's. Defaults to `None`.
        batch_size: Int or `None`. Batch size; `None` uses the recipe's. Defaults to `None`.
        seed: Int or `None`. Seed of weights, order and noise; `None` is 0. Defaults to `None`.
        data: Path of the user's own data, the name of an included dataset, or `None` for the
            recipe's dataset. Defaults to `None`.
        image_size, channels: Ints or `None`. Height and width to which the user's images are
            resized, and 1 for gray or 3 for RGB pixels; see `tasks.ImageTask.load`. `None` is 28
            and 1. Defaults to `None`.
        folder: Path of the run folder, or `None` to write no files. Defaults to `None`.
        resume: Bool. Whether to resume the run in the folder after its last whole epoch. On the
            same machine, with the same number of threads, it ends with the weights of a run that
            was not interrupted. The number of workers may change. Defaults to `False`.
        cache: Path of a folder for the decoded data, if the data is streamed, or `None`. See
            `streaming`. Defaults to `None`.
        distribute: `None` for one device; `"mirrored"`, `"multi-worker"` or `"auto"`, see
            `distribution.strategy`; or a `tf.distribute.Strategy`. The batch size is that of all
            replicas together. Of several workers, the first prints, measures and writes; the
            folder must be one that all can read. Defaults to `None`.
        dtype: `"float32"`, `"mixed_float16"` or `"mixed_bfloat16"`, the dtype policy of the model;
            `None` is `"float32"`. Defaults to `None`.
        jit_compile: Bool or `None`. Whether to compile the training step with XLA; `None` is the
            recipe's choice on one replica, and `False` on several. Defaults to `None`.
        verbose: Verbosity of `fit`: `"auto"`, `0`, `1` or `2`. Defaults to `"auto"`.

    Returns:
        A `TrainingResult` of model, history and metrics.

    Raises:
        ValueError: for invalid options or data.
        FloatingPointError: if training diverges; see `callbacks.RaiseOnNaN`.
        OSError: if the folder cannot be written.
        TimeoutError, cluster.LostWorkerError: if another worker does not start, or has ended.

    Example:
        model, history, metrics = recipes.train("article4-vae", epochs=1)
    """
    check_choice("verbose", verbose, ("auto", 0, 1, 2))
    training = prepare(
        name,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        data=data,
        image_size=image_size,
        channels=channels,
        folder=folder,
        resume=resume,
        cache=cache,
        distribute=distribute,
        dtype=dtype,
        jit_compile=jit_compile,
    )
    training.fit(verbose)
    training.evaluate()
    return TrainingResult(training.model, training.history, training.metrics)


def prepare(
    name: str,
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    data=None,
    image_size: int | None = None,
    channels: int | None = None,
    folder=None,
    resume: bool = False,
    cache=None,
    distribute=None,
    dtype: str | None = None,
    jit_compile: bool | None = None,
    command: str | None = None,
) -> "Training":
    """Check the options, load the data and create or load the model of a training run.

    Args:
        name, epochs, batch_size, seed, data, image_size, channels, folder, resume, cache,
        distribute, dtype, jit_compile: See `train`.
        command: String or `None`. Command line to record in `run.json`. Defaults to `None`.

    Returns:
        A `Training`.

    Raises:
        ValueError: for an unknown recipe, for a number out of range, for options or data that
            contradict the run in the folder, for a damaged run, for another run that trains in the
            folder, and for data that the recipe cannot use.
        OSError: if the folder cannot be written.
    """
    recipe = catalog.find(name)
    task = EXPERIMENTS[name].task
    for argument, path in {"data": data, "folder": folder, "cache": cache}.items():
        if path is not None and not isinstance(path, (str, os.PathLike)):
            raise ValueError(f"{argument}: expected a path or None, got {path!r:.200}.")
    check_bools(resume=resume)
    if jit_compile is not None:
        check_bools(jit_compile=jit_compile)
    if dtype is not None:
        check_choice("dtype", dtype, DTYPES)
    if data is not None and data not in task.named_sources:
        data = str(to_path(data).resolve())
    check_keras_settings()
    requested = {
        "epochs": None if epochs is None else check_size("epochs", epochs),
        "batch_size": None if batch_size is None else check_size("batch_size", batch_size),
        "seed": None if seed is None else check_size("seed", seed, 0, 2**32 - 1),
        "data": data,
        "image_size": image_size,
        "channels": channels,
        "dtype": dtype,
        "jit_compile": jit_compile,
        "command": command,
    }
    strategy = distribution.to_strategy(distribute)
    run = None if folder is None else RunFolder(folder)
    try:
        if (
            run is not None
            and distribution.is_first_worker(strategy)
            and run.settings_path.exists()
        ):
            run.lock()  # before its settings and its model are read
        with distribution.reraise_lost_worker():
            return _prepare(recipe, task, requested, run, resume, cache, strategy)
    except BaseException:
        if run is not None:
            run.unlock()
        raise


def _prepare(
    recipe, task, requested: dict, run: RunFolder | None, resume: bool, cache, strategy
) -> "Training":
    settings = merge_settings(recipe, requested, run, resume)
    loaded = task.load_run(settings, cache)
    if run is not None:
        check_same_data(settings, loaded, task)
    settings |= {"num_examples": loaded.num_examples, "dataset_info": loaded.dataset_info}

    steps_per_epoch = math.ceil(settings["num_examples"] / settings["batch_size"])
    steps = settings["epochs"] * steps_per_epoch
    first_epoch = 0
    resumed = resume and run is not None and run.model_path.exists()
    if isinstance(strategy, distribution.MultiWorkerStrategy):
        names = ("name", "epochs", "batch_size", "seed", "dtype", "jit_compile", "data_sha256")
        strategy.check_agreement(**{key: settings.get(key) for key in names}, resume=resumed)
    # Several workers make a variable together: all have read the folder before the first writes.
    with strategy.scope():
        with dtype_policy_scope(settings["dtype"]):
            model = create(recipe.name, settings["seed"], steps, **loaded.dataset_info)
        if model.dtype_policy.name != settings["dtype"]:
            raise ValueError(
                f"dtype: expected {model.dtype_policy.name!r}, that of the pretrained model, "
                f"got {settings['dtype']!r}."
            )
        if resumed and run is not None:
            model, first_epoch = _load_trained(run, model, steps_per_epoch)
            settings["epochs"] = max(settings["epochs"], first_epoch)
            reset_decay_steps(model.optimizer, settings["epochs"] * steps_per_epoch)
    if isinstance(strategy, distribution.MultiWorkerStrategy):
        strategy.check_agreement(first_epoch=first_epoch)
    if strategy.num_replicas_in_sync > 1:  # see `replicas.check_compile_options`
        model.steps_per_execution, model.jit_compile = 1, False
    if settings["jit_compile"] is not None:
        model.jit_compile = settings["jit_compile"]
    settings |= describe_environment()
    settings["replicas"] = strategy.num_replicas_in_sync
    settings.pop("value", None)
    if not distribution.is_first_worker(strategy):
        run = None  # the first worker writes
    if run is not None:
        run.start(settings, first_epoch)
    return Training(recipe, task, loaded, model, settings, first_epoch, run, strategy)


def _load_trained(run: RunFolder, new_model, steps_per_epoch: int):
    """Return the model of a resumed run and its number of epochs.

    Raises:
        ValueError: for a model that is not that of the recipe and its data, or was not trained for
            whole epochs of the batch size in `run.json`.
    """
    model = saving.load_model(run.model_path)
    shapes = [[tuple(weight.shape) for weight in m.weights] for m in (model, new_model)]
    if type(model) is not type(new_model) or shapes[0] != shapes[1]:
        raise ValueError(f"{run.model_path}: expected the model of the run, got another one.")
    if model.optimizer is None:
        raise ValueError(f"{run.model_path}: expected a compiled model, got one without optimizer.")
    num_steps = int(keras.ops.convert_to_numpy(model.optimizer.iterations))
    num_epochs = math.ceil(num_steps / steps_per_epoch)
    # Loss scaling skips the few steps whose gradients overflow in float16.
    skips = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    if num_steps == 0 or (num_steps % steps_per_epoch and not skips):
        raise ValueError(
            f"{run.settings_path}: batch_size: expected that of the model, which was trained for "
            f"{num_steps} steps, got one of {steps_per_epoch} steps per epoch."
        )
    return model, num_epochs


class Training:
    """One training run, from `prepare`.

    Attributes:
        recipe: `catalog.Recipe`.
        task: `tasks.Task`.
        data: `tasks.Data`.
        model: `keras.Model`.
        settings: Dict. Contents of `run.json`.
        first_epoch: Int. Number of epochs that the model was already trained for.
        run: `RunFolder`, or `None` if no files are written: by other workers than the first.
        strategy: `tf.distribute.Strategy`, by default the current one.
        history: Dict. A list of values per metric, after `fit`.
        metrics: Dict. Metrics of the test data, after `evaluate`.
    """

    def __init__(self, recipe, task, data, model, settings, first_epoch, run, strategy=None):
        strategy = tf.distribute.get_strategy() if strategy is None else strategy
        self.recipe, self.task, self.data, self.model = recipe, task, data, model
        self.settings, self.first_epoch, self.run = settings, first_epoch, run
        self.strategy, self.is_first = strategy, distribution.is_first_worker(strategy)
        self.history, self.metrics = {}, {}

    def fit(self, verbose="auto") -> dict:
        """Train to the last epoch, saving the model after each one, and return the history.

        Args:
            verbose: `"auto"`, `0` for no output, `1` for a progress bar, `2` for a line per epoch.
                Defaults to `"auto"`.

        Raises:
            FloatingPointError: if training diverges; see `callbacks.RaiseOnNaN`.
            OSError: if a file of the run cannot be written. The last good model is kept.
            cluster.LostWorkerError: if another worker has ended.
        """
        settings, run = self.settings, self.run
        epoch = tf.Variable(self.first_epoch, dtype=tf.int64)
        set_epoch = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda index, logs: epoch.assign(index)
        )
        callbacks = [set_epoch, RaiseOnNaN()]
        if run is not None:
            # The model follows the history, of which a resumed run drops what the model lacks.
            callbacks += [
                keras.callbacks.LambdaCallback(on_epoch_end=run.append_history),
                AtomicModelCheckpoint(run.model_path),
                keras.callbacks.LambdaCallback(on_epoch_end=self._write_minutes),
                *self.task.callbacks(run.samples_dir, self.model),
            ]
        self._start_time, self._minutes_before = time.monotonic(), settings["minutes"]
        try:
            if self.first_epoch > 0:
                for callback in callbacks:
                    if isinstance(callback, SampleGrid):
                        callback.set_model(self.model)
                        callback.write_missing(self.first_epoch)
            with distribution.reraise_lost_worker():
                history = self.model.fit(
                    self._train_dataset(epoch),
                    epochs=settings["epochs"],
                    initial_epoch=self.first_epoch,
                    shuffle=False,  # the dataset shuffles
                    callbacks=callbacks,
                    verbose=verbose if self.is_first else 0,
                    **self.task.validation_data(self.data),
                )
            self.history = history.history if run is None else run.read_history()
            if run is not None:
                if self.history:
                    save_figure(plot_history(self.history), run.path / "history.png")
                self.task.save_samples(self._local_model(), self.data, run.path)
        except BaseException:
            self._unlock()
            raise
        return self.history

    def _train_dataset(self, epoch):
        arguments = self.data, self.settings["batch_size"], self.settings["seed"], epoch
        if self.strategy.num_replicas_in_sync == 1:
            return self.task.train_dataset(*arguments)
        # A worker gathers, or reads, the examples of its own replicas only.
        return self.strategy.distribute_datasets_from_function(
            lambda input_context: self.task.train_dataset(*arguments, input_context)
        )

    def _local_model(self):
        """Return the model without communication, for what the first worker does alone."""
        if not isinstance(self.strategy, distribution.MultiWorkerStrategy):
            return self.model
        settings = self.settings
        with dtype_policy_scope(settings["dtype"]):
            model = create(self.recipe.name, settings["seed"], **settings["dataset_info"])
        model.set_weights(self.model.get_weights())
        return model

    def _write_minutes(self, epoch=None, logs=None):
        """Write the time of training after each epoch: that of a run that is killed counts."""
        minutes = (time.monotonic() - self._start_time) / 60
        self.settings["minutes"] = round(self._minutes_before + minutes, 2)
        self.run.write_settings(self.settings)

    def _unlock(self):
        if self.run is not None:
            self.run.unlock()

    def evaluate(self) -> dict:
        """Measure the test data, record the metrics in the run folder, and return them.

        Of several workers, the first one measures; the others return no value.

        Raises:
            cluster.LostWorkerError: if another worker has ended.
        """
        self.metrics = {"value": None}
        measurable = not self.task.needs_classifier or self.data.classifier is not None
        try:
            if measurable and self.is_first:
                self.metrics = self.task.evaluate(self._local_model(), self.data)
            if self.run is not None:
                self.settings |= {"metric": self.recipe.metric, **self.metrics}
                self.run.write_settings(self.settings)
            if isinstance(self.strategy, distribution.MultiWorkerStrategy):
                with distribution.reraise_lost_worker():
                    self.strategy.barrier()  # a worker that ended would end the others
        finally:
            self._unlock()
        return self.metrics


def reset_decay_steps(optimizer, steps: int) -> None:
    """Make a decaying learning rate end after `steps`, the number of steps requested now."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # of a LossScaleOptimizer
    learning_rate = optimizer.get_config()["learning_rate"]
    if isinstance(learning_rate, dict) and learning_rate["config"].get("decay_steps"):
        learning_rate["config"]["decay_steps"] = steps
        optimizer.learning_rate = schedules.deserialize(learning_rate)
