"""Every experiment of the articles, by name: data, networks, settings, and the figure to expect.

A recipe is a record of what is known without TensorFlow, and the functions that build and compile
the model. Where an article leaves a setting open, `choices` says what we took, and why.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

# Few large calls into TensorFlow cost less than many small ones.
STEPS_PER_EXECUTION = 32


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One experiment.

    Attributes:
        name: on the command line.
        article: and section that it comes from.
        model: the networks in a line.
        kind: "vae", "gan" or "cnn": how its data is laid out and its figure measured.
        build: (seed, num_classes) → the model, num_classes None if it is not labelled.
        compile: sets the model's optimizer, in place.
        epochs, batch_size: its settings.
        figure: what is measured, with its unit.
        expected: the figure after all epochs on MNIST, as measured with seed 0.
        tolerance: how far another seed may be from it.
        labelled: whether the model is trained with labels.
        choices: settings that the article leaves open.
    """

    name: str
    article: str
    model: str
    kind: str
    build: Callable
    compile: Callable
    epochs: int
    batch_size: int
    figure: str
    expected: float
    tolerance: float
    labelled: bool = False
    choices: str = ""
    data: str = "MNIST"

    @property
    def classifier(self) -> str | None:
        """The recipe whose shipped classifier measures this one's figure.

        A digit is covered if the classifier finds it in at least one in a hundred samples.
        """
        generates_digits = self.kind == "gan" or (self.kind == "vae" and self.labelled)
        return "article4-cnn" if generates_digits else None

    def create(self, seed: int = 0, num_classes: int = 10):
        """Return the model, compiled as the recipe trains it, from `seed` on."""
        import keras

        keras.utils.set_random_seed(seed)
        model = self.build(seed, num_classes if self.labelled else None)
        self.compile(model)
        return model

    def arrange(self, images, labels):
        """Return what `fit` takes, (x, y): pixels in [0, 1], and labels if it learns from them.

        Args:
            images: uint8 (n, height, width).
            labels: integers (n,) or None.
        """
        x = images.astype("float32") / 255
        x = x[..., None] if self.kind == "cnn" else x.reshape(len(x), -1)
        return (x, np.asarray(labels, "int32")) if self.labelled else (x, None)

    def measure(self, model, x, y=None, classifier=None) -> dict:
        """Return the figure of a trained model on held-out data, as "measured", and its parts.

        Args:
            model: as `create` returns it, trained.
            x, y: held-out images and labels from `arrange`.
            classifier: a trained classifier of digits, if `self.classifier` names one.
        """
        if self.kind == "gan":
            shares = digit_shares(_read(model.generate(10_000, seed=0), classifier))
            return {"measured": int(np.sum(shares >= 0.01)), "digit_shares": shares.tolist()}
        scores = model.evaluate(x, y, batch_size=500, verbose=0, return_dict=True)
        if self.kind == "cnn":
            return {"measured": 100 * scores["accuracy"]}
        if self.labelled:
            labels = np.arange(10_000) % 10
            read = _read(model.generate(10_000, labels, seed=0), classifier)
            return {"measured": 100 * float(np.mean(read == labels)), **scores}
        return {"measured": scores["loss"], **scores}


def _read(images, classifier) -> np.ndarray:
    """Return the digits (n,) that the classifier reads in images (n, 784)."""
    logits = classifier.predict(images.reshape(-1, 28, 28, 1), batch_size=500, verbose=0)
    return np.argmax(logits, axis=-1)


def digit_shares(digits) -> np.ndarray:
    """Return the share (10,) of each digit among digits (n,)."""
    return np.bincount(digits, minlength=10) / len(digits)


def _article1_vae(seed, num_classes):
    from keras_genai.vae import VAE, build_decoder, build_encoder

    return VAE(build_encoder(latent_dim=2), build_decoder(latent_dim=2), seed=seed)


def _article2_vae(seed, num_classes):
    from keras_genai.vae import VAE, build_decoder, build_encoder

    encoder = build_encoder(hidden_dims=(256, 128), latent_dim=32)
    decoder = build_decoder(hidden_dims=(128, 256), latent_dim=32)
    return VAE(encoder, decoder, likelihood="gaussian", seed=seed)


def _article4_vae(seed, num_classes):
    from keras_genai.vae import VAE, build_decoder, build_encoder

    return VAE(build_encoder(), build_decoder(), seed=seed)


def _conditional_vae(seed, num_classes):
    from keras_genai.vae import VAE, build_decoder, build_encoder

    encoder = build_encoder(num_classes=num_classes)
    return VAE(encoder, build_decoder(num_classes=num_classes), beta=5.0, seed=seed)


def _compile_vae(model):
    import keras

    # XLA, which Keras leaves off on a CPU, is faster for dense networks there.
    model.compile(
        keras.optimizers.Adam(1e-3), jit_compile=True, steps_per_execution=STEPS_PER_EXECUTION
    )


def _article1_gan(seed, num_classes):
    return _build_small_gan((256, 512), seed)


def _article2_gan(seed, num_classes):
    return _build_small_gan((256, 512, 1024), seed)


def _build_small_gan(generator_dims, seed):
    from keras_genai.gan import GAN, build_discriminator, build_generator

    generator = build_generator(
        hidden_dims=generator_dims, output_activation="sigmoid", initializer="glorot"
    )
    discriminator = build_discriminator(
        hidden_dims=(512, 256), activation="relu", rescale=False, initializer="glorot"
    )
    return GAN(generator, discriminator, joint_batch=True, fresh_noise=False, seed=seed)


def _article4_gan(seed, num_classes):
    from keras_genai.gan import GAN, build_discriminator, build_generator

    return GAN(build_generator(), build_discriminator(), seed=seed)


def _compile_small_gan(model):
    model.compile("adam", "adam", steps_per_execution=STEPS_PER_EXECUTION)


def _compile_gan(model):
    model.compile(steps_per_execution=STEPS_PER_EXECUTION)


def _article4_cnn(seed, num_classes):
    from keras_genai.cnn import build_cnn

    return build_cnn(num_classes=num_classes)


def _compile_cnn(model):
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])


_RECIPES = (
    Recipe(
        name="article1-vae",
        article="article 1, VAE",
        model="VAE 784-400-2-400-784, Bernoulli",
        kind="vae",
        build=_article1_vae,
        compile=_compile_vae,
        epochs=10,
        batch_size=64,
        figure="test loss, nats per image",
        expected=154.9,
        tolerance=2.0,
        choices="The article names no size, batch or epochs. Width, batch and epochs are "
        "article 4's; z has 2 dimensions, so that the whole latent space can be drawn.",
    ),
    Recipe(
        name="article1-gan",
        article="article 1, GAN",
        model="GAN 100-256-512-784, 784-512-256-1",
        kind="gan",
        build=_article1_gan,
        compile=_compile_small_gan,
        epochs=10,
        batch_size=64,
        figure="digits covered, of 10",
        expected=1,
        tolerance=1,
        choices="The article names no noise, batch or epochs, and its epoch is one batch. The "
        "noise is articles 2's and 4's 100; batch and epochs are article 4's VAE's, over all "
        "images.",
    ),
    Recipe(
        name="article2-vae",
        article="article 2, section 4.2",
        model="VAE 784-256-128-32-128-256-784, Gaussian",
        kind="vae",
        build=_article2_vae,
        compile=_compile_vae,
        epochs=10,
        batch_size=32,
        figure="test loss, squared error per pixel and 2/784 KL",
        expected=0.0482,
        tolerance=0.001,
        choices="The article's 100 epochs are 100 steps on one batch of noise, a twentieth of a "
        "pass over the images. Epochs are article 4's 10.",
    ),
    Recipe(
        name="article2-gan",
        article="article 2, section 4.1",
        model="GAN 100-256-512-1024-784, 784-512-256-1",
        kind="gan",
        build=_article2_gan,
        compile=_compile_small_gan,
        epochs=6,
        batch_size=32,
        figure="digits covered, of 10",
        expected=1,
        tolerance=1,
        choices="The article's 10,000 epochs are 10,000 steps on one batch of noise: 5.3 passes "
        "over the images, 6 taken. It trains no discriminator apart; the loop is article 1's.",
    ),
    Recipe(
        name="article4-vae",
        article="article 4, section 3",
        model="VAE 784-400-20-400-784, Bernoulli",
        kind="vae",
        build=_article4_vae,
        compile=_compile_vae,
        epochs=10,
        batch_size=64,
        figure="test loss, nats per image",
        expected=105.0,
        tolerance=0.5,
    ),
    Recipe(
        name="article4-gan",
        article="article 4, section 2",
        model="GAN 100-256-512-1024-784, 784-1024-512-256-1",
        kind="gan",
        build=_article4_gan,
        compile=_compile_gan,
        epochs=50,
        batch_size=64,
        figure="digits covered, of 10",
        expected=10,
        tolerance=1,
    ),
    Recipe(
        name="article4-cnn",
        article="article 4, section 1",
        model="CNN 32-64-128-10",
        kind="cnn",
        build=_article4_cnn,
        compile=_compile_cnn,
        epochs=5,
        batch_size=64,
        figure="test accuracy, %",
        expected=99.05,
        tolerance=0.2,
        labelled=True,
    ),
    Recipe(
        name="conditional-vae",
        article="article 4, section 3, with labels",
        model="VAE 784-400-20-400-784, Bernoulli, beta 5, told the digit",
        kind="vae",
        build=_conditional_vae,
        compile=_compile_vae,
        epochs=10,
        batch_size=64,
        figure="samples read as the digit asked for, %",
        expected=97.0,
        tolerance=2.0,
        labelled=True,
        choices="Not in the article: its VAE, with the digit as a second input of both networks. "
        "With beta 1, z still knows the digit, and a quarter of the samples are another one than "
        "asked for.",
    ),
)

RECIPES = {recipe.name: recipe for recipe in _RECIPES}
