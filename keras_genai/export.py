"""Export of a trained recipe in the format of `pretrained`: weights of half precision, metadata."""

import hashlib
import json
import math
import pathlib

import keras

from keras_genai import pretrained, saving
from keras_genai.catalog import RECIPES
from keras_genai.experiments import EXPERIMENTS
from keras_genai.recipes import create
from keras_genai.runs import RunFolder, atomic_write


def export_weights(run_folder, output_folder) -> None:
    """Export a finished run in the format of `pretrained`: half-precision weights and metadata.

    The metrics are measured again on the exported model.

    Args:
        run_folder: Path of a run folder of a finished training.
        output_folder: Path of the folder to write NAME.weights.h5 and NAME.json to.

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
