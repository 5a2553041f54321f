"""Training runs: the folder with settings, history and model, its lock, and the output.

The files are safe against interruption, and are checked when they are read.
"""

import contextlib
import csv
import datetime
import importlib.metadata
import io
import json
import math
import os
import pathlib
import platform
import sys
import warnings
import weakref

from keras_genai.files import read_json, read_text, replace_file, to_path

MAX_INT = 2**31 - 1
DTYPES = ("float32", "mixed_float16", "mixed_bfloat16")


def _is_whole(value, minimum: int) -> bool:
    return type(value) is int and minimum <= value <= MAX_INT


# What cannot be rebuilt if it is missing from run.json: a description and a check of each value.
REQUIRED_SETTINGS = {
    "name": ("the name of a recipe", lambda value: isinstance(value, str)),
    "batch_size": ("a whole number of at least 1", lambda value: _is_whole(value, 1)),
    "seed": ("a whole number of at least 0", lambda value: _is_whole(value, 0)),
    "data": ("a path or null", lambda value: value is None or isinstance(value, str)),
    "epochs": ("a whole number of at least 1", lambda value: _is_whole(value, 1)),
}
# What is rebuilt if it is missing or of another kind.
REBUILT_SETTINGS = {
    "minutes": lambda value: type(value) in (int, float) and 0 <= value < math.inf,
    "num_examples": lambda value: _is_whole(value, 1),
    "dataset_info": lambda value: isinstance(value, dict),
    "data_sha256": lambda value: isinstance(value, str),
    "command": lambda value: isinstance(value, str),
    "image_size": lambda value: value is None or _is_whole(value, 1),
    "channels": lambda value: value is None or _is_whole(value, 1),
    "dtype": lambda value: value in DTYPES,
    "jit_compile": lambda value: value is None or isinstance(value, bool),
}


class RunFolder:
    """The files of one training run.

    `run.json` has the settings and, at the end, the metrics; `history.csv` a row for each epoch;
    `model.keras` the model after the last whole epoch. Every file is replaced in one step, so that
    a run that is killed at any moment can be resumed. `run.lock` is locked while a run trains; the
    operating system releases it when the process ends.

    Args:
        path: String or path of the folder. It is created by `start`.
    """

    def __init__(self, path):
        self.path = to_path(path)
        self.settings_path = self.path / "run.json"
        self.history_path = self.path / "history.csv"
        self.model_path = self.path / "model.keras"
        self.lock_path = self.path / "run.lock"
        self.samples_dir = self.path / "samples"
        self.rows: list[dict] = []
        self._close_lock = None

    def read_settings(self) -> dict | None:
        """Return the settings of the run, or `None` if there is no run in the folder.

        A value that `start` rebuilds is left out if it is damaged.

        Raises:
            ValueError: if the file cannot be read, and for a missing or invalid setting.
        """
        if not os.path.lexists(self.settings_path):
            return None
        settings = read_json(self.settings_path)
        for key, (description, is_valid) in REQUIRED_SETTINGS.items():
            if key not in settings or not is_valid(settings[key]):
                found = f"{settings[key]!r:.50}" if key in settings else "none"
                raise ValueError(
                    f"{self.settings_path}: {key}: expected {description}, got {found}."
                )
        return {
            key: value
            for key, value in settings.items()
            if key not in REBUILT_SETTINGS or REBUILT_SETTINGS[key](value)
        }

    def write_settings(self, settings: dict) -> None:
        """Write the settings, and the metrics once they are known."""
        atomic_write(self.settings_path, json.dumps(settings, indent=2) + "\n")

    def lock(self) -> None:
        """Lock the folder, which exists, until `unlock` or the end of the process.

        Raises:
            ValueError: if another run has locked it.
            OSError: if the folder cannot be written.
        """
        if self._close_lock is not None:
            return
        descriptor = os.open(self.lock_path, os.O_RDWR | os.O_CREAT, 0o666)
        self._close_lock = weakref.finalize(self, os.close, descriptor)
        try:
            _lock_file(descriptor)
        except (BlockingIOError, PermissionError) as error:
            self.unlock()
            raise ValueError(
                f"{self.path}: another run is training in this folder; choose another folder."
            ) from error
        except OSError:
            pass  # a file system without locks

    def unlock(self) -> None:
        """Release the lock, if there is one."""
        if self._close_lock is not None:
            self._close_lock()
            self._close_lock = None

    def start(self, settings: dict, first_epoch: int) -> None:
        """Prepare the folder for training from `first_epoch` on.

        A new run keeps an old model as `previous-model.keras` and removes the old history and
        samples. A resumed run truncates the history to the epochs that the model was trained for.

        Raises:
            ValueError: if another run has locked the folder.
            OSError: if the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock()
            if first_epoch == 0:
                if self.model_path.exists():
                    os.replace(self.model_path, self.path / "previous-model.keras")
                for path in (self.history_path, *self.samples_dir.glob("epoch-*.png")):
                    path.unlink(missing_ok=True)
                self.rows = []
            else:
                self.rows = self._read_rows(first_epoch)
                if len(self.rows) < first_epoch:
                    warnings.warn(
                        f"{self.history_path}: only {len(self.rows)} of {first_epoch} epochs can "
                        "be read; the others are NaN.",
                        stacklevel=2,
                    )
                self._write_rows()
            self.write_settings(settings)
        except OSError as error:
            raise OSError(f"{self.path}: cannot be written ({error.strerror}).") from error

    def append_history(self, epoch: int, logs: dict) -> None:
        """Write the history with the metrics of one more epoch."""
        self.rows.append({"epoch": epoch, **{name: float(logs[name]) for name in sorted(logs)}})
        self._write_rows()

    def read_history(self) -> dict[str, list[float]]:
        """Return the history: one list of values per metric, one value per epoch.

        A value that is missing or cannot be read is NaN.

        Raises:
            ValueError: if the file cannot be read.
        """
        rows = self._read_rows()
        num_epochs = max((row["epoch"] for row in rows), default=-1) + 1
        history = {name: [math.nan] * num_epochs for row in rows for name in row if name != "epoch"}
        for row in rows:
            for name in history:
                history[name][row["epoch"]] = row.get(name, math.nan)
        return history

    def _read_rows(self, num_epochs: int | None = None) -> list[dict]:
        """Return what can be read of the first epochs, all by default: a dict for each epoch."""
        if not os.path.lexists(self.history_path):
            return []
        rows = {}
        for cells in _csv_rows(read_text(self.history_path)):
            epoch = cells.get("epoch")
            if isinstance(epoch, str) and epoch.isdecimal() and len(epoch) < 8:
                values = {name: _to_float(cell) for name, cell in cells.items() if name != "epoch"}
                values = {name: value for name, value in values.items() if value is not None}
                if values and (num_epochs is None or int(epoch) < num_epochs):
                    rows[int(epoch)] = {"epoch": int(epoch), **values}
        return [rows[epoch] for epoch in sorted(rows)]

    def _write_rows(self) -> None:
        names = list(dict.fromkeys(["epoch", *(name for row in self.rows for name in row)]))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, restval="nan", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        atomic_write(self.history_path, text.getvalue())


def _csv_rows(text: str) -> list[dict]:
    try:
        return list(csv.DictReader(io.StringIO(text)))
    except csv.Error:  # such as a field of 131 kB
        return []


def _to_float(cell) -> float | None:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return None


if sys.platform == "win32":
    import msvcrt

    def _lock_file(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock_file(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def merge_settings(recipe, requested: dict, run: RunFolder | None, resume: bool) -> dict:
    """Return the settings of a run: requested ones, else those of the resumed run or the recipe.

    Args:
        recipe: `catalog.Recipe`.
        requested: Dict of the requested values of the settings; `None` is unset.
        run: `RunFolder` or `None`.
        resume: Bool. Whether the run in the folder continues.

    Raises:
        ValueError: for a folder of another recipe or of an unfinished run, for a resumed run that
            does not exist, and for settings that differ from those of the resumed run. Another
            path of the data is accepted if the run has a digest to compare its contents with.
    """
    defaults = {
        "name": recipe.name,
        "batch_size": recipe.batch_size,
        "seed": 0,
        "data": None,
        "image_size": None,
        "channels": None,
        "epochs": recipe.epochs,
        "dtype": "float32",
        "jit_compile": None,
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
        previous.setdefault("dtype", "float32")  # of a run of an earlier version
        for key in ("batch_size", "seed", "data", "image_size", "channels", "dtype"):
            if key == "data" and "data_sha256" in previous:
                continue  # data that was moved: its contents are compared
            if key in requested and requested[key] != previous.get(key):
                raise ValueError(
                    f"{key}: the run was started with {previous.get(key)}, got {requested[key]}."
                )
        # The command that started the run stays.
        defaults |= previous
        requested.pop("command", None)
    elif "value" not in previous and run.model_path.exists():
        raise ValueError(
            f"{run.path}: holds an unfinished run; resume it, or choose another folder."
        )
    return {**defaults, **requested}


def check_same_data(settings: dict, data, task) -> None:
    """Record a digest of the data, or compare it with that of a resumed run.

    The digest depends on the contents only: data may be moved. A run of an earlier version has
    none, and is compared by its number of examples and its `dataset_info`.

    Raises:
        ValueError: for other data than the run was started with.
    """
    digest, recorded = data.sha256(), settings.get("data_sha256")
    same_count = settings.get("num_examples", data.num_examples) == data.num_examples
    # Later versions have more items.
    recorded_info = settings.get("dataset_info", {}).items()
    same_info = all(data.dataset_info.get(key) == value for key, value in recorded_info)
    settings["data_sha256"] = digest
    if recorded == digest or (recorded is None and same_count and same_info):
        return
    started, found = f"other {task.example_unit}", "those of other contents, or of another cache"
    if not same_count:
        started, found = f"{settings['num_examples']} {task.example_unit}", str(data.num_examples)
    source = settings["data"] or settings["name"]
    raise ValueError(f"{source}: the run was started with {started}, got {found}.")


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


def check_keras_settings() -> None:
    """Raise ValueError for global settings of Keras that the recipes and models do not support.

    They come from `keras.json`, or from `keras.config`.
    """
    import keras  # imported here, so that `list` and `--help` stay fast

    for name, expected in (("image_data_format", "channels_last"), ("floatx", "float32")):
        value = getattr(keras.config, name)()
        if value != expected:
            raise ValueError(
                f"{name}: expected {expected!r} as the global setting of Keras, got {value!r}; "
                f"see keras.json or keras.config.set_{name}."
            )


def atomic_write(path: pathlib.Path, text: str) -> None:
    """Write a text file in one step: an interruption leaves the old file or the new one."""
    with replace_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="\n")


class Output:
    """A standard stream, of which a failure is noted and not raised.

    Training goes on when the reader of a pipe has ended or a log is full. Without a stream, and
    after a failure, output is dropped.

    Attributes:
        error: OSError of the failure, or `None`.
    """

    def __init__(self, stream):
        self.stream = io.StringIO() if stream is None else stream
        self.error = None

    def write(self, text: str) -> int:
        self._try(self.stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def _try(self, function, *arguments):
        if self.error is not None:
            return
        try:
            function(*arguments)
        except OSError as error:
            self.error = error
            # What is in the buffer of the stream would fail again when Python exits.
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())

    def __getattr__(self, name):
        return getattr(self.stream, name)
