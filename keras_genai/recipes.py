"""Training of the recipes: `train(name)` returns the model, its history and its metrics."""

import hashlib
import json
import math
import pathlib
import time
import typing

import keras
import tensorflow as tf
from keras.optimizers import schedules

from keras_genai import catalog, pretrained, saving
from keras_genai.callbacks import AtomicModelCheckpoint, RaiseOnNaN
from keras_genai.catalog import RECIPES
from keras_genai.experiments import EXPERIMENTS
from keras_genai.plotting import plot_history
from keras_genai.runs import RunFolder, atomic_write, describe_environment, merge_settings
from keras_genai.validation import check_size

__all__ = [
    "RECIPES",
    "Training",
    "TrainingResult",
    "create",
    "export_weights",
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
    folder=None,
    resume: bool = False,
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
        folder: Path of the run folder, or `None` to write no files. Defaults to `None`.
        resume: Bool. Whether to resume the run in the folder after its last whole epoch. Defaults
            to `False`.
        verbose: Verbosity of `fit`: `"auto"`, `0`, `1` or `2`. Defaults to `"auto"`.

    Returns:
        A `TrainingResult` of model, history and metrics.

    Raises:
        ValueError: for invalid options or data.
        FloatingPointError: if a loss becomes NaN or infinite.

    Example:
        model, history, metrics = recipes.train("article4-vae", epochs=1)
    """
    training = prepare(
        name,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        data=data,
        folder=folder,
        resume=resume,
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
    folder=None,
    resume: bool = False,
    command: str | None = None,
) -> "Training":
    """Check the options, load the data and create or load the model of a training run.

    Args:
        name, epochs, batch_size, seed, data, folder, resume: See `train`.
        command: String or `None`. Command line to record in `run.json`. Defaults to `None`.

    Returns:
        A `Training`.

    Raises:
        ValueError: for an unknown recipe, for a number out of range, for options that contradict
            the run in the folder, and for data that the recipe cannot use.
        OSError: if the folder cannot be written.
    """
    recipe = catalog.find(name)
    task = EXPERIMENTS[name].task
    if data is not None and data not in task.named_sources:
        data = str(pathlib.Path(data).resolve())
    run = None if folder is None else RunFolder(folder)
    requested = {
        "epochs": None if epochs is None else check_size("epochs", epochs),
        "batch_size": None if batch_size is None else check_size("batch_size", batch_size),
        "seed": None if seed is None else check_size("seed", seed, minimum=0),
        "data": data,
        "command": command,
    }
    settings = merge_settings(recipe, requested, run, resume)
    loaded = task.load(settings["data"])
    _check_same_data(settings, loaded, task)

    steps_per_epoch = math.ceil(settings["num_examples"] / settings["batch_size"])
    if resume and run is not None and run.model_path.exists():
        model = saving.load_model(run.model_path)
        first_epoch = int(model.optimizer.iterations) // steps_per_epoch
        settings["epochs"] = max(settings["epochs"], first_epoch)
        reset_decay_steps(model.optimizer, settings["epochs"] * steps_per_epoch)
    else:
        steps = settings["epochs"] * steps_per_epoch
        model = create(name, settings["seed"], steps, **loaded.dataset_info)
        first_epoch = 0
    settings |= describe_environment()
    settings.pop("value", None)
    if run is not None:
        run.start(settings, first_epoch)
    return Training(recipe, task, loaded, model, settings, first_epoch, run)


def _check_same_data(settings: dict, data, task) -> None:
    """Record the number of examples and the dataset_info, or compare those of a resumed run."""
    if settings.setdefault("num_examples", data.num_examples) != data.num_examples:
        raise ValueError(
            f"{settings['data']}: the run was started with {settings['num_examples']} "
            f"{task.example_unit}, got {data.num_examples}."
        )
    if settings.setdefault("dataset_info", data.dataset_info) != data.dataset_info:
        raise ValueError(
            f"{settings['data']}: the run was started with other {', '.join(data.dataset_info)}."
        )


class Training:
    """One training run, from `prepare`.

    Attributes:
        recipe: `catalog.Recipe`.
        task: `tasks.Task`.
        data: `tasks.Data`.
        model: `keras.Model`.
        settings: Dict. Contents of `run.json`.
        first_epoch: Int. Number of epochs that the model was already trained for.
        run: `RunFolder`, or `None` if no files are written.
        history: Dict. A list of values per metric, after `fit`.
        metrics: Dict. Metrics of the test data, after `evaluate`.
    """

    def __init__(self, recipe, task, data, model, settings, first_epoch, run):
        self.recipe, self.task, self.data, self.model = recipe, task, data, model
        self.settings, self.first_epoch, self.run = settings, first_epoch, run
        self.history, self.metrics = {}, {}

    def fit(self, verbose="auto") -> dict:
        """Train to the last epoch, saving the model after each one, and return the history.

        Args:
            verbose: `"auto"`, `0` for no output, `1` for a progress bar, `2` for a line per epoch.
                Defaults to `"auto"`.

        Raises:
            FloatingPointError: if a loss becomes NaN or infinite.
        """
        settings = self.settings
        epoch = tf.Variable(self.first_epoch, dtype=tf.int64)
        set_epoch = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda index, logs: epoch.assign(index)
        )
        callbacks, logger = [set_epoch, RaiseOnNaN()], None
        if self.run is not None:
            logger = keras.callbacks.CSVLogger(self.run.history_path, append=True)
            callbacks += [
                logger,
                AtomicModelCheckpoint(self.run.model_path),
                *self.task.callbacks(self.run.samples_dir, self.model),
            ]
        start_time = time.monotonic()
        try:
            history = self.model.fit(
                self.task.train_dataset(self.data, settings["batch_size"], settings["seed"], epoch),
                epochs=settings["epochs"],
                initial_epoch=self.first_epoch,
                shuffle=False,  # the dataset shuffles
                callbacks=callbacks,
                verbose=verbose,
                **self.task.validation_data(self.data),
            )
        finally:
            if logger is not None and logger.csv_file is not None:
                logger.csv_file.close()  # Keras closes it only if training is not interrupted
        minutes = (time.monotonic() - start_time) / 60
        settings["minutes"] = round(settings["minutes"] + minutes, 1)
        self.history = history.history if self.run is None else self.run.read_history()
        if self.run is not None:
            plot_history(self.history).savefig(self.run.path / "history.png")
            self.task.save_samples(self.model, self.data, self.run.path)
        return self.history

    def evaluate(self) -> dict:
        """Measure the test data, record the metrics in the run folder, and return them."""
        self.metrics = {"value": None}
        if not self.task.needs_classifier or self.data.classifier is not None:
            self.metrics = self.task.evaluate(self.model, self.data)
        if self.run is not None:
            self.settings |= {"metric": self.recipe.metric, **self.metrics}
            self.run.write_settings(self.settings)
        return self.metrics


def reset_decay_steps(optimizer, steps: int) -> None:
    """Make a decaying learning rate end after `steps`, the number of steps requested now."""
    learning_rate = optimizer.get_config()["learning_rate"]
    if isinstance(learning_rate, dict) and learning_rate["config"].get("decay_steps"):
        learning_rate["config"]["decay_steps"] = steps
        optimizer.learning_rate = schedules.deserialize(learning_rate)


def export_weights(run_folder, output_folder) -> None:
    """Export a finished run in the format of `pretrained`: half-precision weights and metadata.

    The metrics are measured again on the exported model.

    Args:
        run_folder: Path of a run folder of a finished training.
        output_folder: Path of the folder to write NAME.weights.h5 and NAME.json to.

    Raises:
        ValueError: if there is no finished run.
    """
    run, output_folder = RunFolder(run_folder), pathlib.Path(output_folder)
    info = run.read_settings()
    if info is None or not run.model_path.exists():
        raise ValueError(f"{run.path}: expected the folder of a finished run, found none.")
    name, dataset_info = info["name"], info.pop("dataset_info")
    trained = saving.load_model(run.model_path)
    export_model(name, trained, info, dataset_info, output_folder)


def export_model(name, trained, info: dict, dataset_info: dict, output_folder) -> None:
    """Export a trained model of a recipe; see `export_weights`.

    Args:
        name: String. Name of the recipe.
        trained: `keras.Model`. Trained model, whose weights are exported.
        info: Dict. Metadata to write beside the weights.
        dataset_info: Dict. Arguments of the recipe's builder; see `tasks.Data`.
        output_folder: Path of the folder to write to.
    """
    task = EXPERIMENTS[name].task
    steps = info["epochs"] * math.ceil(info["num_examples"] / info["batch_size"])
    model = create(name, 0, steps, **dataset_info)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float16")
    try:
        half_precision = EXPERIMENTS[name].build(0, **dataset_info)
    finally:
        keras.config.set_dtype_policy(policy)
    half_precision.set_weights(trained.get_weights())

    output_folder.mkdir(parents=True, exist_ok=True)
    path = pretrained.weights_path(output_folder, name)
    half_precision.save_weights(path)
    architecture = saving.serialize_architecture(model)
    exported = saving.restore_model(architecture, path)
    info = {
        **info,
        "metric": RECIPES[name].metric,
        **task.evaluate(exported, task.load()),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "model": architecture,
    }
    atomic_write(output_folder / f"{name}.json", json.dumps(info, indent=1) + "\n")
