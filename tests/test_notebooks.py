"""Notebooks: what is committed was run as it stands, and has what every notebook has.

`python notebooks/execute.py` runs them in place, and writes the hash of the code to each.
"""

import ast
import hashlib
import json
import pathlib
import re

import pytest

FOLDER = pathlib.Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
CJK = "\u4e00-\u9fff"  # Chinese characters
FIRST_CELL = """%matplotlib inline
import importlib.util
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if importlib.util.find_spec("keras_genai") is None:"""
all_notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def text(cell):
    return "".join(cell["source"])


def cells_of(path, cell_type):
    return [cell for cell in read(path)["cells"] if cell["cell_type"] == cell_type]


def parse(cell):
    """Return the syntax tree of a code cell without its magics."""
    return ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", text(cell), flags=re.MULTILINE))


def prose(cell):
    """Return the text of a Markdown cell without code, formulas and the addresses of links."""
    without = text(cell)
    for pattern in (r"```.*?```", r"`[^`]*`", r"\$\$.*?\$\$", r"\$[^$]*\$", r"\]\([^)]*\)"):
        without = re.sub(pattern, "x", without, flags=re.DOTALL)
    return without


def test_there_is_one_for_each_article_for_each_family_told_in_words_and_for_scaling():
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
        "09_scaling",
    ]


@all_notebooks
def test_its_outputs_belong_to_its_cells(path):
    code = [text(cell) for cell in cells_of(path, "code")]
    sha256 = hashlib.sha256(json.dumps(code).encode()).hexdigest()
    assert read(path)["metadata"]["keras_genai"]["sources_sha256"] == sha256


@all_notebooks
def test_its_cells_were_run_in_order_and_without_messages(path):
    cells = cells_of(path, "code")
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            assert output.get("execution_count", cell["execution_count"]) == cell["execution_count"]
            assert output.get("name") != "stderr", output  # neither warnings nor logs


@all_notebooks
def test_it_is_small_and_names_no_folder_of_the_machine_that_ran_it(path):
    assert path.stat().st_size <= 1.5e6
    assert not re.search(r"/(home|root|tmp|Users)/", path.read_text(encoding="utf-8"))


@all_notebooks
def test_it_has_what_every_notebook_has(path):
    cells = read(path)["cells"]
    assert text(cells[0]).startswith(f"# {int(path.stem[:2])} · ")
    assert "It runs in about" in text(cells[0]) and "**中文导读**" in text(cells[0])
    assert text(cells_of(path, "code")[0]).startswith(FIRST_CELL)
    words = "\n".join(text(cell) for cell in cells if cell["cell_type"] == "markdown")
    for heading in ("## Exercises · 练习", "## Your own data · 自己的数据", "## Glossary · 术语表"):
        assert f"\n{heading}\n" in f"\n{words}\n", heading
    for target in re.findall(r"\]\(([^)#]+)\)", words):
        assert (FOLDER / target).exists(), target


@all_notebooks
def test_each_exercise_has_a_hint_and_an_answer(path):
    words = "\n".join(text(cell) for cell in cells_of(path, "markdown"))
    exercises = words.split("## Exercises · 练习")[1].split("\n## ")[0]
    count = len(set(re.findall(r"^(?:\*\*)?(\d+)\.(?: |\*\*)", exercises, flags=re.MULTILINE)))
    assert count >= 3
    for summary in ("Hint · 提示", "Answer · 答案"):
        assert exercises.count(f"<summary>{summary}</summary>") == count
    assert exercises.count("<details>") == exercises.count("</details>") == 2 * count


@all_notebooks
def test_its_code_can_be_read(path):
    for cell in cells_of(path, "code"):
        assert text(cell).count("\n") < 40, text(cell)
        for node in ast.walk(parse(cell)):
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                assert node.end_lineno - node.lineno < 30, node.name


@all_notebooks
def test_english_prose_has_its_chinese(path):
    for cell in cells_of(path, "markdown"):
        english = re.sub(f"^.*[{CJK}].*$", "", prose(cell), flags=re.MULTILINE)
        sentences = [line for line in english.splitlines() if len(line.split()) >= 6]
        if sentences:
            assert re.search(f"[{CJK}].*[{CJK}].*[。：！？]", text(cell)), text(cell)


@all_notebooks
def test_chinese_has_full_width_marks_and_no_stray_spaces(path):
    for cell in cells_of(path, "markdown"):
        words = prose(cell)
        assert not re.search(f"[{CJK}][,;:?!]", words), re.findall(f".{{8}}[{CJK}][,;:?!]", words)
        assert not re.search(f"[{CJK}] *\\([{CJK}]", words), words
        # A line break between two Chinese characters is rendered as a space.
        breaks = re.findall(f"[{CJK}，、；][ \\t]*\\n[{CJK}].{{9}}", words)
        assert not breaks, breaks
        spaces = re.findall(f"[{CJK}，。；：] +[{CJK}].{{5}}", words)
        assert not spaces, spaces


@all_notebooks
def test_grids_have_labels_of_their_rows(path):
    for cell in cells_of(path, "code"):
        for node in ast.walk(parse(cell)):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            names = {keyword.arg for keyword in node.keywords}
            if node.func.attr == "plot_images" and "columns" in names:
                assert names & {"row_labels", "titles"}, text(cell)


@all_notebooks
def test_widgets_wait_for_the_end_of_a_drag(path):
    for cell in cells_of(path, "code"):
        if "Slider(" in text(cell) or "interact(" in text(cell):
            assert "continuous_update=False" in text(cell)
