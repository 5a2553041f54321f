"""Loading of saved models, with all classes of the package registered."""

import copy
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
        return keras.models.load_model(path, safe_mode=True)
    except Exception as error:  # a damaged file fails in many places, with many types
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path}: expected a whole .keras file of known classes ({reason})."
        ) from error


def serialize_architecture(model) -> dict:
    """Return the architecture and compile configuration of a model as a JSON-serializable dict."""
    return keras.saving.serialize_keras_object(model)


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
