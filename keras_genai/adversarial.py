"""Parts of GAN training: losses, two optimizers as one, two batches at once.

With D(x) the output of the discriminator, both networks minimize:

- non-saturating (Goodfellow et al. 2014), D(x) a probability:
  -E[log D(x)] - E[log(1 - D(G(z)))] and -E[log D(G(z))].
- hinge (Lim & Ye 2017, Miyato et al. 2018), D(x) a score:
  E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))] and -E[D(G(z))].
- Wasserstein with gradient penalty (Gulrajani et al. 2017), D(x) a score:
  E[D(G(z))] - E[D(x)] + 10 E[(|grad D(x~)| - 1)^2] and -E[D(G(z))], where x~ lies between a real
  and a generated image.
"""

import keras
import tensorflow as tf
from keras import ops

from keras_genai.conditioning import (
    check_network,
    check_probabilities,
    check_scores,
    count_classes,
    pack_inputs,
)
from keras_genai.models import with_loss_scaling
from keras_genai.replicas import weight_loss
from keras_genai.validation import check_bools, check_choice, check_same

GRADIENT_PENALTY_WEIGHT = 10.0

# Losses: of (real_output, fake_output) for D, of (fake_output) for G. Each output is (batch, 1).


def _cross_entropy(targets, outputs):
    return keras.losses.BinaryCrossentropy()(targets, outputs)  # new: it has the current `floatx`


def _non_saturating(real, fake):
    return _cross_entropy(ops.ones_like(real), real) + _cross_entropy(ops.zeros_like(fake), fake)


def _non_saturating_generator(fake):
    return _cross_entropy(ops.ones_like(fake), fake)


def _mean(x):
    # Keras's losses divide by the number of replicas, too.
    return tf.nn.scale_regularization_loss(ops.mean(x))


def _hinge(real, fake):
    return _mean(ops.relu(1 - real)) + _mean(ops.relu(1 + fake))


def _wasserstein(real, fake):
    return _mean(fake) - _mean(real)


def _negative_score(fake):
    return -_mean(fake)


LOSSES = {
    "non_saturating": (_non_saturating, _non_saturating_generator),
    "hinge": (_hinge, _negative_score),
    "wasserstein_gp": (_wasserstein, _negative_score),
}


def gradient_penalty(discriminator, real, fake, labels, seed):
    """Return 10 E[(|grad D(x~)| - 1)^2] (Gulrajani et al. 2017, Algorithm 1, line 7).

    Args:
        discriminator: `keras.Model`.
        real, fake: Float tensors `(batch, …)`. Images.
        labels: Int tensor `(batch,)` or `None`.
        seed: Int or `keras.random.SeedGenerator`. Seed of the share of the real image in x~.
    """
    shape = (ops.shape(real)[0], *[1] * (len(real.shape) - 1))
    mix = keras.random.uniform(shape, dtype=real.dtype, seed=seed)
    x = mix * real + (1 - mix) * fake
    with tf.GradientTape() as tape:
        tape.watch(x)
        output = discriminator(pack_inputs(x, labels), training=True)
    gradient = ops.cast(tape.gradient(output, x), "float32")
    squared_norm = ops.sum(ops.square(gradient), axis=tuple(range(1, len(real.shape))))
    # The root of 0 has no finite gradient.
    norm = ops.sqrt(ops.maximum(squared_norm, 1e-12))
    return GRADIENT_PENALTY_WEIGHT * _mean(ops.square(norm - 1))


def check_compatible(generator, discriminator, loss="non_saturating", joint_batch=False):
    """Raise ValueError unless the discriminator fits the generator's images, labels and loss."""
    check_choice("loss", loss, LOSSES)
    check_bools(joint_batch=joint_batch)
    if joint_batch and loss != "non_saturating":
        raise ValueError(f"joint_batch: expected False for loss={loss!r}, got {joint_batch!r}.")
    check_network("generator", generator, ("noise",), ("images",))
    check_network("discriminator", discriminator, ("images",), ("D(x)",))
    images = generator.outputs[0].shape[1:], discriminator.inputs[0].shape[1:]
    check_same("discriminator", "images of shape", *images, "the generator")
    check_same("discriminator", "num_classes", *map(count_classes, (generator, discriminator)))
    if (shape := discriminator.outputs[0].shape[1:]) != (1,):
        raise ValueError(f"discriminator: expected an output (batch, 1), got (batch, *{shape}).")
    if loss == "non_saturating":
        check_probabilities("discriminator", discriminator)
    else:
        check_scores("discriminator", discriminator, f"loss={loss!r}")


def connect_networks(generator, discriminator):
    """Return the generator's inputs and the discriminator's output for the generated images."""
    inputs = pack_inputs(*generator.inputs)
    return inputs, discriminator(pack_inputs(generator(inputs), *generator.inputs[1:]))


# Optimizers and steps.


class OptimizerPair(keras.optimizers.Optimizer):
    """Both optimizers of a GAN as the one `model.optimizer` that Keras and its callbacks know.

    Setting its learning rate, as `LearningRateScheduler` and `ReduceLROnPlateau` do, sets that of
    the generator, and multiplies that of the discriminator by the same factor. The state is in the
    two optimizers, which the GAN saves.

    Args:
        gan: `GAN`. The state of both optimizers is created for its networks, so that a saved state
            can be restored.
        generator_optimizer, discriminator_optimizer: Two Keras optimizers or their names. `None` is
            article 4's Adam with a learning rate of 2e-4.

    Raises:
        ValueError: for an invalid optimizer, if both are the same one, whose state would mix two
            networks, and for a network without trainable weights.
    """

    def __init__(self, gan, generator_optimizer, discriminator_optimizer):
        super().__init__(learning_rate=0.0, name="optimizer_pair")
        optimizers = {
            "generator_optimizer": generator_optimizer,
            "discriminator_optimizer": discriminator_optimizer,
        }
        same = generator_optimizer is discriminator_optimizer
        if same and isinstance(generator_optimizer, keras.Optimizer):
            raise ValueError("discriminator_optimizer: expected another optimizer instance.")
        networks = {"generator": gan.generator, "discriminator": gan.discriminator}
        for name, network in networks.items():
            if not network.trainable_weights:
                raise ValueError(f"{name}: expected trainable weights, got a frozen network.")
        self.pair = tuple(
            with_loss_scaling(
                keras.optimizers.Adam(2e-4) if optimizer is None else optimizer, gan, name
            )
            for name, optimizer in optimizers.items()
        )
        self.pair_variables = [network.trainable_weights for network in networks.values()]
        for optimizer, variables in zip(self.pair, self.pair_variables, strict=True):
            optimizer.build(variables)
        self.built = True
        self._ratio = 1.0

    @property
    def learning_rate(self):
        return self.pair[0].learning_rate

    @learning_rate.setter
    def learning_rate(self, value):
        rates = (ops.convert_to_numpy(optimizer.learning_rate) for optimizer in self.pair)
        generator_rate, discriminator_rate = map(float, rates)
        if generator_rate > 0:
            self._ratio = discriminator_rate / generator_rate
        self.pair[0].learning_rate = value
        self.pair[1].learning_rate = value * self._ratio

    @property
    def iterations(self):
        return self.pair[0].iterations

    def finalize_variable_values(self, var_list):
        """Give the networks their averages, if an optimizer keeps any (`use_ema`)."""
        for optimizer, variables in zip(self.pair, self.pair_variables, strict=True):
            optimizer.finalize_variable_values(variables)

    def save_own_variables(self, store):
        """Save nothing: the state is in the two optimizers."""

    def load_own_variables(self, store):
        """Load nothing: the state is in the two optimizers."""


def losses_of_call(network) -> list:
    """Return the losses that a network's last call added: all but those of its weights."""
    num_weight_losses = sum(weight.regularizer is not None for weight in network.trainable_weights)
    return network.losses[: len(network.losses) - num_weight_losses]


def add_losses(loss, losses, batch):
    """Return a loss plus those of regularizers and of `add_loss`, weighted by the batch.

    The weight matters on several replicas; see `replicas.weight_loss`.
    """
    losses = [ops.sum(ops.cast(additional, loss.dtype)) for additional in losses]
    if losses:
        loss += tf.nn.scale_regularization_loss(tf.add_n(losses))
    return weight_loss(loss, ops.shape(batch)[0])


def build_two_batch_model(discriminator):
    """Return the discriminator of a real and a fake batch; Keras adds their losses (article 4)."""
    real, fake = (keras.Input(discriminator.inputs[0].shape[1:]) for _ in range(2))
    labels = [keras.Input((), dtype="int32") for _ in discriminator.inputs[1:]]
    outputs = [discriminator(pack_inputs(images, *labels)) for images in (real, fake)]
    return keras.Model([real, fake, *labels], outputs)
