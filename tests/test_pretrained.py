"""Pretrained models: each reproduces its metric, and damaged files are rejected by name."""

import dataclasses
import hashlib
import json
import math
import shutil
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest
from helpers import largest_difference

from keras_genai import datasets, export, pretrained, recipes, tasks
from keras_genai.__main__ import main
from keras_genai.experiments import EXPERIMENTS
from keras_genai.recipes import RECIPES

PRETRAINED = [
    "article1-text-to-image",
    "article1-transformer",
    "article1-transformer-classifier",
    "article3-audio-vae",
    "article3-diffusion",
    "article3-diffusion-cosine",
    "article3-diffusion-unconditional",
    "article3-forecast",
    "article3-lstm",
    "article3-lstm-attention",
    "article3-lstm-tang",
    "article3-lstm-translation",
    "article3-music",
    "article3-pixelcnn",
    "article3-rnn",
    "article3-wavenet",
    "article4-cnn",
    "article4-gan",
    "article4-gpt2",
    "article4-gpt2-tang",
    "article4-vae",
    "conditional-conv-vae",
    "conditional-dcgan",
    "conditional-vae",
    "conv-vae",
    "dcgan",
]


@pytest.fixture(scope="module")
def cnn():
    return pretrained.load("article4-cnn")


def test_names_of_pretrained_models():
    assert pretrained.names() == PRETRAINED


@pytest.mark.parametrize("name", PRETRAINED)
def test_architectures_have_no_arguments_that_keras_3_8_refuses(name):
    later = {"quantization_config", "input_axes", "output_axes", "sliding_window", "use_gate"}
    later |= {"renorm", "renorm_clipping", "renorm_momentum"}
    pending = [pretrained.metadata(name)["model"]]
    while pending:
        item = pending.pop()
        if isinstance(item, list):
            pending += item
        if isinstance(item, dict):
            assert not later & set(item)
            if "keras.src.ops" in str(item.get("module")):
                assert "name" not in item["config"]
            pending += item.values()


@pytest.mark.parametrize("name", PRETRAINED)
def test_all_weights_are_loaded(name):
    stored = set()

    def add(_, item):
        if isinstance(item, h5py.Dataset):
            stored.add(np.asarray(item, "float32").tobytes())

    with h5py.File(pretrained.weights_path(datasets.data_dir() / "weights", name)) as file:
        file.visititems(add)
    assert all(weight.tobytes() in stored for weight in pretrained.load(name).get_weights())


@pytest.mark.slow
@pytest.mark.parametrize("name", PRETRAINED)
def test_pretrained_weights_reproduce_their_metric(name, monkeypatch):
    recipe, task, info = RECIPES[name], EXPERIMENTS[name].task, pretrained.metadata(name)
    data = task.load()
    if isinstance(task, tasks.DiffusionTask):
        monkeypatch.setattr(type(task), "num_samples", 128)  # 1,000 take minutes
        # The loss on the test images is not compared.
        data.test = tuple(None if array is None else array[:100] for array in data.test)
    value = task.evaluate(pretrained.load(name), data)["value"]
    # The bound of a VAE is an average over noise, which varies by some hundredths of a nat.
    tolerance = 4.0 if isinstance(task, tasks.DiffusionTask) else 0.005
    if name == "article4-vae":
        tolerance = 0.1
    if recipe.metric.startswith("Fréchet"):
        tolerance = 0.05
    assert value == pytest.approx(info["value"], abs=tolerance)
    assert info["value"] == pytest.approx(recipe.expected, abs=recipe.tolerance)
    command = "article3-lstm --data tang" if name == "article3-lstm-tang" else name
    assert info["command"] == f"python -m keras_genai train {command}"
    assert (info["epochs"], info["seed"]) == (recipe.epochs, 0)
    assert (info["name"], info["metric"]) == (name, recipe.metric)
    assert info["minutes"] > 0 and set(info["versions"]) == {
        "python",
        "tensorflow",
        "keras",
        "numpy",
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", PRETRAINED)
def test_pretrained_models_are_compiled_as_their_recipes(name):
    model, info = pretrained.load(name), pretrained.metadata(name)
    config = compile_config(model)
    steps = info["epochs"] * math.ceil(info["num_examples"] / info["batch_size"])
    EXPERIMENTS[name].compile(model, steps)
    assert config == compile_config(model)


def compile_config(model) -> dict:
    """Return the compile configuration, without the numbers of the optimizers' names."""
    config = model.get_compile_config()
    for key in config:
        if key.endswith("optimizer"):
            del config[key]["config"]["name"]
    return config


def test_pretrained_weights_are_small():
    sizes = [path.stat().st_size for path in datasets.data_dir().glob("weights/*.h5")]
    assert len(sizes) == len(PRETRAINED) and max(sizes) <= 8e6


@pytest.mark.slow
def test_loading_a_pretrained_model_imports_no_recipe():
    code = (
        "import sys\nimport keras_genai.pretrained\n"
        "keras_genai.pretrained.load('article4-vae')\n"
        "assert not {'keras_genai.recipes', 'keras_genai.experiments'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_conditional_vae_generates_the_requested_digit(cnn):
    labels = np.repeat(np.arange(10), 200)
    images = pretrained.load("conditional-vae").generate(2000, labels=labels, seed=0)
    logits = cnn.predict(images.reshape(-1, 28, 28, 1), batch_size=500, verbose=0)
    assert np.mean(logits.argmax(-1) == labels) >= 0.95


@pytest.mark.slow
def test_pretrained_models_can_be_trained_further(digits):
    model = pretrained.load("article4-vae")
    before = model.get_weights()
    model.fit(digits[0][:64], verbose=0)  # batches of one size: XLA compiles a step for each
    assert largest_difference(model.get_weights(), before) > 1e-4


@pytest.fixture
def weights_copy(tmp_path, monkeypatch):
    """A copy of the folder of pretrained weights, which a test may damage."""
    shutil.copytree(datasets.data_dir() / "weights", tmp_path / "weights")
    monkeypatch.setenv("KERAS_GENAI_DATA", str(tmp_path))
    return tmp_path / "weights"


@pytest.mark.parametrize("damage", ["truncated", "flipped bit"])
def test_damaged_weights_raise(weights_copy, damage):
    path = weights_copy / "article4-vae.weights.h5"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content[:1000] if damage == "truncated" else content)
    with pytest.raises(ValueError, match="article4-vae.weights.h5: cut short or altered"):
        pretrained.load("article4-vae")


def test_missing_weights_raise(weights_copy):
    (weights_copy / "article4-vae.weights.h5").unlink()
    with pytest.raises(FileNotFoundError, match="article4-vae.weights.h5: no such file"):
        pretrained.load("article4-vae")


def test_damaged_metadata_raises(weights_copy):
    (weights_copy / "article4-gan.json").write_text("{")
    with pytest.raises(ValueError, match="article4-gan.json: cut short or altered"):
        pretrained.load("article4-gan")


@pytest.mark.parametrize("function", [pretrained.load, pretrained.metadata])
def test_unknown_name_raises_with_the_known_names(function):
    with pytest.raises(ValueError, match="article1-vae: expected a name with .* article4-cnn, "):
        function("article1-vae")


@pytest.mark.slow
def test_exported_weights_load_without_their_recipe(tmp_path, monkeypatch, digits):
    run_folder, output_folder = tmp_path / "run", tmp_path / "data" / "weights"
    name = "article4-vae"
    without_xla = dataclasses.replace(
        EXPERIMENTS[name], compile=lambda model, steps: model.compile("adam")
    )
    monkeypatch.setitem(EXPERIMENTS, name, without_xla)
    model = recipes.create(name)
    model.fit(digits[0], verbose=0)
    run_folder.mkdir()
    model.save(run_folder / "model.keras")
    settings = {"name": name, "seed": 5, "dataset_info": {"num_classes": None}}
    settings |= {"epochs": 1, "num_examples": 1000, "batch_size": 32, "data": None}
    (run_folder / "run.json").write_text(json.dumps(settings))
    export.export_weights(run_folder, output_folder)
    assert keras.config.dtype_policy().name == "float32"

    monkeypatch.setenv("KERAS_GENAI_DATA", str(tmp_path / "data"))
    monkeypatch.delitem(EXPERIMENTS, name)
    monkeypatch.delitem(RECIPES, name)
    assert pretrained.names() == [name]
    loaded = pretrained.load(name)
    rounded = [weight.astype("float16").astype("float32") for weight in model.get_weights()]
    assert largest_difference(loaded.get_weights(), rounded) == 0
    assert compile_config(loaded) == compile_config(model)
    info = pretrained.metadata(name)
    content = (output_folder / "article4-vae.weights.h5").read_bytes()
    assert info["sha256"] == hashlib.sha256(content).hexdigest()
    assert info["model"]["class_name"] == "VAE" and "dataset_info" not in info
    assert info["seed"] == 5 and info["value"] > 150  # a model of one epoch
    assert info["value"] == pytest.approx(info["reconstruction_loss"] + info["kl_loss"])
    check_rounded_export(monkeypatch, tmp_path, model, len(content))


def check_rounded_export(monkeypatch, tmp_path, model, size):
    monkeypatch.undo()
    weights_folder = tmp_path / "rounded" / "weights"
    export.export_weights(tmp_path / "run", weights_folder, steps_per_deviation=8)
    assert (weights_folder / "article4-vae.weights.h5").stat().st_size < 0.6 * size
    monkeypatch.setenv("KERAS_GENAI_DATA", str(tmp_path / "rounded"))
    loaded = pretrained.load("article4-vae").get_weights()
    for exact, rounded in zip(model.get_weights(), loaded, strict=True):
        half = exact.astype("float16").astype("float32")
        if exact.ndim == 1:
            np.testing.assert_array_equal(rounded, half)
            continue
        step = 2.0 ** np.floor(np.log2(half.std() / 8))
        assert np.abs(rounded - half).max() <= step / 2 and len(np.unique(rounded)) > 8
        np.testing.assert_array_equal(rounded % step, 0)
    content = (weights_folder / "article4-vae.weights.h5").read_bytes()
    with pytest.raises(ValueError, match="steps_per_deviation: expected a whole number .* got 0"):
        export.export_weights(tmp_path / "run", weights_folder, steps_per_deviation=0)
    assert (weights_folder / "article4-vae.weights.h5").read_bytes() == content


@pytest.mark.parametrize("name", ["article4-gan", "conditional-vae"])
def test_generate_command_writes_images_of_a_pretrained_model(tmp_path, name):
    assert main(["generate", name, "--output", str(tmp_path / f"{name}.png")]) == 0
    assert (tmp_path / f"{name}.png").stat().st_size > 1000


@pytest.mark.parametrize(
    "name, prompt", [("article3-lstm", "Once upon a time"), ("article3-lstm-tang", "\u6625")]
)
def test_generate_command_continues_a_text_with_a_pretrained_model(capsys, name, prompt):
    assert main(["generate", name, "--prompt", prompt, "--length", "50"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(prompt) and len(text) == len(prompt) + 51


def test_generate_command_writes_a_quatrain_under_its_form(capsys):
    form = "*****\uff0c*****\u3002*****\uff0c*****\u3002"
    assert main(["generate", "article3-lstm-tang", "--form", form, "--count", "2"]) == 0
    poems = [line for line in capsys.readouterr().out.splitlines() if line[0] != "-"]
    assert len(poems) == 2 and poems[0] != poems[1]
    for poem in poems:
        assert "".join("*" if c.isalpha() else c for c in poem) == form


def test_pretrained_sequence_models_beat_the_baselines_of_the_readme():
    values = {name: pretrained.metadata(name)["value"] for name in PRETRAINED}
    assert values["article3-lstm"] <= 1.50
    assert values["article4-gpt2-tang"] < values["article3-lstm-tang"] < 5.708
    assert values["article3-music"] < 1.705
    assert values["article1-transformer"] > values["article3-lstm-attention"] > 33.5
    assert values["article3-lstm-attention"] > values["article3-lstm-translation"]
    forecast = pretrained.metadata("article3-forecast")
    assert forecast["value"] < 0.410 and forecast["52 steps ahead"] < 0.728


def test_exporting_a_folder_without_a_finished_run_raises(tmp_path):
    with pytest.raises(ValueError, match="expected the folder of a finished run, found none"):
        export.export_weights(tmp_path, tmp_path / "exported")
