"""Runs killed with SIGKILL at random moments: resumed, they end as if they had not been killed."""

import json
import multiprocessing
import os
import random
import shutil
import sys
import time

import keras
import numpy as np
import pytest
from helpers import COUNTS, write_digits

import keras_genai

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a signal of POSIX"),
]

EPOCHS = 10
# The recipes of `COUNTS`.
RECIPES = ["article4-vae", "article4-gan", "article4-cnn", "conditional-vae", "article3-forecast"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """120 MNIST digits as PNG files, in a folder for each digit."""
    return write_digits(tmp_path_factory.mktemp("images"), 120)


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    path = tmp_path_factory.mktemp("series") / "series.csv"
    rows = "\n".join(f"{t},{t + t % 52}" for t in range(600))
    path.write_text(f"week,value\n{rows}\n")
    return path


def run_command(arguments) -> None:
    """Run in the new process: without output, and with the exit code of the command."""
    from keras_genai.__main__ import main

    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    os._exit(main(arguments))


def start(name, folder, data, resume):
    options = ["--resume"] if resume else ["--data", str(data), "--epochs", str(EPOCHS)]
    arguments = ["train", name, *options, "--batch-size", "32", "--output", str(folder)]
    # The server has imported the package: a process starts in a moment.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["keras_genai.recipes"])
    process = context.Process(target=run_command, args=(arguments,))
    process.start()
    return process


def read_state(folder) -> list[np.ndarray]:
    """Return the weights of the model and the variables of its optimizers."""
    model = keras_genai.load_model(folder / "model.keras")
    optimizers = [
        getattr(model, name)
        for name in ("generator_optimizer", "discriminator_optimizer")
        if hasattr(model, name)
    ] or [model.optimizer]
    variables = [variable for optimizer in optimizers for variable in optimizer.variables]
    return [*model.get_weights(), *map(keras.ops.convert_to_numpy, variables)]


@pytest.mark.parametrize("name", RECIPES)
def test_killed_run_ends_bit_identical_to_an_uninterrupted_one(
    images, series, tmp_path, name, capsys
):
    data = series if name == "article3-forecast" else images
    uninterrupted, killed = tmp_path / "uninterrupted", tmp_path / "killed"
    started = time.monotonic()
    process = start(name, uninterrupted, data, resume=False)
    process.join()
    assert process.exitcode == 0
    duration = time.monotonic() - started

    moments, num_kills, num_in_training = random.Random(name), 0, 0
    while num_kills < COUNTS["kills"] // len(RECIPES):
        process = start(name, killed, data, resume=(killed / "run.json").exists())
        process.join(moments.uniform(0.2, 0.95) * duration)
        process.kill()
        process.join()
        if process.exitcode == 0:  # it had ended: once more
            shutil.rmtree(killed)
            continue
        assert process.exitcode == -9
        num_kills += 1
        num_in_training += (killed / "model.keras").exists()
    process = start(name, killed, data, resume=(killed / "run.json").exists())
    process.join()
    assert process.exitcode == 0

    for expected, found in zip(read_state(uninterrupted), read_state(killed), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert (killed / "history.csv").read_bytes() == (uninterrupted / "history.csv").read_bytes()
    runs = [json.loads((path / "run.json").read_text()) for path in (uninterrupted, killed)]
    assert runs[0]["value"] == runs[1]["value"] and runs[1]["minutes"] > 0
    for path in killed.rglob("*"):
        assert path.is_dir() or path.name == "run.lock" or path.stat().st_size > 0
    names = [{p.relative_to(path) for p in path.rglob("*")} for path in (uninterrupted, killed)]
    assert {path for path in names[0] ^ names[1] if "unfinished" not in path.name} == set()
    with capsys.disabled():
        print(f"\n{name}: {num_kills} kills, {num_in_training} after the first epoch: identical")
