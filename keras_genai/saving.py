"""Loading of saved models, with all classes of the package registered."""

import contextlib
import copy
import json
import math
import zipfile

import keras
import numpy as np

# Imported for their side effect: each registers its classes with Keras.
from keras_genai import (  # noqa: F401
    audio_vae,
    cnn,
    diffusion,
    gan,
    gpt2,
    learned_prior,
    pixelcnn,
    rnn,
    seq2seq_lstm,
    text_to_image,
    transformer,
    vae,
    wavenet,
)
from keras_genai.files import to_path
from keras_genai.models import VERSION_KEY

# Arguments that layers and initializers have had since Keras 3.9 or later, with their defaults.
LATER_ARGUMENTS = {
    "input_axes": None,
    "output_axes": None,
    "quantization_config": None,
    "renorm": False,
    "renorm_clipping": None,
    "renorm_momentum": 0.99,
    "sliding_window": None,
    "use_gate": False,
}


# What a file may declare is bounded by what it holds. A number takes at least 4 bits.
CONFIG = "config.json"
MAX_RATIO = 100  # of the sizes of a member uncompressed and compressed, from `MIN_BOMB` bytes on
MIN_BOMB = 2**24
MAX_TABLE = 10**6  # of the sizes in `TABLE_SIZES`
# Sizes of which each unit has at least one weight, and sizes of tables that are not saved.
WEIGHT_SIZES = {
    "context_length",
    "d_model",
    "dff",
    "embed_dim",
    "filters",
    "input_dim",
    "input_vocab_size",
    "key_dim",
    "layers_per_block",
    "num_blocks",
    "num_filters",
    "num_heads",
    "num_layers",
    "output_dim",
    "quantization_channels",
    "residual_channels",
    "skip_channels",
    "target_vocab_size",
    "units",
    "vocab_size",
}
TABLE_SIZES = {"dim", "max_seq_length", "num_classes", "num_levels", "num_timesteps"}
MAX_REASON = 300  # characters of another library's message


class OldVersionError(ValueError):
    """A file of a version whose classes and arguments had other names."""


class InvalidSizeError(ValueError):
    """A file that declares more than it holds."""


def load_model(path) -> keras.Model:
    """Load a `.keras` file; see `keras_genai.load_model`."""
    path = to_path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file.")
    if not path.is_file():  # a FIFO or a device might never end
        raise ValueError(f"{path}: expected a .keras file, got a folder or a special file.")
    try:
        with zipfile.ZipFile(path) as archive:
            limit = _check_members(path, archive)
            damaged = archive.testzip()  # name of the first member with a wrong checksum
            if damaged:
                raise zipfile.BadZipFile(f"{damaged} is damaged")
            config = json.loads(archive.read(CONFIG))
        _check_version(path, config)
        _check_sizes(path, config, limit)
        with _limit_of_weights(path, limit):
            model = keras.models.load_model(path, safe_mode=True)
    except (OldVersionError, InvalidSizeError):
        raise
    except Exception as error:  # a damaged file fails in many places, with many types
        reason, _, config = " ".join(str(error).split()).partition("Full object config:")
        raise ValueError(
            f"{path}: expected a whole .keras file of known classes ({reason[:MAX_REASON]})."
        ) from (None if config else error)  # Keras appends the configuration of the whole object
    _check_weights(path, model)
    return model


def _check_members(path, archive) -> int:
    """Return the largest number of weights that the members of a file can hold.

    Raises:
        InvalidSizeError: for a member that is a decompression bomb.
    """
    for member in archive.infolist():
        size, compressed = member.file_size, member.compress_size
        if size >= MIN_BOMB and size > MAX_RATIO * compressed:
            raise InvalidSizeError(
                f"{path}: {member.filename}: expected at most {MAX_RATIO} times its compressed "
                f"{compressed:,} bytes, got {size:,}."
            )
    return 2 * sum(member.file_size for member in archive.infolist() if member.filename != CONFIG)


def _check_sizes(path, config, limit: int) -> None:
    """Raise InvalidSizeError for a size in a configuration that the file cannot have."""
    if isinstance(config, list):
        for value in config:
            _check_sizes(path, value, limit)
    elif isinstance(config, dict):
        for key, value in config.items():
            largest = limit if key in WEIGHT_SIZES else MAX_TABLE
            is_size = key in WEIGHT_SIZES | TABLE_SIZES and isinstance(value, (int, float))
            if is_size and not value <= largest:
                raise InvalidSizeError(
                    f"{path}: {key}: expected at most {largest:,} for the size of the file, "
                    f"got {value:,}."
                )
            _check_sizes(path, value, limit)


@contextlib.contextmanager
def _limit_of_weights(path, limit: int):
    """Context in which layers raise InvalidSizeError before they create more weights than that."""
    add_weight, count = keras.layers.Layer.add_weight, 0

    def counting_add_weight(self, shape=None, *args, **kwargs):
        nonlocal count
        count += math.prod(shape or ())
        if count > limit:
            raise InvalidSizeError(
                f"{path}: expected at most {limit:,} weights for the size of the file, got a layer "
                f"{self.name} with weights of shape {tuple(shape)}."
            )
        return add_weight(self, shape, *args, **kwargs)

    keras.layers.Layer.add_weight = counting_add_weight
    try:
        yield
    finally:
        keras.layers.Layer.add_weight = add_weight


def _check_weights(path, model) -> None:
    """Raise ValueError for a weight that is NaN or infinite, as of a training that diverged."""
    for weight in model.weights:
        values = np.asarray(keras.ops.convert_to_numpy(weight), "float64")
        if not np.all(np.isfinite(values)):
            raise ValueError(
                f"{path}: {weight.path}: expected finite weights, got NaN or infinity."
            )


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

    Raises:
        ValueError: for weights of NaN or infinity.
    """
    architecture = copy.deepcopy(architecture)  # Keras empties nested configs when it reads them
    compile_config = architecture.pop("compile_config", None)
    model = keras.saving.deserialize_keras_object(architecture, safe_mode=True)
    model.load_weights(weights_path)  # before compiling: the file has no optimizer state
    _check_weights(weights_path, model)
    if compile_config:
        model.compile_from_config(compile_config)
    return model
