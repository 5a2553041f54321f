"""Toy models of images and of series: how each is built, trained and compared."""

import keras
import numpy as np

from keras_genai.cnn import build_cnn
from keras_genai.diffusion import DDPM, NoiseSchedule, build_unet
from keras_genai.gan import GAN, build_discriminator, build_generator, train_gan
from keras_genai.models import ImageModel
from keras_genai.pixelcnn import PixelCNN
from keras_genai.rnn import build_forecaster
from keras_genai.vae import (
    VAE,
    build_decoder,
    build_encoder,
    build_vae,
    kl_divergence,
    reconstruction_loss,
)

NUM_EXAMPLES, BATCH_SIZE = 8, 4


def sgd():
    return keras.optimizers.SGD(0.1)


def adam():
    return keras.optimizers.Adam(0.01)


def images(*shape):
    """Eight images of zeros and ones, which every dtype represents."""
    rng = np.random.default_rng(0)
    return rng.integers(2, size=(NUM_EXAMPLES, *shape)).astype("float32")


def labels():
    return np.arange(NUM_EXAMPLES, dtype="int32") % 2


def invalid_images(x, y):
    """Return invalid images or labels by the start of the error."""
    return {
        "x: expected pixels": (second_batch(x, 255), y),
        "labels: expected integers": (x, second_batch(y, 2)),
        "x: expected shape": (images(4, 5, 1), y),
    }


class Family:
    """A model, its data and its way of training; the defaults are those of the stock `fit`.

    Attributes:
        name: Heading of the column.
        partner: Name of the family that trains the same networks in another way, or `None`.
        losses: Names of its losses in the history.
        metric: Metric of `compile`.
        loss: Loss of `compile`; `None` if the model has its own.
        takes_tokens: Whether x is token ids.
        divides_by_weights: Whether the loss is divided by the sum of the sample weights.
        has_dropout: Whether it has an argument `dropout`.
        checks_tokens: Whether it refuses tokens that are no integers.
        weights_shape: Shape of sample weights that Keras's own weighted metrics take.
        saves_precision: Whether its file keeps the precision of the model itself.
        arrays_only: Whether it trains on arrays only, and has no other methods of a model.
        penalized_shape: Shape of the first input of the network that `build` passes to `penalize`.
    """

    name = ""
    partner = None
    losses = ("loss",)
    metric: type = keras.metrics.SparseCategoricalAccuracy
    loss: object = None
    takes_tokens = False
    divides_by_weights = False
    has_dropout = False
    penalized_shape: tuple = (4, 4, 1)
    saves_precision = True
    weights_shape: tuple = (NUM_EXAMPLES,)
    arrays_only = False

    @property
    def checks_tokens(self):
        return self.takes_tokens

    def build(self, seed=0, penalize=lambda network: network, **options):
        """Return the model; the networks of users are passed through `penalize`."""
        raise NotImplementedError

    def data(self):
        """Return x and y of `fit`; y is `None` if there is none."""
        raise NotImplementedError

    def compile(self, model, optimizer=sgd, **options):
        model.compile(optimizer(), **({"loss": self.loss} if self.loss else {}), **eager(options))

    def fit(self, model, x=None, y=None, **options):
        """Train, by default in the order of the data; return the history."""
        if x is None:
            x, y = self.data()
        if isinstance(x, (list, np.ndarray)):
            options = {"batch_size": BATCH_SIZE, "shuffle": False, **options}
        return model.fit(x, y, verbose=0, **options)

    def optimizers(self, model):
        return [model.optimizer]

    def kernel_layers(self, model) -> list:
        """Return the first layer with a kernel of each network that has a loss."""
        return [first_kernel_layer(model)]

    def added_loss(self, model):
        """Return the part of the first loss that is not the loss of `compile`."""
        return 0.0

    def layer_to_freeze(self, model):
        return self.kernel_layers(model)[0]

    def remove_noise(self, model):
        """Change the weights such that predictions are deterministic."""

    def scores(self, model):
        """Return the metric of each pixel or token, computed from predictions by hand."""
        y = self.data()[1]
        return np.argmax(self.outputs(model)[0], axis=-1) == y

    def parts(self, model) -> list:
        """Return the networks inside, which users may load, save or train on their own."""
        return []

    def outputs(self, model) -> list:
        """Return arrays that are equal if the models are."""
        return [np.asarray(model(self.inputs()))]

    def inputs(self):
        """Return the inputs of the model itself."""
        return self.data()[0]

    def generate(self, model, **options) -> list:
        """Return generated arrays, or predictions of a model that does not generate."""
        return self.outputs(model)

    def invalid(self) -> dict:
        """Return invalid (x, y) by the start of the error; the second batch is invalid."""
        return {}

    def invalid_inputs(self) -> dict:
        """Return invalid inputs of `predict` by the start of the error."""
        return {name: x for name, (x, _) in self.invalid().items() if name.startswith("x")}


def eager(options) -> dict:
    """Return options of `compile`: eager unless given, as tracing takes longer than two steps."""
    return {"run_eagerly": not options.get("jit_compile"), "jit_compile": False, **options}


def flat_layers(model):
    return model._flatten_layers(include_self=False)


def first_kernel_layer(model):
    return next(layer for layer in flat_layers(model) if hasattr(layer, "kernel"))


def seed_all(seed):
    """Set all seeds, except without a seed: `keras.utils.set_random_seed` then governs it."""
    if seed is not None:
        keras.utils.set_random_seed(seed)


def second_batch(array, value):
    """Return a copy whose second batch contains a value and 0."""
    array = np.array(array)
    array[BATCH_SIZE:].flat[:2] = value, 0
    return array


class BuildVAE(Family):
    """The functional model, trained by the stock `fit`."""

    name, metric = "build_vae", keras.metrics.MeanAbsoluteError
    penalized_shape = (16,)
    loss = staticmethod(reconstruction_loss)

    def networks(self, seed, penalize):
        seed_all(seed)
        return penalize(build_encoder(16, (5,), 3)), build_decoder(3, (5,), 16)

    def build(self, seed=0, penalize=lambda network: network, **options):
        return build_vae(*self.networks(seed, penalize), seed=seed, **options)

    def data(self):
        return images(16), images(16)

    def parts(self, model):
        return [model.get_layer("encoder"), model.get_layer("decoder")]

    def remove_noise(self, model):
        variance = next(la for la in flat_layers(self.parts(model)[0]) if la.name == "z_log_var")
        variance.bias.assign([-60.0] * 3)

    def scores(self, model):
        encoder, decoder = self.parts(model)
        x = images(16)
        return np.abs(np.asarray(decoder(encoder(x)[0])) - x)

    def kl_owner(self, model):
        """Return the object and the name of its attribute that weights the KL term."""
        return model.get_layer("kl_divergence"), "weight"

    def added_loss(self, model):
        return float(np.mean(kl_divergence(*self.parts(model)[0](images(16)))))

    def outputs(self, model):
        encoder, decoder = self.parts(model)
        return [*map(np.asarray, encoder(images(16))), np.asarray(decoder(images(3)))]

    def invalid(self):
        pixels = second_batch(images(16), 255)
        return {
            "x: expected pixels": (pixels, images(16)),
            "y: expected pixels": (images(16), pixels),
            "x: expected shape": (images(17), images(16)),
            "y: expected shape": (images(16), images(17)),
        }


class OwnVAE(BuildVAE):
    """The class with its own `train_step`."""

    name, partner, loss = "VAE", "build_vae", None

    def build(self, seed=0, penalize=lambda network: network, **options):
        return VAE(*self.networks(seed, penalize), seed=seed, **options)

    def data(self):
        return images(16), None

    def parts(self, model):
        return [model.encoder, model.decoder]

    def kl_owner(self, model):
        return model, "beta"

    def generate(self, model, **options):
        return [model.generate(4, **options)]

    def invalid(self):
        pixels = second_batch(images(16), 255)
        return {"x: expected pixels": (pixels, None), "x: expected shape": (images(17), None)}


class OwnGAN(Family):
    """The class with its own `train_step`."""

    name, partner = "GAN", "train_gan"
    penalized_shape = (3,)
    losses = ("generator_loss", "discriminator_loss")

    def build(self, seed=0, penalize=lambda network: network, **options):
        seed_all(seed)
        networks = penalize(build_generator(3, (5,), 16)), build_discriminator(16, (5,))
        return GAN(*networks, seed=seed, **options)

    def data(self):
        return images(16), None

    def compile(self, model, optimizer=sgd, **options):
        model.compile(optimizer(), optimizer(), **eager(options))

    def optimizers(self, model):
        return [model.generator_optimizer, model.discriminator_optimizer]

    def kernel_layers(self, model):
        return [first_kernel_layer(part) for part in self.parts(model)]

    def parts(self, model):
        return [model.generator, model.discriminator]

    def outputs(self, model):
        noise, real = images(3), images(16)
        return [np.asarray(model.generator(noise)), np.asarray(model.discriminator(real))]

    def generate(self, model, **options):
        return [model.generate(4, **options)]

    def invalid(self):
        pixels = second_batch(images(16), 255)
        return {"x: expected pixels": (pixels, None), "x: expected shape": (images(17), None)}


class HingeGAN(OwnGAN):
    """The GAN with a discriminator of scores."""

    name, partner = "hinge GAN", None

    def build(self, seed=0, penalize=lambda network: network, **options):
        seed_all(seed)
        image = keras.Input((16,))
        scores = keras.layers.Dense(1)(keras.layers.Dense(5, "relu")(image))
        networks = penalize(build_generator(3, (5,), 16)), keras.Model(image, scores)
        return GAN(*networks, seed=seed, loss="hinge", **options)


class TrainGAN(OwnGAN):
    """The function of the articles' loop; the model of its history is a compiled `GAN`."""

    name, partner = "train_gan", None
    arrays_only = True

    def compile(self, model, optimizer=sgd, **options):
        model.options = {"optimizer": optimizer, **options}

    def fit(self, model, x=None, y=None, **options):
        options = {**model.options, **options}
        optimizer = options.pop("optimizer")
        return train_gan(
            model.generator, model.discriminator, images(16) if x is None else x, y, verbose=0,
            generator_optimizer=optimizer(), discriminator_optimizer=optimizer(), seed=model.seed,
            **{"batch_size": BATCH_SIZE, "shuffle": False, **options},
        )  # fmt: skip


class CNN(Family):
    """The classifier of images."""

    name = "build_cnn"
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def build(self, seed=0, penalize=lambda network: network, **options):
        seed_all(seed)
        network = penalize(build_cnn((4, 4, 1), 2, **options))
        if isinstance(network, ImageModel):
            return network
        return ImageModel(network.inputs[0], network.outputs[0])

    def data(self):
        return images(4, 4, 1), labels()

    def invalid(self):
        return invalid_images(*self.data())


class Forecaster(Family):
    """The forecaster of a series."""

    name, metric, loss = "build_forecaster", keras.metrics.MeanAbsoluteError, "mse"

    def layer_to_freeze(self, model):
        return model.get_layer("simple_rnn")

    def build(self, seed=0, **options):
        seed_all(seed)
        return build_forecaster(6, 2, "simple_rnn", 4, **options)

    def data(self):
        series = images(8)
        return series[:, :6], series[:, 6:]

    def scores(self, model):
        return np.abs(self.outputs(model)[0] - self.data()[1])

    def invalid(self):
        past, future = self.data()
        return {
            "x: expected finite": (second_batch(past, np.nan), future),
            "y: expected finite": (past, second_batch(future, np.inf)),
            "x: expected shape": (images(7), future),
            "y: expected shape": (past, images(3)),
        }


class Pixels(Family):
    """The conditional PixelCNN."""

    name = "PixelCNN"

    def build(self, seed=0, **options):
        seed_all(seed)
        return PixelCNN((4, 4, 1), 2, 2, num_classes=2, **options)

    def data(self):
        return images(4, 4, 1), labels()

    def inputs(self):
        return list(self.data())

    def scores(self, model):
        return np.argmax(self.outputs(model)[0], axis=-1) == images(4, 4)

    def generate(self, model, **options):
        return [model.generate(2, [0, 1], **options)]

    def invalid(self):
        return invalid_images(*self.data())


class Diffusion(Pixels):
    """The conditional diffusion model."""

    name, metric = "DDPM", keras.metrics.MeanSquaredError

    def build(self, seed=0, penalize=lambda network: network, **options):
        seed_all(seed)
        unet = penalize(build_unet((4, 4, 1), (2, 2), num_classes=2))
        return DDPM(unet, NoiseSchedule("cosine", 9), seed=seed, **options)

    def scores(self, model):
        return None  # the target is noise

    def kernel_layers(self, model):
        return [layer for layer in model.network.layers if hasattr(layer, "kernel")][:1]

    def parts(self, model):
        return [model.network]

    def outputs(self, model):
        inputs = [images(4, 4, 1), labels(), labels()]
        return [np.asarray(network(inputs)) for network in (model.network, model.ema_network)]

    def generate(self, model, **options):
        return [model.generate(2, [0, 1], num_steps=2, **options)]
