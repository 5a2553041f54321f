"""Documents: links, commands, tables and listings match the repository."""

import ast
import importlib
import json
import operator
import pathlib
import re
import subprocess
import sys

import pytest
import recipe_listing

import keras_genai
from keras_genai.catalog import RECIPES

ROOT = pathlib.Path(__file__).parent.parent
FOLDERS = ("", ".github", "data", "notebooks", "tests/benchmarks")
DOCUMENTS = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.md"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def split_code(text):
    """Return the text without its fenced code blocks, and the list of these blocks."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), blocks


def anchors(text):
    """Return the anchors that GitHub gives to the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", split_code(text)[0], flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(text, start):
    """Return the commands that begin with `start`, without comments and redirections."""
    found = re.findall(rf"{re.escape(start)}([^`\n#|&>]*)", text)
    return [command.strip() for command in found]


def map_of_faults(name, heading):
    """Return the rows of a map: article, fault, builder, notebook, test."""
    section = read(name).split(f"## {heading}")[1].split("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("| ")]
    assert all(len(row) == 5 for row in rows)
    return rows[1:]


MAP = map_of_faults("README.md", "Corrected from the articles")
CHINESE_MAP = map_of_faults(".github/README.zh-CN.md", "对原文的更正")


# Links, pictures and commands of all documents.


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_pictures_lead_somewhere(path):
    prose, _ = split_code(path.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists() and file.is_relative_to(ROOT), target
        assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), target


def test_every_picture_is_shown_in_a_document():
    shown = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    pictures = [path.name for path in (ROOT / ".github" / "images").iterdir()]
    assert pictures and not [name for name in pictures if f"images/{name})" not in shown]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_of_programs_have_existing_options(path):
    text = path.read_text(encoding="utf-8")
    for command in commands(text, "python tests/"):
        program, *arguments = command.split()
        source = read(f"tests/{program}")
        for argument in arguments:
            is_name = re.fullmatch(r"(--)?[a-z][a-z-]*", argument)
            assert not is_name or f'"{argument}"' in source, command


def test_each_benchmark_has_its_command_in_the_results():
    results = read("tests/benchmarks/README.md")
    for path in (ROOT / "tests" / "benchmarks").glob("*.py"):
        assert f"python tests/benchmarks/{path.name}" in results, path.name
        assert f"| `{path.name}` |" in results, path.name


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_of_the_package_have_existing_recipes_and_options(path):
    source = read("keras_genai/arguments.py")
    for command in commands(path.read_text(encoding="utf-8"), "python -m keras_genai "):
        name, *arguments = command.split()
        assert name in ("list", "train", "generate", "evaluate", "demo"), command
        is_source = name != "demo" and arguments and arguments[0] != "--all"
        if is_source and not arguments[0].endswith(".keras"):
            assert arguments[0] in (*RECIPES, "NAME"), command
        for option in re.findall(r"(?<!\S)--[a-z-]+", command):
            assert f'"{option}"' in source, command


def test_python_examples_import_existing_names():
    num_imports = 0
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        for block in re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.ImportFrom) and node.module.startswith("keras_genai"):
                    module = importlib.import_module(node.module)
                    for alias in node.names:
                        if not hasattr(module, alias.name):
                            importlib.import_module(f"{node.module}.{alias.name}")
                        num_imports += 1
    assert num_imports > 10


# The front pages.


def test_readme_is_short_and_begins_with_the_chinese_summary():
    lines = read("README.md").splitlines()
    assert len(lines) <= 200
    assert lines[2].startswith("**中文简介**") and "](.github/README.zh-CN.md)" in lines[2]


def test_front_pages_have_the_same_commands():
    readme, chinese = (
        split_code(read(name))[1] for name in ("README.md", ".github/README.zh-CN.md")
    )
    for start in ("python3 -m venv", "py -m venv", ".venv/bin/pip install"):
        english = [block for block in readme if block.startswith(start)]
        assert english and english == [block for block in chinese if block.startswith(start)]


def test_command_after_the_marker_runs_the_tests():
    after = read("README.md").split("<!-- test command -->")[1]
    command = next(line for line in after.splitlines() if line.startswith("python"))
    assert command.startswith("python3 -m venv") and command.endswith(" -m pytest")


@pytest.mark.parametrize(
    "name", ["README.md", ".github/README.zh-CN.md", "notebooks/README.md"], ids=str
)
def test_tables_of_notebooks_have_their_minutes(name):
    text = read(name)
    for path in NOTEBOOKS:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        introduction = " ".join("".join(notebook["cells"][0]["source"]).split())
        words = re.search(r"It runs in about (.*?) on two CPU cores", introduction)[1]
        minutes = MINUTES[words]
        row = rf"^\| \[{int(path.stem[:2])}[^\]]*\]\([^)]*{path.name}\) \|.*\| {minutes} \|$"
        assert re.search(row, text, flags=re.MULTILINE), (path.name, minutes)


MINUTES = {
    "a minute": "1",
    "one minute": "1",
    "a minute and a half": "1.5",
    "1.5 minutes": "1.5",
    "two minutes": "2",
    "2 minutes": "2",
    "2.5 minutes": "2.5",
    "two and a half minutes": "2.5",
    "three minutes": "3",
    "four minutes": "4",
    "five minutes": "5",
    "six minutes": "6",
}


def test_index_of_notebooks_has_every_section():
    index = read("notebooks/README.md")
    for path in NOTEBOOKS:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            for section in re.findall(r"^## (\d\.\d+ .+)$", "".join(cell["source"]), re.MULTILINE):
                assert f"- {section}\n" in index, section


def test_chinese_page_has_full_width_punctuation():
    prose = re.sub(r"`[^`]*`", "", split_code(read(".github/README.zh-CN.md"))[0])
    assert not re.findall(r"[\u4e00-\u9fff][,;:!?()]", prose)


# The map from the articles to the tests.


def test_map_names_tests_that_exist():
    names = [name for row in MAP for name in linked_tests(row[4])]
    assert len(names) >= 12
    for file, title in names:
        tree = ast.parse(read(f"tests/{file}"))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert title == file or "test_" + title.replace(" ", "_") in functions, title


def linked_tests(cell):
    """Return file and link text of each test of a cell of the map."""
    found = re.findall(r"\[([^\]]+)\]\([./]*tests/(test_\w+\.py)\)", cell)
    assert found, cell
    return [(file, title) for title, file in found]


def test_map_names_builders_that_exist():
    names = re.findall(r"`(\w+)\.(\w[\w.]*)`", " ".join(row[2] for row in MAP))
    assert len(names) >= 10
    for module, name in names:
        operator.attrgetter(name)(importlib.import_module(f"keras_genai.{module}"))


def test_chinese_map_has_the_same_builders_and_tests():
    assert len(MAP) == len(CHINESE_MAP)
    for row, chinese_row in zip(MAP, CHINESE_MAP, strict=True):
        assert re.findall(r"`([^`]+)`", row[2]) == re.findall(r"`([^`]+)`", chinese_row[2])
        assert linked_tests(row[4]) == linked_tests(chinese_row[4])


# Listings and the changelog.


def test_recipe_listing_is_up_to_date():
    expected = recipe_listing.render()
    assert read(".github/RECIPES.md") == expected, (
        "run: python tests/recipe_listing.py > .github/RECIPES.md"
    )


def test_recipe_listing_has_every_recipe_and_its_open_settings():
    listing = read(".github/RECIPES.md")
    for recipe in RECIPES.values():
        assert f"| `{recipe.name}` |" in listing
        assert recipe.notes in listing


def test_recipe_listing_does_not_load_tensorflow():
    program = "import recipe_listing, sys; recipe_listing.render(); print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT / "tests",
        env={"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not {"tensorflow", "keras"} & set(result.stdout.split())


def test_number_of_recipes_on_the_front_pages():
    assert f"all {len(RECIPES)} recipes" in read("README.md")
    assert f"全部 {len(RECIPES)} 个训练方案" in read(".github/README.zh-CN.md")


def test_changelog_has_the_version_of_the_package():
    headings = re.findall(r"^## (\S+)", read(".github/CHANGELOG.md"), flags=re.MULTILINE)
    assert keras_genai.__version__ in headings


# Applications.

APPLICATIONS = [
    line.split("|")[1:-1]
    for line in read(".github/APPLICATIONS.md").split("## Not shown")[0].splitlines()
    if "`" in line and line.startswith("| ")
]


def test_recipes_of_the_articles_applications_are_listed():
    assert len(APPLICATIONS) >= 15 and all(len(row) == 5 for row in APPLICATIONS)


@pytest.mark.parametrize("row", APPLICATIONS, ids=lambda row: row[2].strip(" `"))
def test_application_has_the_measured_figure_and_a_notebook_that_names_its_recipe(row):
    name = row[2].strip(" `")
    metadata = ROOT / "data" / "weights" / f"{name}.json"
    if metadata.exists():
        value = json.loads(metadata.read_text(encoding="utf-8"))["value"]
    else:
        value = RECIPES[name].expected
    assert f"{value:.4g}" in row[3].split() or f"{value:.4g}%" in row[3].split()
    linked = re.findall(r"\]\(\.\./([^)]+)\)", row[4])
    assert linked and any(name in read(path) for path in linked)
