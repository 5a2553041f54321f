"""Generative adversarial network: article 1, article 2 (section 4.1) and article 4 (section 2).

A generator G maps noise z to images, and a discriminator D classifies images as real or generated.
Both are trained against each other (Goodfellow et al. 2014, equation 1):

    min_G max_D  E_x[log D(x)] + E_z[log(1 - D(G(z)))]

As in all three articles, G maximizes log D(G(z)) instead of minimizing log(1 - D(G(z))), whose
gradient vanishes while D confidently rejects the samples of G (section 3 of the paper).

`train_gan` is the articles' training loop over compiled models; `GAN` is the same loop as a
`train_step` for `fit`. The same seed gives the same weights, except with `jit_compile=True`: XLA
samples other normal numbers from the same seed.

Corrected from the articles:
- Article 1, sections "定义 GAN 模型" (define the GAN model) and "训练 GAN" (train the GAN): the
  discriminator is compiled, frozen by `discriminator.trainable = False`, and then trained in turns
  with the combined model. This is right on Keras 2, where `compile` reads the flag: on TensorFlow
  2.15 the discriminator is trained. On Keras 3 it is silently wrong: the flag is read when a
  training step is first traced, and the weights never move; one UserWarning ("The model does not
  have any trainable weights") is the only sign. A discriminator that was trained before it was
  frozen still skips batches of a new size. Here it is frozen in the generator's step only, on newly
  compiled models; then each layer has its own flag again. It can be trained further and saved.
- Article 1, "训练 GAN": one "epoch" is one batch. Here an epoch is one pass over the images.
- Article 2, section 4.1: `generator.input` in `build_gan` raises AttributeError on Keras 3. The
  targets of `gan.fit` have the shape of the noise, a ValueError on Keras 2 and 3. With both fixed,
  the two networks would minimize one loss on 32 fixed noise vectors, without a real image, although
  section 3.1 describes the opposing objectives. Here its networks are trained adversarially.
- Article 4, section 2: the listing generates no samples after training. `generate` does, in [0, 1];
  the scaling between [0, 1] and the range [-1, 1] of tanh is part of the networks.

Article 4's networks have PyTorch's initial weights, but Adam has Keras's epsilon of 1e-7. With
Keras's larger initial weights (seed 0), the discriminator rejected all samples before the generator
had learned anything: a loss of 0.0003 in epoch 13, all samples the same blot. This can happen with
PyTorch's, too.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from keras_genai.adversarial import (
    LOSSES,
    OptimizerPair,
    add_losses,
    build_two_batch_model,
    check_compatible,
    connect_networks,
    gradient_penalty,
    losses_of_call,
)
from keras_genai.conditioning import (
    concat_labels,
    count_classes,
    label_input,
    pack_inputs,
    predict_arrays,
    sample_prior,
)
from keras_genai.conv_networks import build_conv_discriminator as build_conv_discriminator
from keras_genai.conv_networks import build_conv_generator as build_conv_generator
from keras_genai.layer_state import frozen
from keras_genai.models import ConfigMixin, CustomLossMixin, GenerativeImageModel
from keras_genai.random_state import SeedStateMixin, random_generator
from keras_genai.replicas import apply_gradients, check_one_replica, num_replicas
from keras_genai.validation import (
    check_bools,
    check_choice,
    check_identifier,
    check_labels,
    check_size,
    check_sizes,
)


def build_generator(
    latent_dim=100,
    hidden_dims=(256, 512, 1024),
    output_dim=784,
    activation="relu",
    output_activation="tanh",
    num_classes=None,
    initializer="pytorch",
) -> keras.Model:
    """Build the generator, by default that of article 4.

    Args:
        latent_dim: Int. Size of the noise vector. Defaults to `100`.
        hidden_dims: Tuple of ints. Widths of the hidden layers; article 1 has `(256, 512)`.
            Defaults to `(256, 512, 1024)`.
        output_dim: Int. Number of pixels of an image. Defaults to `784`.
        activation: String. Activation of the hidden layers. Defaults to `"relu"`.
        output_activation: String. `"tanh"`, followed by a scaling from [-1, 1] to [0, 1]
            (article 4), or `"sigmoid"` (articles 1 and 2). Defaults to `"tanh"`.
        num_classes: Int or `None`. Number of classes of a conditional network, which has integer
            labels `(batch,)` as a second input. Defaults to `None`.
        initializer: String. `"pytorch"`, uniform within ±1/sqrt(inputs) as in `torch.nn.Linear`
            (article 4), or `"glorot"` as in Keras (articles 1 and 2). Defaults to `"pytorch"`.

    Returns:
        A `keras.Model` from noise `(batch, latent_dim)` to images `(batch, output_dim)` in [0, 1].

    Raises:
        ValueError: for an invalid size, and for an unknown activation or initializer.
    """
    latent_dim, hidden_dims, output_dim = check_sizes(
        latent_dim=latent_dim, hidden_dims=hidden_dims, output_dim=output_dim
    )
    check_choice("output_activation", output_activation, ("tanh", "sigmoid"))
    noise = keras.Input((latent_dim,), name="noise")
    labels = label_input(num_classes)
    x = concat_labels(noise, labels, num_classes)
    for units in hidden_dims:
        x = _dense(x, units, activation, initializer)
    dtype = keras.config.floatx()  # of the output, also under mixed precision
    x = _dense(x, output_dim, output_activation, initializer, dtype=dtype)
    if output_activation == "tanh":
        x = layers.Rescaling(0.5, offset=0.5, dtype=dtype)(x)  # [-1, 1] to [0, 1]
    return keras.Model(pack_inputs(noise, labels), x, name="generator")


def build_discriminator(
    input_dim=784,
    hidden_dims=(1024, 512, 256),
    activation="leaky_relu",
    rescale=True,
    num_classes=None,
    initializer="pytorch",
) -> keras.Model:
    """Build the discriminator, by default that of article 4.

    Args:
        input_dim: Int. Number of pixels of an image. Defaults to `784`.
        hidden_dims: Tuple of ints. Widths of the hidden layers; articles 1 and 2 have `(512, 256)`.
            Defaults to `(1024, 512, 256)`.
        activation: String. Activation of the hidden layers; articles 1 and 2 have `"relu"`.
            Defaults to `"leaky_relu"`, with a slope of 0.2.
        rescale: Bool. Scale the images to [-1, 1] first (article 4). Defaults to `True`.
        num_classes, initializer: See `build_generator`.

    Returns:
        A `keras.Model` from images `(batch, input_dim)` in [0, 1] to D(x), the probabilities
        `(batch, 1)` that they are real.

    Raises:
        ValueError: for an invalid size, and for an unknown activation or initializer.
    """
    input_dim, hidden_dims = check_sizes(input_dim=input_dim, hidden_dims=hidden_dims)
    check_bools(rescale=rescale)
    image = keras.Input((input_dim,), name="image")
    labels = label_input(num_classes)
    x = layers.Rescaling(2.0, offset=-1.0)(image) if rescale else image  # [0, 1] to [-1, 1]
    x = concat_labels(x, labels, num_classes)
    for units in hidden_dims:
        x = _dense(x, units, activation, initializer)
    probability = _dense(x, 1, "sigmoid", initializer, dtype=keras.config.floatx())
    return keras.Model(pack_inputs(image, labels), probability, name="discriminator")


def _dense(x, units, activation, initializer, **options):
    check_choice("initializer", initializer, ("pytorch", "glorot"))
    if initializer == "pytorch":
        bound = x.shape[-1] ** -0.5
        for name in ("kernel_initializer", "bias_initializer"):
            options[name] = keras.initializers.RandomUniform(-bound, bound)
    activation = check_identifier("activation", activation, keras.activations.get, "an activation")
    return layers.Dense(units, activation, **options)(x)


def build_gan(generator, discriminator) -> keras.Model:
    """Connect both networks to the combined model that trains the generator (article 1).

    This sets `discriminator.trainable = False`, as the article does.

    Args:
        generator, discriminator: See `GAN`.

    Returns:
        A `keras.Model` from noise, or `[noise, labels]`, to D(G(z)) `(batch, 1)`.
    """
    check_compatible(generator, discriminator)
    discriminator.trainable = False
    return keras.Model(*connect_networks(generator, discriminator), name="gan")


def train_gan(
    generator, discriminator, x, labels=None, *, epochs=1, batch_size=64, joint_batch=False,
    resample_noise=True, generator_optimizer=None, discriminator_optimizer=None, seed=None,
    shuffle=True, callbacks=None, verbose=1,
) -> keras.callbacks.History:  # fmt: skip
    """Train both networks by the articles' loop: `train_on_batch` on each in turn.

    Args:
        generator, discriminator, joint_batch, resample_noise: See `GAN`.
        x: Float array `(n, features)`. Real images in [0, 1].
        labels: Int array `(n,)` for conditional networks, else `None`. Defaults to `None`.
        epochs: Int. Number of passes over x. Defaults to `1`.
        batch_size: Int. Real images per step; the last batch may be smaller. Defaults to `64`.
        generator_optimizer, discriminator_optimizer: See `GAN.compile`.
        seed: Int or `None`. Seed of the noise and of the order of the images. Defaults to `None`.
        shuffle, callbacks, verbose: See `keras.Model.fit`; the `model` of the callbacks is a `GAN`.

    Returns:
        A `keras.callbacks.History` of `discriminator_loss` and `generator_loss` per epoch.

    Raises:
        ValueError: for invalid images, labels, sizes or optimizers, and for several replicas.
    """
    model = GAN(generator, discriminator, joint_batch, resample_noise, seed)
    check_one_replica("train_gan", model)
    model.check_data(x, labels)
    check_bools(shuffle=shuffle)
    check_choice("verbose", verbose, (False, True, 0, 1, 2, "auto"))
    epochs, batch_size = check_sizes(epochs=epochs, batch_size=batch_size)
    x = np.asarray(x, keras.config.floatx())
    labels = check_labels(labels, model.num_classes, len(x))
    # Compiling discards the traces of any earlier training of the networks.
    model.compile(generator_optimizer, discriminator_optimizer)
    with frozen(discriminator):
        combined = build_gan(generator, discriminator)
        combined.compile(model.generator_optimizer, "binary_crossentropy")
    discriminator_model = discriminator if joint_batch else build_two_batch_model(discriminator)
    discriminator_model.compile(model.discriminator_optimizer, "binary_crossentropy")

    steps, order_seed = -(-len(x) // batch_size), int(random_generator(seed).integers(2**31))
    callbacks = keras.callbacks.CallbackList(
        callbacks, add_history=True, add_progbar=bool(verbose), model=model,
        verbose=verbose, epochs=epochs, steps=steps,
    )  # fmt: skip
    model.stop_training, logs = False, {}
    callbacks.on_train_begin()  # may restore a backup and its epoch, like those of `fit`
    for epoch in range(model._initial_epoch or 0, epochs):
        callbacks.on_epoch_begin(epoch)
        model.reset_metrics()
        rng = np.random.default_rng((order_seed, epoch))
        order = rng.permutation(len(x)) if shuffle else np.arange(len(x))
        for step in range(steps):
            indices = order[step * batch_size : (step + 1) * batch_size]
            callbacks.on_train_batch_begin(step)
            real, real_labels = x[indices], None if labels is None else labels[indices]
            ones, zeros = np.ones((len(real), 1)), np.zeros((len(real), 1))
            discriminator_model.reset_metrics()  # older Keras would return the mean of all steps
            combined.reset_metrics()
            # Discriminator: target 1 for real and 0 for generated images.
            noise = np.asarray(model.sample_noise(len(real)))
            fake = np.asarray(generator(pack_inputs(noise, real_labels), training=True))
            if joint_batch:
                joint_labels = None if labels is None else np.concatenate([real_labels] * 2)
                inputs = pack_inputs(np.concatenate([real, fake]), joint_labels)
                d_loss = discriminator_model.train_on_batch(inputs, np.concatenate([ones, zeros]))
            else:
                inputs = [real, fake] if labels is None else [real, fake, real_labels]
                d_loss = discriminator_model.train_on_batch(inputs, [ones, zeros])[0]
            # Generator: target 1 for generated images, with the discriminator frozen.
            if resample_noise:
                noise = np.asarray(model.sample_noise(len(real)))
            with frozen(discriminator):
                g_loss = combined.train_on_batch(pack_inputs(noise, real_labels), ones)
            model.discriminator_loss_tracker.update_state(d_loss, sample_weight=len(real))
            model.generator_loss_tracker.update_state(g_loss, sample_weight=len(real))
            logs = {metric.name: float(metric.result()) for metric in model.metrics[:2]}
            callbacks.on_train_batch_end(step, logs)
        callbacks.on_epoch_end(epoch, logs)
        if model.stop_training:
            break
    model.optimizer.finalize_variable_values(model.trainable_variables)
    callbacks.on_train_end(logs)
    return model.history


@keras.saving.register_keras_serializable(package="keras_genai")
class GAN(SeedStateMixin, ConfigMixin, CustomLossMixin, GenerativeImageModel):
    """GAN whose `train_step` is the training loop of `train_gan`, for `fit`.

    Metrics: `discriminator_loss` and `generator_loss`; `real_accuracy` and `fake_accuracy`, the
    fractions that D classifies correctly (hinge: by the sign; none for Wasserstein scores).

    Args:
        generator: `keras.Model` from `build_generator`.
        discriminator: `keras.Model` from `build_discriminator`, for the same images and classes.
        joint_batch: Bool. Train the discriminator on one batch of real and generated images and its
            mean loss (article 1), not on two and the sum of their losses. Defaults to `False`.
        resample_noise: Bool. Train the generator on new noise (article 4), not on the noise of the
            discriminator's step (article 1). Defaults to `True`.
        seed: Int or `None`. Seed of the noise. Defaults to `None`.
        loss: `"non_saturating"`, the articles' cross-entropy, for a discriminator of probabilities;
            `"hinge"` or `"wasserstein_gp"` for scores. Defaults to `"non_saturating"`.
        discriminator_steps: Int. Steps of the discriminator for each step of the generator, with
            the same real images and new noise; 5 in Gulrajani et al. 2017. Defaults to `1`.

    Raises:
        ValueError: if the networks do not match, and for a joint batch with another loss.

    Example:
        gan = GAN(build_generator(), build_discriminator())
        gan.compile()
        gan.fit(x, batch_size=64, epochs=50)  # fit(x, labels) for conditional networks
        digits = gan.generate(16)
    """

    def __init__(
        self, generator, discriminator, joint_batch=False, resample_noise=True, seed=None,
        loss="non_saturating", discriminator_steps=1, **kwargs,
    ):  # fmt: skip
        check_compatible(generator, discriminator, loss, joint_batch)
        super().__init__(*connect_networks(generator, discriminator), **{"name": "gan", **kwargs})
        self.generator, self.discriminator = generator, discriminator
        check_bools(joint_batch=joint_batch, resample_noise=resample_noise)
        self.joint_batch, self.resample_noise, self.loss_name = joint_batch, resample_noise, loss
        self.discriminator_steps = check_size("discriminator_steps", discriminator_steps)
        self.num_classes, self.latent_dim = count_classes(generator), generator.inputs[0].shape[-1]
        self.create_seed_generators(seed)
        self.discriminator_loss_tracker = keras.metrics.Mean(name="discriminator_loss")
        self.generator_loss_tracker = keras.metrics.Mean(name="generator_loss")
        threshold = 0.5 if loss == "non_saturating" else 0.0  # of probabilities, or of scores
        names = () if loss == "wasserstein_gp" else ("real_accuracy", "fake_accuracy")
        self.accuracies = [keras.metrics.BinaryAccuracy(n, threshold=threshold) for n in names]

    @property
    def image_shape(self) -> tuple:
        return tuple(self.discriminator.inputs[0].shape[1:])

    def compile(self, generator_optimizer=None, discriminator_optimizer=None, **kwargs):
        """Configure training.

        Args:
            generator_optimizer: Keras optimizer or its name. `None` is article 4's Adam with a
                learning rate of 2e-4. Defaults to `None`.
            discriminator_optimizer: The same for the discriminator, as another instance.
            **kwargs: Other arguments of `keras.Model.compile`, such as `jit_compile`.

        Raises:
            ValueError: for an invalid optimizer, and for a loss or metrics: the model has its own.
        """
        for name in ("optimizer", "loss", "loss_weights", "metrics", "weighted_metrics"):
            if kwargs.get(name) is not None:
                raise ValueError(f"{name}: expected none, as a GAN has its own.")
        self._unfreeze_discriminator()
        self.compile_options = kwargs
        pair = OptimizerPair(self, generator_optimizer, discriminator_optimizer)
        self.generator_optimizer, self.discriminator_optimizer = pair.pair
        keras.Model.compile(self, pair, **{**kwargs, "auto_scale_loss": False})

    def get_compile_config(self):
        if not self.compiled:
            return None
        names = ("generator_optimizer", "discriminator_optimizer")
        optimizers = {name: getattr(self, name) for name in names}
        return {**keras.saving.serialize_keras_object(optimizers), **self.compile_options}

    def _unfreeze_discriminator(self):
        if not self.discriminator.trainable_weights:  # frozen by article 1's loop or `build_gan`
            self.discriminator.trainable = True

    def train_step(self, data):
        self._unfreeze_discriminator()
        real, labels, _ = self.unpack(data)
        for _ in range(self.discriminator_steps):
            # Discriminator: maximize log D(x) + log(1 - D(G(z))), with the images constant.
            noise = self.sample_noise(ops.shape(real)[0])
            fake = self.generator(pack_inputs(noise, labels), training=True)
            with tf.GradientTape() as tape:
                loss = self.compute_discriminator_loss(real, fake, labels, training=True)
                loss = self.discriminator_optimizer.scale_loss(loss)
            weights = self.discriminator.trainable_weights
            apply_gradients(self.discriminator_optimizer, tape.gradient(loss, weights), weights)
        # Generator: maximize log D(G(z)), with the discriminator frozen.
        if self.resample_noise:
            noise = self.sample_noise(ops.shape(real)[0])
        with tf.GradientTape() as tape:
            loss = self.compute_generator_loss(noise, labels, training=True)
            loss = self.generator_optimizer.scale_loss(loss)
        weights = self.generator.trainable_weights
        apply_gradients(self.generator_optimizer, tape.gradient(loss, weights), weights)
        return self.get_metrics_result()

    def test_step(self, data):
        real, labels, _ = self.unpack(data)
        noise = self.sample_noise(ops.shape(real)[0], training=False)
        fake = self.generator(pack_inputs(noise, labels), training=False)
        self.compute_discriminator_loss(real, fake, labels, training=False)
        self.compute_generator_loss(noise, labels, training=False)
        return self.get_metrics_result()

    def check_sample_weight(self, sample_weight, x, y):
        raise ValueError("sample_weight: expected None, as a GAN weights all images equally.")

    def compute_discriminator_loss(self, real, fake, labels, training):
        """Return the loss of D on real and generated images, for the cross-entropy in nats."""
        fake, additional_losses = ops.cast(fake, real.dtype), []
        if self.joint_batch:
            joint_labels = None if labels is None else ops.concatenate([labels, labels])
            images = pack_inputs(ops.concatenate([real, fake]), joint_labels)
            output = self.discriminator(images, training=training)  # (2 * batch, 1)
            real_output, fake_output = ops.split(output, 2)
        else:
            real_output = self.discriminator(pack_inputs(real, labels), training=training)
            additional_losses += losses_of_call(self.discriminator)
            fake_output = self.discriminator(pack_inputs(fake, labels), training=training)
        loss = LOSSES[self.loss_name][0](real_output, fake_output)
        loss /= 1 + self.joint_batch  # the mean over one batch, not the sum of those over two
        additional_losses += self.discriminator.losses
        if self.loss_name == "wasserstein_gp":
            seed = self.get_seed_generator(training)
            loss += gradient_penalty(self.discriminator, real, fake, labels, seed)
        loss = add_losses(loss, additional_losses, real)
        self._track(self.discriminator_loss_tracker, loss, real)
        outputs = real_output, fake_output
        for accuracy, target, output in zip(self.accuracies, (1, 0), outputs, strict=False):
            accuracy.update_state(target * ops.ones_like(output), output)
        return loss

    def compute_generator_loss(self, noise, labels, training):
        """Return the loss of G, for the cross-entropy that of D with target 1."""
        with frozen(self.discriminator):
            fake = self.generator(pack_inputs(noise, labels), training=training)
            fake_output = self.discriminator(pack_inputs(fake, labels), training=training)
            loss = LOSSES[self.loss_name][1](fake_output)
            loss = add_losses(loss, self.generator.losses + self.discriminator.losses, noise)
        self._track(self.generator_loss_tracker, loss, noise)
        return loss

    def _track(self, tracker, loss, batch):
        loss *= num_replicas()  # Keras divides a loss by it, but not a metric
        tracker.update_state(loss, sample_weight=ops.shape(batch)[0])

    def sample_noise(self, batch_size, training=True):
        """Sample the noise of one step of training or evaluation, `(batch_size, latent_dim)`."""
        shape = (batch_size, *self.generator.inputs[0].shape[1:])
        return keras.random.normal(shape, seed=self.get_seed_generator(training))

    def generate(self, num_samples=1, labels=None, *, seed=None) -> np.ndarray:
        """Generate images. The random state of training does not change.

        Args:
            num_samples: Int. Number of images n. Defaults to `1`.
            labels: Int or int array `(n,)` for a conditional GAN, else `None`. Defaults to `None`.
            seed: Int or `None`. Seed of the noise. Defaults to `None`.

        Returns:
            A float array of images `(n, features)` in [0, 1].
        """
        noise = sample_prior(num_samples, self.generator.inputs[0].shape[1:], seed)
        return predict_arrays(self.generator, noise, labels)

    def get_config(self):
        names = "generator discriminator joint_batch resample_noise seed discriminator_steps"
        options = {"loss": self.loss_name, **{n: getattr(self, n) for n in names.split()}}
        return {**super().get_config(), **keras.saving.serialize_keras_object(options)}
