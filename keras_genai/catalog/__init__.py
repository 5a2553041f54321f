"""The recipes: every experiment of the articles, by name, without loading TensorFlow.

`experiments` has the code of each recipe, `recipes` trains it.
"""

from keras_genai.catalog.base import Recipe
from keras_genai.catalog.images import IMAGE_RECIPES
from keras_genai.catalog.sequences import SEQUENCE_RECIPES

__all__ = ["RECIPES", "Recipe", "find"]

RECIPES = {recipe.name: recipe for recipe in (*IMAGE_RECIPES, *SEQUENCE_RECIPES)}


def find(name: str) -> Recipe:
    """Return the recipe of a name.

    Raises:
        ValueError: for an unknown name.
    """
    if not isinstance(name, str):
        raise ValueError(f"name: expected a string, got {name!r:.200}.")
    if name not in RECIPES:
        raise ValueError(f"{name}: no such recipe; expected one of {', '.join(RECIPES)}.")
    return RECIPES[name]
