"""Task, builder and compile function of each recipe, in the order of the catalog.

`catalog` has what is known of a recipe without loading TensorFlow; this module and the two it
imports have the code.
"""

from keras_genai.catalog import RECIPES
from keras_genai.image_experiments import IMAGE_EXPERIMENTS
from keras_genai.sequence_experiments import SEQUENCE_EXPERIMENTS

_EXPERIMENTS = IMAGE_EXPERIMENTS | SEQUENCE_EXPERIMENTS

EXPERIMENTS = {name: _EXPERIMENTS[name] for name in RECIPES}
