"""Checks of numbers, networks, images, labels and token ids before anything is computed from them.

Keras accepts some invalid inputs silently: pixels in [-1, 1] make a binary cross-entropy negative,
and a label outside the classes becomes a row of zeros. Here each raises a ValueError that names the
argument.
"""

import math

import numpy as np

MAX_SIZE = 2**31 - 1


def check_size(name: str, value, minimum: int = 1, maximum: int = MAX_SIZE) -> int:
    """Return a size as an int. NumPy integers, which Keras rejects as sizes, are converted.

    Args:
        name: String. Name of the argument for the error message.
        value: Int or NumPy integer.
        minimum: Int. Smallest valid value. Defaults to `1`.
        maximum: Int. Largest valid value. Defaults to that of int32.

    Returns:
        The value as an int.

    Raises:
        ValueError: if `value` is not a whole number, or outside the limits.
    """
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or not minimum <= value <= maximum:
        limit = f"at most {maximum}" if whole and value > maximum else f"at least {minimum}"
        raise ValueError(f"{name}: expected a whole number of {limit}, got {value!r:.200}.")
    return int(value)


def check_sizes(**sizes) -> list:
    """Return several sizes as ints; a size whose name ends in `_dims` becomes a tuple of ints.

    Raises:
        ValueError: if a size is not a whole number of at least 1.
    """
    checked: list[int | tuple[int, ...]] = []
    for name, value in sizes.items():
        if not name.endswith("_dims"):
            checked.append(check_size(name, value))
        elif isinstance(value, (list, tuple)):
            checked.append(tuple(check_size(name, size) for size in value))
        else:
            raise ValueError(f"{name}: expected a sequence of whole numbers, got {value!r:.200}.")
    return checked


def check_image_shape(image_shape, channels: str = "channels", minimum: int = 1) -> tuple:
    """Return an image shape `(height, width, channels)` as a tuple of ints.

    Args:
        image_shape: List or tuple of ints.
        channels: String. Description of the third number. Defaults to `"channels"`.
        minimum: Int. Smallest valid height and width. Defaults to `1`.

    Raises:
        ValueError: for another type or another number of axes, and for an invalid size.
    """
    if not isinstance(image_shape, (list, tuple)) or len(image_shape) != 3:
        raise ValueError(
            f"image_shape: expected (height, width, {channels}), got {image_shape!r:.200}."
        )
    axes = (("height", minimum), ("width", minimum), ("channels", 1))
    return tuple(
        check_size(f"image_shape: {axis}", size, smallest)
        for (axis, smallest), size in zip(axes, image_shape, strict=True)
    )


def check_range(name: str, values, stop: int, kind: str = "integers") -> None:
    """Raise ValueError unless `values`, a NumPy array, holds integers from 0 to stop - 1."""
    if not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"{name}: expected {kind}, got an array of {values.dtype}.")
    if values.size and (values.min() < 0 or values.max() >= stop):
        raise ValueError(
            f"{name}: expected {kind} from 0 to {stop - 1}, "
            f"got values from {values.min()} to {values.max()}."
        )


def check_choice(name: str, value, choices) -> None:
    """Raise ValueError unless `value` is one of `choices`, and of its type."""
    plain = value.item() if isinstance(value, np.generic) else value
    # Types are compared first: a list has no hash, an array no truth value, and True equals 1.
    if not any(type(plain) is type(choice) and plain == choice for choice in choices):
        choices = ", ".join(map(repr, choices))
        raise ValueError(f"{name}: expected one of {choices}, got {value!r:.200}.")


def check_bools(**values) -> None:
    """Raise ValueError unless all values are `True` or `False`, of Python or of NumPy."""
    for name, value in values.items():
        if not isinstance(value, (bool, np.bool_)):
            raise ValueError(f"{name}: expected True or False, got {value!r:.200}.")


def is_number(value) -> bool:
    """Return whether a value is one real number, of Python or of NumPy, and not a bool."""
    real = isinstance(value, (int, float, np.integer, np.floating))
    return real and not isinstance(value, bool)


def check_number(name: str, value, minimum=-math.inf, maximum=math.inf, *, above=-math.inf):
    """Return a finite number as an int or float of Python.

    Args:
        name: String. Name of the argument for the error message.
        value: Number to check.
        minimum, maximum: Floats. Smallest and largest valid value. Default to no limit.
        above: Float. Limit below all valid values. Defaults to no limit.

    Raises:
        ValueError: for another type, NaN, infinity, and a number outside the limits.
    """
    try:
        valid = is_number(value) and math.isfinite(value)
    except OverflowError:  # an int above all floats
        valid = False
    if not valid or not minimum <= value <= maximum or not value > above:
        limits = [f" of at least {minimum}"] * (minimum > -math.inf)
        limits += [f" above {above}"] * (above > -math.inf)
        limits += [f" of at most {maximum}"] * (maximum < math.inf)
        raise ValueError(
            f"{name}: expected a finite number{' and'.join(limits)}, got {value!r:.200}."
        )
    return value.item() if isinstance(value, np.number) else value


def check_fraction(name: str, value) -> float:
    """Return a number in [0, 1) as a float.

    Raises:
        ValueError: for another value.
    """
    if not is_number(value) or not 0 <= value < 1:
        raise ValueError(f"{name}: expected a fraction from 0 to less than 1, got {value!r:.200}.")
    return float(value)


def check_outputs(model, outputs) -> None:
    """Raise ValueError if a model has computed NaN or infinity from valid inputs."""
    if not np.all(np.isfinite(outputs)):
        raise ValueError(
            f"{model.name}: expected finite weights, got NaN or infinity in an output of the model."
        )


def check_type(name: str, value, expected: type, example: str = "") -> None:
    """Raise ValueError unless `value` is an instance of the expected class."""
    if not isinstance(value, expected):
        article = "an" if expected.__name__[0] in "AEIO" else "a"
        raise ValueError(
            f"{name}: expected {article} {expected.__name__}{example}, got {value!r:.200}."
        )


def check_identifier(name: str, value, get, kind: str):
    """Return the object of Keras that an identifier stands for: the object itself, or its name.

    Args:
        name: String. Name of the argument for the error message.
        value: Identifier to check.
        get: Function of Keras that interprets it, such as `keras.activations.get`.
        kind: String. What it returns, with its article, for the error message.

    Raises:
        ValueError: for a value that Keras refuses, with any error, and for a class.
    """
    try:
        found = get(value)
    except Exception as error:  # of many types: Keras does not check all identifiers itself
        raise ValueError(
            f"{name}: expected {kind} of Keras or its name, got {value!r:.200}."
        ) from error
    if isinstance(found, type):  # callable, like a function, but it computes nothing
        raise ValueError(f"{name}: expected {kind}, got the class {found.__name__}.")
    return found


def check_dict(name: str, value, *keys: str) -> None:
    """Raise ValueError unless a value is a dict that has certain keys."""
    if not isinstance(value, dict) or not set(keys) <= set(value):
        expected = f" of {', '.join(keys)}" if keys else ""
        raise ValueError(f"{name}: expected a dict{expected}, got {value!r:.200}.")


def check_strings(name: str, values, length: int) -> list[str]:
    """Return a list of `length` labels as strings."""
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if not isinstance(values, (list, tuple)):
        raise ValueError(f"{name}: expected a list of strings, got {values!r:.200}.")
    if len(values) != length:
        raise ValueError(f"{name}: expected {length}, got {len(values)}.")
    return [str(value) for value in values]


def check_methods(name: str, value, kind: str, *methods: str) -> None:
    """Raise ValueError unless `value` is an object, not a class, with certain attributes."""
    missing = [method for method in methods if not hasattr(value, method)]
    if missing or isinstance(value, type):
        lack = f" without {missing[0]}" if missing else ""
        raise ValueError(f"{name}: expected {kind}, got {value!r:.200}{lack}.")


def check_same(name: str, attribute: str, expected, value, other="the other network") -> None:
    """Raise ValueError unless two networks agree in an attribute."""
    if value != expected:
        raise ValueError(f"{name}: expected {attribute} {expected}, as {other}, got {value}.")


def as_array(name: str, value) -> np.ndarray:
    """Return a value as a NumPy array.

    Raises:
        ValueError: for rows of different lengths, and for an array of other objects than numbers.
    """
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}: expected an array, got {value!r:.200}.") from error
    if array.dtype == object and array.ndim > 0:
        raise ValueError(f"{name}: expected an array of numbers, got {value!r:.200}.")
    return array


def as_numbers(name: str, value, shape: tuple | None = None) -> np.ndarray:
    """Return finite numbers as a NumPy array.

    Args:
        name: String. Name of the argument for the error message.
        value: Array or nested sequences.
        shape: Tuple of ints and, for axes of any size, `None`. Defaults to `None`, any shape.

    Raises:
        ValueError: for another shape, for values that are not numbers, and for NaN or infinity.
    """
    array = as_array(name, value)
    if shape is not None and not (
        array.ndim == len(shape)
        and all(size in (None, n) for size, n in zip(shape, array.shape, strict=True))
    ):
        expected = ", ".join("n" if size is None else str(size) for size in shape)
        raise ValueError(f"{name}: expected shape ({expected}), got {array.shape}.")
    if not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise ValueError(f"{name}: expected numbers, got an array of {array.dtype}.")
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity.")
    return array


def check_images(name: str, images, shape: tuple) -> None:
    """Raise ValueError unless `images` has shape (n, *shape), n >= 1, and values in [0, 1]."""
    expected = ", ".join(map(str, ("n", *shape)))
    if isinstance(images, (list, tuple)):
        raise ValueError(f"{name}: expected one array ({expected}), got a list of {len(images)}.")
    images = as_array(name, images)
    if images.ndim == 0 or images.shape[1:] != tuple(shape):
        raise ValueError(f"{name}: expected shape ({expected}), got {images.shape}.")
    if len(images) == 0:
        raise ValueError(f"{name}: expected at least one image, got an empty array.")
    if not np.issubdtype(images.dtype, np.number) and images.dtype != bool:
        raise ValueError(f"{name}: expected numbers, got an array of {images.dtype}.")
    low, high = images.min(), images.max()
    if not (low >= 0 and high <= 1):  # NaN compares false, so it fails here too
        raise ValueError(
            f"{name}: expected pixels scaled to [0, 1], got values from {low} to {high}. "
            "Divide 8-bit pixels by 255."
        )


def check_labels(labels, num_classes: int | None, num_samples: int) -> np.ndarray | None:
    """Return class labels as an int32 array, or `None` for an unconditional model.

    Args:
        labels: `None`, one integer for all samples, or integers `(num_samples,)`.
        num_classes: Int or `None`. Number of classes of the model; `None` if it is unconditional.
        num_samples: Int. Number of samples that the labels belong to.

    Returns:
        An int32 array `(num_samples,)`, or `None`.

    Raises:
        ValueError: for labels on an unconditional model, for missing labels on a conditional one,
            for a wrong number of labels, and for a label outside 0 … num_classes - 1.
    """
    if num_classes is None:
        if labels is not None:
            raise ValueError(
                "labels: expected None, since the model was built without num_classes."
            )
        return None
    if labels is None:
        raise ValueError(f"labels: expected integers from 0 to {num_classes - 1}, got None.")
    labels = as_array("labels", labels)
    if labels.ndim == 0:
        labels = np.full(num_samples, labels)
    if labels.shape != (num_samples,):
        raise ValueError(f"labels: expected shape ({num_samples},), got {labels.shape}.")
    check_range("labels", labels, num_classes)
    return labels.astype("int32")


def check_sample_weight(sample_weight, *shapes: tuple) -> None:
    """Raise ValueError unless the weights are finite numbers of one of the shapes, or `(n, 1)`."""
    weights = as_array("sample_weight", sample_weight)
    if weights.shape not in shapes and weights.shape != (*shapes[0][:1], 1):
        expected = " or ".join(map(str, shapes))
        raise ValueError(f"sample_weight: expected shape {expected}, got {weights.shape}.")
    if not (np.issubdtype(weights.dtype, np.number) or weights.dtype == bool):
        raise ValueError(f"sample_weight: expected numbers, got an array of {weights.dtype}.")
    if not np.all(np.isfinite(weights.astype("float64"))):
        raise ValueError("sample_weight: expected finite numbers, got NaN or infinity.")


def check_tokens(name: str, tokens, vocab_size: int, minimum: int) -> list[np.ndarray]:
    """Return token sequences as a list of int32 arrays.

    Args:
        name: String. Name of the argument for the error message.
        tokens: Int array `(batch, n)`, or a list of sequences of any lengths.
        vocab_size: Int. Number of tokens in the vocabulary.
        minimum: Int. Smallest valid length of a sequence.

    Returns:
        A list of int32 arrays `(n,)`, one for each sequence.

    Raises:
        ValueError: for another shape, a sequence below the minimum length, or an id outside the
            vocabulary.
    """
    if not isinstance(tokens, (list, tuple)):
        tokens = as_array(name, tokens)
        if tokens.ndim != 2:
            raise ValueError(
                f"{name}: expected an array (batch, n) or a list of sequences, "
                f"got shape {tokens.shape}."
            )
    sequences = [as_array(name, row) for row in tokens]
    if not sequences:
        raise ValueError(f"{name}: expected at least one sequence, got none.")
    for row in sequences:
        if row.ndim != 1 or len(row) < minimum:
            raise ValueError(
                f"{name}: expected sequences of at least {minimum} token ids, "
                f"got shape {row.shape}."
            )
    check_range(name, np.concatenate(sequences), vocab_size, "token ids")
    return [row.astype("int32") for row in sequences]


def check_token_array(
    name: str, tokens, vocab_size: int, *, minimum=1, maximum=None, kind="token ids", ignored=None
) -> None:
    """Raise ValueError unless `tokens` is one integer array `(batch, n)` of ids of the vocabulary.

    Args:
        name: String. Name of the argument for the error message.
        tokens: Array to check.
        vocab_size: Int. Number of tokens in the vocabulary.
        minimum: Int. Smallest valid n. Defaults to `1`.
        maximum: Int or `None`. Largest valid n. Defaults to `None`, no limit.
        kind: String. What the integers are, for the error message. Defaults to `"token ids"`.
        ignored: Int or `None`. One more valid id, of targets that no loss counts.
    """
    if isinstance(tokens, (list, tuple, dict)):
        raise ValueError(f"{name}: expected {kind} (batch, n), got a {type(tokens).__name__}.")
    tokens = as_array(name, tokens)
    if tokens.ndim != 2:
        raise ValueError(f"{name}: expected {kind} (batch, n), got shape {tokens.shape}.")
    if len(tokens) == 0:
        raise ValueError(f"{name}: expected at least one sequence, got none.")
    if tokens.shape[1] < minimum:
        raise ValueError(
            f"{name}: expected sequences of at least {minimum} {kind}, got shape {tokens.shape}."
        )
    if maximum is not None and tokens.shape[1] > maximum:
        raise ValueError(
            f"{name}: expected at most {maximum} tokens, as many as the model can take, "
            f"got {tokens.shape[1]}."
        )
    check_range(name, tokens if ignored is None else tokens[tokens != ignored], vocab_size, kind)


def check_autoregressive_model(model) -> None:
    """Raise ValueError unless a model has the interface of `AutoregressiveModel`."""
    names = ("vocab_size", "context_length", "initial_state", "step")
    check_methods("model", model, "an AutoregressiveModel", *names)


def check_context_length(name: str, model, length: int) -> None:
    """Raise ValueError if a sequence is longer than the context length of the model."""
    if model.context_length is not None and length > model.context_length:
        raise ValueError(
            f"{name}: expected at most {model.context_length} tokens, prompt included, the context "
            f"length of the model, got {length}."
        )
