"""Generative models in Keras 3 on TensorFlow, as four articles teach them, corrected and measured.

    from keras_genai import vae
    model = vae.VAE(vae.build_encoder(), vae.build_decoder())

Each family is a module: `vae`, `gan`, `cnn`, `rnn`, `transformer`, `gpt2`, `pixelcnn`, `wavenet`,
`diffusion`.
`pretrained.load(name)` returns a trained one.
"""

__version__ = "0.1.0"


def load_model(path):
    """Load a model of this package from a `.keras` file, optimizers included.

    Keras alone does not know the classes of a package that has not been imported; this imports
    them.

    Args:
        path: of the file.

    Returns:
        The `keras.Model`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a whole `.keras` file.
    """
    import pathlib
    import zipfile

    import keras

    # Each registers its classes.
    from keras_genai import (  # noqa: F401
        cnn,
        diffusion,
        gan,
        gpt2,
        pixelcnn,
        rnn,
        transformer,
        vae,
        wavenet,
    )

    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file.")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # the name of the first part whose checksum is wrong
        if damaged:
            raise zipfile.BadZipFile(f"{damaged} is damaged")
        return keras.models.load_model(path, safe_mode=True)
    except Exception as error:  # a damaged file fails in many places, with many types
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path}: expected a whole .keras file of known classes ({reason})."
        ) from error
