"""Generative models in Keras 3 on TensorFlow: those of four tutorial articles, corrected.

Each family is a module: `vae`, `gan`, `cnn`, `rnn`, `transformer`, `gpt2`, `pixelcnn`, `wavenet`,
`diffusion`. `pretrained.load(name)` returns a trained model, `recipes.train(name)` trains one.

    from keras_genai import vae
    model = vae.VAE(vae.build_encoder(), vae.build_decoder())
"""

import os
import sys

from keras_genai.version import __version__, check_backend

__all__ = ["__version__", "load_model"]

_keras = sys.modules.get("keras")  # its backend is final once it has been imported
check_backend(_keras.config.backend() if _keras else os.environ.get("KERAS_BACKEND"))


def load_model(path):
    """Load a model of this package from a `.keras` file, including its optimizers.

    Keras finds the classes of a package only once it has been imported; this function imports all
    families.

    Args:
        path: String or path of the file.

    Returns:
        A `keras.Model`.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is not a whole `.keras` file, or if it was saved by keras_genai 0.1.
    """
    from keras_genai import saving  # imported here, so that `import keras_genai` stays fast

    return saving.load_model(path)
