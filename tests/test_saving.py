"""Saved models of every class and builder: outputs and further training in a fresh process."""

import io
import json
import os
import pathlib
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from helpers import COUNTS, largest_difference

import keras_genai
from keras_genai import saving
from keras_genai.audio_vae import AudioVAE
from keras_genai.cnn import build_cnn
from keras_genai.diffusion import DDPM, NoiseSchedule, build_unet
from keras_genai.gan import GAN, build_discriminator, build_gan, build_generator
from keras_genai.learned_prior import MixturePrior
from keras_genai.pixelcnn import build_pixelcnn
from keras_genai.rnn import build_forecaster, build_language_model
from keras_genai.transformer import (
    MaskedCrossentropy,
    TransformerSchedule,
    build_seq2seq_transformer,
    build_transformer,
)
from keras_genai.vae import (
    VAE,
    build_conv_decoder,
    build_conv_encoder,
    build_decoder,
    build_encoder,
    build_vae,
    reconstruction_loss,
)
from keras_genai.wavenet import build_wavenet

FRESH_PROCESS = pathlib.Path(__file__).parent / "fixtures" / "continue_training.py"


def models(num_classes):
    """Yield name, model, its inputs, and the x and y of `fit`.

    They run eagerly: tracing would take a second per model, for two steps.
    """
    eager = {"jit_compile": False, "run_eagerly": True}
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(40, 784)).astype("float32")
    z = rng.normal(size=(40, 4)).astype("float32")
    labels = rng.integers(10, size=40).astype("int32")
    labels_input = [] if num_classes is None else [labels]
    y = None if num_classes is None else labels

    def vae_networks():
        encoder = build_encoder(hidden_dims=(16,), latent_dim=4, num_classes=num_classes)
        return encoder, build_decoder(4, (16,), num_classes=num_classes)

    def gan_networks():
        generator = build_generator(4, (16,), num_classes=num_classes)
        return generator, build_discriminator(784, (16,), num_classes=num_classes)

    encoder, decoder = vae_networks()
    yield "encoder", encoder, [x, *labels_input], None, None
    yield "decoder", decoder, [z, *labels_input], None, None
    model = build_vae(encoder, decoder, beta=2.0, likelihood="gaussian", seed=1)
    model.compile("adam", loss="mse", **eager)
    yield "build_vae", model, [x, *labels_input], [x, *labels_input], x
    model = build_vae(*vae_networks(), seed=1)
    model.compile("adam", loss=reconstruction_loss, **eager)
    yield "build_vae-bernoulli", model, [x, *labels_input], [x, *labels_input], x
    model = VAE(*vae_networks(), beta=2.0, likelihood="gaussian", seed=2)
    model.compile(keras.optimizers.Adam(1e-3), steps_per_execution=2, **eager)
    yield "vae", model, [x, *labels_input], [x], y

    generator, discriminator = gan_networks()
    yield "generator", generator, [z, *labels_input], None, None
    yield "discriminator", discriminator, [x, *labels_input], None, None
    combined = build_gan(generator, discriminator)
    combined.compile("adam", loss="binary_crossentropy", **eager)
    yield "build_gan", combined, [z, *labels_input], [z, *labels_input], np.ones((40, 1), "float32")
    model = GAN(*gan_networks(), joint_batch=True, resample_noise=False, seed=3)
    model.compile(keras.optimizers.Adam(1e-3), keras.optimizers.RMSprop(1e-3), **eager)
    yield "gan", model, [z, *labels_input], [x], y

    model = build_pixelcnn((6, 5, 1), 4, 2, num_levels=3, num_classes=num_classes)
    model.compile(keras.optimizers.Adam(1e-2), **eager)
    small_images = x[:, :30].reshape(40, 6, 5, 1)
    yield "pixelcnn", model, [small_images, *labels_input], [small_images], y
    model = DDPM(build_unet((4, 4, 1), (3, 4), 1, num_classes), NoiseSchedule("cosine", 9), seed=4)
    model.compile(keras.optimizers.Adam(1e-2), **eager)
    timesteps = rng.integers(9, size=40).astype("int32")
    small_images = x[:, :16].reshape(40, 4, 4, 1)
    yield "ddpm", model, [small_images, timesteps, *labels_input], [small_images], y
    model = build_wavenet(16, 1, 2, 4, 6, num_classes, sample_rate=500)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    model.compile(keras.optimizers.Adam(1e-2), loss, **eager)
    levels = rng.integers(16, size=(40, 7)).astype("int32")
    targets = np.where(np.arange(6) < 4, levels[:, 1:], -1)
    yield "wavenet", model, [levels, *labels_input], [levels[:, :-1], *labels_input], targets

    encoder = build_conv_encoder((8, 4, 1), (2,), 3, 2, num_classes=num_classes)
    decoder = build_conv_decoder(2, 3, (2,), (8, 4, 1), num_classes=num_classes)
    prior = MixturePrior(2, 3, num_classes)
    model = AudioVAE(encoder, decoder, prior, seed=5, sample_rate=500)
    model.compile(keras.optimizers.Adam(1e-2), **eager)
    spectrograms = x[:, :32].reshape(40, 8, 4, 1)
    yield "audio_vae", model, [spectrograms, *labels_input], [spectrograms], y

    if num_classes:
        cnn = build_cnn(num_classes=num_classes)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        cnn.compile("adam", loss, **eager)
        images = x.reshape(-1, 28, 28, 1)
        yield "cnn", cnn, [images], [images], labels
    else:
        tokens = rng.integers(5, size=(40, 7)).astype("int32")
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model = build_language_model(5, "lstm", 4, 6, num_layers=2, dropout=0.5)
        model.compile(keras.optimizers.Adam(1e-2, global_clipnorm=1.0), loss, **eager)
        yield "lstm", model, [tokens], [tokens[:, :-1]], tokens[:, 1:]
        source, target = rng.integers(1, 9, size=(2, 40, 7)).astype("int32")
        source[::2, 4:] = 0
        model = build_seq2seq_transformer(9, 11, 8, 1, 8, 2, 12, dropout=0.5)
        learning_rate = TransformerSchedule(8, warmup_steps=5, decay_steps=50)
        model.compile(keras.optimizers.Adam(learning_rate), MaskedCrossentropy(0.2), **eager)
        yield "seq2seq", model, [source, target], [source], target
        model = build_transformer(9, 9, 8, 1, 8, 2, 12, dropout=0.5, causal=True)
        model.compile("adam", "sparse_categorical_crossentropy", **eager)
        yield "transformer", model, [source], [source[:, :-1]], source[:, 1:]
        model = build_transformer(9, 3, 8, 1, 8, 2, 12, pooling="mean")
        yield "transformer-pooled", model, [source], None, None
        forecaster = build_forecaster(12, 3, units=4)
        forecaster.compile("adam", loss="mae", **eager)
        yield "forecaster", forecaster, [x[:, :12]], [x[:, :12]], x[:, 12:15]


IMAGE_AND_SOUND_MODELS = [
    "encoder", "decoder", "build_vae", "build_vae-bernoulli", "vae",
    "generator", "discriminator", "build_gan", "gan", "pixelcnn", "ddpm", "wavenet",
    "audio_vae",
]  # fmt: skip
SEQUENCE_MODELS = ["lstm", "seq2seq", "transformer", "transformer-pooled", "forecaster"]


# One test of many models, since starting a process takes seconds.
@pytest.mark.slow
def test_loaded_models_continue_training_like_the_saved_ones(tmp_path):
    # This includes the state of the random generators, and both optimizers of a GAN.
    expected = {
        path: save_and_continue(path, *rest)
        for num_classes, folder in ((None, "unconditional"), (10, "conditional"))
        for path, *rest in (
            (tmp_path / folder / name, *rest) for name, *rest in models(num_classes)
        )
    }
    subprocess.run([sys.executable, FRESH_PROCESS, tmp_path], check=True)
    assert [path.name for path in expected] == [
        *IMAGE_AND_SOUND_MODELS,
        *SEQUENCE_MODELS,
        *IMAGE_AND_SOUND_MODELS,
        "cnn",
    ]
    differences = {}
    for path, results in expected.items():
        loaded = dict(np.load(path.with_suffix(".loaded.npz")))
        assert list(loaded) == list(results), path
        differences[path] = largest_difference(loaded.values(), results.values())
    assert all(difference < 1e-6 for difference in differences.values()), differences


def save_and_continue(path, model, inputs, x, y) -> dict:
    """Train and save a model; return its outputs, and its weights after another epoch."""
    arrays = {f"input_{i}": array for i, array in enumerate(inputs)}
    if x is not None:
        fit_arguments = {"x": x if len(x) > 1 else x[0], "y": y, "shuffle": False, "verbose": 0}
        model.fit(**fit_arguments)
        arrays |= {f"x_{i}": array for i, array in enumerate(x)}
        arrays |= {} if y is None else {"y": y}
    path.parent.mkdir(exist_ok=True)
    np.savez(path.with_suffix(".npz"), **arrays)
    model.save(path.with_suffix(".keras"))
    results = {f"output_{i}": output for i, output in enumerate(compute_outputs(model, inputs))}
    if x is not None:
        model.fit(**fit_arguments)
        results |= {f"weight_{i:02d}": w for i, w in enumerate(model.get_weights())}
    return results


def compute_outputs(model, inputs) -> list[np.ndarray]:
    outputs = model(inputs if len(inputs) > 1 else inputs[0])
    outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    return [np.asarray(output) for output in outputs]


@pytest.mark.slow
@pytest.mark.parametrize("num_classes", [None, 10])
def test_models_are_restored_from_architecture_and_weights(tmp_path, num_classes):
    for name, model, inputs, _, _ in models(num_classes):
        path = tmp_path / f"{name}.weights.h5"
        model.save_weights(path)
        architecture = json.loads(json.dumps(saving.serialize_architecture(model)))
        restored = saving.restore_model(architecture, path)
        assert architecture == json.loads(json.dumps(saving.serialize_architecture(model))), name
        assert type(restored) is type(model) and restored.compiled == model.compiled, name
        assert largest_difference(restored.get_weights(), model.get_weights()) == 0, name
        assert restored.get_compile_config() == model.get_compile_config(), name
        difference = largest_difference(
            compute_outputs(restored, inputs), compute_outputs(model, inputs)
        )
        assert difference < 1e-6, name


@keras.saving.register_keras_serializable("tests")
class GatedLayer(keras.layers.Layer):
    """A layer with an argument that Keras added after 3.8."""

    def __init__(self, use_gate, **kwargs):
        super().__init__(**kwargs)
        self.use_gate = use_gate

    def call(self, x):
        return x

    def get_config(self):
        return {**super().get_config(), "use_gate": self.use_gate}


@pytest.mark.parametrize("use_gate", [True, False])
def test_architecture_leaves_out_the_defaults_that_keras_3_8_refuses(use_gate):
    x = keras.Input((4,))
    y = GatedLayer(use_gate)(keras.layers.Dense(4)(x))
    model = keras.Model(x, y / keras.ops.std(y, axis=-1, keepdims=True))
    _, dense, gated, std, divide = saving.serialize_architecture(model)["config"]["layers"]
    assert set(dense["config"]["kernel_initializer"]["config"]) == {"seed"}
    assert "units" in dense["config"] and "quantization_config" not in dense["config"]
    assert gated["config"].get("use_gate") == (True if use_gate else None)
    assert std["config"] == {"axis": -1, "keepdims": True} and divide["config"] == {}


def test_constructor_and_compile_arguments_are_saved(tmp_path):
    model = VAE(build_encoder(8, (4,), 2), build_decoder(2, (4,), 8), 2.0, "gaussian", seed=7)
    model.save(tmp_path / "vae.keras")
    loaded = keras_genai.load_model(tmp_path / "vae.keras")
    assert (loaded.beta, loaded.likelihood, loaded.seed) == (2.0, "gaussian", 7)
    model = GAN(build_generator(2, (4,), 8), build_discriminator(8, (4,)), True, False, seed=7)
    model.compile(jit_compile=False, steps_per_execution=3)
    model.save(tmp_path / "gan.keras")
    loaded = keras_genai.load_model(tmp_path / "gan.keras")
    assert (loaded.joint_batch, loaded.resample_noise, loaded.seed) == (True, False, 7)
    assert (loaded.jit_compile, loaded.steps_per_execution) == (False, 3)


def test_missing_file_raises(tmp_path):
    with pytest.raises(FileNotFoundError, match="model.keras: no such file"):
        keras_genai.load_model(tmp_path / "model.keras")


@pytest.fixture(scope="module")
def keras_file(tmp_path_factory):
    """The bytes of a saved model."""
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    build_cnn().save(path)
    return path.read_bytes()


def flip_a_bit(content, position):
    altered = bytearray(content)
    altered[position] ^= 1
    return bytes(altered)


def empty_zip_file(_):
    file = io.BytesIO()
    zipfile.ZipFile(file, "w").close()
    return file.getvalue()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[: len(content) // 2], id="truncated"),
        pytest.param(lambda content: flip_a_bit(content, len(content) // 2), id="flipped bit"),
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: b"text", id="text"),
        pytest.param(empty_zip_file, id="empty zip file"),
        *(
            pytest.param(
                lambda content, i=i: content[:-10] + bytes([i]) + content[-9:],
                id=f"byte {i} in the directory",
            )
            for i in range(0, 256, 50)
        ),
    ],
)
def test_damaged_file_raises(keras_file, tmp_path, damage):
    path = tmp_path / "model.keras"
    path.write_bytes(damage(keras_file))
    with pytest.raises(ValueError, match=r"model.keras: expected a whole .keras file"):
        keras_genai.load_model(path)


def test_file_of_another_format_raises():
    with pytest.raises(ValueError, match="expected a whole .keras file"):
        keras_genai.load_model(pathlib.Path(__file__))


def test_code_in_a_file_is_not_executed(tmp_path):
    layer = keras.layers.Lambda(lambda x: x)
    model = keras.Sequential([keras.Input((1,)), layer])
    model.save(tmp_path / "lambda.keras")
    with pytest.raises(ValueError, match="lambda"):
        keras_genai.load_model(tmp_path / "lambda.keras")


VERSION_0_1 = sorted((pathlib.Path(__file__).parent / "fixtures" / "version_0_1").glob("*.keras"))


@pytest.mark.parametrize("path", VERSION_0_1, ids=lambda path: path.stem)
def test_file_of_version_0_1_raises(path):
    with pytest.raises(ValueError, match=r"\.keras: saved by keras_genai 0\.1, whose names"):
        keras_genai.load_model(path)


def test_there_are_files_of_version_0_1():
    assert [path.stem for path in VERSION_0_1] == ["gan", "gpt2", "lstm", "transformer", "vae"]


@pytest.mark.parametrize(
    "build",
    [
        lambda **kwargs: VAE(build_encoder(6, (3,), 2), build_decoder(2, (3,), 6), **kwargs),
        lambda **kwargs: GAN(build_generator(2, (3,), 6), build_discriminator(6, (3,)), **kwargs),
        lambda **kwargs: DDPM(build_unet((4, 4, 1), (2,)), NoiseSchedule("cosine", 5), **kwargs),
        lambda **kwargs: build_pixelcnn((3, 3, 1), 2, 2, **kwargs),
        lambda **kwargs: build_wavenet(4, 1, 2, 2, 2, **kwargs),
        lambda **kwargs: build_language_model(3, "lstm", 2, 2, **kwargs),
        lambda **kwargs: build_seq2seq_transformer(5, 5, 4, 1, 4, 2, 4, **kwargs),
    ],
)
def test_unknown_constructor_argument_raises(build):
    assert build(name="a_name").name == "a_name"
    with pytest.raises(TypeError, match="unexpected arguments bata"):
        build(bata=2.0)


# Hostile files.


def edited(content, edit):
    """The bytes of a `.keras` file after `edit` of the dict in its config.json."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(file, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name == "config.json":
                config = json.loads(data)
                data = json.dumps(edit(config) or config)
            target.writestr(name, data)
    return file.getvalue()


def load_edited(content, edit, path):
    path.write_bytes(edited(content, edit))
    return keras_genai.load_model(path)


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory):
    """The bytes of a saved language model."""
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    build_language_model(3, "gru", 2, 2).save(path)
    return path.read_bytes()


def test_an_edited_file_of_the_same_sizes_loads(tiny_file, tmp_path):
    model = load_edited(tiny_file, lambda config: None, tmp_path / "model.keras")
    assert model.count_params() == build_language_model(3, "gru", 2, 2).count_params()


@pytest.mark.parametrize("size", ["units", "embed_dim", "vocab_size", "num_layers"])
@pytest.mark.parametrize("value", [10**8, 10**30, 1e300])
def test_sizes_beyond_the_file_raise_before_anything_is_allocated(tiny_file, tmp_path, size, value):
    def edit(config):
        config["config"][size] = value

    with pytest.raises(ValueError, match=f"model.keras: {size}: expected at most .* got 1"):
        load_edited(tiny_file, edit, tmp_path / "model.keras")


def test_a_product_of_sizes_beyond_the_file_raises(tiny_file, tmp_path):
    # Each size is below the limit; the kernel of 9,000 x 27,000 numbers would take 972 MB.
    def edit(config):
        config["config"]["units"] = config["config"]["embed_dim"] = 9000

    with pytest.raises(ValueError, match="model.keras: expected at most .* weights .* layer"):
        load_edited(tiny_file, edit, tmp_path / "model.keras")
    keras.layers.Dense(9).build((1, 10_000))  # there is no limit afterwards


def test_a_size_of_a_table_without_weights_raises(tmp_path):
    model = DDPM(build_unet((4, 4, 1), (2,)), NoiseSchedule("cosine", 5))
    model.save(tmp_path / "model.keras")

    def edit(config):
        config["config"]["schedule"]["config"]["num_timesteps"] = 10**9

    content = (tmp_path / "model.keras").read_bytes()
    with pytest.raises(ValueError, match="num_timesteps: expected at most 1,000,000 .* got 1,000"):
        load_edited(content, edit, tmp_path / "model.keras")


@pytest.mark.parametrize("member", ["model.weights.h5", "config.json", "assets/zeros"])
def test_a_decompression_bomb_raises(tiny_file, tmp_path, member):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", "{}")
        with archive.open(member, "w") as file:
            for _ in range(32):
                file.write(bytes(2**20))
    message = f"model.keras: {member}: expected at most 100 times its compressed .* got 33,554,432"
    with pytest.raises(ValueError, match=message):
        keras_genai.load_model(path)


def test_weights_that_are_not_finite_raise(tmp_path):
    model = build_language_model(3, "gru", 2, 2)
    model.lm_head.bias.assign([0.0, np.nan, 0.0])
    model.save(tmp_path / "model.keras")
    message = r"model.keras: lm_head/bias: expected finite weights, got NaN or infinity"
    with pytest.raises(ValueError, match=message):
        keras_genai.load_model(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    with pytest.raises(ValueError, match="model.weights.h5: lm_head/bias: expected finite"):
        saving.restore_model(saving.serialize_architecture(model), tmp_path / "model.weights.h5")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no FIFO")
def test_a_fifo_or_a_folder_raises(tmp_path):
    os.mkfifo(tmp_path / "model.keras")
    for path in (tmp_path / "model.keras", tmp_path):
        with pytest.raises(ValueError, match=f"{path}: expected a .keras file, got a folder or"):
            keras_genai.load_model(path)


def test_an_unknown_class_does_not_print_the_configuration(tiny_file, tmp_path):
    def edit(config):
        config |= {"registered_name": "mine>Model", "class_name": "Model", "module": None}
        config["config"]["secret"] = "x" * 10_000

    with pytest.raises(ValueError, match="model.keras: expected .* of known classes") as error:
        load_edited(tiny_file, edit, tmp_path / "model.keras")
    assert "Model" in str(error.value) and len(str(error.value)) < 600
    assert error.value.__cause__ is None and error.value.__suppress_context__


def hostile_objects(marker):
    """Objects whose loading would create the file `marker`, if the loader ran their code."""
    command = f"touch {marker}"
    for module, name in (
        ("os", "system"),
        ("posix", "system"),
        ("subprocess", "call"),
        ("builtins", "exec"),
        ("builtins", "eval"),
        ("shutil", "rmtree"),
        ("pathlib", "Path"),
        ("keras.utils", "get_file"),
        ("keras_genai.saving", "os"),
        ("keras.src.utils.python_utils", "func_load"),
        ("importlib", "import_module"),
        ("marshal", "loads"),
        ("pickle", "loads"),
    ):
        for config in (command, {"command": command}, {"name": command}, [command]):
            yield {"module": module, "class_name": name, "config": config, "registered_name": name}
        yield {
            "module": "builtins",
            "class_name": "function",
            "config": name,
            "registered_name": "function",
        }
        yield {"module": module, "class_name": "function", "config": name, "registered_name": name}
    lambda_layer = keras.layers.Lambda(eval(f"lambda x: __import__('os').system({command!r})"))
    yield keras.saving.serialize_keras_object(lambda_layer)


def test_no_object_of_a_file_runs_code(tiny_file, tmp_path, capsys):
    marker, num_files = tmp_path / "marker", 0
    for hostile in hostile_objects(marker):
        for edit in (
            lambda config, hostile=hostile: hostile,
            lambda config, hostile=hostile: config["config"].update(tokenizer=hostile),
            lambda config, hostile=hostile: config["config"].update(name=hostile),
        ):
            num_files += 1
            with pytest.raises(ValueError, match="model.keras: "):
                load_edited(tiny_file, edit, tmp_path / "model.keras")
    assert not marker.exists()
    assert num_files == COUNTS["hostile files"]
    with capsys.disabled():
        print(f"\n{num_files} hostile files: no code ran")


def test_flipped_bits_are_refused(tiny_file, tmp_path, capsys):
    # All positions are inside members; a bit of a time stamp in the directory changes nothing.
    with zipfile.ZipFile(io.BytesIO(tiny_file)) as archive:
        member = archive.getinfo("model.weights.h5")
    start = member.header_offset + 30 + len(member.filename)
    rng = np.random.default_rng(0)
    num_bits = COUNTS["flipped bits"]
    for position in rng.integers(start, start + member.file_size, size=num_bits):
        (tmp_path / "model.keras").write_bytes(flip_a_bit(tiny_file, position))
        with pytest.raises(ValueError, match="model.keras: expected a whole .keras file"):
            keras_genai.load_model(tmp_path / "model.keras")
    with capsys.disabled():
        print(f"\n{num_bits} flipped bits: refused")
