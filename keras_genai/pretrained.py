"""The weights that ship in `data/weights/`, in half precision, and the record beside each."""

import hashlib
import json
import pathlib

from keras_genai import datasets
from keras_genai.recipes import RECIPES


def names() -> list[str]:
    """Return the names of the recipes whose weights ship."""
    return sorted(path.stem for path in _folder().glob("*.json"))


def record(name: str) -> dict:
    """Return what is known of shipped weights: command, seed, versions, minutes, figure, sha256.

    Raises:
        ValueError: if no weights ship under this name.
    """
    if name not in names():
        raise ValueError(f"{name}: expected a name with shipped weights: {', '.join(names())}.")
    path = _folder() / f"{name}.json"
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: cut short or altered ({error}).") from error


def load(name: str):
    """Return the model of a recipe with its shipped weights, compiled as the recipe compiles it.

    Raises:
        ValueError: if no weights ship under this name, or if their file was cut short or altered.
        FileNotFoundError: if their file is missing.
    """
    path = datasets.check_file(_weights(_folder(), name), record(name)["sha256"])
    settings = record(name)
    return _read(RECIPES[name], path, settings)


def ship(run, folder) -> None:
    """Make weights that ship out of a finished training, and measure them as they will be read.

    Args:
        run: folder that `train` wrote.
        folder: to write <name>.weights.h5, in half precision, and its record <name>.json to.
    """
    import keras

    from keras_genai import load_model

    run, folder = pathlib.Path(run), pathlib.Path(folder)
    settings = json.loads((run / "run.json").read_text())
    recipe, facts = RECIPES[settings["name"]], settings["facts"]
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float16")
    try:
        halved = recipe.build(0, **facts)
    finally:
        keras.config.set_dtype_policy(policy)
    halved.set_weights(load_model(run / "model.keras").get_weights())

    folder.mkdir(parents=True, exist_ok=True)
    path = _weights(folder, recipe.name)
    halved.save_weights(path)
    settings |= recipe.task.measure(_read(recipe, path, settings), recipe.task.load())
    settings["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / f"{recipe.name}.json").write_text(json.dumps(settings, indent=2) + "\n")


def _read(recipe, path: pathlib.Path, settings: dict):
    model = recipe.build(0, **settings["facts"])
    model.load_weights(path)  # before compiling: the file has no optimizer
    recipe.compile(model, recipe.count_steps(settings))
    return model


def _folder() -> pathlib.Path:
    return datasets.data_folder() / "weights"


def _weights(folder: pathlib.Path, name: str) -> pathlib.Path:
    return folder / f"{name}.weights.h5"
