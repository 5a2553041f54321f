"""The training step of models that compute their loss themselves, written out."""

import keras
import tensorflow as tf


class OwnLoss:
    """For a `keras.Model` whose `batch_loss(data, training)` returns (loss, logs).

    The loss is a mean over the batches of all replicas. The logs are what is reported: `average`
    makes both from losses (batch,).
    """

    def compile(self, optimizer="adam", loss=None, **kwargs):
        """As `keras.Model.compile`, but for the loss, which the model has."""
        if loss is not None:
            raise ValueError(f"loss: expected None, as the model has its own, got {loss!r}.")
        super().compile(optimizer, **kwargs)
        self.optimizer.build(self.trainable_variables)

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss, logs = self.batch_loss(data, training=True)
            loss = self.optimizer.scale_loss(loss)  # if it was told to, against underflow
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights))
        return logs

    def average(self, losses, sample_weight):
        """Return the mean of losses (batch,), told to `loss_tracker`, and what all metrics say."""
        self.loss_tracker.update_state(losses, sample_weight)
        # Over the batches of all replicas: a bare mean would double the gradient on two.
        loss = tf.nn.compute_average_loss(losses, sample_weight=sample_weight)
        return loss, {metric.name: metric.result() for metric in self.metrics}

    def test_step(self, data):
        return self.batch_loss(data, training=False)[1]
