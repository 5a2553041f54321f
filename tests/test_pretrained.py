"""Shipped weights: each gives its figure again, and a damaged file is refused by name."""

import dataclasses
import hashlib
import json
import shutil

import keras
import numpy as np
import pytest
from conftest import largest_difference

from keras_genai import datasets, pretrained, tasks
from keras_genai.__main__ import main
from keras_genai.recipes import RECIPES

SHIPPED = [
    "article1-transformer",
    "article3-diffusion",
    "article3-diffusion-unconditional",
    "article3-forecast",
    "article3-lstm",
    "article3-lstm-tang",
    "article3-pixelcnn",
    "article3-rnn",
    "article3-wavenet",
    "article4-cnn",
    "article4-gan",
    "article4-gpt2",
    "article4-vae",
    "conditional-vae",
]


@pytest.fixture(scope="module")
def cnn():
    return pretrained.load("article4-cnn")


def test_names_of_what_ships():
    assert pretrained.names() == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_give_their_figure_again(name, monkeypatch):
    recipe, record = RECIPES[name], pretrained.record(name)
    monkeypatch.setattr(tasks.Denoising, "num_samples", 128)  # a thousand take minutes
    measured = recipe.task.measure(pretrained.load(name), recipe.task.load())["measured"]
    # A VAE's bound is an average over noise, which differs by some hundredths of a nat.
    noise = {"article4-vae": 0.1, "article3-diffusion": 4.0}.get(name, 0.005)
    assert measured == pytest.approx(record["measured"], abs=noise)
    assert record["measured"] == pytest.approx(recipe.expected, abs=recipe.tolerance)
    command = name.replace("-tang", " --data tang")
    assert record["command"] == f"python -m keras_genai train {command}"
    assert (record["epochs"], record["seed"]) == (recipe.epochs, 0)
    assert record["minutes"] > 0 and set(record["versions"]) == {
        "python",
        "tensorflow",
        "keras",
        "numpy",
    }


def test_shipped_weights_are_small():
    sizes = [path.stat().st_size for path in datasets.data_folder().glob("weights/*.h5")]
    assert len(sizes) == len(SHIPPED) and max(sizes) <= 8e6


def test_a_label_decides_the_digit(cnn):
    labels = np.repeat(np.arange(10), 200)
    images = pretrained.load("conditional-vae").generate(2000, labels=labels, seed=0)
    read = cnn.predict(images.reshape(-1, 28, 28, 1), batch_size=500, verbose=0).argmax(-1)
    assert np.mean(read == labels) >= 0.95


def test_pretrained_models_can_be_trained_further(digits):
    model = pretrained.load("article4-vae")
    before = model.get_weights()
    model.fit(digits[0][:64], verbose=0)  # batches of one size: XLA compiles a step for each
    assert largest_difference(model.get_weights(), before) > 1e-4


@pytest.fixture
def other_folder(tmp_path, monkeypatch):
    """A copy of the shipped weights, which may be damaged."""
    shutil.copytree(datasets.data_folder() / "weights", tmp_path / "weights")
    monkeypatch.setenv("KERAS_GENAI_DATA", str(tmp_path))
    return tmp_path / "weights"


def test_damaged_weights_are_refused_by_name(other_folder):
    path = other_folder / "article4-vae.weights.h5"
    altered = bytearray(path.read_bytes())
    altered[-100] ^= 1
    for damaged in (altered[:1000], bytes(altered)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="article4-vae.weights.h5: cut short or altered"):
            pretrained.load("article4-vae")
    (other_folder / "article4-gan.json").write_text("{")
    with pytest.raises(ValueError, match="article4-gan.json: cut short or altered"):
        pretrained.load("article4-gan")
    path.unlink()
    with pytest.raises(FileNotFoundError, match="article4-vae.weights.h5: no such file"):
        pretrained.load("article4-vae")


def test_unknown_names_are_answered_with_those_that_ship():
    with pytest.raises(ValueError, match="article1-vae: expected a name with .* article4-cnn, "):
        pretrained.load("article1-vae")


def test_ship_writes_the_trained_weights_and_what_they_measure(tmp_path, monkeypatch, digits):
    run, folder = tmp_path / "run", tmp_path / "data" / "weights"
    recipe = RECIPES["article4-vae"]
    without_xla = dataclasses.replace(recipe, compile=lambda model, steps: model.compile("adam"))
    monkeypatch.setitem(RECIPES, recipe.name, without_xla)
    model = without_xla.create()
    model.fit(digits[0], verbose=0)
    run.mkdir()
    model.save(run / "model.keras")
    settings = {"name": "article4-vae", "seed": 5, "facts": {"num_classes": None}}
    settings |= {"epochs": 1, "count": 1000, "batch_size": 32}
    (run / "run.json").write_text(json.dumps(settings))
    pretrained.ship(run, folder)
    monkeypatch.setenv("KERAS_GENAI_DATA", str(tmp_path / "data"))
    weights = pretrained.load("article4-vae").get_weights()
    rounded = [weight.astype("float16").astype("float32") for weight in model.get_weights()]
    assert largest_difference(weights, rounded) == 0
    assert keras.config.dtype_policy().name == "float32"
    record = pretrained.record("article4-vae")
    written = (folder / "article4-vae.weights.h5").read_bytes()
    assert record["sha256"] == hashlib.sha256(written).hexdigest()
    assert record["seed"] == 5 and record["measured"] > 150  # a model of one epoch
    assert record["measured"] == pytest.approx(record["reconstruction"] + record["kl"])


def test_generate_takes_shipped_weights(tmp_path, capsys):
    for name in ("article4-gan", "conditional-vae"):
        assert main(["generate", name, "--output", str(tmp_path / f"{name}.png")]) == 0
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
    capsys.readouterr()
    for name, prompt in (("article3-lstm", "Once upon a time"), ("article3-lstm-tang", "\u6625")):
        assert main(["generate", name, "--prompt", prompt, "--length", "50"]) == 0
        written = capsys.readouterr().out
        assert written.startswith(prompt) and len(written) == len(prompt) + 51


def test_shipped_language_models_beat_the_n_grams_that_the_readme_names():
    measured = {name: pretrained.record(name)["measured"] for name in SHIPPED}
    assert measured["article3-lstm"] <= 1.50
    assert measured["article3-lstm-tang"] < 5.708
    forecast = pretrained.record("article3-forecast")
    assert forecast["measured"] < 0.410 and forecast["52 ahead"] < 0.728
