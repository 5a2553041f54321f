"""Command line: what it leaves, how it goes on after a stop, what it says of bad input."""

import csv
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from functools import partial

import keras
import numpy as np
import pytest
from conftest import largest_difference

import keras_genai
from keras_genai import datasets, pretrained, tasks
from keras_genai.__main__ import _set_pace, main
from keras_genai.audio import load_wav, save_wav
from keras_genai.callbacks import SaveEachEpoch
from keras_genai.diffusion import DDPM, NoiseSchedule, build_unet
from keras_genai.gan import GAN, build_discriminator, build_generator
from keras_genai.gpt2 import build_gpt2
from keras_genai.pixelcnn import build_pixelcnn
from keras_genai.recipes import RECIPES
from keras_genai.rnn import build_language_model
from keras_genai.text import CharacterTokenizer, GPT2Tokenizer, TranslationTokenizer
from keras_genai.transformer import WarmupSchedule, build_seq2seq_transformer
from keras_genai.vae import VAE, build_decoder, build_encoder
from keras_genai.wavenet import build_wavenet


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """200 real digits as PNG files, in a folder for each digit."""
    folder = tmp_path_factory.mktemp("images")
    (x, y), _ = datasets.load_mnist()
    for i in range(200):
        (folder / str(y[i])).mkdir(exist_ok=True)
        keras.utils.save_img(folder / str(y[i]) / f"{i}.png", x[i][..., None], scale=False)
    return folder


@pytest.fixture(scope="module")
def own(images, tmp_path_factory):
    """A user's own data for each kind of task: a folder, a text, a CSV file."""
    folder = tmp_path_factory.mktemp("own")
    book = datasets.load_books()[0]
    (folder / "text.txt").write_text(book[:6000], encoding="utf-8")
    (folder / "long.txt").write_text(book[:15_000], encoding="utf-8")
    values = "\n".join(f"{t},{t + t % 52}" for t in range(600))
    (folder / "series.csv").write_text(f"week,value\n{values}\n")
    pairs = "\n".join(map("\t".join, datasets.load_translations()[:30]))
    (folder / "pairs.tsv").write_text(pairs, encoding="utf-8")
    for i in range(12):
        kind = folder / "sounds" / ("low" if i % 2 else "high")
        kind.mkdir(parents=True, exist_ok=True)
        save_wav(kind / f"{i}.wav", np.sin(np.arange(300 + i) / (20 if i % 2 else 3)), 1000)
    files = {
        tasks.Text: folder / "text.txt",
        tasks.FineTuning: folder / "long.txt",
        tasks.Series: folder / "series.csv",
        tasks.Translation: folder / "pairs.tsv",
        tasks.Sounds: folder / "sounds",
    }
    files = {name: files.get(type(recipe.task), images) for name, recipe in RECIPES.items()}
    files["article4-gpt2"] = folder / "long.txt"  # whose windows are longer
    return files.get


@pytest.fixture
def small(monkeypatch):
    """Let recipes start at once, where their size is not what is tested: small, without XLA."""

    def vae(seed, num_classes):
        return VAE(build_encoder(784, (8,), 2), build_decoder(2, (8,), 784), seed=seed)

    def gan(seed, num_classes):
        return GAN(build_generator(4, (8,)), build_discriminator(784, (8,)), seed=seed)

    changes = {
        "article4-vae": dict(build=vae, compile=lambda model, steps: model.compile("adam")),
        "article4-gan": dict(build=gan),
        "article3-lstm": dict(build=partial(RECIPES["article3-lstm"].build, embed_dim=4, units=8)),
    }
    for name, change in changes.items():
        monkeypatch.setitem(RECIPES, name, dataclasses.replace(RECIPES[name], **change))


def train(*arguments) -> int:
    return main(["train", *map(str, arguments)])


def weights(folder) -> list[np.ndarray]:
    return keras_genai.load_model(folder / "model.keras").get_weights()


def history(folder) -> list[dict]:
    with open(folder / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


# list and --help.


@pytest.mark.parametrize("arguments", [["list"], ["--help"], ["train", "--help"]])
def test_list_and_help_do_not_load_tensorflow(arguments):
    code = (
        "import sys\nfrom keras_genai.__main__ import main\n"
        f"try: main({arguments})\nexcept SystemExit as end: assert end.code == 0\n"
        "assert not {'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "train" in done.stdout or "--resume" in done.stdout or "article4-vae" in done.stdout


def test_list_shows_each_recipe_with_its_article_and_figure(capsys):
    assert main(["list"]) == 0
    heads, *lines = capsys.readouterr().out.splitlines()
    assert heads.split()[:2] == ["name", "article"]
    assert [line.split()[0] for line in lines] == list(RECIPES)
    for line, recipe in zip(lines, RECIPES.values()):
        figure = f"{recipe.figure}: {recipe.expected:g}"
        parts = (recipe.article, recipe.model, recipe.task.data, figure)
        assert all(part in line for part in parts)


# train.


@pytest.fixture
def narrow(monkeypatch):
    """Let deep recipes have one layer or few: theirs take long to compile."""

    def translator(seed, input_tokenizer, target_tokenizer, max_seq_length):
        tokenizers = [TranslationTokenizer(text) for text in (input_tokenizer, target_tokenizer)]
        sizes = [tokenizer.vocab_size for tokenizer in tokenizers]
        return build_seq2seq_transformer(
            *sizes, max_seq_length, 1, 16, dff=32,
            input_tokenizer=tokenizers[0], target_tokenizer=tokenizers[1],
        )  # fmt: skip

    def gpt2(seed, tokenizer):
        tokenizer = GPT2Tokenizer(tokenizer)
        return build_gpt2(tokenizer.vocab_size, 256, 1, 2, 16, tokenizer=tokenizer)

    def pixelcnn(seed, num_classes):
        return build_pixelcnn(num_filters=4, num_layers=2)

    def wavenet(seed, kinds, sample_rate):
        return build_wavenet(256, 1, 3, 4, 4, len(kinds), sample_rate)

    def ddpm(seed, num_classes):
        network = build_unet(widths=(2, 2), num_classes=num_classes)
        return DDPM(network, NoiseSchedule(num_steps=50), seed=seed)

    changes = {
        "article1-transformer": translator,
        "article3-pixelcnn": pixelcnn,
        "article3-wavenet": wavenet,
        "article3-diffusion": ddpm,
        "article3-diffusion-unconditional": ddpm,
        "article4-gpt2": gpt2,
        "article4-finetune": gpt2,
    }
    for name, build in changes.items():
        recipe = dataclasses.replace(RECIPES[name], build=build)
        monkeypatch.setitem(RECIPES, name, recipe)
    definition = pretrained.record("article4-gpt2")["facts"]["tokenizer"]
    monkeypatch.setattr(pretrained, "load", lambda name: gpt2(0, definition))


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_on_data_of_ones_own(own, tmp_path, capsys, name):
    # Batches of one size, as XLA compiles a step for each.
    common = ("--epochs", 1, "--batch-size", 60, "--output", tmp_path)
    assert train(name, *common, "--data", own(name)) == 0
    pictures = {
        tasks.Reconstruction: ["samples", "samples.png", "reconstructions.png"],
        tasks.Adversarial: ["samples", "samples.png"],
        tasks.Classification: ["predictions.png"],
        tasks.Likelihood: ["samples", "samples.png", "completions.png", "likelihood.png"],
        tasks.Denoising: ["samples", "samples.png", "noising.png", "denoising.png"],
        tasks.Text: ["sample.txt"],
        tasks.FineTuning: ["sample.txt"],
        tasks.Sounds: ["samples", "samples.png"],
        tasks.Series: ["forecast.png"],
        tasks.Translation: ["translations.txt"],
    }
    task = RECIPES[name].task
    expected = ["history.csv", "history.png", "model.keras", "run.json", *pictures[type(task)]]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(expected)
    if "samples" in expected:
        drawn = sorted(path.name for path in (tmp_path / "samples").iterdir())
        sounds = isinstance(task, tasks.Sounds)
        assert drawn == (["high.wav", "low.wav"] if sounds else ["epoch-01.png"])
    assert len(history(tmp_path)) == 1
    run = json.loads((tmp_path / "run.json").read_text())
    assert (run["name"], run["epochs"], run["seed"]) == (name, 1, 0)
    assert set(run["versions"]) == {"python", "tensorflow", "keras", "numpy"}
    out = capsys.readouterr().out
    if task.needs_judge:
        assert run["measured"] is None and "not measured" in out
    else:
        assert f"measured {run['measured']:.6g} after 1 epochs, expected" in out


@pytest.mark.usefixtures("small", "narrow")
@pytest.mark.parametrize(
    "name",
    [
        "article4-vae",
        "article4-gan",
        "article4-cnn",
        "article3-lstm",
        "article3-pixelcnn",
        "article3-wavenet",
        "article3-diffusion",
    ],
)
def test_resumed_training_ends_where_uninterrupted_training_does(own, tmp_path, monkeypatch, name):
    # The order of the batches, all noise, the optimizers and the count of epochs go on.
    common = (name, "--data", own(name), "--batch-size", 32, "--seed", 3, "--epochs", 3)
    assert train(*common, "--output", tmp_path / "whole") == 0
    with monkeypatch.context() as patch:
        interrupt(patch, after=1)
        assert train(*common, "--output", tmp_path / "parts") == 130
    assert train(name, "--resume", "--output", tmp_path / "parts") == 0
    assert largest_difference(weights(tmp_path / "whole"), weights(tmp_path / "parts")) < 1e-6
    whole, parts = history(tmp_path / "whole"), history(tmp_path / "parts")
    assert [row["epoch"] for row in parts] == ["0", "1", "2"]
    for row, other in zip(whole, parts):
        for key in row:
            assert float(row[key]) == pytest.approx(float(other[key]), rel=1e-4)


@pytest.mark.parametrize("stop, code", [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_stopped_training_goes_on_from_the_last_whole_epoch(images, tmp_path, stop, code):
    arguments = ["article4-cnn", "--data", images, "--epochs", "500", "--output", tmp_path]
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_genai", "train", *arguments],
        stdout=subprocess.DEVNULL,
        # A shell that runs the tests in the background has them ignore Ctrl-C; a user's does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None and not (tmp_path / "model.keras").exists():
        time.sleep(0.01)
    process.send_signal(stop)  # at whatever moment that is
    assert process.wait(timeout=60) == code
    done = int(keras_genai.load_model(tmp_path / "model.keras").optimizer.iterations) // 3
    assert 1 <= done < 500
    assert train("article4-cnn", "--resume", "--epochs", done + 2, "--output", tmp_path) == 0
    assert [int(row["epoch"]) for row in history(tmp_path)] == list(range(done + 2))

    whole = tmp_path / "whole"
    assert train("article4-cnn", "--data", images, "--epochs", done + 2, "--output", whole) == 0
    assert largest_difference(weights(whole), weights(tmp_path)) < 1e-4


def interrupt(monkeypatch, after: int):
    """Press Ctrl-C in the epoch after `after` whole ones."""
    on_epoch_end = SaveEachEpoch.on_epoch_end

    def interrupted(self, epoch, logs=None):
        if epoch == after:
            raise KeyboardInterrupt
        on_epoch_end(self, epoch, logs)

    monkeypatch.setattr(SaveEachEpoch, "on_epoch_end", interrupted)


@pytest.mark.usefixtures("small")
def test_ctrl_c_says_how_to_go_on_and_loses_nothing(images, tmp_path, capsys, monkeypatch):
    common = ("article4-vae", "--data", images, "--epochs", 3, "--output", tmp_path)
    with monkeypatch.context() as patch:
        interrupt(patch, after=1)
        assert train(*common) == 130
    assert "--resume goes on after the last whole epoch" in capsys.readouterr().err
    assert len(history(tmp_path)) == 2  # the second was measured, but not saved

    assert train(*common) == 2  # would begin anew over an unfinished run
    assert "holds an unfinished run; --resume goes on with it" in capsys.readouterr().err
    assert train("article4-vae", "--resume", "--output", tmp_path) == 0
    assert [row["epoch"] for row in history(tmp_path)] == ["0", "1", "2"]


@pytest.mark.usefixtures("small")
def test_ctrl_c_in_the_first_epoch_can_be_resumed_too(images, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt(patch, after=0)
        assert train("article4-vae", "--data", images, "--epochs", 1, "--output", tmp_path) == 130
    assert train("article4-vae", "--resume", "--output", tmp_path) == 0
    assert len(history(tmp_path)) == 1


def test_a_rate_that_decays_ends_with_the_epochs_that_are_asked_for(own, tmp_path):
    common = ("article3-forecast", "--output", tmp_path)
    for arguments, epochs in (("--data", own("article3-forecast")), 1), (("--resume",), 3):
        assert train(*common, *arguments, "--epochs", epochs) == 0
        optimizer = keras_genai.load_model(tmp_path / "model.keras").optimizer
        schedule = optimizer._learning_rate
        assert schedule.decay_steps == int(optimizer.iterations) == epochs * schedule_steps(own)
        assert float(schedule(schedule.decay_steps)) == 0 < float(schedule(0))


def test_a_warm_up_that_decays_is_stretched_too():
    optimizer = keras.optimizers.Adam(WarmupSchedule(16, warmup_steps=3, decay_steps=5))
    _set_pace(optimizer, 10)
    schedule = optimizer._learning_rate
    assert schedule.get_config() == {"d_model": 16, "warmup_steps": 3, "decay_steps": 10}
    assert float(schedule(9)) == 0 < float(schedule(8))


def schedule_steps(own) -> int:
    """Steps of an epoch of article3-forecast on the user's series."""
    return -(-tasks.Series().load(own("article3-forecast")).count // 32)


@pytest.mark.usefixtures("small")
def test_finished_training_can_be_resumed_for_more_epochs_or_none(images, tmp_path, capsys):
    assert train("article4-vae", "--data", images, "--epochs", 2, "--output", tmp_path) == 0
    for epochs, done in (("1", 2), ("2", 2), ("3", 3)):
        capsys.readouterr()
        assert train("article4-vae", "--resume", "--epochs", epochs, "--output", tmp_path) == 0
        assert f"after {done} epochs" in capsys.readouterr().out
        assert len(history(tmp_path)) == done


def test_nan_stops_training_and_says_where(images, tmp_path, capsys, monkeypatch):
    recipe = RECIPES["article4-vae"]

    def too_fast(model, steps):
        model.compile(keras.optimizers.SGD(1e30))

    monkeypatch.setitem(RECIPES, recipe.name, dataclasses.replace(recipe, compile=too_fast))
    assert train(recipe.name, "--data", images, "--output", tmp_path, "--batch-size", 32) == 1
    assert "is nan in epoch 1, by step" in capsys.readouterr().err


@pytest.mark.usefixtures("small")
def test_resume_keeps_to_the_settings_of_the_run(images, tmp_path, capsys):
    assert train("article4-vae", "--resume", "--output", tmp_path) == 2
    assert "nothing to resume" in capsys.readouterr().err
    assert train("article4-vae", "--data", images, "--epochs", 1, "--output", tmp_path) == 0
    for arguments, message in (
        (["article4-vae", "--seed", 1], "--seed: the run was started with 0, got 1"),
        (["article4-vae", "--batch-size", 7], "--batch-size: the run was started with 64, got 7"),
        (["article1-vae"], "holds a run of article4-vae, not of article1-vae"),
        (["article4-vae", "--data", images / "7"], "--data: the run was started with"),
    ):
        assert train(*arguments, "--resume", "--output", tmp_path) == 2
        assert message in capsys.readouterr().err
    extra = images / "7" / "extra.png"
    keras.utils.save_img(extra, np.zeros((28, 28, 1)))
    assert train("article4-vae", "--resume", "--output", tmp_path) == 2
    assert "it began with 180 images, not 181" in capsys.readouterr().err
    extra.unlink()


@pytest.mark.usefixtures("small")
def test_a_new_run_sets_a_finished_model_aside_and_clears_its_samples(images, tmp_path):
    common = ("article4-vae", "--data", images, "--output", tmp_path)
    assert train(*common, "--epochs", 2) == 0
    finished = (tmp_path / "model.keras").read_bytes()
    assert train(*common, "--epochs", 1, "--seed", 1) == 0
    assert (tmp_path / "previous-model.keras").read_bytes() == finished
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["epoch-01.png"]
    assert len(history(tmp_path)) == 1
    assert train("article1-vae", "--output", tmp_path) == 2  # another recipe's folder


def test_classes_that_are_held_out_whole_are_counted(tmp_path):
    folder = tmp_path / "images"
    for i, name in enumerate("aaaaaaaabbbbbbbc"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        keras.utils.save_img(folder / name / f"{i:02d}.png", np.full((28, 28, 1), i))
    _, (_, y_test) = datasets.load_image_folder(folder)
    assert y_test.tolist() == [2]
    run = tmp_path / "run"
    assert train("article4-cnn", "--data", folder, "--epochs", 1, "--output", run) == 0
    assert keras_genai.load_model(run / "model.keras").output_shape == (None, 3)


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path, capsys, monkeypatch):
    def refused(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pathlib.Path, "read_text", refused)
    assert train("article4-vae", "--output", tmp_path) == 2
    assert "run.json: cannot be read" in capsys.readouterr().err
    (tmp_path / "run.json").touch()
    monkeypatch.undo()
    assert train("article4-vae", "--output", tmp_path) == 2
    assert "run.json: cannot be read" in capsys.readouterr().err


# generate.


def test_generate_draws_from_a_file_of_ones_own(images, tmp_path, capsys):
    run = tmp_path / "run"
    assert train("conditional-vae", "--data", images, "--epochs", 1, "--output", run) == 0
    picture = tmp_path / "sevens.png"
    arguments = ["generate", str(run / "model.keras"), "--output", str(picture), "--count", "3"]
    assert main([*arguments, "--label", "7"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(picture)
    first = picture.read_bytes()
    assert main([*arguments, "--label", "7"]) == 0 and picture.read_bytes() == first
    assert main([*arguments, "--label", "7", "--seed", "1"]) == 0 and picture.read_bytes() != first
    assert main([*arguments, "--label", "11"]) == 2
    assert "labels: expected integers from 0 to 9, got values from 11" in capsys.readouterr().err


def test_generate_names_its_picture_after_the_recipe(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["generate", "article4-vae", "--count", "4"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["article4-vae.png"]


@pytest.mark.usefixtures("small")
def test_generate_writes_text(own, tmp_path, capsys):
    run = tmp_path / "run"
    data = ("--data", own("article3-lstm"), "--output", run)
    assert train("article3-lstm", "--epochs", 1, *data) == 0
    arguments = ["generate", str(run / "model.keras"), "--length", "30", "--seed", "3"]
    capsys.readouterr()
    assert main([*arguments, "--prompt", "Alice"]) == 0
    written = capsys.readouterr().out
    assert written.startswith("Alice") and len(written) == 5 + 30 + 1
    assert main([*arguments, "--prompt", "Alice", "--output", str(tmp_path / "a.txt")]) == 0
    assert (tmp_path / "a.txt").read_text() == written
    capsys.readouterr()
    assert main([*arguments, "--prompt", "Alice", "--count", "2"]) == 0
    both = capsys.readouterr().out
    assert both.startswith(written) and both.count("Alice") == 2
    capsys.readouterr()
    assert main(arguments) == 0  # begins with a new line, which is not printed
    assert len(capsys.readouterr().out) == 30 + 1
    assert main([*arguments, "--top-k", "1", "--temperature", "0.5", "--top-p", "0.9"]) == 0
    for wrong, message in (
        (["--prompt", "Alice \u56db"], "got '\u56db' at position 6"),
        (["--prompt", ""], "prompt: expected a string of at least one character"),
        (["--temperature", "0"], "temperature: expected a number above 0, got 0"),
        (["--top-p", "2"], "top_p: expected a number above 0 and up to 1"),
        (["--label", "3"], "--label: for a model that is told a class"),
    ):
        assert main([*arguments, *wrong, "--output", str(tmp_path / "a.txt")]) == 2
        assert message in capsys.readouterr().err
    assert (tmp_path / "a.txt").read_text() == written  # nothing was lost


def test_a_text_without_new_lines_begins_with_the_first_character(tmp_path, capsys):
    tokenizer = CharacterTokenizer("xyz")
    model = build_language_model(3, "gru", 4, 4, tokenizer=tokenizer)
    model.save(tmp_path / "model.keras")
    assert main(["generate", str(tmp_path / "model.keras"), "--length", "9"]) == 0
    written = capsys.readouterr().out
    assert written.startswith("x") and len(written) == 1 + 9 + 1
    build_language_model(3, "gru", 4, 4).save(tmp_path / "model.keras")
    assert main(["generate", str(tmp_path / "model.keras"), "--length", "9"]) == 2
    assert "expected a model with a tokenizer" in capsys.readouterr().err


def test_generate_writes_sounds(tmp_path, capsys):
    build_wavenet(256, 1, 2, 4, 4, num_classes=3, sample_rate=500).save(tmp_path / "model.keras")
    arguments, drawn = ["generate", str(tmp_path / "model.keras"), "--output"], []
    for options, samples in (
        ([], 3 * 500),
        (["--count", "2", "--length", "70"], 2 * 70),
        (["--label", "1", "--count", "1"], 500),
        (["--temperature", "0.5", "--top-k", "9", "--top-p", "0.9"], 3 * 500),
    ):
        path = tmp_path / "sounds.wav"
        assert main([*arguments, str(path), *options]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == str(path)
        waveform, rate = load_wav(path)
        assert len(waveform) == samples and rate == 500
        drawn.append(waveform)
    assert not np.array_equal(drawn[0], drawn[-1])
    for options, message in (
        (["a.png"], "--output: expected a name that ends in .wav, got 'a.png'"),
        (["a.wav", "--prompt", "a"], "--prompt: for a model that writes text"),
        (["a.wav", "--label", "3"], "labels: expected integers from 0 to 2"),
    ):
        assert main([*arguments, *options]) == 2
        assert message in capsys.readouterr().err


def test_generate_takes_the_steps_and_the_scale_of_a_diffusion_model(tmp_path, capsys):
    model = DDPM(build_unet((4, 4, 1), (2,), num_classes=3), NoiseSchedule("cosine", 50))
    rng = np.random.default_rng(0)  # a new network has the same answer at every step
    model.averaged.set_weights([rng.normal(size=w.shape) for w in model.averaged.get_weights()])
    model.save(tmp_path / "model.keras")
    arguments = ["generate", str(tmp_path / "model.keras"), "--count", "4", "--output"]
    path, pictures = tmp_path / "samples.png", []
    for options in ([], ["--steps", "3"], ["--guidance-scale", "2"], ["--label", "1"], []):
        assert main([*arguments, str(path), *options]) == 0
        pictures.append(path.read_bytes())
    assert pictures[0] == pictures[4] != pictures[1]
    for options, message in (
        (["--steps", "51"], "num_steps: expected at most the schedule's 50, got 51"),
        (["--guidance-scale", "-1"], "guidance_scale: expected a number of at least 0, got -1.0"),
        (["--label", "3"], "labels: expected integers from 0 to 2"),
        (["--temperature", "1"], "--temperature: for a model that writes text"),
    ):
        assert main([*arguments, str(path), *options]) == 2
        assert message in capsys.readouterr().err
    assert path.read_bytes() == pictures[0]


# Bad input: exit code 2, and one line.


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["train", "article5-vae"], "article5-vae: no such recipe; expected one of article1"),
        (["generate", "article5-vae"], "article5-vae: no such recipe; expected one of article1"),
        (["train", "article4-vae", "--epochs", "0"], "--epochs: expected a whole number of at"),
        (["train", "article4-vae", "--batch-size", "x"], "--batch-size: expected a whole number"),
        (["train", "article4-vae", "--seed", "-1"], "--seed: expected a whole number from 0"),
        (["train", "article4-vae", "--output", "{file}/run"], "cannot be written"),
        (["train", "article4-vae", "--data", "{folder}/nowhere"], "expected a folder of images"),
        (
            ["train", "article4-cnn", "--data", "{folder}/flat"],
            "a folder for each class, since labels are needed",
        ),
        (["generate", "{folder}/missing.keras"], "missing.keras: no such file"),
        (["generate", "{folder}/damaged.keras"], "damaged.keras: expected a whole .keras file"),
        (["generate", "article4-vae", "--label", "3"], "labels: expected None, since the"),
        (["generate", "article4-vae", "--output", "{folder}/a.gif"], "a name that ends in .png"),
        (["generate", "article4-vae", "--output", "{file}/a.png"], "{file}/a.png"),
        (["generate", "article4-vae", "--prompt", "a"], "--prompt: for a model that writes text"),
        (["generate", "article4-vae", "--steps", "9"], "--steps: for a diffusion model"),
        (
            ["generate", "conditional-vae", "--guidance-scale", "1"],
            "--guidance-scale: for a diffusion model",
        ),
        (["train", "article3-lstm", "--data", "{file}"], "expected a text, got an empty file"),
        (
            ["train", "article3-lstm", "--data", "{folder}/damaged.keras"],
            "at least 1280 characters",
        ),
        (["train", "article3-forecast", "--data", "{file}"], "expected a CSV file with a heading"),
        (["train", "article1-transformer", "--data", "{folder}/line"], "and a tab in"),
        (["generate", "article4-cnn"], "a cnn, which generates nothing"),
        (["paint"], "invalid choice: 'paint'"),
        ([], "the following arguments are required"),
    ],
)
def test_bad_input_exits_with_2_and_one_line(tmp_path, capsys, arguments, message):
    (tmp_path / "file").write_text("")
    (tmp_path / "damaged.keras").write_bytes(b"PK damaged")
    (tmp_path / "line").write_text("no tab")
    (tmp_path / "flat").mkdir()
    for i in range(10):
        keras.utils.save_img(tmp_path / "flat" / f"{i}.png", np.zeros((28, 28, 1)))
    places = {"folder": str(tmp_path), "file": str(tmp_path / "file")}
    assert main([argument.format(**places) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("keras_genai: ") and err.count("\n") == 1 and out == ""
    assert message.format(**places) in err


def test_damaged_data_exits_with_2_and_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("KERAS_GENAI_DATA", str(tmp_path))
    for message in ("mnist.npz: no such file", "mnist.npz: cut short or altered"):
        assert train("article4-vae", "--output", tmp_path / "run") == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1
        (tmp_path / "mnist.npz").write_bytes(b"PK")
    assert not (tmp_path / "run").exists()


def test_package_runs_as_a_module():
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(keras_genai.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-m", "keras_genai", "train", "nothing"],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.startswith("keras_genai: nothing: no such recipe")


def test_what_a_terminal_cannot_show_becomes_a_question_mark():
    root = str(pathlib.Path(keras_genai.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "keras_genai", "list"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "English?Chinese" in done.stdout
