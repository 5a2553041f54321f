"""README: what it names is there."""

import ast
import importlib
import operator
import pathlib
import re

from keras_genai.recipes import RECIPES

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAP = README.split("## Corrected from the articles")[1].split("\n## ")[0]


def test_links_and_pictures_lead_somewhere():
    targets = re.findall(r"\]\(([^)#:]+)\)", README)
    assert targets and not [target for target in targets if not (ROOT / target).exists()]


def test_each_recipe_has_a_row():
    rows = re.findall(r"^\| `([a-z0-9-]+?)(?: --data tang)?` \|", README, flags=re.MULTILINE)
    assert set(RECIPES) - {"article3-lstm-tang"} == set(rows) & set(RECIPES)


def test_the_map_names_tests_that_exist():
    names = re.findall(r"(test_\w+\.py)::(\w+)", MAP)
    assert len(names) >= 12
    for file, name in names:
        tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_map_names_builders_that_exist():
    rows = [row.split("|") for row in MAP.splitlines() if row.startswith("| ")][1:]
    builders = " ".join(row[3] for row in rows)  # article, fault, builder, notebook, test
    names = re.findall(r"`(\w+)\.(\w[\w.]*)`", builders)
    assert len(names) >= 10
    for module, name in names:
        operator.attrgetter(name)(importlib.import_module(f"keras_genai.{module}"))
