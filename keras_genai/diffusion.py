"""Diffusion: article 3, section 6 (Ho et al. 2020, "Denoising Diffusion Probabilistic Models").

An image x_0 is drowned in noise in T small steps, which are known in closed form:

    q(x_t | x_0) = N(sqrt(abar_t) x_0, (1 - abar_t) I)                          (equation 4)

A network learns to predict the noise that was added, from x_t and t, by mean squared error
(equation 14): a weighted bound of -log p(x_0). It is then used to go the chain backwards, from pure
noise to an image. DDIM (Song et al. 2020) goes backwards in fewer steps, and needs no noise on the
way.

Corrected from the article: it tells neither of noise nor of a schedule, has an image made one pixel
or feature after another by several "diffusion layers", and maximises "the posterior of data and
latent variables". All pixels are made at once; there is one network, which is told the time step;
and what is minimised is a bound, in practice the error of the noise.

Steps are counted from 0, as arrays are: t = 0 has the least noise, where the papers' t is 1.
"""

import math

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from keras_genai.inputs import (
    GenerativeImageModel,
    OneHot,
    SavedSeed,
    check_choice,
    check_images,
    check_labels,
    check_range,
    check_same,
    check_share,
    check_size,
    check_sizes,
    count_classes,
    label_input,
)
from keras_genai.training import OwnLoss

NO_LABEL = -1  # its one-hot row is zeros, so that it adds nothing
BATCH_SIZE = 64  # of samples that are drawn at once


@keras.saving.register_keras_serializable(package="keras_genai")
class NoiseSchedule:
    """How much noise each step adds: float64 tables over the steps, no network inside.

    Args:
        kind: "linear", betas from 1e-4 to 0.02 (Ho et al. 2020, section 4) times 1000 / num_steps;
            "cosine" (Nichol & Dhariwal 2021, equation 17), which spares the image for longer.
        num_steps: T.

    Attributes:
        betas: (T,) variance that each step adds.
        alpha_bars: (T,) share of the image's variance that is left, abar_t = prod(1 - beta_s).

    Raises:
        ValueError: for another kind, for fewer than 1 step, or fewer than 21 linear ones: the last
            beta would not be below 1.
    """

    def __init__(self, kind="linear", num_steps=1000):
        check_choice("kind", kind, ("linear", "cosine"))
        self.kind = kind
        self.num_steps = check_size("num_steps", num_steps, minimum=21 if kind == "linear" else 1)
        if kind == "linear":
            scale = 1000 / self.num_steps
            self.betas = np.linspace(1e-4 * scale, 0.02 * scale, self.num_steps)
        else:
            share = np.arange(self.num_steps + 1) / self.num_steps
            left = np.cos((share + 0.008) / 1.008 * np.pi / 2) ** 2
            self.betas = np.minimum(1 - left[1:] / left[:-1], 0.999)
        self.alpha_bars = np.cumprod(1 - self.betas)

    def add_noise(self, x_0, t, noise):
        """Return x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise (Ho et al. 2020, equation 4).

        Args:
            x_0: images (batch, height, width, channels) in [-1, 1].
            t: integers (batch,) from 0 to T - 1.
            noise: standard normal, of x_0's shape.
        """
        signal, spread = self._shares(t, x_0)
        return signal * x_0 + spread * noise

    def velocity(self, x_0, t, noise):
        """Return v = sqrt(abar_t) noise - sqrt(1 - abar_t) x_0 (Salimans & Ho 2022, section 4)."""
        signal, spread = self._shares(t, x_0)
        return signal * noise - spread * x_0

    def noise_of_velocity(self, x_t, t, velocity):
        """Return the noise in x_t that has this v: sqrt(1 - abar_t) x_t + sqrt(abar_t) v."""
        signal, spread = self._shares(t, x_t)
        return spread * x_t + signal * velocity

    def remove_noise(self, x_t, t, noise):
        """Return the x_0 from which `add_noise` makes x_t (Ho et al. 2020, equation 15)."""
        signal, spread = self._shares(t, x_t)
        return (x_t - spread * noise) / signal

    def _shares(self, t, images):
        """Return what image and noise are multiplied with at t, to stand beside `images`."""
        shape = (-1, *[1] * (len(images.shape) - 1))
        tables = np.sqrt(self.alpha_bars), np.sqrt(1 - self.alpha_bars)
        dtype = keras.backend.standardize_dtype(images.dtype)
        return [
            ops.reshape(ops.take(ops.convert_to_tensor(table, dtype), t), shape) for table in tables
        ]

    def times(self, num_steps):
        """Return the steps (num_steps,) of a shorter chain, ascending: every k-th, T - 1 the last.

        Raises:
            ValueError: for more steps than the schedule has.
        """
        num_steps = check_size("num_steps", num_steps)
        if num_steps > self.num_steps:
            raise ValueError(
                f"num_steps: expected at most the schedule's {self.num_steps}, got {num_steps}."
            )
        ends = np.arange(1, num_steps + 1) * self.num_steps / num_steps
        return np.round(ends).astype(int) - 1

    def ddpm_weights(self, num_steps):
        """Return the chain backwards of Ho et al. 2020, in so many steps.

        Each draws x_s, of the step before t, from q(x_s | x_t, x_0) (equations 6 and 7):

            x_s = of_image * x_0 + of_noisy * x_t + spread * z

        with beta = 1 - abar_t / abar_s between the two (Nichol & Dhariwal 2021, equation 19).

        Returns:
            (of_image, of_noisy, spread), (num_steps,) each, in the order of `times(num_steps)`.
        """
        now, before = self._pairs(num_steps)
        beta = 1 - now / before
        of_image = np.sqrt(before) * beta / (1 - now)
        of_noisy = np.sqrt(now / before) * (1 - before) / (1 - now)
        return of_image, of_noisy, np.sqrt(beta * (1 - before) / (1 - now))

    def ddim_weights(self, num_steps, eta=0.0):
        """Return the same of DDIM (Song et al. 2020, equations 12 and 16): eta = 1 is DDPM.

        The noise of equation 12 is what x_t has beside x_0: where x_0 was clipped, it is another
        one than the network's.
        """
        now, before = self._pairs(num_steps)
        spread = eta * np.sqrt((1 - before) / (1 - now)) * np.sqrt(1 - now / before)
        # sqrt(before) x_0 + sqrt(1 - before - spread^2) noise, noise = (x_t - sqrt(now) x_0) / ...
        of_noisy = np.sqrt((1 - before - spread**2) / (1 - now))
        return np.sqrt(before) - of_noisy * np.sqrt(now), of_noisy, spread

    def _pairs(self, num_steps):
        """Return abar at each step of a shorter chain, and at the one before it, where it is 1."""
        now = self.alpha_bars[self.times(num_steps)]
        return now, np.append(1.0, now[:-1])

    def get_config(self):
        return {"kind": self.kind, "num_steps": self.num_steps}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable(package="keras_genai")
class TimeEmbedding(layers.Layer):
    """Integer steps (batch,) to sines and cosines (batch, dim), as a Transformer's positions.

    Args:
        dim: even.
    """

    def __init__(self, dim, **kwargs):
        super().__init__(**kwargs)
        self.dim = check_size("dim", dim, minimum=2)
        if self.dim % 2:
            raise ValueError(f"dim: expected an even number, got {dim}.")

    def call(self, t):
        half = self.dim // 2
        frequencies = np.exp(-np.log(10_000) * np.arange(half) / half).astype("float32")
        angles = ops.cast(t, "float32")[:, None] * frequencies
        both = ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1)
        return ops.cast(both, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return (*input_shape, self.dim)

    def get_config(self):
        return {**super().get_config(), "dim": self.dim}


def build_unet(
    image_shape=(28, 28, 1), widths=(32, 64, 96), block_depth=1, num_classes=None
) -> keras.Model:
    """Build the network that predicts the noise: a U-Net of residual blocks, told the time step.

    Images are halved between the widths, and doubled again on the way back, where each level sees
    what the same level had on the way down. It is the network of Ho et al. 2020 (appendix B) in
    small, with attention among the places of the smallest images only.

    Args:
        image_shape: (height, width, channels).
        widths: channels of each level, at least 2, from the largest images to the smallest.
        block_depth: residual blocks of a level, on either way, and on either side of attention.
        num_classes: if given, the network takes integer labels (batch,) as a third input, -1 for
            none.

    Returns:
        A model from x_t (batch, height, width, channels) and steps (batch,), int32, to the noise in
        x_t, or its v, of its shape.

    Raises:
        ValueError: if a size is not a whole number of at least 1 (a width, of 2), or if the images
            cannot be halved so often.
    """
    if not isinstance(image_shape, (list, tuple)) or len(image_shape) != 3:
        raise ValueError(f"image_shape: expected (height, width, channels), got {image_shape!r}.")
    height, width, channels, block_depth = check_sizes(
        height=image_shape[0],
        width=image_shape[1],
        channels=image_shape[2],
        block_depth=block_depth,
    )
    if not isinstance(widths, (list, tuple)) or not widths:
        raise ValueError(f"widths: expected a sequence of whole numbers, got {widths!r}.")
    widths = [check_size("widths", size, minimum=2) for size in widths]
    factor = 2 ** (len(widths) - 1)
    if height % factor or width % factor:
        raise ValueError(
            f"image_shape: expected multiples of {factor}, to be halved {len(widths) - 1} times, "
            f"got {height} x {width}."
        )

    noisy = keras.Input((height, width, channels), name="x_t")
    t = keras.Input((), dtype="int32", name="t")
    labels = label_input(num_classes)
    told = layers.Dense(4 * widths[0])(TimeEmbedding(2 * widths[0])(t))
    if labels is not None:
        one_hot = OneHot(int(num_classes))(labels)
        told = layers.Add()([told, layers.Dense(4 * widths[0], use_bias=False)(one_hot)])
    told = layers.Activation("silu")(told)

    x = layers.Conv2D(widths[0], 3, padding="same")(noisy)
    seen = []
    for size in widths[:-1]:
        for _ in range(block_depth):
            x = _residual_block(x, told, size)
            seen.append(x)
        x = layers.AveragePooling2D(2)(x)
    for _ in range(block_depth):
        x = _residual_block(x, told, widths[-1])
    x = _attention(x)
    for _ in range(block_depth):
        x = _residual_block(x, told, widths[-1])
    for size in reversed(widths[:-1]):
        x = layers.UpSampling2D(2)(layers.Conv2D(size, 1)(x))
        for _ in range(block_depth):
            x = _residual_block(layers.Concatenate()([x, seen.pop()]), told, size)
    x = layers.Activation("silu")(_norm(x))
    # A new network answers 0, the mean of the noise.
    noise = layers.Conv2D(channels, 3, padding="same", kernel_initializer="zeros", name="noise")(x)
    inputs = [noisy, t] if labels is None else [noisy, t, labels]
    return keras.Model(inputs, noise, name="unet")


def _residual_block(x, told, width):
    """Return x (batch, height, width, channels) with two convolutions of it added."""
    h = layers.Activation("silu")(_norm(x))
    h = layers.Conv2D(width, 3, padding="same")(h)
    h = layers.Add()([h, layers.Reshape((1, 1, width))(layers.Dense(width)(told))])
    h = layers.Activation("silu")(_norm(h))
    h = layers.Conv2D(width, 3, padding="same")(h)
    if x.shape[-1] != width:
        x = layers.Conv2D(width, 1)(x)
    return layers.Add()([x, h])


def _attention(x):
    """Return x (batch, height, width, channels) with what each place takes from all others."""
    height, width, channels = x.shape[1:]
    places = layers.Reshape((height * width, channels))(_norm(x))
    added = layers.MultiHeadAttention(num_heads=1, key_dim=channels)(places, places)
    return layers.Add()([x, layers.Reshape((height, width, channels))(added)])


def _norm(x):
    # Keras's 32 groups do not divide every width. And a channel must not be a group of its own: to
    # subtract its mean would undo what step and label have added to it.
    width = x.shape[-1]
    return layers.GroupNormalization(math.gcd(8, width, width // 2))(x)


@keras.saving.register_keras_serializable(package="keras_genai")
class DDPM(SavedSeed, OwnLoss, GenerativeImageModel):
    """A diffusion model with its own `train_step`.

        model = DDPM(build_unet(), NoiseSchedule())
        model.compile(keras.optimizers.Adam(1e-3))
        model.fit(x)
        digits = model.generate(16)

    Conditional, it takes its labels in `fit(x, labels)`. Reported is `loss`, the mean squared error
    of the noise, or of v. `evaluate` and `generate` use `averaged`, the network with averaged
    weights; `evaluate` draws steps and noise anew each time.

    Args:
        network: from `build_unet`.
        schedule: a `NoiseSchedule`.
        seed: of the steps and the noise that are trained on.
        label_dropout: share of the labels that training leaves out, so that the network can also
            predict the noise without one (Ho & Salimans 2022, algorithm 1).
        ema_momentum: of the average: it forgets the weights of 1 / (1 - ema_momentum) steps ago.
        prediction: what the network predicts: "noise" (Ho et al. 2020), or "v", a mixture of noise
            and image (Salimans & Ho 2022). Where x_t is nearly all noise, a small error of the
            noise is a large one of the image, and hardly a loss: v learns the shape, and the
            label, in fewer steps.
    """

    def __init__(
        self,
        network,
        schedule,
        seed=None,
        label_dropout=0.1,
        ema_momentum=0.999,
        prediction="noise",
        name="ddpm",
        **kwargs,
    ):
        shape, noise = network.inputs[0].shape, network.outputs[0].shape
        if len(network.inputs) not in (2, 3) or len(shape) != 4:
            raise ValueError("network: expected one of images, steps and perhaps labels.")
        check_same("network", "an output of shape", shape, noise)
        if not isinstance(schedule, NoiseSchedule):
            raise ValueError(f"schedule: expected a NoiseSchedule, got {schedule!r}.")
        check_share("label_dropout", label_dropout)
        check_share("ema_momentum", ema_momentum)
        check_choice("prediction", prediction, ("noise", "v"))
        super().__init__(network.inputs, network(network.inputs), name=name, **kwargs)
        self.network, self.schedule, self.seed = network, schedule, seed
        self.label_dropout, self.ema_momentum = label_dropout, ema_momentum
        self.prediction = prediction
        self.num_classes = count_classes(network)
        self.averaged = keras.models.clone_model(network)
        self.averaged.set_weights(network.get_weights())
        self.averaged.trainable = False
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.loss_tracker = keras.metrics.Mean(name="loss")
        image, row = tf.TensorSpec((None, *shape[1:])), tf.TensorSpec((None,), tf.int32)
        number, table = tf.TensorSpec((), tf.int32), tf.TensorSpec((None, 3))
        self._chain = tf.function(
            self._denoise,
            input_signature=[
                image, tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((2,), tf.int32), number,
                number, row, table, tf.TensorSpec((None,)), tf.TensorSpec((), tf.bool),
            ],
        )  # fmt: skip

    @property
    def metrics(self):
        return [self.loss_tracker]

    def batch_loss(self, data, training):
        x, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        x = ops.cast(x, keras.config.floatx())
        t, noise = self.sample_noise(x)
        if training and labels is not None:
            share = keras.random.uniform(ops.shape(labels), seed=self.seed_generator)
            labels = ops.where(share < self.label_dropout, NO_LABEL, ops.cast(labels, "int32"))
        x = 2 * x - 1  # [0, 1] to [-1, 1]
        noisy = self.schedule.add_noise(x, t, noise)
        target = noise if self.prediction == "noise" else self.schedule.velocity(x, t, noise)

        network = self.network if training else self.averaged
        predicted = ops.cast(network(_inputs(noisy, t, labels), training=training), target.dtype)
        loss = ops.mean(ops.square(predicted - target), axis=(1, 2, 3))  # (batch,)
        return self.average(loss, sample_weight)

    def sample_noise(self, x):
        """Draw what a batch x is trained on: steps (batch,), int32, and noise of x's shape."""
        generator, batch = self.seed_generator, ops.shape(x)[:1]
        t = keras.random.randint(batch, 0, self.schedule.num_steps, seed=generator)
        return t, keras.random.normal(ops.shape(x), dtype=x.dtype, seed=generator)

    def train_step(self, data):
        logs = super().train_step(data)
        steps = ops.cast(self.optimizer.iterations, "float32")
        # The first weights, which are random, are forgotten sooner.
        momentum = ops.minimum(self.ema_momentum, (1 + steps) / (10 + steps))
        for average, weight in zip(self.averaged.weights, self.network.weights):
            average.assign(weight + ops.cast(momentum, weight.dtype) * (average - weight))
        return logs

    def add_noise(self, x, t, seed=None) -> np.ndarray:
        """Return images (n, height, width, channels) in [0, 1] after step t of the way to noise.

        Args:
            x: images (n, height, width, channels) in [0, 1].
            t: an integer or integers (n,) from 0 to the schedule's num_steps - 1.
            seed: of the noise.

        Returns:
            Images in the scale of x, where noise leaves [0, 1].
        """
        check_images("x", x, self.image_shape)
        x = np.asarray(x, "float32")
        t = np.asarray(t)
        if t.shape not in ((), x.shape[:1]):
            raise ValueError(
                f"t: expected an integer or integers ({len(x)},), got shape {t.shape}."
            )
        t = np.broadcast_to(t, len(x))
        check_range("t", t, self.schedule.num_steps)
        noise = np.random.default_rng(seed).standard_normal(x.shape, dtype="float32")
        return np.asarray(self.schedule.add_noise(2 * x - 1, t, noise) + 1) / 2

    def generate(
        self,
        num_samples=1,
        labels=None,
        guidance_scale=0.0,
        num_steps=50,
        sampler="ddim",
        eta=0.0,
        clip=True,
        seed=None,
    ) -> np.ndarray:
        """Draw images: pure noise, cleaned step by step.

        Args:
            num_samples: how many, n.
            labels: an integer or integers (n,) for a conditional model; None draws from all.
            guidance_scale: w: the noise is taken to be (1 + w) times the prediction with labels,
                less w times the one without (Ho & Salimans 2022, equation 6). More
                makes images more alike and more like their label, at twice the time.
            num_steps: of the chain; fewer than the schedule's takes every k-th.
            sampler: "ddim" or "ddpm".
            eta: noise that DDIM adds on the way, 0 for none, 1 for as much as DDPM.
            clip: keep the image that each step aims at in [0, 1].
            seed: the same seed gives the same images; training is not touched.

        Returns:
            Images (n, height, width, channels), in [0, 1] if clipped.

        Raises:
            ValueError: for labels or settings that do not suit the model.
        """
        settings = guidance_scale, num_steps, sampler, eta, clip, seed
        return self.denoising_path(num_samples, labels, 1, *settings)[-1]

    def denoising_path(
        self,
        num_samples=1,
        labels=None,
        frames=10,
        guidance_scale=0.0,
        num_steps=50,
        sampler="ddim",
        eta=0.0,
        clip=True,
        seed=None,
    ) -> np.ndarray:
        """Return images on their way from noise: (frames + 1, n, height, width, channels).

        Args: as `generate`, whose images are the last frame, and
            frames: how many, evenly spaced, after the noise itself; at most one a step.
        """
        num_samples = check_size("num_samples", num_samples)
        if labels is not None:
            labels = check_labels(labels, self.num_classes, num_samples)
        if not 0 <= guidance_scale < np.inf or (guidance_scale and labels is None):
            expected = "a number of at least 0" if labels is not None else "0, without labels"
            raise ValueError(f"guidance_scale: expected {expected}, got {guidance_scale}.")
        times = self.schedule.times(num_steps)
        frames = check_size("frames", frames)
        if frames > len(times):
            raise ValueError(f"frames: expected at most one a step, {len(times)}, got {frames}.")
        check_choice("sampler", sampler, ("ddim", "ddpm"))
        if not 0 <= eta <= (sampler == "ddim"):
            expected = "from 0 to 1" if sampler == "ddim" else "of 0, as sampler is 'ddpm'"
            raise ValueError(f"eta: expected a number {expected}, got {eta}.")
        if sampler == "ddim":
            weights = self.schedule.ddim_weights(num_steps, eta)
        else:
            weights = self.schedule.ddpm_weights(num_steps)

        # What the network is told, once or twice a step, and how the answers are weighed.
        no_labels = np.full(num_samples, NO_LABEL, "int32")
        told, shares = np.stack([no_labels if labels is None else labels]), [1.0]
        if guidance_scale:
            told, shares = np.stack([labels, no_labels]), [1.0 + guidance_scale, -guidance_scale]
        settings = [
            tf.constant(times, tf.int32),
            tf.constant(np.stack(weights, axis=1), tf.float32),
            tf.constant(shares, tf.float32),
            tf.constant(bool(clip)),
        ]
        rng = np.random.default_rng(seed)
        bounds = np.round(np.linspace(len(times), 0, frames + 1)).astype("int32")
        path = np.empty((frames + 1, num_samples, *self.image_shape), "float32")
        for start in range(0, num_samples, BATCH_SIZE):
            part = slice(start, start + BATCH_SIZE)
            x = path[0, part] = rng.standard_normal(path[0, part].shape, dtype="float32")
            key = rng.integers(2**31, size=2, dtype="int32")
            for frame, (stop, last) in enumerate(zip(bounds, bounds[1:]), start=1):
                x = path[frame, part] = self._chain(x, told[:, part], key, stop, last, *settings)
        return (path + 1) / 2  # [-1, 1] to [0, 1]

    def _denoise(self, x, labels, key, stop, last, times, weights, shares, clip):
        """Take x (batch, height, width, channels) from step stop - 1 of a chain to step `last`."""

        def advance(i, x):
            copies = ops.shape(shares)[0]
            t = ops.broadcast_to(times[i], (copies * ops.shape(x)[0],))
            inputs = _inputs(ops.tile(x, (copies, 1, 1, 1)), t, ops.reshape(labels, (-1,)))
            noise = ops.cast(self.averaged(inputs[: len(self.inputs)], training=False), x.dtype)
            noise = ops.reshape(noise, (copies, *ops.shape(x)))
            noise = ops.tensordot(shares, noise, axes=1)
            t = t[: ops.shape(x)[0]]
            if self.prediction == "v":
                noise = self.schedule.noise_of_velocity(x, t, noise)
            x_0 = self.schedule.remove_noise(x, t, noise)
            x_0 = ops.where(clip, ops.clip(x_0, -1.0, 1.0), x_0)
            of_image, of_noisy, spread = ops.unstack(weights[i], 3)
            z = tf.random.stateless_normal(ops.shape(x), tf.random.fold_in(key, i))
            return i - 1, of_image * x_0 + of_noisy * x + spread * z

        _, x = tf.while_loop(lambda i, x: i >= last, advance, (stop - 1, x))
        return x

    def get_config(self):
        return {
            "name": self.name,
            "network": keras.saving.serialize_keras_object(self.network),
            "schedule": keras.saving.serialize_keras_object(self.schedule),
            "seed": self.seed,
            "label_dropout": self.label_dropout,
            "ema_momentum": self.ema_momentum,
            "prediction": self.prediction,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        parts = {
            key: keras.saving.deserialize_keras_object(config[key], custom_objects)
            for key in ("network", "schedule")
        }
        return cls(**{**config, **parts})


def _inputs(noisy, t, labels=None):
    """Return what a network is called on."""
    return [noisy, t] if labels is None else [noisy, t, labels]
