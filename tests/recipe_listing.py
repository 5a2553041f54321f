"""Listing of the recipes, from `keras_genai.catalog` and the metadata of the pretrained weights.

Run `python tests/recipe_listing.py > .github/RECIPES.md` after a change. TensorFlow is not loaded.
"""

import json
import pathlib

from keras_genai import catalog

WEIGHTS = pathlib.Path(__file__).parent.parent / "data" / "weights"

HEADER = """# Recipes

A recipe is the name of a model, its data, its training and the metric to expect:

```sh
python -m keras_genai list                                     # names, networks, data, metrics
python -m keras_genai train article4-vae                       # train, measure, save samples
python -m keras_genai train article4-vae --epochs 1 --seed 1   # options replace the recipe's
python -m keras_genai train article4-vae --resume              # continue an interrupted run
```

`train` prints the metric at its end, beside the expected value, and stores it in `run.json` as
`value`. The metric is measured on held-out data or on samples; a digit is covered if article 4's
CNN assigns at least 1% of 10,000 samples to it. The expected value is that of seed 0 and all
epochs; ± is the largest deviation to expect with another seed. The minutes are those of the run
that trained the pretrained weights, on 2 shared CPU cores; other recipes have no weights in the
package. [Results](../tests/benchmarks/README.md) has remarks on the results, with samples.

Written by `python tests/recipe_listing.py > .github/RECIPES.md` from `keras_genai/catalog/`,
which `list` prints, too; a test checks that this page is up to date.
"""

COLUMNS = ("recipe", "article", "networks", "data", "epochs", "batch size", "metric", "minutes")

SETTINGS = """
## Settings that the articles leave open

`train` prints them, too. Recipes without an entry have all settings from their article.
"""


def render() -> str:
    """Return the listing as Markdown."""
    recipes = catalog.RECIPES.values()
    table = [_row(COLUMNS), "|---" * len(COLUMNS) + "|", *map(_recipe_row, recipes)]
    settings = [f"- `{recipe.name}`: {recipe.notes}" for recipe in recipes if recipe.notes]
    return "\n".join([HEADER, *table, SETTINGS, *settings]) + "\n"


def _recipe_row(recipe: catalog.Recipe) -> str:
    metric = f"{recipe.metric}: {recipe.expected:g} ± {recipe.tolerance:g}"
    return _row(
        (
            f"`{recipe.name}`",
            recipe.article,
            recipe.model,
            recipe.data,
            recipe.epochs,
            recipe.batch_size,
            metric,
            _measured_minutes(recipe),
        )
    )


def _row(cells) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _measured_minutes(recipe: catalog.Recipe) -> str:
    """Return the minutes of the run behind the pretrained weights, or a dash without weights."""
    path = WEIGHTS / f"{recipe.name}.json"
    if not path.exists():
        return "–"
    return f"{json.loads(path.read_text(encoding='utf-8'))['minutes']:g}"


if __name__ == "__main__":
    print(render(), end="")
