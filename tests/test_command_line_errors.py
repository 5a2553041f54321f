"""Command line: no traceback for any input, and runs that survive what happens to their files."""

import errno
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import COUNTS, set_random_weights

import keras_genai
from keras_genai.__main__ import main
from keras_genai.callbacks import AtomicModelCheckpoint
from keras_genai.gpt2 import build_gpt2
from keras_genai.rnn import build_language_model
from keras_genai.text import CharacterTokenizer, GPT2Tokenizer
from keras_genai.vae import VAE, build_decoder, build_encoder


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Small models and damaged data."""
    folder = tmp_path_factory.mktemp("files")
    build_gpt2(300, 32, 1, 2, 8).save(folder / "no-tokenizer.keras")
    tokenizer = CharacterTokenizer("abc \n")
    build_language_model(5, "gru", 4, 4, tokenizer=tokenizer).save(folder / "text.keras")
    tokenizer = GPT2Tokenizer.train("abc", 257)
    model = build_gpt2(tokenizer.vocab_size, 32, 1, 2, 8, tokenizer=tokenizer)
    model.save(folder / "gpt2.keras")
    VAE(build_encoder(16, (4,), 2), build_decoder(2, (4,), 16)).save(folder / "vae.keras")
    (folder / "quote.csv").write_text('d,v\na,"1\n' + "b,2\n" * 60_000)
    (folder / "series.csv").write_text("t,v\n" + "".join(f"{t},{t % 52}\n" for t in range(600)))
    (folder / "binary.txt").write_bytes(bytes(range(256)) * 10)
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "fifo")
    return folder


NUMBER = "expected a whole number from"


@pytest.mark.parametrize(
    "command, message",
    [
        (["generate", "no-tokenizer.keras", "--prompt", "hi"], "a model with a tokenizer"),
        (["generate", "no-tokenizer.keras"], "no-tokenizer.keras: expected a model with a tok"),
        (["generate", "gpt2.keras", "--prompt", "a" * 40], "--prompt: expected at most 31 tokens"),
        (["generate", "gpt2.keras", "--prompt", "a" * 40, "--length", "9"], "got 40"),
        (["generate", "gpt2.keras", "--prompt", "a" * 30, "--length", "9"], "32"),
        (["generate", "gpt2.keras", "--prompt", "caf\udce9"], "prompt: expected a text in UTF-8"),
        (["generate", "gpt2.keras", "--prompt", ""], "--prompt: expected a string of at least one"),
        (["generate", "text.keras", "--prompt", "xyz"], "prompt: expected characters"),
        (["generate", "gpt2.keras", "--temperature", "nan"], "temperature: expected"),
        (["generate", "gpt2.keras", "--top-p", "inf"], "top_p: expected"),
        (["generate", "gpt2.keras", "--count", "1" * 5000], f"--count: {NUMBER} 1"),
        (["generate", "article1-transformer", "--prompt", " \n "], "got a blank one"),
        (["generate", "vae.keras", "--output", "missing/a.png"], "missing/a.png"),
        (["generate", "vae.keras", "--output", "folder.png"], "got a folder or a device"),
        (["generate", "vae.keras", "--count", "2147483647"], f"--count: {NUMBER} 1 to 10000"),
        (["generate", "caf\udce9.keras"], "source: expected a text in UTF-8"),
        (["generate", "."], ".: no such recipe"),
        (["generate", ""], ": no such recipe"),
        (["train", "article3-forecast", "--data", "quote.csv"], "quote.csv"),
        (["train", "article3-forecast", "--data", "fifo"], "fifo: "),
        (["train", "article3-forecast", "--data", "/dev/zero"], "/dev/zero: "),
        (["train", "article3-lstm", "--data", "binary.txt"], "binary.txt: "),
        (["train", "article4-vae", "--data", "a\0b"], "path: expected"),
        (["train", "article4-vae", "--batch-size", str(10**20)], f"--batch-size: {NUMBER} 1"),
        (["train", "article4-vae", "--epochs", str(10**20)], f"--epochs: {NUMBER} 1"),
        (["train", "article4-vae", "--seed", str(10**20)], f"--seed: {NUMBER} 0"),
        (["train", "article4-vae", "--output", "series.csv"], "series.csv: cannot be written"),
        (["evaluate", "vae.keras"], "vae.keras: expected a model of MNIST digits, (784,) or"),
        (["evaluate", "text.keras"], "text.keras: expected a model of MNIST digits, or run.json"),
        (["evaluate", "article4-vae", "folder.keras"], "folder.keras: no such file"),
        (["evaluate", "caf\udce9.keras"], "sources: expected a text in UTF-8"),
        (["evaluate", "."], ".: no such recipe"),
        (["evaluate", ""], ": no such recipe"),
        (["evaluate", "article4-vae", "--samples", "1" * 5000], f"--samples: {NUMBER} 100"),
        (["train", "\udce9"], "name: expected a text in UTF-8"),
        (["\udce9"], "invalid choice"),
    ],
)
def test_odd_input_is_one_line(files, tmp_path, monkeypatch, capsys, command, message):
    for path in files.iterdir():
        os.symlink(path, tmp_path / path.name)
    (tmp_path / "folder.png").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(command) in (1, 2)
    out, err = capsys.readouterr()
    assert err.startswith("keras_genai: ") and err.count("\n") == 1
    assert "Traceback" not in out + err and len(err) < 1500
    assert message in err
    assert not list(tmp_path.glob("unfinished-*"))


def test_error_of_any_type_is_one_line_and_named(monkeypatch, capsys):
    from keras_genai import catalog

    def broken(name):
        raise KeyError("a\nbug" * 1000)

    monkeypatch.setattr(catalog, "find", broken)
    assert main(["train", "article4-vae"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("keras_genai: KeyError: ") and err.count("\n") == 1 and len(err) < 1100


@pytest.mark.parametrize(
    "name, value", [("image_data_format", "channels_first"), ("floatx", "float64")]
)
def test_other_global_settings_of_keras_are_one_line(files, monkeypatch, capsys, name, value):
    monkeypatch.setattr(keras.config, name, lambda: value)
    for command in (
        ["train", "article4-vae"],
        ["generate", str(files / "vae.keras")],
        ["evaluate", "article4-vae"],
    ):
        assert main(command) == 2
        err = capsys.readouterr().err
        assert f"{name}: expected " in err and repr(value) in err and err.count("\n") == 1


# Processes: pipes, streams and the backend of keras.json.


def shell(line, **environment):
    root = str(pathlib.Path(keras_genai.__file__).parents[1])
    return subprocess.run(
        [
            "bash",
            "-c",
            f'set -o pipefail; genai() {{ {sys.executable} -m keras_genai "$@"; }}; {line}',
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": root, **environment},
    )


def own_lines(done) -> list[str]:
    """Return the lines on the standard error that are not TensorFlow's, which it always writes."""
    lines = done.stderr.splitlines()
    return [line for line in lines if not line.startswith(("WARNING: All log", "I0000 "))]


@pytest.mark.slow
def test_generating_into_a_closed_pipe_ends_without_a_message(files):
    done = shell(f"genai generate {files}/text.keras --length 100000 | head -c 5")
    assert done.returncode == 0 and own_lines(done) == [] and len(done.stdout) == 5


def test_full_standard_output_is_one_line():
    done = shell("genai list > /dev/full")
    assert done.returncode == 1
    assert done.stderr == "keras_genai: standard output: No space left on device\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "redirection", ["| head -1", ">&-", "2>&1 | true", "> /dev/full", "<&- >&- 2>&-"]
)
def test_training_goes_on_without_a_reader(files, tmp_path, redirection):
    train = f"genai train article3-forecast --data {files}/series.csv --epochs 2"
    done = shell(f"{train} --output {tmp_path}/run {redirection}")
    assert "Traceback" not in done.stderr
    assert done.returncode == (1 if "full" in redirection else 0)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["value"] > 0
    assert (tmp_path / "run" / "history.csv").read_text().count("\n") == 3


@pytest.mark.slow
def test_command_line_does_not_take_the_backend_of_keras_json(files, tmp_path):
    (tmp_path / "keras.json").write_text('{"backend": "jax"}')
    output = tmp_path / "a.png"
    line = f"genai generate {files}/vae.keras --count 1 --output {output}"
    done = shell(line, KERAS_HOME=str(tmp_path), KERAS_BACKEND="")
    assert done.returncode == 0 and output.exists(), done.stderr
    (tmp_path / "keras.json").write_text('{"image_data_format": "channels_first"}')
    done = shell(line, KERAS_HOME=str(tmp_path))
    assert done.returncode == 2 and "image_data_format: expected 'channels_last'" in done.stderr
    assert len(own_lines(done)) == 1


# Runs: what happens to their folder.


def train(folder, *arguments) -> int:
    return main(["train", "article3-forecast", "--output", str(folder), *map(str, arguments)])


@pytest.fixture(scope="module")
def finished_run(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert train(folder, "--data", files / "series.csv", "--epochs", 2) == 0
    return folder


@pytest.fixture
def run(finished_run, tmp_path):
    """A copy of a finished run of two epochs."""
    return pathlib.Path(shutil.copytree(finished_run, tmp_path / "run"))


DAMAGED = ["", "{", "[]", "null", "[" * 10**5, "\xff", '{"name": 3}', "\0"]
WRONG = [None, True, -1, 2.5, 1e999, "x", [], 10**30]
KEYS = ["name", "batch_size", "seed", "data", "epochs"]
REBUILT = ["minutes", "num_examples", "dataset_info", "command", "versions", "started", "metric"]


@pytest.mark.slow
def test_damaged_settings_are_one_line_or_rebuilt(run, capsys):
    settings = json.loads((run / "run.json").read_text())
    cases = [(text, "run.json") for text in DAMAGED]
    for key in [*KEYS, *REBUILT]:
        values = WRONG if key in KEYS else [None, -1, "x"]
        changed = [{**settings, key: value} for value in values if value != settings[key]]
        changed.append({name: value for name, value in settings.items() if name != key})
        cases += [(json.dumps(case), key) for case in changed]
    num_rebuilt = 0
    for text, key in cases:
        (run / "run.json").write_text(text, encoding="latin-1")
        model = (run / "model.keras").read_bytes()
        code = train(run, "--resume", "--epochs", 2)
        out, err = capsys.readouterr()
        if code == 0:
            num_rebuilt += 1
            rebuilt = json.loads((run / "run.json").read_text())
            same = ("name", "batch_size", "data", "num_examples", "dataset_info", "value")
            assert all(rebuilt[name] == settings[name] for name in same), text
        else:
            assert code == 2 and err.count("\n") == 1, (text, err)
            # A valid name or path is compared with the recipe, or looked for.
            assert key in err or (key in ("name", "data") and ("run" in err or ": x: " in err)), (
                text,
                err,
            )
        assert (run / "model.keras").read_bytes() == model
    assert len(cases) == COUNTS["damaged settings"]
    assert num_rebuilt == COUNTS["rebuilt"]
    with capsys.disabled():
        print(f"\n{len(cases)} damaged run.json: {num_rebuilt} rebuilt, the others refused")


@pytest.mark.slow
@pytest.mark.parametrize(
    "text, expected",
    [
        (None, [np.nan, np.nan, "new"]),
        ("", [np.nan, np.nan, "new"]),
        ("\0", "cannot be read"),
        ("a,b\n1,2\n", [np.nan, np.nan, "new"]),
        ("epoch,loss,val_loss\r\n0,4.5,2\r\n1,3.5,1\n", [4.5, 3.5, "new"]),
        ("epoch,loss,val_loss\n0,x,2\n1,3.5\n", [np.nan, 3.5, "new"]),
        ("epoch,loss,val_loss\n1,3.5,1\n7,1,1\n", [np.nan, 3.5, "new"]),
        ("epoch,loss\n0,4.5\n1," + "1" * 200_000, [np.nan, np.nan, "new"]),
        ('epoch,loss\n0,4.5\n1,"3.5', [4.5, 3.5, "new"]),
    ],
)
@pytest.mark.filterwarnings("ignore:.*epochs can be read")
def test_damaged_history_is_rebuilt_or_one_line(run, capsys, text, expected):
    history = run / "history.csv"
    last = history.read_text().splitlines()[-1]
    history.unlink() if text is None else history.write_text(text, newline="")
    code = train(run, "--resume", "--epochs", 3)
    err = capsys.readouterr().err
    if isinstance(expected, str):
        assert code == 2 and expected in err and err.count("\n") == 1
        return
    assert code == 0 and last
    values = keras_genai.runs.RunFolder(run).read_history()["loss"]
    assert len(values) == 3 and np.isfinite(values[2])
    np.testing.assert_array_equal(values[:2], expected[:2])
    assert b"\r" not in history.read_bytes() and (run / "history.png").stat().st_size > 0


def test_model_of_another_recipe_or_batch_size_is_refused(run, files, capsys):
    settings = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**settings, "batch_size": 16}))
    assert train(run, "--resume") == 2
    assert "run.json: batch_size: expected that of the model" in capsys.readouterr().err
    (run / "run.json").write_text(json.dumps(settings))
    shutil.copy(files / "vae.keras", run / "model.keras")
    assert train(run, "--resume") == 2
    assert "model.keras: expected the model of the run" in capsys.readouterr().err


def test_other_data_of_the_same_count_is_refused_and_moved_data_accepted(run, files, capsys):
    moved = run.parent / "moved.csv"
    moved.write_bytes((files / "series.csv").read_bytes())
    assert train(run, "--resume", "--data", moved) == 0
    assert json.loads((run / "run.json").read_text())["data"] == str(moved)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    moved.write_text(moved.read_text().replace("\n9,9\n", "\n9,9.5\n"))
    capsys.readouterr()
    assert train(run, "--resume", "--epochs", 3) == 2
    err = capsys.readouterr().err
    assert "moved.csv: the run was started with other windows" in err and err.count("\n") == 1
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_second_run_in_a_folder_is_refused_while_the_first_trains(run, capsys):
    first = keras_genai.runs.RunFolder(run)
    first.lock()
    for options in (["--resume"], ["--epochs", "1"]):
        assert train(run, *options) == 2
        assert "another run is training in this folder" in capsys.readouterr().err
    first.unlock()
    assert train(run, "--resume") == 0


# Runs: errors while they train.


def fail_at_epoch(monkeypatch, failing_epoch, action):
    on_epoch_end = AtomicModelCheckpoint.on_epoch_end

    def failing(self, epoch, logs=None):
        if epoch == failing_epoch:
            action()
        on_epoch_end(self, epoch, logs)

    monkeypatch.setattr(AtomicModelCheckpoint, "on_epoch_end", failing)


def test_full_disk_keeps_the_last_good_model(run, capsys, monkeypatch):
    before = (run / "model.keras").read_bytes()
    _, limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    fail_at_epoch(monkeypatch, 2, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (9000, limit)))
    try:
        assert train(run, "--resume", "--epochs", 3) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    err = capsys.readouterr().err
    assert err.startswith(f"keras_genai: {run}/model.keras: ") and err.count("\n") == 1
    assert f"The last good model is {run}/model.keras." in err
    assert (run / "model.keras").read_bytes() == before
    assert not list(run.glob("unfinished-*"))
    monkeypatch.undo()
    assert train(run, "--resume", "--epochs", 3) == 0


def test_no_space_left_is_one_line(run, capsys, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pathlib.Path, "write_text", full)
    assert train(run, "--resume", "--epochs", 3) == 2
    err = capsys.readouterr().err
    assert "cannot be written (No space left on device)" in err and err.count("\n") == 1


def test_deleted_folder_is_one_line(run, capsys, monkeypatch):
    fail_at_epoch(monkeypatch, 2, lambda: shutil.rmtree(run))
    assert train(run, "--resume", "--epochs", 3) == 1
    err = capsys.readouterr().err
    assert f"{run}/model.keras: No such file or directory." in err and err.count("\n") == 1


def test_deleted_history_is_written_again(run, monkeypatch):
    fail_at_epoch(monkeypatch, 2, (run / "history.csv").unlink)
    assert train(run, "--resume", "--epochs", 4) == 0
    assert (run / "history.csv").read_text().count("\n") == 1 + 4


def test_weights_that_are_not_finite_keep_the_last_good_model(run, capsys, monkeypatch):
    from keras_genai.callbacks import RaiseOnNaN

    before = (run / "model.keras").read_bytes()
    on_epoch_end = RaiseOnNaN.on_epoch_end

    def broken(self, epoch, logs=None):
        set_random_weights(self.model)
        weight = self.model.weights[1]
        weight.assign(np.full(weight.shape, np.inf, "float32"))
        on_epoch_end(self, epoch, logs)

    monkeypatch.setattr(RaiseOnNaN, "on_epoch_end", broken)
    assert train(run, "--resume", "--epochs", 3) == 1
    err = capsys.readouterr().err
    assert "has NaN or infinite values at the end of epoch 3." in err and err.count("\n") == 1
    assert (run / "model.keras").read_bytes() == before
