r"""Notebooks: what is committed was run as it stands, from top to bottom, without an error.

Run anew in notebooks/, without what TensorFlow says when it starts, by

    jupyter nbconvert --to notebook --execute --inplace \
        --ExecutePreprocessor.record_timing=False \
        --ExecutePreprocessor.extra_arguments=--IPKernelApp.capture_fd_output=False *.ipynb
"""

import ast
import json
import pathlib
import re

import pytest

FOLDER = pathlib.Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def text(cell):
    return "".join(cell["source"])


def code_cells(path):
    return [cell for cell in read(path)["cells"] if cell["cell_type"] == "code"]


def test_there_is_one_for_each_article_and_for_each_family_told_in_words():
    names = [path.stem for path in NOTEBOOKS]
    assert names == [
        "01_vae_gan_transformer",
        "02_gan_vae",
        "03_seven_models",
        "04_cnn_gan_vae_gpt2",
        "05_rnn_lstm",
        "06_pixelcnn",
        "07_wavenet",
        "08_diffusion",
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_outputs_come_from_its_cells_in_their_order(path):
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            assert output.get("execution_count", cell["execution_count"]) == cell["execution_count"]
            assert output.get("name") != "stderr", output  # neither warnings nor logs


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_small_and_names_no_folder_of_the_machine_that_ran_it(path):
    assert path.stat().st_size <= 1.5e6
    assert not re.search(r"/(home|root|tmp|Users)/", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_has_what_every_notebook_has(path):
    cells = read(path)["cells"]
    assert text(cells[0]).startswith(f"# {int(path.stem[:2])} · ")
    assert "It runs in about" in text(cells[0]) and "**中文导读**" in text(cells[0])
    words = "\n".join(text(cell) for cell in cells if cell["cell_type"] == "markdown")
    assert "## Exercises" in words and "**Your own data**" in words
    for target in re.findall(r"\]\(([^)#]+)\)", words):
        assert (FOLDER / target).exists(), target
    # It shows what the package has, and defines no layer, loss or model of its own.
    for cell in code_cells(path):
        source = re.sub(r"^[%!].*$", "", text(cell), flags=re.MULTILINE)
        assert not any(isinstance(node, ast.ClassDef) for node in ast.walk(ast.parse(source)))
