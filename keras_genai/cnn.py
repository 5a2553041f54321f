"""Image classifier of article 4, section 1.

Corrected from the article: it reports the training loss only; `fit` also measures held-out
accuracy. Its pixels are scaled to [-1, 1] by the loader; here by the model's first layer, so that
every model of this package takes images in [0, 1].

Kept from Keras where PyTorch differs: channels last, Glorot initialisation, Adam's epsilon of 1e-7.
"""

import keras
from keras import layers

from keras_genai.inputs import ImageModel, check_size


def build_cnn(image_shape=(28, 28, 1), num_classes=10) -> keras.Model:
    """Build the article's two-block convolutional classifier.

        cnn = build_cnn()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        cnn.compile("adam", loss, metrics=["accuracy"], jit_compile=False)
        cnn.fit(x, y, batch_size=64, epochs=5)

    On a CPU, XLA makes convolutions slower: `jit_compile=False`.

    Args:
        image_shape: (height, width, channels) of images scaled to [0, 1].
        num_classes: number of labels, at least 2.

    Returns:
        A model from images (batch, height, width, channels) to logits (batch, num_classes).

    Raises:
        ValueError: if height or width is below 4: two poolings would leave no pixel.
    """
    if len(image_shape) != 3:
        raise ValueError(f"image_shape: expected (height, width, channels), got {image_shape}.")
    height, width, channels = image_shape
    image_shape = (
        check_size("image_shape (height)", height, minimum=4),
        check_size("image_shape (width)", width, minimum=4),
        check_size("image_shape (channels)", channels),
    )
    num_classes = check_size("num_classes", num_classes, minimum=2)

    image = keras.Input(image_shape, name="image")
    x = layers.Rescaling(2.0, offset=-1.0)(image)  # [0, 1] to [-1, 1]
    for filters in (32, 64):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(128, activation="relu")(x)
    logits = layers.Dense(num_classes, name="logits")(x)
    return ImageModel(image, logits, name="cnn")
