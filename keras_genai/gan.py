"""Generative adversarial network: article 1, article 2 (section 4.1) and article 4 (section 2).

A generator G maps noise z to images, a discriminator D tells them from real ones, and each is
trained against the other (Goodfellow et al. 2014, equation 1):

    min_G max_D  E_x[log D(x)] + E_z[log(1 - D(G(z)))]

As all three articles do, G is trained to maximise log D(G(z)) instead (the same paper, section 3),
which has a gradient where D still rejects everything.

`train_gan` is the articles' loop over compiled models; `GAN` is the same as a `train_step` under
`fit`. From one seed, they give the same weights (unless `jit_compile=True`: XLA draws other normal
numbers from it).

Corrected from the articles:
- article 1: whether a weight is trained is fixed when a step is first traced, not when the model is
  compiled. A discriminator frozen before its first step never moves, and says nothing; one stepped
  before stops at the first batch of another size. Here the flag is set before every step of either
  network, on models compiled anew, and the discriminator is left trainable: it can be trained
  further, also after the article's own loop, and saved.
- article 1: one "epoch" is one batch. Here an epoch goes through all images once.
- article 2: `generator.input` fails on a Sequential model, and the targets have the shape of the
  noise. Mended, both networks minimise one loss together, on 32 fixed noise vectors, and no real
  image is seen. Here it is a GAN of the article's sizes.
- article 4 draws no sample. `generate` does, in [0, 1]: the scaling to the tanh's [-1, 1] and back
  is part of the networks.

Where PyTorch and Keras differ without a word: article 4's networks start from PyTorch's initial
weights. From Keras's, wider ones, the discriminator won before the generator had learned anything
(seed 0: a loss of 0.0003 in epoch 13, and all samples one blot); from PyTorch's it may, too. The
slope of the leaky ReLU is the article's 0.2 (Keras's "leaky_relu"; the layer `LeakyReLU()` has
0.3). Adam's epsilon is Keras's 1e-7.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from keras_genai.inputs import (
    GenerativeImageModel,
    SavedSeed,
    append_one_hot,
    call_network,
    check_choice,
    check_labels,
    check_same,
    check_size,
    check_sizes,
    count_classes,
    label_input,
    latent_noise,
    with_labels,
)


def build_generator(
    latent_dim=100,
    hidden_dims=(256, 512, 1024),
    output_dim=784,
    activation="relu",
    output_activation="tanh",
    num_classes=None,
    initializer="fan_in",
) -> keras.Model:
    """Build the generator, as wide as article 4's.

    Args:
        latent_dim: size of the noise.
        hidden_dims: widths of the hidden layers; article 1 has (256, 512).
        output_dim: number of pixels of an image.
        activation: of the hidden layers.
        output_activation: "tanh", followed by a scaling from [-1, 1] to [0, 1] (article 4), or
            "sigmoid" (articles 1 and 2).
        num_classes: if given, the model takes integer labels (batch,) as a second input.
        initializer: "fan_in" starts weights and biases as PyTorch does, uniform within
            ±1/sqrt(inputs) (article 4); "glorot" as Keras does (articles 1 and 2).

    Returns:
        A model from noise (batch, latent_dim) to images (batch, output_dim) in [0, 1].

    Raises:
        ValueError: if a size is not a whole number of at least 1, or for an unknown initializer.
    """
    latent_dim, hidden_dims, output_dim = check_sizes(
        latent_dim=latent_dim, hidden_dims=hidden_dims, output_dim=output_dim
    )
    noise = keras.Input((latent_dim,), name="noise")
    labels = label_input(num_classes)
    x = append_one_hot(noise, labels, num_classes)
    for units in hidden_dims:
        x = _dense(x, units, activation, initializer)
    x = _dense(x, output_dim, output_activation, initializer)
    if output_activation == "tanh":
        x = layers.Rescaling(0.5, offset=0.5)(x)  # [-1, 1] to [0, 1]
    return keras.Model(with_labels(noise, labels), x, name="generator")


def build_discriminator(
    input_dim=784,
    hidden_dims=(1024, 512, 256),
    activation="leaky_relu",
    rescale=True,
    num_classes=None,
    initializer="fan_in",
) -> keras.Model:
    """Build the discriminator, as wide as article 4's.

    Args:
        input_dim: number of pixels of an image.
        hidden_dims: widths of the hidden layers; articles 1 and 2 have (512, 256).
        activation: of the hidden layers; "leaky_relu" has article 4's slope of 0.2.
        rescale: scale the images to [-1, 1] first (article 4).
        num_classes: if given, the model takes integer labels (batch,) as a second input.
        initializer: as in `build_generator`.

    Returns:
        A model from images (batch, input_dim) in [0, 1] to the probability that they are real,
        (batch, 1).

    Raises:
        ValueError: if a size is not a whole number of at least 1, or for an unknown initializer.
    """
    input_dim, hidden_dims = check_sizes(input_dim=input_dim, hidden_dims=hidden_dims)
    image = keras.Input((input_dim,), name="image")
    labels = label_input(num_classes)
    x = layers.Rescaling(2.0, offset=-1.0)(image) if rescale else image  # [0, 1] to [-1, 1]
    x = append_one_hot(x, labels, num_classes)
    for units in hidden_dims:
        x = _dense(x, units, activation, initializer)
    probability = _dense(x, 1, "sigmoid", initializer)
    return keras.Model(with_labels(image, labels), probability, name="discriminator")


def _dense(x, units, activation, initializer):
    check_choice("initializer", initializer, ("fan_in", "glorot"))
    initializers = {}
    if initializer == "fan_in":
        bound = x.shape[-1] ** -0.5
        for part in ("kernel_initializer", "bias_initializer"):
            initializers[part] = keras.initializers.RandomUniform(-bound, bound)
    return layers.Dense(units, activation=activation, **initializers)(x)


def build_gan(generator, discriminator) -> keras.Model:
    """Connect the two networks to the combined model that trains the generator (article 1).

    The discriminator is frozen in it, and therefore everywhere: `train_gan` frees it for its own
    steps.

    Args:
        generator: from `build_generator`.
        discriminator: from `build_discriminator`, of the generator's output_dim and num_classes.

    Returns:
        A model from noise, or [noise, labels], to the probability that its image is real,
        (batch, 1).

    Raises:
        ValueError: if the networks do not fit each other.
    """
    _check_fit(generator, discriminator)
    discriminator.trainable = False
    return keras.Model(*_connect(generator, discriminator), name="gan")


def train_gan(
    generator,
    discriminator,
    x,
    labels=None,
    epochs=1,
    batch_size=64,
    joint_batch=False,
    fresh_noise=True,
    generator_optimizer=None,
    discriminator_optimizer=None,
    seed=None,
    shuffle=True,
    callbacks=None,
    verbose=1,
) -> keras.callbacks.History:
    """Train both networks with the articles' loop: `train_on_batch` in turns.

    Args:
        generator: from `build_generator`.
        discriminator: from `build_discriminator`.
        x: real images (n, features) in [0, 1].
        labels: integers (n,) if the networks are conditional, else None.
        epochs: how often to go through x.
        batch_size: real images in a step; the last batch of an epoch may be shorter.
        joint_batch: show D one batch of real and generated images, with the mean of its loss over
            both (article 1), instead of two batches whose losses are added (article 4).
        fresh_noise: train G on new noise (article 4), not on what D has just seen (article 1).
        generator_optimizer, discriminator_optimizer: one each; None is article 4's Adam of 2e-4.
        seed: of the noise and of the order of the images.
        shuffle: go through the images in a new order in every epoch.
        callbacks: Keras callbacks; their `model` is a `GAN` of the two networks, for `generate`.
        verbose: 0 for no progress bar.

    Returns:
        The history of each epoch's mean discriminator_loss and generator_loss.

    Raises:
        ValueError: for images, labels or sizes that do not fit.
    """
    model = GAN(generator, discriminator, joint_batch, fresh_noise, seed)
    model.check_data(x, labels)
    check_size("epochs", epochs)
    check_size("batch_size", batch_size)
    x = np.asarray(x, keras.config.floatx())
    labels = check_labels(labels, model.num_classes, len(x))

    # Compiled here, after which no trace is left of how the networks were used before.
    combined = build_gan(generator, discriminator)
    combined.compile(generator_optimizer or _default_optimizer(), loss="binary_crossentropy")
    discriminator_trainer = discriminator if joint_batch else _build_pair(discriminator)
    discriminator_trainer.compile(
        discriminator_optimizer or _default_optimizer(), loss="binary_crossentropy"
    )

    steps = -(-len(x) // batch_size)
    rng = np.random.default_rng(seed)
    callbacks = keras.callbacks.CallbackList(
        callbacks, add_history=True, add_progbar=verbose > 0, model=model,
        verbose=verbose, epochs=epochs, steps=steps,
    )  # fmt: skip
    model.stop_training = False
    callbacks.on_train_begin()
    for epoch in range(epochs):
        callbacks.on_epoch_begin(epoch)
        model.reset_metrics()
        order = rng.permutation(len(x)) if shuffle else np.arange(len(x))
        for step in range(steps):
            batch = order[step * batch_size : (step + 1) * batch_size]
            callbacks.on_train_batch_begin(step)
            real = x[batch]
            condition = None if labels is None else labels[batch]
            ones, zeros = np.ones((len(batch), 1)), np.zeros((len(batch), 1))

            discriminator.trainable = True
            noise = np.asarray(model.sample_noise(len(batch)))
            fake = np.asarray(generator(with_labels(noise, condition), training=True))
            if joint_batch:
                both = None if labels is None else np.concatenate([condition, condition])
                images = with_labels(np.concatenate([real, fake]), both)
                d_loss = discriminator_trainer.train_on_batch(images, np.concatenate([ones, zeros]))
            else:
                images = [real, fake] if labels is None else [real, fake, condition]
                d_loss = discriminator_trainer.train_on_batch(images, [ones, zeros])[0]

            if fresh_noise:
                noise = np.asarray(model.sample_noise(len(batch)))
            discriminator.trainable = False
            try:
                g_loss = combined.train_on_batch(with_labels(noise, condition), ones)
            finally:
                discriminator.trainable = True

            means = [model.discriminator_loss, model.generator_loss]
            for mean, loss in zip(means, [d_loss, g_loss]):
                mean.update_state(loss, sample_weight=len(batch))
            logs = {mean.name: float(mean.result()) for mean in means}
            callbacks.on_train_batch_end(step, logs)
        callbacks.on_epoch_end(epoch, logs)
        if model.stop_training:
            break
    callbacks.on_train_end(logs)
    return model.history


@keras.saving.register_keras_serializable(package="keras_genai")
class GAN(SavedSeed, GenerativeImageModel):
    """The loop of `train_gan` as a `train_step` under the stock `fit`.

        gan = GAN(build_generator(), build_discriminator())
        gan.compile()
        gan.fit(x)
        digits = gan.generate(16)

    `fit` reports the loss of both networks, and the share of real and of generated images that D
    classifies correctly. Conditional networks take their labels in `fit(x, labels)`.

    Args:
        generator: from `build_generator`.
        discriminator: from `build_discriminator`, of the generator's output_dim and num_classes.
        joint_batch, fresh_noise: as in `train_gan`.
        seed: of the noise.
    """

    def __init__(
        self,
        generator,
        discriminator,
        joint_batch=False,
        fresh_noise=True,
        seed=None,
        name="gan",
        **kwargs,
    ):
        _check_fit(generator, discriminator)
        super().__init__(*_connect(generator, discriminator), name=name, **kwargs)
        self.generator, self.discriminator = generator, discriminator
        self.joint_batch, self.fresh_noise, self.seed = joint_batch, fresh_noise, seed
        self.num_classes = count_classes(generator)
        self.latent_dim = generator.inputs[0].shape[-1]
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.cross_entropy = keras.losses.BinaryCrossentropy()
        self.discriminator_loss = keras.metrics.Mean(name="discriminator_loss")
        self.generator_loss = keras.metrics.Mean(name="generator_loss")
        self.real_accuracy = keras.metrics.BinaryAccuracy(name="real_accuracy")
        self.fake_accuracy = keras.metrics.BinaryAccuracy(name="fake_accuracy")

    @property
    def image_shape(self) -> tuple:
        return tuple(self.discriminator.inputs[0].shape[1:])

    @property
    def metrics(self):
        return [
            self.discriminator_loss,
            self.generator_loss,
            self.real_accuracy,
            self.fake_accuracy,
        ]

    def compile(self, generator_optimizer=None, discriminator_optimizer=None, **kwargs):
        """Choose the optimizers, by default article 4's Adam of 2e-4 for each.

        Args:
            generator_optimizer, discriminator_optimizer: Keras optimizers or their names, one for
                each.
            **kwargs: of `keras.Model.compile`, such as `jit_compile` and `steps_per_execution`.

        Raises:
            ValueError: for a loss or metrics, which the class brings along.
        """
        if surplus := {"loss", "metrics"} & set(kwargs):
            raise ValueError(f"{surplus.pop()}: expected none, as a GAN has its own.")
        generator_optimizer = keras.optimizers.get(generator_optimizer or _default_optimizer())
        super().compile(generator_optimizer, **kwargs)
        self.generator_optimizer = generator_optimizer
        self.discriminator_optimizer = keras.optimizers.get(
            discriminator_optimizer or _default_optimizer()
        )
        self.compile_options = kwargs
        # Built now, so that the state of saved ones can be restored.
        self.discriminator.trainable = True
        self.generator_optimizer.build(self.generator.trainable_variables)
        self.discriminator_optimizer.build(self.discriminator.trainable_variables)

    def get_compile_config(self):
        optimizers = {
            "generator_optimizer": self.generator_optimizer,
            "discriminator_optimizer": self.discriminator_optimizer,
        }
        return {
            **{key: keras.saving.serialize_keras_object(o) for key, o in optimizers.items()},
            **self.compile_options,
        }

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))

    def train_step(self, data):
        real, labels = self._unpack(data)
        noise = self.sample_noise(ops.shape(real)[0])

        self.discriminator.trainable = True
        fake = self.generator(with_labels(noise, labels), training=True)
        with tf.GradientTape() as tape:
            loss = self._discriminator_loss(real, fake, labels, training=True)
            loss = self.discriminator_optimizer.scale_loss(loss)
        weights = self.discriminator.trainable_weights
        gradients = tape.gradient(loss, weights)
        self.discriminator_optimizer.apply_gradients(zip(gradients, weights))

        self.discriminator.trainable = False
        if self.fresh_noise:
            noise = self.sample_noise(ops.shape(real)[0])
        with tf.GradientTape() as tape:
            loss = self._generator_loss(noise, labels, training=True)
            loss = self.generator_optimizer.scale_loss(loss)
        weights = self.generator.trainable_weights
        gradients = tape.gradient(loss, weights)
        self.generator_optimizer.apply_gradients(zip(gradients, weights))
        self.discriminator.trainable = True

        return {metric.name: metric.result() for metric in self.metrics}

    def test_step(self, data):
        real, labels = self._unpack(data)
        noise = self.sample_noise(ops.shape(real)[0])
        fake = self.generator(with_labels(noise, labels), training=False)
        self._discriminator_loss(real, fake, labels, training=False)
        self._generator_loss(noise, labels, training=False)
        return {metric.name: metric.result() for metric in self.metrics}

    def _unpack(self, data):
        real, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if sample_weight is not None:
            raise ValueError("sample_weight: expected None, as a GAN weighs all images alike.")
        return real, labels

    def _discriminator_loss(self, real, fake, labels, training):
        ones = ops.ones((ops.shape(real)[0], 1))
        zeros = ops.zeros_like(ones)
        if self.joint_batch:
            both_labels = None if labels is None else ops.concatenate([labels, labels])
            images = with_labels(ops.concatenate([real, fake]), both_labels)
            judged = self.discriminator(images, training=training)  # (2 * batch, 1)
            loss = self.cross_entropy(ops.concatenate([ones, zeros]), judged)
            judged_real, judged_fake = ops.split(judged, 2)
        else:
            judged_real = self.discriminator(with_labels(real, labels), training=training)
            judged_fake = self.discriminator(with_labels(fake, labels), training=training)
            loss = self.cross_entropy(ones, judged_real) + self.cross_entropy(zeros, judged_fake)
        self._track(self.discriminator_loss, loss, ones)
        self.real_accuracy.update_state(ones, judged_real)
        self.fake_accuracy.update_state(zeros, judged_fake)
        return loss

    def _generator_loss(self, noise, labels, training):
        fake = self.generator(with_labels(noise, labels), training=training)
        judged = self.discriminator(with_labels(fake, labels), training=training)
        ones = ops.ones_like(judged)
        loss = self.cross_entropy(ones, judged)
        self._track(self.generator_loss, loss, ones)
        return loss

    def _track(self, metric, loss, examples):
        # A Keras loss is already divided by the number of replicas, a metric is not.
        loss *= self.distribute_strategy.num_replicas_in_sync
        metric.update_state(loss, sample_weight=ops.shape(examples)[0])

    def sample_noise(self, batch_size):
        """Draw the noise of one training step, (batch_size, latent_dim)."""
        return keras.random.normal((batch_size, self.latent_dim), seed=self.seed_generator)

    def generate(self, num_samples=1, labels=None, seed=None) -> np.ndarray:
        """Draw images from the generator.

        Args:
            num_samples: how many, n.
            labels: an integer or integers (n,) if the model is conditional, else None.
            seed: the same seed gives the same images; training is not touched.

        Returns:
            Images (n, features) in [0, 1].
        """
        noise = latent_noise(num_samples, self.latent_dim, seed)
        return call_network(self.generator, noise, labels)

    def get_config(self):
        return {
            "name": self.name,
            "generator": keras.saving.serialize_keras_object(self.generator),
            "discriminator": keras.saving.serialize_keras_object(self.discriminator),
            "joint_batch": self.joint_batch,
            "fresh_noise": self.fresh_noise,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        networks = {
            key: keras.saving.deserialize_keras_object(config[key], custom_objects)
            for key in ("generator", "discriminator")
        }
        return cls(**{**config, **networks})


def _default_optimizer():
    return keras.optimizers.Adam(2e-4)


def _connect(generator, discriminator):
    """Return the generator's inputs, and what the discriminator makes of its images."""
    inputs = with_labels(*generator.inputs)
    return inputs, discriminator(with_labels(generator(inputs), *generator.inputs[1:]))


def _build_pair(discriminator):
    """Return the discriminator over two batches at once, whose losses Keras adds up (article 4)."""
    real, fake = (keras.Input(discriminator.inputs[0].shape[1:]) for _ in range(2))
    labels = [keras.Input((), dtype="int32") for _ in discriminator.inputs[1:]]
    judged = [discriminator(with_labels(images, *labels)) for images in (real, fake)]
    return keras.Model([real, fake, *labels], judged)


def _check_fit(generator, discriminator):
    """Raise ValueError unless the discriminator takes the generator's images and labels."""
    images = generator.outputs[0].shape[-1], discriminator.inputs[0].shape[-1]
    check_same("discriminator", "input_dim", *images)
    classes = count_classes(generator), count_classes(discriminator)
    check_same("discriminator", "num_classes", *classes)
