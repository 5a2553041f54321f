"""What each model supports: the rows of `tests/README.md`, its table, and helpers of the tests.

A column is a `Family`, a toy model; a row is a situation, a function of the same name in
`test_support.py`. Every pair is supported unless `SITUATIONS` says that it is refused, or that the
question does not arise. Run `python tests/support.py > tests/README.md` after a change.
"""

import dataclasses
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from families import (
    BATCH_SIZE,
    CNN,
    NUM_EXAMPLES,
    BuildVAE,
    Diffusion,
    Family,
    Forecaster,
    OwnGAN,
    OwnVAE,
    Pixels,
    TrainGAN,
    flat_layers,
    sgd,
)
from helpers import COUNTS
from keras import layers
from token_families import (
    GPT,
    RNN,
    Seq2Seq,
    Seq2SeqRecurrent,
    StockSeq2Seq,
    Transformer,
    Waves,
)

# Columns.

FAMILIES = {
    family.name: family
    for family in (
        BuildVAE(), OwnVAE(), TrainGAN(), OwnGAN(), CNN(), RNN(), Forecaster(), Transformer(),
        Seq2Seq(), StockSeq2Seq(), Seq2SeqRecurrent(), GPT(), Pixels(), Waves(), Diffusion(),
    )
}  # fmt: skip

# Rows.


@dataclasses.dataclass
class Refused:
    """A cell: an error whose message starts with, or names, an argument."""

    argument: str
    error: type = ValueError


@dataclasses.dataclass
class Excluded:
    """A cell in which the question does not arise, and the reason."""

    reason: str


@dataclasses.dataclass
class Situation:
    """A row: its title, a footnote, and the cells that are not supported, by family."""

    title: str
    note: str = ""
    exceptions: dict = dataclasses.field(default_factory=dict)
    tolerance: float = 1e-5

    def cell(self, family: str):
        """Return the `Refused` or `Excluded` of a family, `None` if it is supported."""
        return self.exceptions.get(family)


def excluded(reason, *names):
    return {name: Excluded(reason) for name in names}


def all_but(*names):
    return [name for name in FAMILIES if name not in names]


NO_EVALUATION = excluded(
    "`train_gan` has no validation; the `GAN` of its history has.", "train_gan"
)
ARRAYS_ONLY = {"train_gan": Refused("x")}

SITUATIONS = {
    "sample_weight": Situation(
        "`sample_weight` in `fit`",
        "The loss is the sum of the weighted losses, divided by the number of examples; "
        "`MaskedCrossentropy` divides by the sum of the weights.",
        {"train_gan": Refused("sample_weight", TypeError), "GAN": Refused("sample_weight")},
    ),
    "evaluate_sample_weight": Situation(
        "`sample_weight` in `evaluate` and `validation_data`",
        exceptions={**NO_EVALUATION, "GAN": Refused("sample_weight")},
    ),
    "regularizers": Situation("regularizers of weights"),
    "losses_of_layers": Situation(
        "`activity_regularizer` and `add_loss` in a network of the user",
        exceptions=excluded(
            "The model builds its layers itself.",
            *all_but("build_vae", "VAE", "train_gan", "GAN", "build_cnn", "DDPM"),
        ),
    ),
    "metrics": Situation(
        "`metrics` and `weighted_metrics`",
        "In a plain `keras.Model` of tokens, weighted metrics need weights `(batch, 1)` or "
        "`(batch, n)`.",
        {"train_gan": Refused("metrics", TypeError), "GAN": Refused("(weighted_)?metrics")},
    ),
    "loss_weights": Situation(
        "`loss_weights`",
        "In `build_vae`, they weight the reconstruction; beta weights the KL term.",
        {
            "train_gan": Refused("loss_weights", TypeError),
            **{name: Refused("loss_weights") for name in ("VAE", "GAN", "PixelCNN", "DDPM")},
        },
    ),
    "mixed_float16": Situation(
        "`mixed_float16`: training, saving, loading under `float32`",
        "The loss is computed in float32. A plain `keras.Model` (the stock Seq2Seq) does "
        "not save its own precision: set the policy before loading it.",
        tolerance=1e-3,
    ),
    "mixed_bfloat16": Situation("`mixed_bfloat16`: the same", tolerance=1e-3),
    "int8": Situation(
        '`quantize("int8")`: saving, loading, generating',
        exceptions=excluded("Quantized networks are not trained.", "train_gan"),
    ),
    "dtypes": Situation(
        "arrays of bool, uint8, int64 and float64",
        "Token ids are integers: models of tokens refuse bool and float arrays, except the stock "
        "`keras.Model`, which checks nothing.",
    ),
    "tf_data": Situation("`tf.data.Dataset`", exceptions=ARRAYS_ONLY),
    "other_sources": Situation("`keras.utils.PyDataset` and generators", exceptions=ARRAYS_ONLY),
    "invalid_data": Situation(
        "a ValueError for invalid data, in any batch",
        "The same error for arrays, `tf.data.Dataset`, `keras.utils.PyDataset` and generators: "
        "pixels, labels and ids out of range, too long sequences and other shapes, in `fit`, "
        "`evaluate`, `train_on_batch` and `test_on_batch`; for ids also with `jit_compile=True`.",
        excluded(
            "A `keras.Model` checks nothing. An id out of range raises TensorFlow's error or, if "
            "compiled, gives a loss of NaN.", "stock Seq2Seq",
        ),
    ),
    "invalid_inputs": Situation(
        "a ValueError for invalid data in `predict`",
        exceptions={
            **excluded("A `keras.Model` checks nothing.", "stock Seq2Seq"),
            **excluded("The model maps noise to probabilities.", "train_gan", "GAN"),
        },
    ),
    "frozen_layer": Situation(
        "frozen layers and optimizer state are saved; training goes on"
    ),
    "learning_rate_callbacks": Situation("`LearningRateScheduler`, `ReduceLROnPlateau`"),
    "checkpoint_callbacks": Situation("`ModelCheckpoint`, `EarlyStopping`"),
    "backup": Situation(
        "`BackupAndRestore`",
        "With `shuffle=False`: Keras does not save the order of the data.",
    ),
    "evaluation_in_between": Situation(
        "`validation_data`, `evaluate` and `generate` do not change training",
        exceptions=NO_EVALUATION,
    ),
    "set_random_seed": Situation(
        "`keras.utils.set_random_seed` makes all results repeatable", "Also with dropout."
    ),
    "clone_model": Situation(
        "`keras.models.clone_model`",
        exceptions={
            **{
                name: Refused("model")
                for name in (
                    "VAE", "train_gan", "GAN", "RecurrentLanguageModel", "Seq2SeqTransformer",
                    "Seq2SeqLSTM", "GPT2", "PixelCNN", "WaveNet", "DDPM",
                )
            },
            **excluded(
                "Keras makes a plain `keras.Sequential` of a subclass, without its checks and its "
                "rule of padding, and has no hook to refuse it. `copy.deepcopy` copies the model.",
                "build_transformer",
            ),
        },
    ),
    "copies": Situation("`copy.deepcopy` and `pickle`; training goes on"),
    "load_uncompiled": Situation("saving before `compile`, `load_model(compile=False)`"),
    "load_part": Situation(
        "weights loaded into a part are used at once",
        exceptions=excluded(
            "The model has no parts.",
            *all_but(
                "build_vae", "VAE", "train_gan", "GAN", "Seq2SeqTransformer", "Seq2SeqLSTM", "DDPM"
            ),
        ),
    ),
    "unknown_argument": Situation(
        "an unknown argument of the constructor",
        exceptions={name: Refused("unknown", TypeError) for name in FAMILIES},
    ),
    "kl_annealing": Situation(
        "weight of the KL term set by a callback; saved",
        exceptions=excluded("The loss has no KL term.", *all_but("build_vae", "VAE")),
    ),
}  # fmt: skip

# The table.

HEADER = """# Tests

`python -m pytest` runs all tests; `python -m pytest -m "not slow"` leaves out the slow ones.
Results are compared with a closed form, with NumPy or with another library, from fixed seeds, and
a warning is an error. `python tests/support.py > tests/README.md` writes this file.

## What each model supports

Each cell is a case of `test_support.py`: ✓ is supported; an error is raised, which names the
argument; — does not arise, for the reason below. Where two columns train the same networks
(`build_vae` and `VAE`, `train_gan` and `GAN`, `Seq2SeqTransformer` and the stock `fit` of its
graph), a cell also compares their results. The model of `train_gan` is the compiled `GAN` in its
history. `PixelCNN`, `WaveNet` and `DDPM` are conditional here.

"""

DAMAGE = """
## What the tests of damage count

`python -m pytest -p no:xdist` prints these counts.

| test | cases | result |
| --- | --: | --- |
| `test_kills.py`: SIGKILL at random moments, five recipes | {kills} | weights and optimizers end bit-identical to those of a run that was not killed |
| `test_command_line_errors.py`: `run.json` damaged, edited, or without a key | {damaged settings} | {rebuilt} rebuilt, the others refused in one line; `model.keras` unchanged |
| `test_saving.py`: `.keras` files that name other code | {hostile files} | no code ran; refused |
| `test_saving.py`: one bit of the weights flipped | {flipped bits} | refused |
| `test_fuzz.py`: one odd argument in a valid call of a public function | {odd calls:,} | each works, or raises an error that names the argument |
"""  # noqa: E501


def render() -> str:
    """Return `tests/README.md`."""
    notes: list[str] = []

    def mark(note):
        if note not in notes:
            notes.append(note)
        return f"<sup>{notes.index(note) + 1}</sup>"

    def text(cell):
        if cell is None:
            return "✓"
        return f"—{mark(cell.reason)}" if isinstance(cell, Excluded) else cell.error.__name__

    headings = [name if "stock" in name else f"`{name}`" for name in FAMILIES]
    rows = [["", *headings], ["---", *[":-:"] * len(FAMILIES)]]
    for situation in SITUATIONS.values():
        title = situation.title + (mark(situation.note) if situation.note else "")
        rows.append([title, *(text(situation.cell(name)) for name in FAMILIES)])
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    footnotes = "".join(f"{i}. {note}\n" for i, note in enumerate(notes, 1))
    return f"{HEADER}{table}\n{footnotes}{DAMAGE.format(**COUNTS)}"


# Training and comparison.


def values(variables):
    return [keras.ops.convert_to_numpy(variable).copy() for variable in variables]


def optimizer_values(family, model):
    return [v for opt in family.optimizers(model) for v in values(opt.variables)]


def assert_equal(arrays, others, tolerance=0.0):
    assert len(arrays) == len(others)
    for array, other in zip(arrays, others, strict=True):
        np.testing.assert_allclose(array, other, rtol=tolerance, atol=tolerance)


def train(family, optimizer=sgd, build=None, compile=None, data=(None, None), **fit):
    """Train a new model; return the trained one and its history."""
    model = family.build(**(build or {}))
    family.compile(model, optimizer, **(compile or {}))
    history = family.fit(model, *data, **fit)
    return history.model, history.history


def first_losses(family, **options):
    """Return the losses of the first step, of one batch of all examples."""
    _, history = train(family, batch_size=NUM_EXAMPLES, **options)
    return np.array([history[name][0] for name in family.losses])


def go_on(family, model):
    """Train a trained model further by `fit`, without compiling it again; return its weights."""
    Family.fit(family, model)
    return values(model.trainable_variables)


def take(data, rows):
    """Return rows of x and y, arrays or lists of arrays; `None` stays."""
    return keras.tree.map_structure(lambda a: None if a is None else a[rows], data)


def cast(array, dtype):
    """Return an array in a dtype; labels and tokens only in one of integers."""
    if array is None or (array.dtype == "int32" and np.dtype(dtype).kind in "bf"):
        return array
    return array.astype(dtype)


def policies(model):
    containers = (layers.InputLayer, keras.Model)  # which compute nothing of their own
    computing = [layer for layer in flat_layers(model) if not isinstance(layer, containers)]
    return [layer.dtype_policy.name for layer in computing]


# Networks, sources and callbacks.


@keras.saving.register_keras_serializable(package="tests")
class ConstantLoss(layers.Layer):
    """Identity that adds 0.5 to the loss."""

    def call(self, x):
        self.add_loss(keras.ops.convert_to_tensor(0.5))
        return x


def penalize(network):
    """Return a user's own network whose layers add 0.5 + 0.01 * (size of the input) to the loss."""
    inputs = [keras.Input(x.shape[1:], dtype=x.dtype, name=x.name) for x in network.inputs]
    ones = layers.ActivityRegularization(l2=0.01)(keras.ops.ones_like(inputs[0]))
    x = ConstantLoss()(inputs[0] * ones)
    outputs = network([x, *inputs[1:]] if len(inputs) > 1 else x)
    return keras.Model(inputs if len(inputs) > 1 else inputs[0], outputs, name=network.name)


def batches(data):
    """Return the batches of x and y as Keras takes them from a source: (x, y) or (x,)."""
    x, y = data
    x = tuple(x) if isinstance(x, list) else x
    data = (x,) if y is None else (x, y)
    return [take(data, rows) for rows in (slice(BATCH_SIZE), slice(BATCH_SIZE, NUM_EXAMPLES))]


def dataset(source):
    """Return a `tf.data.Dataset` of batches, whose shapes it does not know."""
    spec = keras.tree.map_structure(lambda a: tf.TensorSpec([None] * a.ndim, a.dtype), source[0])
    return tf.data.Dataset.from_generator(lambda: source, output_signature=spec)


class Batches(keras.utils.PyDataset):
    """A `keras.utils.PyDataset` of batches."""

    def __init__(self, source):
        super().__init__()
        self.source = source

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        return self.source[index]


def generator(source):
    """Yield the batches of two epochs."""
    for _ in range(2):
        yield from source


class WeightsOfEpochs(keras.callbacks.Callback):
    """The weights after each epoch."""

    def on_train_begin(self, logs=None):
        self.weights = []

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append(values(self.model.weights))


class Interruption(keras.callbacks.Callback):
    """The end of the process after the second epoch."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            raise InterruptedError


if __name__ == "__main__":
    print(render(), end="")
