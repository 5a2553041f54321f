"""Export of a trained recipe in the format of `pretrained`: weights of half precision, metadata."""

import hashlib
import io
import json
import math
import pathlib

import h5py
import keras
import numpy as np

from keras_genai import pretrained, saving
from keras_genai.catalog import RECIPES
from keras_genai.experiments import EXPERIMENTS
from keras_genai.recipes import create
from keras_genai.runs import RunFolder, atomic_write
from keras_genai.validation import check_size


def export_weights(run_folder, output_folder, steps_per_deviation: int | None = None) -> None:
    """Export a finished run in the format of `pretrained`: half-precision weights and metadata.

    The metrics are measured again on the exported model.

    Args:
        run_folder: Path of a run folder of a finished training.
        output_folder: Path of the folder to write NAME.weights.h5 and NAME.json to.
        steps_per_deviation: Int or `None`. If not `None`, weights of two or more axes are rounded
            to multiples of a power of two, the largest one that fits so often into their standard
            deviation, and HDF5 compresses the file, to about half its size. Defaults to `None`.

    Raises:
        ValueError: if there is no finished run, or if its settings are damaged.
    """
    run, output_folder = RunFolder(run_folder), pathlib.Path(output_folder)
    info = run.read_settings()
    if info is None or not run.model_path.exists():
        raise ValueError(f"{run.path}: expected the folder of a finished run, found none.")
    for key in ("num_examples", "dataset_info"):
        if key not in info:
            raise ValueError(f"{run.settings_path}: {key}: expected that of a finished run.")
    name, dataset_info = info["name"], info.pop("dataset_info")
    trained = saving.load_model(run.model_path)
    export_model(name, trained, info, dataset_info, output_folder, steps_per_deviation)


def export_model(
    name,
    trained,
    info: dict,
    dataset_info: dict,
    output_folder,
    steps_per_deviation: int | None = None,
) -> None:
    """Export a trained model of a recipe; see `export_weights`.

    Args:
        name: String. Name of the recipe.
        trained: `keras.Model`. Trained model, whose weights are exported.
        info: Dict. Metadata to write beside the weights.
        dataset_info: Dict. Arguments of the recipe's builder; see `tasks.Data`.
        output_folder: Path of the folder to write to.
        steps_per_deviation: See `export_weights`. Defaults to `None`.

    Raises:
        ValueError: for a `steps_per_deviation` below 1.
    """
    if steps_per_deviation is not None:
        steps_per_deviation = check_size("steps_per_deviation", steps_per_deviation)
    task = EXPERIMENTS[name].task
    steps = info["epochs"] * math.ceil(info["num_examples"] / info["batch_size"])
    model = create(name, 0, steps, **dataset_info)
    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_dtype_policy("float16")
    keras.config.set_floatx("float16")  # of the output layers
    try:
        half_precision = EXPERIMENTS[name].build(0, **dataset_info)
    finally:
        keras.config.set_dtype_policy(policy)
        keras.config.set_floatx(floatx)
    half_precision.set_weights(trained.get_weights())

    output_folder.mkdir(parents=True, exist_ok=True)
    path = pretrained.weights_path(output_folder, name)
    half_precision.save_weights(path)
    if steps_per_deviation is not None:
        _compress(path, steps_per_deviation)
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


def _compress(path, steps_per_deviation: int) -> None:
    """Round and compress a file of weights; see `export_weights`."""
    compression = {"compression": "gzip", "compression_opts": 9, "shuffle": True}
    with h5py.File(io.BytesIO(path.read_bytes())) as source, h5py.File(path, "w") as target:

        def copy(name, item):
            if isinstance(item, h5py.Group):
                target.require_group(name).attrs.update(item.attrs)
                return
            weights, options = item[()], {}
            if weights.ndim > 1 and np.issubdtype(weights.dtype, np.floating):
                options, step = compression, 1.0
                if (deviation := weights.std(dtype="float32")) > 0:
                    step = 2.0 ** np.floor(np.log2(deviation / steps_per_deviation))
                weights = (np.round(weights.astype("float32") / step) * step).astype(weights.dtype)
            target.create_dataset(name, data=weights, **options).attrs.update(item.attrs)

        target.attrs.update(source.attrs)
        source.visititems(copy)
