"""WaveNet of article 3, section 5 (van den Oord et al. 2016, "A Generative Model for Raw Audio").

A waveform is generated sample by sample, each conditioned on all samples before it (equation 1):

    p(x) = p(x_1) p(x_2 | x_1) … p(x_n | x_1, …, x_(n-1))

A sample is one of 256 mu-law levels (`audio`, section 2.2), and a softmax gives the probability of
each level. The network is a stack of causal convolutions of two taps, dilated by 1, 2, 4, …, 512
samples (section 2.1): a block of ten layers extends the receptive field by 1,023 samples.

Corrected from the article: according to the second paragraph of its section 5, autoregressive
models (it names PixelCNN and WaveNet) optimize their parameters by maximizing
观测数据与潜在变量的后验概率, "the posterior probability of the observed data and latent variables",
so that they generate new samples that match the features of the input data. WaveNet has no latent
variable and hence no posterior: training maximizes the log-likelihood log p(x), which `log_prob`
returns. The section's first paragraph, a joint distribution by way of conditional probabilities
(条件概率), is right.
"""

import keras
import numpy as np
from keras import layers, ops

from keras_genai import audio, autoregressive
from keras_genai.autoregressive import Sampler
from keras_genai.conditioning import OneHot, count_classes, label_input, pack_inputs
from keras_genai.embeddings import Embedding
from keras_genai.language_model import TokenModelMixin, check_same_shape
from keras_genai.layer_state import LayerStateMixin
from keras_genai.models import ConfigMixin, ValidatedModel
from keras_genai.validation import (
    as_array,
    as_numbers,
    check_labels,
    check_size,
    check_sizes,
    check_token_array,
)

IGNORE_CLASS = -1  # target of the padding after the end of a sound


@keras.saving.register_keras_serializable(package="keras_genai")
class ResidualBlock(LayerStateMixin, layers.Layer):
    """Residual block of figure 4: a gated, dilated causal convolution of two taps.

        z = tanh(W_f * x + V_f h) ⊙ sigmoid(W_g * x + V_g h)

    Here * is the convolution, and h are one-hot labels, if there are any (equation 2; section 2.5,
    global conditioning). Two 1 x 1 convolutions of z, computed as one, give the residual and the
    skip output (section 2.4).

    `call` maps whole sequences. `step` continues sequences from a ring buffer of the last
    `dilation_rate` inputs, in which position t has slot t % dilation_rate.

    Args:
        residual_channels: Int. Number of channels of the input and of the residual output.
        skip_channels: Int. Number of channels of the skip output.
        dilation_rate: Int. Distance between the two taps, in samples.
    """

    def __init__(self, residual_channels, skip_channels, dilation_rate, **kwargs):
        super().__init__(**kwargs)
        self.residual_channels, self.skip_channels, self.dilation_rate = check_sizes(
            residual_channels=residual_channels,
            skip_channels=skip_channels,
            dilation_rate=dilation_rate,
        )
        # A convolution of two taps is a dense layer on both taps, concatenated.
        self.gate_dense = self._dense(2 * self.residual_channels, name="gate_dense")
        self.residual_and_skip = self._dense(
            self.residual_channels + self.skip_channels, name="residual_and_skip"
        )

    def _dense(self, units, **kwargs):
        return layers.Dense(units, dtype=self.dtype_policy, **kwargs)

    def build(self, x_shape, labels_shape=None):
        self.gate_dense.build((*x_shape[:-1], 2 * self.residual_channels))
        self.residual_and_skip.build((*x_shape[:-1], self.residual_channels))
        if labels_shape is not None:
            self.label_projection = self._dense(
                2 * self.residual_channels, use_bias=False, name="label_projection"
            )
            self.label_projection.build(labels_shape)
        self.built = True

    def call(self, x, labels=None):
        """Return both outputs for whole sequences.

        Args:
            x: Float tensor `(batch, n, residual_channels)`.
            labels: One-hot labels `(batch, num_classes)` or `None`.

        Returns:
            x plus the residual, `(batch, n, residual_channels)`, and the skip output,
            `(batch, n, skip_channels)`.
        """
        past = ops.pad(x, ((0, 0), (self.dilation_rate, 0), (0, 0)))[:, : -self.dilation_rate]
        return self.gated_convolution(past, x, labels)

    def gated_convolution(self, past, x, labels=None):
        """Return both outputs, given x and the inputs `dilation_rate` samples before x.

        Args:
            past: Float tensor `(batch, n, residual_channels)`. First tap.
            x: Float tensor `(batch, n, residual_channels)`. Second tap.
            labels: One-hot labels `(batch, num_classes)` or `None`.
        """
        features = self.gate_dense(ops.concatenate([past, x], axis=-1))
        if labels is not None:
            features = features + self.label_projection(labels)[:, None]
        filters, gates = ops.split(features, 2, axis=-1)
        z = ops.tanh(filters) * ops.sigmoid(gates)
        residual, skip = ops.split(self.residual_and_skip(z), [self.residual_channels], axis=-1)
        return x + residual, skip

    def initial_state(self, batch_size):
        """Return the buffer before the first sample: zeros, like the padding of `call`."""
        shape = batch_size, self.dilation_rate, self.residual_channels
        return ops.zeros(shape, self.compute_dtype)

    def step(self, x, buffer, position, length=None, labels=None):
        """Continue a sequence.

        Args:
            x: Float tensor `(batch, n, residual_channels)`. Inputs from `position` on.
            buffer: Float tensor `(batch, dilation_rate, residual_channels)`. Last inputs.
            position: Int or int tensor. Position of the first input.
            length: Int, int tensor or `None`. Number of inputs that are not padding. Defaults to n.
            labels: One-hot labels `(batch, num_classes)` or `None`.

        Returns:
            Both outputs of `call`, and the updated buffer.
        """
        num_inputs = x.shape[1]
        if num_inputs == 1:  # one slot is read and overwritten
            slot = [0, position % self.dilation_rate, 0]
            past = ops.slice(buffer, slot, (buffer.shape[0], 1, self.residual_channels))
            return *self.gated_convolution(past, x, labels), ops.slice_update(buffer, slot, x)
        slots = ops.arange(self.dilation_rate)
        past = ops.take(buffer, (slots + position) % self.dilation_rate, axis=1)  # oldest first
        inputs = ops.concatenate([past, x], axis=1)
        length = num_inputs if length is None else length
        last = ops.slice(inputs, [0, length, 0], buffer.shape)
        buffer = ops.take(last, (slots - position - length) % self.dilation_rate, axis=1)
        return *self.gated_convolution(inputs[:, :num_inputs], x, labels), buffer

    def compute_output_shape(self, x_shape, labels_shape=None):
        return x_shape, (*x_shape[:-1], self.skip_channels)

    def get_config(self):
        return {
            **super().get_config(),
            "residual_channels": self.residual_channels,
            "skip_channels": self.skip_channels,
            "dilation_rate": self.dilation_rate,
        }


def receptive_field(num_blocks: int, layers_per_block: int) -> int:
    """Return the receptive field of a `WaveNet`, in samples, including the current one.

    Each block extends it by 1 + 2 + 4 + … + 2^(layers_per_block - 1) samples.
    """
    num_blocks, layers_per_block = check_sizes(
        num_blocks=num_blocks, layers_per_block=layers_per_block
    )
    return num_blocks * (2**layers_per_block - 1) + 1


@keras.saving.register_keras_serializable(package="keras_genai")
class WaveNet(TokenModelMixin, ConfigMixin, ValidatedModel):
    """WaveNet: a network from mu-law levels to the logits of the next level.

    Levels are int32 `(batch, n)`; the logits are `(batch, n, quantization_channels)`. A sound is
    preceded by one level of silence, `quantization_channels // 2`, so that its first sample has a
    prediction too. Targets of -1 mark padding; use a loss that ignores them. Sample weights are
    `(batch,)` or `(batch, n)`.

    Args:
        quantization_channels: Int, at least 2. Number of mu-law levels. Defaults to `256`.
        num_blocks: Int. Number of blocks of dilations 1, 2, 4, … Defaults to `2`.
        layers_per_block: Int. Number of dilations in a block, each with one residual block.
            Defaults to `10`, dilations 1 to 512.
        residual_channels: Int. Number of channels between the residual blocks. Defaults to `32`.
        skip_channels: Int. Number of channels of the summed skip outputs. Defaults to `64`.
        num_classes: Int, at least 2, or `None`. If given, integer labels `(batch,)` are a second
            input. Defaults to `None`.
        sample_rate: Int. Samples per second, saved with the model. Defaults to `8000`.

    Example:
        model = WaveNet(num_classes=6)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
        model.compile(keras.optimizers.Adam(1e-3), loss)
        model.fit([levels[:, :-1], labels], levels[:, 1:])  # levels[:, 0] is silence
        waveforms = model.generate(6, labels=range(6))

    Raises:
        ValueError: for a size below 1, or for fewer than 2 levels or classes.
    """

    context_length = None  # any number of samples

    def __init__(
        self,
        quantization_channels=256,
        num_blocks=2,
        layers_per_block=10,
        residual_channels=32,
        skip_channels=64,
        num_classes=None,
        sample_rate=8000,
        name="wavenet",
        **kwargs,
    ):
        quantization_channels = check_size(
            "quantization_channels", quantization_channels, minimum=2
        )
        num_blocks, layers_per_block, residual_channels, skip_channels, sample_rate = check_sizes(
            num_blocks=num_blocks,
            layers_per_block=layers_per_block,
            residual_channels=residual_channels,
            skip_channels=skip_channels,
            sample_rate=sample_rate,
        )
        # Layers.
        embedding = Embedding(quantization_channels, residual_channels, name="embedding")
        residual_blocks = [
            ResidualBlock(
                residual_channels, skip_channels, 2**j, name=f"block_{i + 1}_dilation_{2**j}"
            )
            for i in range(num_blocks)
            for j in range(layers_per_block)
        ]
        hidden = layers.Dense(skip_channels, activation="relu", name="hidden")
        head = layers.Dense(quantization_channels, dtype=keras.config.floatx(), name="logits")

        # Functional graph.
        levels = keras.Input((None,), dtype="int32", name="levels")
        labels = label_input(num_classes)
        one_hot = None if labels is None else OneHot(num_classes)(labels)
        x, skip_sum = embedding(levels), 0.0  # (batch, n, residual_channels)
        for residual_block in residual_blocks:
            x, skip = residual_block(x, one_hot)
            skip_sum = skip_sum + skip
        logits = head(hidden(ops.relu(skip_sum)))
        super().__init__(pack_inputs(levels, labels), logits, name=name, **kwargs)

        # Config.
        self.embedding, self.residual_blocks = embedding, residual_blocks
        self.hidden, self.head = hidden, head
        num_classes = count_classes(self)
        self.vocab_size, self.num_classes = quantization_channels, num_classes
        self.sample_rate = sample_rate
        self.config = {
            "quantization_channels": quantization_channels,
            "num_blocks": num_blocks,
            "layers_per_block": layers_per_block,
            "residual_channels": residual_channels,
            "skip_channels": skip_channels,
            "num_classes": num_classes,
            "sample_rate": sample_rate,
        }

    def check_data(self, x, y):
        """Raise ValueError unless the arrays are valid for `fit(x, y)` or `fit([x, labels], y)`.

        Inputs are levels `(batch, n)`; targets are levels or -1 for padding.
        """
        self.check_inputs(x)
        levels = x[0] if isinstance(x, (list, tuple)) else x
        check_token_array("y", y, self.vocab_size, kind="levels", ignored=IGNORE_CLASS)
        check_same_shape(levels, y)

    def check_inputs(self, x):
        """Raise ValueError unless x is levels `(batch, n)`, or a pair of levels and labels."""
        levels, labels = (*x, None)[:2] if isinstance(x, (list, tuple)) else (x, None)
        check_token_array("x", levels, self.vocab_size, kind="levels")
        check_labels(labels, self.num_classes, len(levels))

    def initial_state(self, batch_size, max_length=None, conditioning=None):
        """Return the buffers of all residual blocks; see `autoregressive.AutoregressiveModel`.

        Their size does not depend on the length of the sound.

        Args:
            batch_size: Int. Number of sounds.
            max_length: Not used.
            conditioning: Int tensor `(batch_size,)`, labels of a conditional model, or `None`.
        """
        buffers = [layer.initial_state(batch_size) for layer in self.residual_blocks]
        if self.num_classes is None:
            return {"buffers": buffers}
        dtype = self.residual_blocks[0].compute_dtype
        labels = ops.one_hot(conditioning, self.num_classes, dtype=dtype)
        return {"buffers": buffers, "labels": labels}

    def step(self, tokens, state, position, length=None):
        """Return logits and the new state after levels `(batch, n)`; see `initial_state`."""
        x, skip_sum, buffers = self.embedding(tokens), 0.0, []
        for residual_block, buffer in zip(self.residual_blocks, state["buffers"], strict=True):
            x, skip, new_buffer = residual_block.step(
                x, buffer, position, length, state.get("labels")
            )
            skip_sum = skip_sum + skip
            buffers.append(new_buffer)
        return self.head(self.hidden(ops.relu(skip_sum))), {**state, "buffers": buffers}

    def log_prob(self, waveform, labels=None):
        """Return the exact log-likelihood of waveforms, quantized to mu-law levels.

        Args:
            waveform: Float array `(batch, n)` in [-1, 1], or a list of arrays `(n,)` of any
                lengths.
            labels: Int or int array `(batch,)` for a conditional model, else `None`.

        Returns:
            Two arrays in nats: log p of each waveform, `(batch,)`, and the log-probability of each
            sample given the samples before it, `(batch, n)` or a list of arrays `(n,)`.

        Raises:
            ValueError: for another shape, for values outside [-1, 1], and for invalid labels.
        """
        if not isinstance(waveform, (list, tuple)):
            waveform = np.atleast_1d(as_array("waveform", waveform))
        if len(waveform) == 0 or any(np.ndim(row) != 1 or np.size(row) == 0 for row in waveform):
            raise ValueError(
                f"waveform: expected (batch, n) or a list of arrays (n,), got {waveform!r:.200}."
            )
        labels = check_labels(labels, self.num_classes, len(waveform))
        rows = [as_numbers("waveform", row) for row in waveform]
        levels = [self._prepend_silence(audio.mu_law_encode(row, self.vocab_size)) for row in rows]
        levels = levels if isinstance(waveform, (list, tuple)) else np.stack(levels)
        return autoregressive.log_prob(self, levels, conditioning=labels)

    def _prepend_silence(self, levels):
        silence = np.full((*levels.shape[:-1], 1), self.vocab_size // 2, "int32")
        return np.concatenate([silence, levels], axis=-1)

    def generate(
        self, num_samples=1, labels=None, *, length=None, sampler=Sampler(), seed=None
    ) -> np.ndarray:
        """Generate sounds sample by sample.

        Args:
            num_samples: Int. Number of sounds. Defaults to `1`.
            labels: Int or int array `(num_samples,)` for a conditional model, else `None`.
            length: Int or `None`. Samples per sound. Defaults to `sample_rate`, one second.
            sampler: `autoregressive.Sampler`. Defaults to `Sampler()`, the model's distribution.
            seed: Int or `None`. Seed of the sampling; the state of training does not change.

        Returns:
            Waveforms, float32 `(num_samples, length)` in [-1, 1].

        Raises:
            ValueError: for a size below 1, and for an invalid sampler or invalid labels.
        """
        num_samples = check_size("num_samples", num_samples)
        length = self.sample_rate if length is None else check_size("length", length)
        labels = check_labels(labels, self.num_classes, num_samples)
        prompt = self._prepend_silence(np.zeros((num_samples, 0), "int32"))
        levels = autoregressive.generate(
            self, prompt, length, sampler=sampler, seed=seed, conditioning=labels
        )
        return audio.mu_law_decode(levels[:, 1:], self.vocab_size)

    def get_config(self):
        return {**super().get_config(), **self.config}


build_wavenet = WaveNet  # under a builder's name, like `build_vae`
