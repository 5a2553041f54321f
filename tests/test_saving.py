"""Every class and builder, loaded in a fresh process: same output, and training goes on."""

import io
import pathlib
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from conftest import largest_difference

import keras_genai
from keras_genai.cnn import build_cnn
from keras_genai.diffusion import DDPM, NoiseSchedule, build_unet
from keras_genai.gan import GAN, build_discriminator, build_gan, build_generator
from keras_genai.pixelcnn import build_pixelcnn
from keras_genai.rnn import build_forecaster, build_language_model
from keras_genai.transformer import (
    MaskedCrossentropy,
    WarmupSchedule,
    build_seq2seq_transformer,
    build_transformer,
)
from keras_genai.vae import VAE, build_decoder, build_encoder, build_vae, reconstruction_loss
from keras_genai.wavenet import build_wavenet

# Loads every model of a folder, and notes what it returns and what another epoch makes of it.
FRESH_PROCESS = """
import pathlib, sys
import numpy as np
import keras_genai

folder = pathlib.Path(sys.argv[1])
for path in sorted(folder.glob("**/*.keras")):
    model = keras_genai.load_model(path)
    data = dict(np.load(path.with_suffix(".npz")))
    inputs = [data[key] for key in sorted(data) if key.startswith("input")]
    outputs = model(inputs if len(inputs) > 1 else inputs[0])
    outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    results = {f"output_{i}": output for i, output in enumerate(outputs)}
    if model.compiled:
        x = [data[key] for key in sorted(data) if key.startswith("x")]
        model.fit(x if len(x) > 1 else x[0], data.get("y"), shuffle=False, verbose=0)
        results |= {f"weight_{i:02d}": weight for i, weight in enumerate(model.get_weights())}
    np.savez(path.with_suffix(".loaded.npz"), **results)
"""


def models(num_classes):
    """Yield name, model, its inputs, and the x and y of `fit`.

    They run eagerly: each trace would take a second, for two steps.
    """
    mode = dict(jit_compile=False, run_eagerly=True)
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(40, 784)).astype("float32")
    z = rng.normal(size=(40, 4)).astype("float32")
    labels = rng.integers(10, size=40).astype("int32")
    condition = [] if num_classes is None else [labels]
    y = None if num_classes is None else labels

    def vae_networks():
        encoder = build_encoder(hidden_dims=(16,), latent_dim=4, num_classes=num_classes)
        return encoder, build_decoder(4, (16,), num_classes=num_classes)

    def gan_networks():
        generator = build_generator(4, (16,), num_classes=num_classes)
        return generator, build_discriminator(784, (16,), num_classes=num_classes)

    encoder, decoder = vae_networks()
    yield "encoder", encoder, [x, *condition], None, None
    yield "decoder", decoder, [z, *condition], None, None
    model = build_vae(encoder, decoder, beta=2.0, likelihood="gaussian", seed=1)
    model.compile("adam", loss="mse", **mode)
    yield "build_vae", model, [x, *condition], [x, *condition], x
    model = build_vae(*vae_networks(), seed=1)
    model.compile("adam", loss=reconstruction_loss, **mode)
    yield "build_vae-bernoulli", model, [x, *condition], [x, *condition], x
    model = VAE(*vae_networks(), beta=2.0, likelihood="gaussian", seed=2)
    model.compile(keras.optimizers.Adam(1e-3), steps_per_execution=2, **mode)
    yield "vae", model, [x, *condition], [x], y

    generator, discriminator = gan_networks()
    yield "generator", generator, [z, *condition], None, None
    yield "discriminator", discriminator, [x, *condition], None, None
    combined = build_gan(generator, discriminator)
    combined.compile("adam", loss="binary_crossentropy", **mode)
    yield "build_gan", combined, [z, *condition], [z, *condition], np.ones((40, 1), "float32")
    model = GAN(*gan_networks(), joint_batch=True, fresh_noise=False, seed=3)
    model.compile(keras.optimizers.Adam(1e-3), keras.optimizers.RMSprop(1e-3), **mode)
    yield "gan", model, [z, *condition], [x], y

    model = build_pixelcnn((6, 5, 1), 4, 2, levels=3, num_classes=num_classes)
    model.compile(keras.optimizers.Adam(1e-2), **mode)
    small = x[:, :30].reshape(40, 6, 5, 1)
    yield "pixelcnn", model, [small, *condition], [small], y
    model = DDPM(build_unet((4, 4, 1), (3, 4), 1, num_classes), NoiseSchedule("cosine", 9), seed=4)
    model.compile(keras.optimizers.Adam(1e-2), **mode)
    steps, smaller = rng.integers(9, size=40).astype("int32"), x[:, :16].reshape(40, 4, 4, 1)
    yield "ddpm", model, [smaller, steps, *condition], [smaller], y
    model = build_wavenet(16, 1, 2, 4, 6, num_classes, sample_rate=500)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    model.compile(keras.optimizers.Adam(1e-2), loss, **mode)
    levels = rng.integers(16, size=(40, 7)).astype("int32")
    targets = np.where(np.arange(6) < 4, levels[:, 1:], -1)
    yield "wavenet", model, [levels, *condition], [levels[:, :-1], *condition], targets

    if num_classes:
        cnn = build_cnn(num_classes=num_classes)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        cnn.compile("adam", loss, **mode)
        images = x.reshape(-1, 28, 28, 1)
        yield "cnn", cnn, [images], [images], labels
    else:
        tokens = rng.integers(5, size=(40, 7)).astype("int32")
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model = build_language_model(5, "lstm", 4, 6, num_layers=2, dropout=0.5)
        model.compile(keras.optimizers.Adam(1e-2, global_clipnorm=1.0), loss, **mode)
        yield "lstm", model, [tokens], [tokens[:, :-1]], tokens[:, 1:]
        source, target = rng.integers(1, 9, size=(2, 40, 7)).astype("int32")
        source[::2, 4:] = 0
        model = build_seq2seq_transformer(9, 11, 8, 1, 8, 2, 12, dropout=0.5)
        rate = WarmupSchedule(8, warmup_steps=5, decay_steps=50)
        model.compile(keras.optimizers.Adam(rate), MaskedCrossentropy(0.2), **mode)
        yield "seq2seq", model, [source, target], [source], target
        model = build_transformer(9, 9, 8, 1, 8, 2, 12, dropout=0.5, causal=True)
        model.compile("adam", "sparse_categorical_crossentropy", **mode)
        yield "transformer", model, [source], [source[:, :-1]], source[:, 1:]
        model = build_transformer(9, 3, 8, 1, 8, 2, 12, pooling="mean")
        yield "transformer-pooled", model, [source], None, None
        forecaster = build_forecaster(12, 3, units=4)
        forecaster.compile("adam", loss="mae", **mode)
        yield "forecaster", forecaster, [x[:, :12]], [x[:, :12]], x[:, 12:15]


NAMES = [
    "encoder", "decoder", "build_vae", "build_vae-bernoulli", "vae",
    "generator", "discriminator", "build_gan", "gan", "pixelcnn", "ddpm", "wavenet",
]  # fmt: skip
SEQUENCES = ["lstm", "seq2seq", "transformer", "transformer-pooled", "forecaster"]


# One test of many models, as it takes a fresh process.
def test_loaded_models_go_on_like_the_saved_ones(tmp_path):
    # Also what is drawn: the state of the noise is saved, and so are both optimizers of a GAN.
    expected = {
        path: save_and_go_on(path, *rest)
        for num_classes, folder in ((None, "unconditional"), (10, "conditional"))
        for path, *rest in (
            (tmp_path / folder / name, *rest) for name, *rest in models(num_classes)
        )
    }
    subprocess.run([sys.executable, "-c", FRESH_PROCESS, tmp_path], check=True)
    assert [path.name for path in expected] == [*NAMES, *SEQUENCES, *NAMES, "cnn"]
    differences = {}
    for path, results in expected.items():
        loaded = dict(np.load(path.with_suffix(".loaded.npz")))
        assert list(loaded) == list(results), path
        differences[path] = largest_difference(loaded.values(), results.values())
    assert all(difference < 1e-6 for difference in differences.values()), differences


def save_and_go_on(path, model, inputs, x, y) -> dict:
    """Train and save a model; return what it gives then, and its weights an epoch later."""
    arrays = {f"input_{i}": array for i, array in enumerate(inputs)}
    if x is not None:
        fit = dict(x=x if len(x) > 1 else x[0], y=y, shuffle=False, verbose=0)
        model.fit(**fit)
        arrays |= {f"x_{i}": array for i, array in enumerate(x)}
        arrays |= {} if y is None else {"y": y}
    path.parent.mkdir(exist_ok=True)
    np.savez(path.with_suffix(".npz"), **arrays)
    model.save(path.with_suffix(".keras"))
    outputs = model(inputs if len(inputs) > 1 else inputs[0])
    outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    results = {f"output_{i}": np.asarray(output) for i, output in enumerate(outputs)}
    if x is not None:
        model.fit(**fit)
        results |= {f"weight_{i:02d}": w for i, w in enumerate(model.get_weights())}
    return results


def test_subclass_keeps_its_settings(tmp_path):
    model = VAE(build_encoder(8, (4,), 2), build_decoder(2, (4,), 8), 2.0, "gaussian", seed=7)
    model.save(tmp_path / "vae.keras")
    loaded = keras_genai.load_model(tmp_path / "vae.keras")
    assert (loaded.beta, loaded.likelihood, loaded.seed) == (2.0, "gaussian", 7)
    model = GAN(build_generator(2, (4,), 8), build_discriminator(8, (4,)), True, False, seed=7)
    model.compile(jit_compile=False, steps_per_execution=3)
    model.save(tmp_path / "gan.keras")
    loaded = keras_genai.load_model(tmp_path / "gan.keras")
    assert (loaded.joint_batch, loaded.fresh_noise, loaded.seed) == (True, False, 7)
    assert (loaded.jit_compile, loaded.steps_per_execution) == (False, 3)


def test_damaged_files_are_named(tmp_path):
    path = tmp_path / "model.keras"
    with pytest.raises(FileNotFoundError, match="model.keras: no such file"):
        keras_genai.load_model(path)
    build_cnn().save(path)
    whole = path.read_bytes()
    altered = bytearray(whole)
    altered[len(whole) // 2] ^= 1
    other_zip = io.BytesIO()
    zipfile.ZipFile(other_zip, "w").close()
    broken = [whole[: len(whole) // 2], bytes(altered), b"", b"text", other_zip.getvalue()]
    broken += [whole[:-10] + bytes([i]) + whole[-9:] for i in range(0, 256, 50)]
    for damaged in broken:
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"model.keras: expected a whole .keras file"):
            keras_genai.load_model(path)
    with pytest.raises(ValueError, match="expected a whole .keras file"):
        keras_genai.load_model(pathlib.Path(__file__))


def test_a_file_with_code_in_it_is_not_run(tmp_path):
    layer = keras.layers.Lambda(lambda x: x)
    model = keras.Sequential([keras.Input((1,)), layer])
    model.save(tmp_path / "lambda.keras")
    with pytest.raises(ValueError, match="lambda"):
        keras_genai.load_model(tmp_path / "lambda.keras")
