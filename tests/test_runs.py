"""Run folders: settings, history, and complete files after an interruption."""

import os
import pathlib

import numpy as np
import pytest

from keras_genai import catalog
from keras_genai.runs import RunFolder, atomic_write, describe_environment, merge_settings
from keras_genai.tasks import Data

RECIPE = catalog.RECIPES["article4-vae"]
SETTINGS = {
    "name": "article4-vae",
    "batch_size": 32,
    "seed": 3,
    "data": "/images",
    "epochs": 5,
    "minutes": 1.5,
    "command": "the first command",
}


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path / "run")


@pytest.fixture
def unfinished_run(run):
    """A run that was interrupted after an epoch."""
    run.start(SETTINGS, first_epoch=0)
    run.model_path.write_bytes(b"model")
    return run


# atomic_write.


def test_atomic_write_replaces_a_file(tmp_path):
    path = tmp_path / "file.txt"
    for text in ("one", "\u4e8c"):
        atomic_write(path, text)
        assert path.read_text(encoding="utf-8") == text
        assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("function", ["write_text", "replace"])
def test_interrupted_atomic_write_keeps_the_old_file(tmp_path, monkeypatch, function):
    path = tmp_path / "file.txt"
    atomic_write(path, "old")

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(pathlib.Path if function == "write_text" else os, function, interrupted)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(path, "new")
    assert path.read_text() == "old"


# RunFolder.


def test_folder_without_a_run_has_no_settings_and_is_not_created(run):
    assert run.read_settings() is None
    assert not run.path.exists()


def test_file_in_place_of_the_folder_has_no_settings(tmp_path):
    (tmp_path / "file").write_text("")
    assert RunFolder(tmp_path / "file").read_settings() is None
    assert RunFolder(tmp_path / "file" / "run").read_settings() is None


@pytest.mark.parametrize("text", ["", "{", "\xff"])
def test_damaged_settings_raise(run, text):
    run.path.mkdir()
    run.settings_path.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match="run.json: cannot be read"):
        run.read_settings()


def test_settings_are_read_as_written(run):
    run.path.mkdir()
    run.write_settings({**SETTINGS, "data": "/\u56fe\u50cf"})
    assert run.read_settings() == {**SETTINGS, "data": "/\u56fe\u50cf"}


def test_new_run_keeps_the_old_model_and_removes_old_history_and_samples(unfinished_run):
    run = unfinished_run
    run.history_path.write_text("epoch,loss\n0,1.5\n")
    run.samples_dir.mkdir()
    for name in ("epoch-01.png", "other.png"):
        (run.samples_dir / name).write_bytes(b"")
    run.start({**SETTINGS, "seed": 4}, first_epoch=0)
    assert (run.path / "previous-model.keras").read_bytes() == b"model"
    names = sorted(path.name for path in run.path.iterdir())
    assert names == ["previous-model.keras", "run.json", "run.lock", "samples"]
    assert [path.name for path in run.samples_dir.iterdir()] == ["other.png"]
    assert run.read_settings()["seed"] == 4


@pytest.mark.parametrize("first_epoch", [1, 2])
def test_resumed_run_truncates_the_history_to_the_epochs_of_the_model(unfinished_run, first_epoch):
    run = unfinished_run
    run.history_path.write_text("epoch,loss,val_loss\r\n0,1.5,2.5\r\n1,1.25,2.25\r\n2,1.0,2\r\n")
    run.start(SETTINGS, first_epoch)
    assert run.read_history() == {
        "loss": [1.5, 1.25][:first_epoch],
        "val_loss": [2.5, 2.25][:first_epoch],
    }
    assert run.model_path.read_bytes() == b"model"


def test_folder_that_cannot_be_written_raises(tmp_path):
    (tmp_path / "file").write_text("")
    run = RunFolder(tmp_path / "file" / "run")
    with pytest.raises(OSError, match=r"file.run: cannot be written \(Not a directory\)"):
        run.start(SETTINGS, first_epoch=0)


def test_history_has_the_same_line_ends_when_it_is_resumed(unfinished_run):
    run = unfinished_run
    run.history_path.write_text("epoch,loss\r\n0,1.5\r\n", newline="")
    run.start(SETTINGS, first_epoch=1)
    run.append_history(1, {"val_loss": 2.5, "loss": 0.1})
    assert run.history_path.read_bytes() == b"epoch,loss,val_loss\n0,1.5,nan\n1,0.1,2.5\n"


def test_locked_folder_raises_until_it_is_unlocked(unfinished_run):
    other = RunFolder(unfinished_run.path)  # the run that started has the lock
    for function in (other.lock, lambda: other.start(SETTINGS, first_epoch=0)):
        with pytest.raises(ValueError, match="another run is training in this folder"):
            function()
    unfinished_run.unlock()
    other.lock()
    other.lock()  # no effect
    other.unlock()


@pytest.mark.parametrize("key", ["name", "batch_size", "seed", "data", "epochs"])
def test_missing_setting_raises_with_file_and_key(run, key):
    run.path.mkdir()
    run.write_settings({name: value for name, value in SETTINGS.items() if name != key})
    with pytest.raises(ValueError, match=f"run.json: {key}: expected .*, got none"):
        run.read_settings()


def test_digest_of_data_depends_on_contents_only():
    def digest(train, test=None):
        return Data(train, test, 1, {}).sha256()

    x = np.arange(6, dtype="float32").reshape(2, 3)
    assert digest((x, None)) == digest((x.copy(), None)) == digest([np.asfortranarray(x), None])
    others = [(x.T, None), (x.reshape(3, 2), None), (x + 1e-6, None), (x.astype("int32"), None)]
    others += [(x, x), ([x], None), (["ab", "c"],), (["a", "bc"],), ([["a"], "bc"],)]
    digests = [digest((x, None)), digest(x, None), *map(digest, others)]
    assert len(set(digests)) == len(digests)


# merge_settings.


@pytest.mark.parametrize("with_folder", [True, False])
def test_defaults_are_those_of_the_recipe(run, with_folder):
    requested = dict.fromkeys(("epochs", "batch_size", "seed", "data", "command"))
    assert merge_settings(RECIPE, requested, run if with_folder else None, resume=False) == {
        "name": "article4-vae",
        "batch_size": 64,
        "seed": 0,
        "data": None,
        "image_size": None,
        "channels": None,
        "epochs": 10,
        "dtype": "float32",
        "jit_compile": None,
        "minutes": 0.0,
    }


def test_requested_settings_replace_the_defaults(run):
    requested = {
        "epochs": 2, "batch_size": 7, "seed": 0, "data": "/data", "image_size": 32, "channels": 3,
        "dtype": "mixed_float16", "jit_compile": True, "command": "train",
    }  # fmt: skip
    expected = {"name": "article4-vae", "minutes": 0.0, **requested}
    assert merge_settings(RECIPE, requested, run, resume=False) == expected


def test_resumed_run_keeps_its_settings_except_the_number_of_epochs(unfinished_run):
    requested = {"epochs": 9, "batch_size": 32, "seed": None, "command": "the second command"}
    settings = merge_settings(RECIPE, requested, unfinished_run, resume=True)
    # The values of runs of earlier versions.
    new = dict.fromkeys(("jit_compile", "image_size", "channels"))
    expected = {**SETTINGS, "dtype": "float32", **new}
    assert settings == {**expected, "epochs": 9}
    assert merge_settings(RECIPE, {"epochs": None}, unfinished_run, resume=True) == expected


@pytest.mark.parametrize(
    "requested, message",
    [
        ({"seed": 0}, "seed: the run was started with 3, got 0"),
        ({"batch_size": 64}, "batch_size: the run was started with 32, got 64"),
        ({"dtype": "mixed_float16"}, "dtype: the run was started with float32, got mixed_float16"),
        ({"data": "/other"}, "data: the run was started with /images, got /other"),
    ],
)
def test_resuming_with_other_settings_raises(unfinished_run, requested, message):
    with pytest.raises(ValueError, match=message):
        merge_settings(RECIPE, requested, unfinished_run, resume=True)


@pytest.mark.parametrize("with_folder", [True, False])
def test_resuming_without_a_run_raises(run, with_folder):
    with pytest.raises(ValueError, match="nothing to resume"):
        merge_settings(RECIPE, {}, run if with_folder else None, resume=True)


@pytest.mark.parametrize("resume", [True, False])
def test_folder_of_another_recipe_raises(unfinished_run, resume):
    recipe = catalog.RECIPES["article1-vae"]
    with pytest.raises(ValueError, match="holds a run of article4-vae, not of article1-vae"):
        merge_settings(recipe, {}, unfinished_run, resume)


def test_only_an_unfinished_run_with_a_model_blocks_a_new_run(unfinished_run):
    with pytest.raises(ValueError, match="holds an unfinished run; resume it, or choose another"):
        merge_settings(RECIPE, {}, unfinished_run, resume=False)
    unfinished_run.write_settings({**SETTINGS, "value": None})  # finished, but not measured
    assert merge_settings(RECIPE, {}, unfinished_run, resume=False)["seed"] == 0
    unfinished_run.write_settings(SETTINGS)
    unfinished_run.model_path.unlink()
    assert merge_settings(RECIPE, {}, unfinished_run, resume=False)["seed"] == 0


def test_environment_has_the_versions_of_the_libraries():
    environment = describe_environment()
    assert set(environment) == {"started", "versions"}
    assert set(environment["versions"]) == {"python", "tensorflow", "keras", "numpy"}
