"""Image classifier: article 4, section 1.

Corrected from the article, section 1: the listing prints the training loss only, and `fit` here
also measures the accuracy on validation data. The article's data loader scales the pixels to
[-1, 1]; here the first layer of the model does, so that all models of this package have images in
[0, 1].

Where PyTorch (article 4) and Keras have different defaults, the model has those of Keras: channels
last, Glorot initialization, and an Adam epsilon of 1e-7.
"""

import keras
from keras import layers

from keras_genai.models import ImageModel
from keras_genai.validation import check_image_shape, check_size


def build_cnn(image_shape=(28, 28, 1), num_classes=10) -> keras.Model:
    """Build the article's convolutional classifier with two blocks.

    Args:
        image_shape: Tuple of ints `(height, width, channels)`. Pixels are in [0, 1]. Defaults to
            `(28, 28, 1)`.
        num_classes: Int. Number of labels, at least 2. Defaults to `10`.

    Returns:
        A `keras.Model` that maps images `(batch, height, width, channels)` to logits
        `(batch, num_classes)`.

    Raises:
        ValueError: if height or width is below 4: the two poolings would leave no pixel.

    Example:
        cnn = build_cnn()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        # On a CPU, XLA makes convolutions slower.
        cnn.compile("adam", loss, metrics=["accuracy"], jit_compile=False)
        cnn.fit(x, y, batch_size=64, epochs=5)
    """
    image_shape = check_image_shape(image_shape, minimum=4)
    num_classes = check_size("num_classes", num_classes, minimum=2)

    image = keras.Input(image_shape, name="image")
    x = layers.Rescaling(2.0, offset=-1.0)(image)  # [0, 1] to [-1, 1]
    for filters in (32, 64):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(128, activation="relu")(x)
    logits = layers.Dense(num_classes, dtype=keras.config.floatx(), name="logits")(x)
    return ImageModel(image, logits, name="cnn")
