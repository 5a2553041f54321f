"""Pretrained models: architecture, half-precision weights and metadata in `data/weights/`."""

import json
import pathlib

import keras

from keras_genai import datasets, saving
from keras_genai.validation import check_type


def names() -> list[str]:
    """Return the names of the pretrained models, which are those of their recipes."""
    return sorted(path.stem for path in _weights_dir().glob("*.json"))


def metadata(name: str) -> dict:
    """Return the metadata of pretrained weights.

    Args:
        name: String. One of `names()`.

    Returns:
        A dict with the command, seed, versions, minutes, metric, value and SHA-256 of the weights,
        and the serialized architecture under `"model"`.

    Raises:
        ValueError: for an unknown name, or a damaged file.
    """
    check_type("name", name, str)
    if name not in names():
        raise ValueError(f"{name}: expected a name with pretrained weights: {', '.join(names())}.")
    path = _weights_dir() / f"{name}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: cut short or altered ({error}).") from error


def load(name: str) -> keras.Model:
    """Load a pretrained model, compiled as in its training.

    Args:
        name: String. One of `names()`.

    Returns:
        A `keras.Model` of the family.

    Raises:
        ValueError: for an unknown name, or a damaged weight file.
        FileNotFoundError: if the weight file is missing.
    """
    info = metadata(name)
    path = datasets.verify_checksum(weights_path(_weights_dir(), name), info["sha256"])
    return saving.restore_model(info["model"], path)


def weights_path(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Return the path of the weights of a model in a folder."""
    return folder / f"{name}.weights.h5"


def _weights_dir() -> pathlib.Path:
    return datasets.data_dir() / "weights"
