"""The folder of a training run: settings, history, model and samples, safe against interruption."""

import csv
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform


class RunFolder:
    """The files of one training run.

    `run.json` has the settings and, at the end, the metrics; `history.csv` a row for each epoch;
    `model.keras` the model after the last whole epoch. Every file is replaced in one step, so that
    a run that is killed at any moment can be resumed.

    Args:
        path: String or path of the folder. It is created by `start`.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.settings_path = self.path / "run.json"
        self.history_path = self.path / "history.csv"
        self.model_path = self.path / "model.keras"
        self.samples_dir = self.path / "samples"

    def read_settings(self) -> dict | None:
        """Return the settings of the run, or `None` if there is no run in the folder.

        Raises:
            ValueError: if the file cannot be read.
        """
        try:
            return json.loads(self.settings_path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise ValueError(f"{self.settings_path}: cannot be read ({error}).") from error

    def write_settings(self, settings: dict) -> None:
        """Write the settings, and the metrics once they are known."""
        atomic_write(self.settings_path, json.dumps(settings, indent=2) + "\n")

    def start(self, settings: dict, first_epoch: int) -> None:
        """Prepare the folder for training from `first_epoch` on.

        A new run keeps an old model as `previous-model.keras` and removes the old history and
        samples. A resumed run truncates the history to the epochs that the model was trained for.

        Raises:
            OSError: if the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if first_epoch == 0:
                if self.model_path.exists():
                    os.replace(self.model_path, self.path / "previous-model.keras")
                for path in (self.history_path, *self.samples_dir.glob("epoch-*.png")):
                    path.unlink(missing_ok=True)
            else:
                with open(self.history_path, newline="", encoding="utf-8") as file:
                    lines = [",".join(row) + "\n" for row in csv.reader(file) if row]
                # A header, then one line per epoch.
                atomic_write(self.history_path, "".join(lines[: 1 + first_epoch]))
            self.write_settings(settings)
        except OSError as error:
            raise OSError(f"{self.path}: cannot be written ({error.strerror}).") from error

    def read_history(self) -> dict[str, list[float]]:
        """Return the history: one list of values per metric, one value per epoch."""
        with open(self.history_path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {name: [float(row[name]) for row in rows] for name in rows[0] if name != "epoch"}


def merge_settings(recipe, requested: dict, run: RunFolder | None, resume: bool) -> dict:
    """Return the settings of a run: requested ones, else those of the resumed run or the recipe.

    Args:
        recipe: `catalog.Recipe`.
        requested: Dict of epochs, batch_size, seed, data and command; `None` values are unset.
        run: `RunFolder` or `None`.
        resume: Bool. Whether the run in the folder continues.

    Raises:
        ValueError: for a folder of another recipe or of an unfinished run, for a resumed run that
            does not exist, and for settings that differ from those of the resumed run.
    """
    defaults = {
        "name": recipe.name,
        "batch_size": recipe.batch_size,
        "seed": 0,
        "data": None,
        "epochs": recipe.epochs,
        "minutes": 0.0,
    }
    requested = {key: value for key, value in requested.items() if value is not None}
    previous = None if run is None else run.read_settings()
    if run is None or previous is None:
        if resume:
            folder = "folder" if run is None else run.path
            raise ValueError(f"{folder}: nothing to resume; train without resuming first.")
        return {**defaults, **requested}
    if previous["name"] != recipe.name:
        raise ValueError(f"{run.path}: holds a run of {previous['name']}, not of {recipe.name}.")
    if resume:
        for key in ("batch_size", "seed", "data"):
            if key in requested and requested[key] != previous[key]:
                raise ValueError(
                    f"{key}: the run was started with {previous[key]}, got {requested[key]}."
                )
        # The command that started the run stays.
        defaults |= previous
        requested.pop("command", None)
    elif "value" not in previous and run.model_path.exists():
        raise ValueError(
            f"{run.path}: holds an unfinished run; resume it, or choose another folder."
        )
    return {**defaults, **requested}


def describe_environment() -> dict:
    """Return the start time of a run and the versions of Python and the libraries."""
    libraries = ("tensorflow", "keras", "numpy")
    return {
        "started": datetime.datetime.now().isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in libraries},
        },
    }


def atomic_write(path: pathlib.Path, text: str) -> None:
    """Write a text file in one step: an interruption leaves the old file or the new one."""
    unfinished = path.with_name(f"unfinished-{path.name}")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
