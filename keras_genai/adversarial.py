"""Parts of GAN training: two optimizers as one, losses of regularizers, two batches at once."""

import keras
import tensorflow as tf
from keras import ops

from keras_genai.conditioning import pack_inputs
from keras_genai.models import with_loss_scaling
from keras_genai.replicas import weight_loss


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
