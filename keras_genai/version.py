"""Version of the package, saved in the files of its models, and its backend of Keras."""

__version__ = "0.2.0"


def check_backend(backend: str | None) -> None:
    """Raise ImportError for a Keras backend other than TensorFlow; `None` is Keras's default."""
    if backend not in (None, "", "tensorflow"):
        raise ImportError(
            f"keras_genai: expected the Keras backend 'tensorflow', got {backend!r}. "
            "Set KERAS_BACKEND=tensorflow before Keras is imported.",
            name="keras_genai",  # with a name, `python -m keras_genai` prints one line
        )
