"""Supported versions: lower bounds, the oldest versions of CI, and the backend of Keras."""

import configparser
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent


def read_setup():
    """The lower bounds of setup.cfg: of each extra, and of "" for the package itself."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = {"": config["options"]["install_requires"], **config["options.extras_require"]}
    return {extra: dict(line.split(">=") for line in text.split()) for extra, text in lines.items()}


def test_oldest_versions_are_the_lower_bounds():
    # CI tests them; of an extra, those that the tests need.
    bounds = read_setup()
    text = (ROOT / ".ci" / "oldest.txt").read_text(encoding="utf-8")
    pins = dict(re.findall(r"^(\w[\w-]*)==(.*)$", text, re.MULTILINE))
    tested = {**bounds[""], **bounds["test"]}
    assert set(pins) == set(tested)
    for name, bound in tested.items():
        assert pins[name] == bound or pins[name] == f"{bound}.0", name
    for extra in ("text", "audio", "gpt2", "music", "demo", "notebooks"):
        for name in set(bounds[extra]) & set(tested):
            assert bounds[extra][name] == tested[name], name


@pytest.mark.parametrize(
    "path, text",
    [
        ("README.md", "TensorFlow {tensorflow} and Keras {keras} or later"),
        (".github/README.zh-CN.md", "TensorFlow {tensorflow} 和 Keras {keras} 以上"),
        (
            ".github/CONTRIBUTING.md",
            "TensorFlow {tensorflow}, Keras {keras}, NumPy {numpy} and matplotlib {matplotlib}",
        ),
    ],
)
def test_documents_have_the_lower_bounds(path, text):
    document = " ".join((ROOT / path).read_text(encoding="utf-8").split())
    assert text.format(**read_setup()[""]) in document


def run(arguments, **environment):
    """Run Python in another process, which does not import TensorFlow."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


MESSAGE = (
    "keras_genai: expected the Keras backend 'tensorflow', got 'jax'. "
    "Set KERAS_BACKEND=tensorflow before Keras is imported."
)


def test_another_backend_raises_at_import():
    result = run(["-c", "import keras_genai"], KERAS_BACKEND="jax")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == f"ImportError: {MESSAGE}"


def test_another_backend_is_one_line_on_the_command_line():
    result = run(["-m", "keras_genai", "list"], KERAS_BACKEND="jax")
    assert result.returncode == 1 and result.stdout == ""
    assert len(result.stderr.splitlines()) == 1 and MESSAGE in result.stderr


def test_another_backend_of_an_imported_keras_raises():
    # A stand-in for Keras, which imports its backend, which may not be installed.
    code = (
        "import sys, types\n"
        "config = types.SimpleNamespace(backend=lambda: 'jax')\n"
        "sys.modules['keras'] = types.SimpleNamespace(config=config)\n"
        "import keras_genai"
    )
    result = run(["-c", code], KERAS_BACKEND="tensorflow")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == f"ImportError: {MESSAGE}"


@pytest.mark.parametrize("backend", ["tensorflow", ""])
def test_tensorflow_is_not_imported_with_the_package(backend):
    code = "import sys, keras_genai\nassert not {'keras', 'tensorflow', 'numpy'} & set(sys.modules)"
    assert run(["-c", code], KERAS_BACKEND=backend).returncode == 0


@pytest.mark.slow
def test_another_backend_of_keras_json_raises():
    # As if keras.json had it: known only when Keras is imported, after the package.
    code = (
        "import keras_genai, keras\n"
        "keras.config.backend = lambda: 'jax'\n"
        "from keras_genai import vae"
    )
    result = run(["-c", code], KERAS_BACKEND="")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == f"ImportError: {MESSAGE}"
