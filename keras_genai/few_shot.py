"""Few-shot generation: a new class of a trained diffusion model, from a few images (article 1).

The article expects models that learn from few examples or none (少样本和零样本学习). Here, a
trained conditional `DDPM` gets one more label, and `fit` continues on the images of the new class,
as in DreamBooth (Ruiz et al. 2023): all weights are trained, beside images of the old classes
(replay, its section 3.2), without which these are lost. With the label embedding alone trainable,
it is the textual inversion of Gal et al. 2022.
"""

import keras
import numpy as np

from keras_genai.conditioning import OneHot
from keras_genai.diffusion import DDPM
from keras_genai.validation import check_size, check_type


def add_classes(model: DDPM, num_new: int = 1) -> DDPM:
    """Return a copy of a conditional diffusion model with more classes.

    For the old labels, and without a label, its outputs are those of the model. The embedding of a
    new label begins as the mean of the old ones. The copy is not compiled; the model is unchanged.

    Args:
        model: `DDPM` whose network is from `build_unet`, with classes.
        num_new: Int. Number of new classes; their labels follow the old ones. Defaults to `1`.

    Returns:
        `DDPM` with `model.num_classes + num_new` classes.

    Raises:
        ValueError: for another model, and for one without classes.

    Example:
        model = add_classes(pretrained.load("article3-diffusion-cosine"))
        model.ema_momentum = 0.99  # of few steps
        model.compile(keras.optimizers.Adam(3e-4), jit_compile=False)
        model.fit(x, labels)  # images of label 10, and some of the labels 0 to 9
        signs = model.generate(16, 10)
    """
    check_type("model", model, DDPM)
    num_new = check_size("num_new", num_new)
    if model.num_classes is None:
        raise ValueError("model: expected a DDPM with classes, got num_classes None.")
    names = ("seed", "cond_drop_prob", "ema_momentum", "prediction_type", "name")
    options = {name: getattr(model, name) for name in names}
    network = _expand(model.network, num_new)
    copy = DDPM(network, model.schedule, **options)
    copy.ema_network.set_weights(_expand_weights(model.ema_network, network))
    return copy


def _expand(network: keras.Model, num_new: int) -> keras.Model:
    """Return a copy of a network with a one-hot encoding of more classes."""

    def clone(layer):
        config = layer.get_config()
        if isinstance(layer, OneHot):
            config["num_classes"] += num_new
        return type(layer).from_config(config)

    expanded = keras.models.clone_model(network, clone_function=clone)
    expanded.set_weights(_expand_weights(network, expanded))
    return expanded


def _expand_weights(network: keras.Model, expanded: keras.Model) -> list[np.ndarray]:
    """Return the weights of a network, with rows of the mean where those of another have more."""
    weights = []
    for weight, target in zip(network.get_weights(), expanded.weights, strict=True):
        num_missing = target.shape[0] - len(weight)
        rows = np.repeat(weight.mean(axis=0, keepdims=True), num_missing, axis=0)
        weights.append(np.concatenate([weight, rows]))
    return weights
