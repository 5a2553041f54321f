"""Command line: files written, resumed runs, and one-line messages for invalid input."""

import csv
import dataclasses
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from helpers import largest_difference, set_random_weights, write_digits
from keras.optimizers import schedules

import keras_genai
from keras_genai import datasets, pretrained, tasks
from keras_genai.__main__ import main
from keras_genai.audio import load_wav, save_wav
from keras_genai.autoregressive import Sampler
from keras_genai.callbacks import AtomicModelCheckpoint
from keras_genai.catalog import RECIPES
from keras_genai.diffusion import DDPM, NoiseSchedule, build_unet
from keras_genai.experiments import EXPERIMENTS
from keras_genai.gan import GAN, build_discriminator, build_generator
from keras_genai.gpt2 import build_gpt2
from keras_genai.gpt2_checkpoint import save_gpt2
from keras_genai.pixelcnn import build_pixelcnn
from keras_genai.rnn import build_language_model
from keras_genai.text import CharacterTokenizer, GPT2Tokenizer, TranslationTokenizer
from keras_genai.text_to_image import TextToImageDDPM, build_text_encoder
from keras_genai.transformer import build_seq2seq_transformer
from keras_genai.vae import VAE, build_decoder, build_encoder
from keras_genai.wavenet import build_wavenet


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """200 MNIST digits as PNG files, in a folder for each digit."""
    return write_digits(tmp_path_factory.mktemp("images"), 200)


@pytest.fixture(scope="module")
def user_data(images, tmp_path_factory):
    """Return a function from the name of a recipe to the path of data for its task."""
    folder = tmp_path_factory.mktemp("user_data")
    book = datasets.load_book("alice_in_wonderland")
    (folder / "text.txt").write_text(book[:6000], encoding="utf-8")
    (folder / "long.txt").write_text(book[:15_000], encoding="utf-8")
    (folder / "books").mkdir()
    for i, text in enumerate((book[:10_000], datasets.load_book("king_james")[:12_000])):
        (folder / "books" / f"{i}.txt").write_text(text, encoding="utf-8")
    tunes = "\n\n".join(datasets.load_tunes()[:30])
    (folder / "tunes.abc").write_text(tunes, encoding="utf-8")
    values = "\n".join(f"{t},{t + t % 52}" for t in range(600))
    (folder / "series.csv").write_text(f"week,value\n{values}\n")
    pairs = "\n".join(map("\t".join, datasets.load_translations()[:30]))
    (folder / "pairs.tsv").write_text(pairs, encoding="utf-8")
    for i in range(12):
        class_folder = folder / "sounds" / ("low" if i % 2 else "high")
        class_folder.mkdir(parents=True, exist_ok=True)
        waveform = np.sin(np.arange(300 + i) / (20 if i % 2 else 3))
        save_wav(class_folder / f"{i}.wav", waveform, 1000)
    paths = {
        tasks.LanguageModelingTask: folder / "text.txt",
        tasks.FineTuningTask: folder / "long.txt",
        tasks.ForecastingTask: folder / "series.csv",
        tasks.TranslationTask: folder / "pairs.tsv",
        tasks.AudioTask: folder / "sounds",
        tasks.SpectrogramTask: folder / "sounds",
        tasks.TextClassificationTask: folder / "books",
        tasks.MusicTask: folder / "tunes.abc",
    }
    paths = {name: paths.get(type(e.task), images) for name, e in EXPERIMENTS.items()}
    paths["article4-gpt2"] = folder / "long.txt"  # longer windows
    return paths.get


def replace_experiment(monkeypatch, name, **changes):
    monkeypatch.setitem(EXPERIMENTS, name, dataclasses.replace(EXPERIMENTS[name], **changes))


@pytest.fixture
def small_models(monkeypatch):
    """Replace some models by small ones without XLA, where their size is not tested."""

    def vae(seed, num_classes, image_shape):
        return VAE(build_encoder(784, (8,), 2), build_decoder(2, (8,), 784), seed=seed)

    def gan(seed, num_classes, image_shape):
        return GAN(build_generator(4, (8,)), build_discriminator(784, (8,)), seed=seed)

    language_model = functools.partial(EXPERIMENTS["article3-lstm"].build, embed_dim=4, units=8)
    replace_experiment(
        monkeypatch,
        "article4-vae",
        build=vae,
        compile=lambda model, steps: model.compile("adam"),
    )
    replace_experiment(monkeypatch, "article4-gan", build=gan)
    replace_experiment(monkeypatch, "article3-lstm", build=language_model)
    music = functools.partial(EXPERIMENTS["article3-music"].build, embed_dim=4, units=8)
    replace_experiment(monkeypatch, "article3-music", build=music)


@pytest.fixture
def shallow_models(monkeypatch):
    """Replace deep models by models of one to three layers, which compile faster."""

    def translator(seed, input_tokenizer, target_tokenizer, max_seq_length):
        tokenizers = [TranslationTokenizer(text) for text in (input_tokenizer, target_tokenizer)]
        return build_seq2seq_transformer(
            *(tokenizer.vocab_size for tokenizer in tokenizers),
            max_seq_length,
            num_layers=1,
            d_model=16,
            dff=32,
            input_tokenizer=tokenizers[0],
            target_tokenizer=tokenizers[1],
        )

    def gpt2(seed, tokenizer):
        tokenizer = GPT2Tokenizer(tokenizer)
        return build_gpt2(tokenizer.vocab_size, 256, 1, 2, 16, tokenizer=tokenizer)

    def pixelcnn(seed, num_classes, image_shape):
        return build_pixelcnn(num_filters=4, num_layers=2)

    def wavenet(seed, class_names, sample_rate):
        return build_wavenet(256, 1, 3, 4, 4, len(class_names), sample_rate)

    def ddpm(seed, num_classes, image_shape):
        network = build_unet(widths=(2, 2), num_classes=num_classes)
        return DDPM(network, NoiseSchedule(num_timesteps=50), seed=seed)

    def text_to_image(seed, vocabulary, max_words, example_prompts, image_shape):
        encoder = build_text_encoder(len(vocabulary) + 2, max_words, 4, num_heads=2, dff=4)
        network = build_unet(widths=(2, 2), text_encoder=encoder)
        schedule = NoiseSchedule(num_timesteps=50)
        return TextToImageDDPM(network, schedule, vocabulary, example_prompts, seed=seed)

    builders = {
        "article1-transformer": translator,
        "article1-text-to-image": text_to_image,
        "article3-pixelcnn": pixelcnn,
        "article3-wavenet": wavenet,
        "article3-diffusion": ddpm,
        "article3-diffusion-cosine": ddpm,
        "article3-diffusion-unconditional": ddpm,
        "article4-gpt2": gpt2,
        "article4-finetune": gpt2,
    }
    for name, build in builders.items():
        replace_experiment(monkeypatch, name, build=build)
    load = functools.cache(pretrained.load)
    monkeypatch.setattr(
        pretrained, "load", lambda name: gpt2(0, load(name).tokenizer.tokenizer_json)
    )


def train(*arguments) -> int:
    return main(["train", *map(str, arguments)])


def load_weights(folder) -> list[np.ndarray]:
    return keras_genai.load_model(folder / "model.keras").get_weights()


def read_history(folder) -> list[dict]:
    with open(folder / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


# list and --help.


@pytest.mark.parametrize(
    "arguments", [["list"], ["--help"], ["train", "--help"], ["evaluate", "--help"]]
)
def test_list_and_help_do_not_load_tensorflow(arguments):
    code = (
        "import sys\nfrom keras_genai.__main__ import main\n"
        f"try: main({arguments})\nexcept SystemExit as exit: assert exit.code == 0\n"
        "assert not {'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    words = ("train", "--resume", "article4-vae", "--json")
    assert any(word in done.stdout for word in words)


def test_list_has_a_line_for_each_recipe(capsys):
    assert main(["list"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ["name", "article"]
    assert [line.split()[0] for line in lines] == list(RECIPES)
    for line, recipe in zip(lines, RECIPES.values(), strict=True):
        metric = f"{recipe.metric}: {recipe.expected:g}"
        assert all(cell in line for cell in (recipe.article, recipe.model, recipe.data, metric))


# train.

SAMPLE_FILES = {
    tasks.VAETask: ["samples", "samples.png", "reconstructions.png"],
    tasks.GANTask: ["samples", "samples.png"],
    tasks.ClassificationTask: ["predictions.png"],
    tasks.PixelCNNTask: ["samples", "samples.png", "completions.png", "likelihood.png"],
    tasks.DiffusionTask: ["samples", "samples.png", "noising.png", "denoising.png"],
    tasks.TextToImageTask: [
        "samples",
        "samples.png",
        "noising.png",
        "denoising.png",
        "prompts.png",
    ],
    tasks.LanguageModelingTask: ["sample.txt"],
    tasks.FineTuningTask: ["sample.txt"],
    tasks.MusicTask: ["samples.abc"],  # none of which can be played
    tasks.AudioTask: ["samples", "samples.png"],
    tasks.SpectrogramTask: ["samples", "samples.png"],
    tasks.ForecastingTask: ["forecast.png"],
    tasks.TranslationTask: ["translations.txt"],
    tasks.TextClassificationTask: ["predictions.txt"],
}


@pytest.mark.slow
@pytest.mark.usefixtures("shallow_models")
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_on_user_data(user_data, tmp_path, capsys, name):
    # Batches of one size, since XLA compiles a step for each size.
    options = ("--epochs", 1, "--batch-size", 60, "--output", tmp_path)
    assert train(name, *options, "--data", user_data(name)) == 0
    task = EXPERIMENTS[name].task
    expected = {"history.csv", "history.png", "model.keras", "run.json", "run.lock"}
    expected |= set(SAMPLE_FILES[type(task)])
    assert {path.name for path in tmp_path.iterdir()} == expected
    if "samples" in expected:
        samples = sorted(path.name for path in (tmp_path / "samples").iterdir())
        is_audio = isinstance(task, tasks.AudioTask)
        assert samples == (["high.wav", "low.wav"] if is_audio else ["epoch-01.png"])
    assert len(read_history(tmp_path)) == 1
    run = json.loads((tmp_path / "run.json").read_text())
    assert (run["name"], run["epochs"], run["seed"]) == (name, 1, 0)
    assert set(run["versions"]) == {"python", "tensorflow", "keras", "numpy"}
    assert run["metric"] == RECIPES[name].metric
    assert run["command"].startswith(f"python -m keras_genai train {name} --epochs 1 ")
    out = capsys.readouterr().out
    if task.needs_classifier:
        assert run["value"] is None and "not measured" in out
    else:
        assert f"{run['metric']}: {run['value']:.6g} after 1 epochs, expected" in out


@pytest.mark.slow
@pytest.mark.usefixtures("small_models", "shallow_models")
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
def test_resumed_training_equals_uninterrupted_training(user_data, tmp_path, monkeypatch, name):
    # The order of the batches, all noise, the optimizers and the number of epochs continue.
    options = ("--data", user_data(name), "--batch-size", 32, "--seed", 3, "--epochs", 3)
    # What follows training is tested elsewhere, and so are the slow samples of a diffusion model.
    task_class = type(EXPERIMENTS[name].task)
    monkeypatch.setattr(task_class, "save_samples", lambda *arguments: None)
    if name == "article3-diffusion":
        monkeypatch.setattr(task_class, "callbacks", lambda *arguments: [])
    uninterrupted, resumed = tmp_path / "uninterrupted", tmp_path / "resumed"
    assert train(name, *options, "--output", uninterrupted) == 0
    with monkeypatch.context() as patch:
        interrupt_epoch(patch, 1)
        assert train(name, *options, "--output", resumed) == 130
    assert train(name, "--resume", "--output", resumed) == 0
    assert largest_difference(load_weights(uninterrupted), load_weights(resumed)) < 1e-6
    rows = read_history(resumed)
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    for expected, row in zip(read_history(uninterrupted), rows, strict=True):
        for key in expected:
            assert float(expected[key]) == pytest.approx(float(row[key]), rel=1e-4)


def interrupt_epoch(monkeypatch, interrupted_epoch: int):
    """Raise KeyboardInterrupt, as by Ctrl-C, at the end of an epoch, before the model is saved."""
    on_epoch_end = AtomicModelCheckpoint.on_epoch_end

    def interrupted_on_epoch_end(self, epoch, logs=None):
        if epoch == interrupted_epoch:
            raise KeyboardInterrupt
        on_epoch_end(self, epoch, logs)

    monkeypatch.setattr(AtomicModelCheckpoint, "on_epoch_end", interrupted_on_epoch_end)


@pytest.mark.slow
@pytest.mark.parametrize("stop_signal, code", [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_stopped_process_is_resumed_after_the_last_whole_epoch(images, tmp_path, stop_signal, code):
    arguments = ["article4-cnn", "--data", images, "--epochs", "500", "--output", tmp_path]
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_genai", "train", *arguments],
        stdout=subprocess.DEVNULL,
        # A shell that runs the tests in the background makes them ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None and not (tmp_path / "model.keras").exists():
        time.sleep(0.01)
    process.send_signal(stop_signal)  # at a random moment of an epoch
    assert process.wait(timeout=60) == code
    num_epochs = int(keras_genai.load_model(tmp_path / "model.keras").optimizer.iterations) // 3
    assert 1 <= num_epochs < 500
    options = ("--epochs", num_epochs + 2)
    assert train("article4-cnn", "--resume", *options, "--output", tmp_path) == 0
    epochs = [int(row["epoch"]) for row in read_history(tmp_path)]
    assert epochs == list(range(num_epochs + 2))

    uninterrupted = tmp_path / "uninterrupted"
    assert train("article4-cnn", "--data", images, *options, "--output", uninterrupted) == 0
    assert largest_difference(load_weights(uninterrupted), load_weights(tmp_path)) < 1e-4


@pytest.mark.slow
@pytest.mark.usefixtures("small_models")
def test_ctrl_c_reports_how_to_resume(images, tmp_path, capsys, monkeypatch):
    command = ("article4-vae", "--data", images, "--epochs", 3, "--output", tmp_path)
    with monkeypatch.context() as patch:
        interrupt_epoch(patch, 1)
        assert train(*command) == 130
    assert "train --resume continues after the last whole epoch" in capsys.readouterr().err
    assert len(read_history(tmp_path)) == 2  # the second epoch was logged, but not saved

    assert train(*command) == 2  # would overwrite an unfinished run
    message = "holds an unfinished run; resume it, or choose another folder"
    assert message in capsys.readouterr().err
    assert train("article4-vae", "--resume", "--output", tmp_path) == 0
    assert [row["epoch"] for row in read_history(tmp_path)] == ["0", "1", "2"]


@pytest.mark.slow
@pytest.mark.usefixtures("small_models")
def test_run_interrupted_in_its_first_epoch_can_be_resumed(images, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_epoch(patch, 0)
        assert train("article4-vae", "--data", images, "--epochs", 1, "--output", tmp_path) == 130
    assert train("article4-vae", "--resume", "--output", tmp_path) == 0
    assert len(read_history(tmp_path)) == 1


@pytest.mark.slow
def test_learning_rate_decay_ends_with_the_requested_epochs(user_data, tmp_path):
    path = user_data("article3-forecast")
    steps_per_epoch = -(-tasks.ForecastingTask().load(path).num_examples // 32)
    for options, epochs in (("--data", path), 1), (("--resume",), 3):
        command = ("article3-forecast", *options, "--epochs", epochs, "--output", tmp_path)
        assert train(*command) == 0
        optimizer = keras_genai.load_model(tmp_path / "model.keras").optimizer
        schedule = schedules.deserialize(optimizer.get_config()["learning_rate"])
        assert schedule.decay_steps == int(optimizer.iterations) == epochs * steps_per_epoch
        assert float(schedule(schedule.decay_steps)) == 0 < float(schedule(0))


@pytest.mark.slow
@pytest.mark.usefixtures("small_models")
def test_finished_run_can_be_resumed_for_more_epochs_or_none(images, tmp_path, capsys):
    assert train("article4-vae", "--data", images, "--epochs", 2, "--output", tmp_path) == 0
    for epochs, num_epochs in (("1", 2), ("2", 2), ("3", 3)):
        capsys.readouterr()
        assert train("article4-vae", "--resume", "--epochs", epochs, "--output", tmp_path) == 0
        assert f"after {num_epochs} epochs" in capsys.readouterr().out
        assert len(read_history(tmp_path)) == num_epochs


def test_nan_exits_with_1_and_the_position(images, tmp_path, capsys, monkeypatch):
    def diverging(model, steps):
        model.compile(keras.optimizers.SGD(1e30))

    replace_experiment(monkeypatch, "article4-vae", compile=diverging)
    assert train("article4-vae", "--data", images, "--output", tmp_path, "--batch-size", 32) == 1
    assert "is nan in epoch 1, by step" in capsys.readouterr().err


@pytest.fixture
def finished_run(images, tmp_path, small_models):
    """The folder of a finished run of article4-vae."""
    assert train("article4-vae", "--data", images, "--epochs", 1, "--output", tmp_path) == 0
    return tmp_path


def test_resuming_without_a_run_exits_with_2(tmp_path, capsys):
    assert train("article4-vae", "--resume", "--output", tmp_path) == 2
    assert "nothing to resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["article4-vae", "--seed", "1"], "seed: the run was started with 0, got 1."),
        (["article4-vae", "--batch-size", "7"], "batch_size: the run was started with 64, got 7."),
        (["article1-vae"], "holds a run of article4-vae, not of article1-vae."),
        (["article4-vae", "--data", "{images}/7"], "the run was started with 180 images, got 19"),
    ],
)
def test_resuming_with_other_options_exits_with_2(finished_run, images, capsys, arguments, message):
    arguments = [argument.format(images=images) for argument in arguments]
    assert train(*arguments, "--resume", "--output", finished_run) == 2
    assert message.format(images=images) in capsys.readouterr().err


def test_resuming_with_another_number_of_images_exits_with_2(finished_run, images, capsys):
    extra_image = images / "7" / "extra.png"
    keras.utils.save_img(extra_image, np.zeros((28, 28, 1)))
    try:
        assert train("article4-vae", "--resume", "--output", finished_run) == 2
    finally:
        extra_image.unlink()
    assert "the run was started with 180 images, got 181" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("small_models")
def test_new_run_keeps_the_old_model_and_removes_its_samples(images, tmp_path):
    command = ("article4-vae", "--data", images, "--output", tmp_path)
    assert train(*command, "--epochs", 2) == 0
    finished_model = (tmp_path / "model.keras").read_bytes()
    assert train(*command, "--epochs", 1, "--seed", 1) == 0
    assert (tmp_path / "previous-model.keras").read_bytes() == finished_model
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["epoch-01.png"]
    assert len(read_history(tmp_path)) == 1
    assert train("article1-vae", "--output", tmp_path) == 2  # the folder of another recipe


def test_class_without_training_images_is_counted(tmp_path):
    folder = tmp_path / "images"
    for i, name in enumerate("aaaaaaaabbbbbbbc"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        keras.utils.save_img(folder / name / f"{i:02d}.png", np.full((28, 28, 1), i))
    _, (_, y_test) = datasets.load_image_folder(folder)
    assert y_test.tolist() == [2]
    run = tmp_path / "run"
    assert train("article4-cnn", "--data", folder, "--epochs", 1, "--output", run) == 0
    assert keras_genai.load_model(run / "model.keras").output_shape == (None, 3)


def test_unreadable_run_folder_exits_with_2(tmp_path, capsys, monkeypatch):
    def denied(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "run.json").touch()
    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "read_bytes", denied)
        assert train("article4-vae", "--output", tmp_path) == 2
    assert "run.json: cannot be read (Permission denied)" in capsys.readouterr().err
    assert train("article4-vae", "--output", tmp_path) == 2
    assert "run.json: cannot be read" in capsys.readouterr().err


# generate.


@pytest.mark.slow
def test_generate_writes_images_of_a_saved_model(images, tmp_path, capsys):
    run = tmp_path / "run"
    assert train("conditional-vae", "--data", images, "--epochs", 1, "--output", run) == 0
    output = tmp_path / "sevens.png"
    arguments = ["generate", str(run / "model.keras"), "--output", str(output), "--count", "3"]
    assert main([*arguments, "--label", "7"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(output)
    content = output.read_bytes()
    assert main([*arguments, "--label", "7"]) == 0 and output.read_bytes() == content
    assert main([*arguments, "--label", "7", "--seed", "1"]) == 0
    assert output.read_bytes() != content
    assert main([*arguments, "--label", "11"]) == 2
    assert "labels: expected integers from 0 to 9, got values from 11" in capsys.readouterr().err


def test_default_output_is_named_after_the_recipe(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["generate", "article4-vae", "--count", "4"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["article4-vae.png"]


@pytest.mark.slow
@pytest.mark.usefixtures("small_models")
def test_generate_continues_a_text(user_data, tmp_path, capsys):
    run, output = tmp_path / "run", tmp_path / "a.txt"
    data = ("--data", user_data("article3-lstm"), "--output", run)
    assert train("article3-lstm", "--epochs", 1, *data) == 0
    arguments = ["generate", str(run / "model.keras"), "--length", "30", "--seed", "3"]
    capsys.readouterr()
    assert main([*arguments, "--prompt", "Alice"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Alice") and len(text) == 5 + 30 + 1
    assert main([*arguments, "--prompt", "Alice", "--output", str(output)]) == 0
    assert output.read_text() == text
    capsys.readouterr()
    assert main([*arguments, "--prompt", "Alice", "--count", "2"]) == 0
    two_texts = capsys.readouterr().out
    assert two_texts.startswith(text) and two_texts.count("Alice") == 2
    capsys.readouterr()
    assert main(arguments) == 0  # the prompt is a new line, which is not printed
    assert len(capsys.readouterr().out) == 30 + 1
    assert main([*arguments, "--top-k", "1", "--temperature", "0.5", "--top-p", "0.9"]) == 0
    for options, message in (
        (["--prompt", "Alice \u56db"], "got '\u56db' at position 6"),
        (["--prompt", ""], "prompt: expected a string of at least one character"),
        (["--temperature", "0"], "temperature: expected a number above 0, got 0"),
        (["--top-p", "2"], "top_p: expected a number above 0 and up to 1"),
        (["--label", "3"], "--label: only for a class-conditional model"),
    ):
        assert main([*arguments, *options, "--output", str(output)]) == 2
        assert message in capsys.readouterr().err
    assert output.read_text() == text  # not overwritten


def test_default_prompt_is_the_first_character_of_a_vocabulary_without_new_line(tmp_path, capsys):
    tokenizer = CharacterTokenizer("xyz")
    model = build_language_model(3, "gru", 4, 4, tokenizer=tokenizer)
    model.save(tmp_path / "model.keras")
    assert main(["generate", str(tmp_path / "model.keras"), "--length", "9"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("x") and len(text) == 1 + 9 + 1


def test_generate_writes_a_text_beyond_the_context_length(tmp_path, capsys):
    model = build_gpt2(3, 8, 1, 1, 4, tokenizer=CharacterTokenizer("xyz"))
    set_random_weights(model).save(tmp_path / "model.keras")
    arguments = ["generate", str(tmp_path / "model.keras"), "--length", "30", "--prompt", "xyzzy"]
    assert main(arguments) == 2
    assert "max_new_tokens: expected at most 8 tokens" in capsys.readouterr().err
    sampler = Sampler(temperature=0.5)
    expected = model.generate("xyzzy", 30, sampler=sampler, seed=0, sliding_window=True)
    assert main([*arguments, "--sliding-window", "--temperature", "0.5"]) == 0
    assert capsys.readouterr().out == expected + "\n" and len(expected) == 35


@pytest.mark.slow
@pytest.mark.parametrize("with_tokenizer", [True, False])
def test_weights_of_a_checkpoint_generate_with_its_tokenizer(tmp_path, capsys, with_tokenizer):
    tokenizer = GPT2Tokenizer.train("abcabc", 260) if with_tokenizer else GPT2Tokenizer.gpt2()
    model = build_gpt2(tokenizer.vocab_size, 16, 1, 1, 4)
    set_random_weights(model, 1.0)
    model.tokenizer = tokenizer if with_tokenizer else None
    save_gpt2(model, tmp_path)
    arguments = ["generate", "article4-gpt2", "--weights", str(tmp_path), "--prompt", "abc"]
    assert main([*arguments, "--length", "5", "--seed", "1"]) == 0
    model.tokenizer = tokenizer
    expected = model.generate("abc", 5, sampler=Sampler(temperature=0.8), seed=1)
    assert capsys.readouterr().out == expected + "\n"


def test_generating_text_without_a_tokenizer_exits_with_2(tmp_path, capsys):
    build_language_model(3, "gru", 4, 4).save(tmp_path / "model.keras")
    assert main(["generate", str(tmp_path / "model.keras"), "--length", "9"]) == 2
    assert "expected a model with a tokenizer" in capsys.readouterr().err


@pytest.fixture(scope="module")
def sound_model(tmp_path_factory):
    """The path of an untrained WaveNet of 3 classes at 500 Hz."""
    path = tmp_path_factory.mktemp("sound_model") / "model.keras"
    build_wavenet(256, 1, 2, 4, 4, num_classes=3, sample_rate=500).save(path)
    return path


@pytest.mark.slow
def test_generate_writes_sounds(sound_model, tmp_path, capsys):
    output, waveforms = tmp_path / "sounds.wav", []
    for options, num_audio_samples in (
        ([], 3 * 500),
        (["--count", "2", "--length", "70"], 2 * 70),
        (["--label", "1", "--count", "1"], 500),
        (["--temperature", "0.5", "--top-k", "9", "--top-p", "0.9"], 3 * 500),
    ):
        assert main(["generate", str(sound_model), "--output", str(output), *options]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == str(output)
        waveform, sample_rate = load_wav(output)
        assert len(waveform) == num_audio_samples and sample_rate == 500
        waveforms.append(waveform)
    assert not np.array_equal(waveforms[0], waveforms[-1])


@pytest.mark.parametrize(
    "options, message",
    [
        (["a.png"], "--output: expected a name that ends in .wav, got 'a.png'"),
        (["a.wav", "--prompt", "a"], "--prompt: only for a text model"),
        (["a.wav", "--label", "3"], "labels: expected integers from 0 to 2"),
    ],
)
def test_invalid_options_for_sounds_exit_with_2(sound_model, capsys, options, message):
    assert main(["generate", str(sound_model), "--output", *options]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def diffusion_model(tmp_path_factory):
    """The path of a diffusion model of 3 classes with random weights."""
    path = tmp_path_factory.mktemp("diffusion_model") / "model.keras"
    model = DDPM(build_unet((4, 4, 1), (2,), num_classes=3), NoiseSchedule("cosine", 50))
    set_random_weights(model.ema_network, scale=1)  # the initial weights predict 0 at every step
    model.save(path)
    return path


@pytest.mark.slow
def test_options_of_a_diffusion_model_change_its_samples(diffusion_model, tmp_path):
    output = tmp_path / "samples.png"

    def generate(*options):
        arguments = ["generate", str(diffusion_model), "--count", "4", "--output", str(output)]
        assert main([*arguments, *options]) == 0
        return output.read_bytes()

    default = generate()
    assert generate() == generate("--guidance-scale", "1") == generate("--steps", "50") == default
    assert generate("--method", "ddim", "--timestep-spacing", "trailing") == default
    others = [["--steps", "3"], ["--guidance-scale", "3"], ["--label", "1"], ["--seed", "1"]]
    others += [["--method", "ddpm"], ["--method", "dpm_solver++"]]
    others += [["--steps", "3", "--timestep-spacing", "karras"]]
    results = {generate(*options) for options in others} | {default}
    assert len(results) == len(others) + 1


@pytest.mark.parametrize(
    "options, message",
    [
        (["--steps", "51"], "num_steps: expected at most the schedule's 50, got 51"),
        (["--guidance-scale", "-1"], "guidance_scale: expected a number of at least 0, got -1.0"),
        (["--label", "3"], "labels: expected integers from 0 to 2"),
        (["--temperature", "1"], "--temperature: only for a text or sound model"),
    ],
)
def test_invalid_options_for_diffusion_exit_with_2(
    diffusion_model, tmp_path, capsys, options, message
):
    output = tmp_path / "samples.png"
    output.write_bytes(b"old")
    arguments = ["generate", str(diffusion_model), "--count", "4", "--output", str(output)]
    assert main([*arguments, *options]) == 2
    assert message in capsys.readouterr().err
    assert output.read_bytes() == b"old"


# Invalid input: exit code 2 and one line.


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["train", "article5-vae"], "article5-vae: no such recipe; expected one of article1"),
        (["generate", "article5-vae"], "article5-vae: no such recipe; expected one of article1"),
        (["train", "article4-vae", "--epochs", "0"], "--epochs: expected a whole number from 1"),
        (["train", "article4-vae", "--batch-size", "x"], "--batch-size: expected a whole number"),
        (["train", "article4-vae", "--seed", "-1"], "--seed: expected a whole number from 0"),
        (["train", "article4-vae", "--output", "{file}/run"], "cannot be written"),
        (["train", "article4-vae", "--data", "{folder}/nowhere"], "expected a folder of images"),
        # A path, though a recipe of this name exists.
        (["train", "article1-transformer", "--data", "classifier"], "classifier: cannot be read"),
        (
            ["train", "article4-cnn", "--data", "{folder}/flat"],
            "a folder for each class, since labels are needed",
        ),
        (["generate", "{folder}/missing.keras"], "missing.keras: no such file"),
        (["generate", "{folder}/damaged.keras"], "damaged.keras: expected a whole .keras file"),
        (["generate", "article4-vae", "--label", "3"], "labels: expected None, since the"),
        (["generate", "article4-vae", "--output", "{folder}/a.gif"], "a name that ends in .png"),
        (["generate", "article4-vae", "--output", "{file}/a.png"], "{file}/a.png"),
        (["generate", "article4-vae", "--prompt", "a"], "--prompt: only for a text model"),
        (["generate", "article4-vae", "--sliding-window"], "--sliding-window: only for a text"),
        (["generate", "article4-vae", "--form", "*"], "--form: only for a text model"),
        (
            ["generate", "article1-transformer", "--prompt", "a", "--form", "*"],
            "--form: not for translation",
        ),
        (
            ["generate", "article3-lstm", "--form", "*", "--length", "9"],
            "--length: not with --form, which has a length",
        ),
        (["generate", "article3-lstm", "--form", "\u6625"], "form: expected characters that are"),
        (
            ["generate", "article1-transformer", "--prompt", "a", "--sliding-window"],
            "--sliding-window: not for translation",
        ),
        (["generate", "article4-vae", "--steps", "9"], "--steps: only for a diffusion model"),
        (["generate", "dcgan", "--method", "ddpm"], "--method: only for a diffusion model"),
        (
            ["generate", "article3-rnn", "--timestep-spacing", "karras"],
            "--timestep-spacing: only for a diffusion model",
        ),
        (["generate", "article3-diffusion", "--method", "euler"], "--method: invalid choice"),
        (
            ["generate", "conditional-vae", "--guidance-scale", "1"],
            "--guidance-scale: only for a diffusion model",
        ),
        (["generate", "article4-vae", "--weights", "gpt2"], "--weights: only for article4-gpt2"),
        (["train", "article3-lstm", "--data", "{file}"], "expected a text, got an empty file"),
        (
            ["train", "article3-lstm", "--data", "{folder}/damaged.keras"],
            "at least 1280 characters",
        ),
        (["train", "article3-forecast", "--data", "{file}"], "expected a CSV file with numbers"),
        (["train", "article1-transformer", "--data", "{folder}/line"], "and a tab in"),
        (["generate", "article4-cnn"], "article4-cnn: expected a generative model, got a cnn"),
        (["evaluate"], "evaluate: expected names or files of models, or --all"),
        (["evaluate", "article4-vae", "--all"], "expected names or files of models, or --all"),
        (["evaluate", "article5-vae"], "article5-vae: no such recipe; expected one of article1"),
        (["evaluate", "article1-vae"], "article1-vae: expected a name with pretrained weights"),
        (["evaluate", "{folder}/missing.keras"], "missing.keras: no such file"),
        (["evaluate", "{folder}/damaged.keras"], "damaged.keras: expected a whole .keras file"),
        (["evaluate", "article4-vae", "--output", "{folder}/a.gif"], "a name that ends in .png"),
        (["evaluate", "article4-vae", "--samples", "99"], "expected a whole number from 100"),
        (["evaluate", "article4-vae", "--seed", "-1"], "--seed: expected a whole number from 0"),
        (["evaluate", "article3-rnn", "--samples", "100"], "--samples: only for a model of images"),
        (["evaluate", "article4-cnn", "--output", "{folder}/a.png"], "--output: only for a model"),
        (["paint"], "invalid choice: 'paint'"),
        ([], "the following arguments are required"),
    ],
)
def test_invalid_input_exits_with_2_and_one_line(tmp_path, capsys, arguments, message):
    (tmp_path / "file").write_text("")
    (tmp_path / "damaged.keras").write_bytes(b"PK damaged")
    (tmp_path / "line").write_text("no tab")
    (tmp_path / "flat").mkdir()
    for i in range(10):
        keras.utils.save_img(tmp_path / "flat" / f"{i}.png", np.zeros((28, 28, 1)))
    paths = {"folder": str(tmp_path), "file": str(tmp_path / "file")}
    assert main([argument.format(**paths) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("keras_genai: ") and err.count("\n") == 1 and out == ""
    assert message.format(**paths) in err


def test_damaged_dataset_exits_with_2_and_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("KERAS_GENAI_DATA", str(tmp_path))
    for message in ("mnist.npz: no such file", "mnist.npz: cut short or altered"):
        assert train("article4-vae", "--output", tmp_path / "run") == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1
        (tmp_path / "mnist.npz").write_bytes(b"PK")
    assert not (tmp_path / "run").exists()


def run_module(*arguments, **environment):
    """Run `python -m keras_genai` and return the finished process."""
    root = str(pathlib.Path(keras_genai.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-m", "keras_genai", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": root, **environment},
    )


def test_package_runs_as_a_module():
    done = run_module("train", "nothing")
    assert done.returncode == 2 and done.stderr.startswith("keras_genai: nothing: no such recipe")


def test_characters_that_the_terminal_lacks_are_printed_as_question_marks():
    done = run_module("list", PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and "English?Chinese" in done.stdout
