"""Loading of saved models, with all classes of the package registered."""

import copy
import json
import pathlib
import zipfile

import keras

# Imported for their side effect: each registers its classes with Keras.
from keras_genai import (  # noqa: F401
    cnn,
    diffusion,
    gan,
    gpt2,
    pixelcnn,
    rnn,
    transformer,
    vae,
    wavenet,
)
from keras_genai.models import VERSION_KEY

# Arguments that layers and initializers have had since Keras 3.9 or later, with their defaults.
LATER_ARGUMENTS = {
    "input_axes": None,
    "output_axes": None,
    "quantization_config": None,
    "sliding_window": None,
    "use_gate": False,
}


class OldVersionError(ValueError):
    """A file of a version whose classes and arguments had other names."""


def load_model(path) -> keras.Model:
    """Load a `.keras` file; see `keras_genai.load_model`."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file.")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # name of the first member with a wrong checksum
            if damaged:
                raise zipfile.BadZipFile(f"{damaged} is damaged")
            _check_version(path, json.loads(archive.read("config.json")))
        return keras.models.load_model(path, safe_mode=True)
    except OldVersionError:
        raise
    except Exception as error:  # a damaged file fails in many places, with many types
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path}: expected a whole .keras file of known classes ({reason})."
        ) from error


def _check_version(path, config: dict) -> None:
    """Raise OldVersionError for a model of this package without a version, as 0.1 saved it."""
    own_model = str(config.get("registered_name")).startswith("keras_genai>")
    versioned = VERSION_KEY in (config.get("build_config") or {})
    # Module of 0.1 with layers that are also part of models of Keras's own classes.
    if (own_model and not versioned) or '"keras_genai.inputs"' in json.dumps(config):
        raise OldVersionError(
            f"{path}: saved by keras_genai 0.1, whose names 0.2 does not read; train the model "
            "again, or load it with keras_genai 0.1."
        )


def serialize_architecture(model) -> dict:
    """Return the architecture and compile configuration of a model as a JSON-serializable dict.

    What Keras 3.8 would refuse is left out: defaults of `LATER_ARGUMENTS`, and names of operations.
    """
    return _drop_later_arguments(keras.saving.serialize_keras_object(model))


def _drop_later_arguments(config):
    if isinstance(config, list):
        return [_drop_later_arguments(value) for value in config]
    if not isinstance(config, dict):
        return config
    config = {
        key: _drop_later_arguments(value)
        for key, value in config.items()
        if key not in LATER_ARGUMENTS or value != LATER_ARGUMENTS[key]
    }
    if str(config.get("module")).startswith("keras.src.ops."):
        config["config"].pop("name", None)  # the graph has it beside the configuration
    return config


def restore_model(architecture: dict, weights_path) -> keras.Model:
    """Build a model from `serialize_architecture`, load its weights, and compile it.

    Args:
        architecture: Dict from `serialize_architecture`.
        weights_path: Path of a `.weights.h5` file.
    """
    architecture = copy.deepcopy(architecture)  # Keras empties nested configs when it reads them
    compile_config = architecture.pop("compile_config", None)
    model = keras.saving.deserialize_keras_object(architecture, safe_mode=True)
    model.load_weights(weights_path)  # before compiling: the file has no optimizer state
    if compile_config:
        model.compile_from_config(compile_config)
    return model
