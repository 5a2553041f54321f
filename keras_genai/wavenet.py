"""WaveNet: article 3, section 5 (van den Oord et al. 2016, "A Generative Model for Raw Audio").

A waveform is drawn sample after sample, each given all before it, as a PixelCNN draws pixels. A
sample is one of 256 mu-law levels (`audio`), and a softmax says how likely each is.

What came before is seen through convolutions of two places, one of them further back in each layer:
1, 2, 4 … 512 samples. A block of ten such layers reaches back 1,023 samples at the cost of ten.

Corrected from the article: it has WaveNet maximise "the posterior of data and latent variables".
There is no latent variable. What is maximised is the likelihood itself, which `log_prob` returns.
"""

import keras
import numpy as np
from keras import layers, ops

from keras_genai import audio, autoregressive
from keras_genai.autoregressive import Sampler
from keras_genai.inputs import (
    CheckedModel,
    OneHot,
    check_labels,
    check_range,
    check_size,
    check_sizes,
    label_input,
    with_labels,
)

IGNORED = -1  # a target that is none: what is padded at the end of a sound


@keras.saving.register_keras_serializable(package="keras_genai")
class DilatedLayer(layers.Layer):
    """One layer (section 2.3): a gated convolution of two places, `dilation` samples apart.

    Called on x (batch, n, num_filters), and one-hot labels if there are any, it returns what the
    next layer reads, of x's shape, and what goes to the logits, (batch, n, num_skip).

    `step` computes the same from where `initial_state` begins: a ring of the last `dilation`
    inputs, in which the one at position t has the place t % dilation.
    """

    def __init__(self, num_filters, num_skip, dilation, **kwargs):
        super().__init__(**kwargs)
        self.num_filters, self.num_skip, self.dilation = check_sizes(
            num_filters=num_filters, num_skip=num_skip, dilation=dilation
        )
        num_filters, num_skip = self.num_filters, self.num_skip
        # A convolution of two places is a product with both of them side by side.
        self.filter = layers.Dense(2 * num_filters)
        self.outwards = layers.Dense(num_filters + num_skip)
        self.condition = layers.Dense(2 * num_filters, use_bias=False)

    def build(self, x_shape, labels_shape=None):
        self.filter.build((*x_shape[:-1], 2 * self.num_filters))
        self.outwards.build((*x_shape[:-1], self.num_filters))
        if labels_shape is not None:
            self.condition.build(labels_shape)
        self.built = True

    def call(self, x, labels=None):
        before = ops.pad(x, ((0, 0), (self.dilation, 0), (0, 0)))[:, : -self.dilation]
        return self._forward(before, x, labels)

    def _forward(self, before, x, labels):
        """Return both outputs for x and what stands `dilation` samples before it."""
        gates = self.filter(ops.concatenate([before, x], axis=-1))
        if labels is not None:
            condition = self.condition(labels)
            gates = gates + ops.reshape(condition, (-1, *[1] * (len(x.shape) - 2), gates.shape[-1]))
        a, b = ops.split(gates, 2, axis=-1)
        added, skip = ops.split(self.outwards(ops.tanh(a) * ops.sigmoid(b)), [self.num_filters], -1)
        return x + added, skip

    def initial_state(self, batch_size):
        """Return what came before the first sample: zeros."""
        return ops.zeros((batch_size, self.dilation, self.num_filters), self.compute_dtype)

    def step(self, x, ring, position, length=None, labels=None):
        """Read x (batch, n, num_filters) at position, …, and return the new ring as well."""
        count = x.shape[1]
        if count == 1:
            place = [0, position % self.dilation, 0]
            before = ops.slice(ring, place, (*ring.shape[:1], 1, self.num_filters))
            return *self._forward(before, x, labels), ops.slice_update(ring, place, x)
        places = ops.arange(self.dilation)
        before = ops.take(ring, (places + position) % self.dilation, axis=1)  # in order of time
        both = ops.concatenate([before, x], axis=1)
        length = count if length is None else length
        last = ops.slice(both, [0, length, 0], ring.shape)
        ring = ops.take(last, (places - position - length) % self.dilation, axis=1)
        return *self._forward(both[:, :count], x, labels), ring

    def compute_output_shape(self, x_shape, labels_shape=None):
        return x_shape, (*x_shape[:-1], self.num_skip)

    def get_config(self):
        return {
            **super().get_config(),
            "num_filters": self.num_filters,
            "num_skip": self.num_skip,
            "dilation": self.dilation,
        }


def receptive_field(num_blocks: int, layers_per_block: int) -> int:
    """Return the number of samples, the last one included, that the next one depends on.

    Each block reaches 1 + 2 + 4 + … + 2^(layers_per_block - 1) samples further back.
    """
    return num_blocks * (2**layers_per_block - 1) + 1


def build_wavenet(
    num_levels=256,
    num_blocks=2,
    layers_per_block=10,
    num_filters=32,
    num_skip=64,
    num_classes=None,
    sample_rate=8000,
) -> "WaveNet":
    """Build a WaveNet.

        model = build_wavenet(num_classes=6)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
        model.compile(keras.optimizers.Adam(1e-3), loss)
        model.fit([levels[:, :-1], kinds], levels[:, 1:])  # levels[:, 0] is silence
        waveforms = model.generate(6, num_steps=8000, labels=range(6))

    Args:
        num_levels: of the mu-law.
        num_blocks: of dilations 1, 2, 4 …
        layers_per_block: how many of these.
        num_filters: width of a layer.
        num_skip: width of what each layer gives to the logits.
        num_classes: if given, the model takes integer labels (batch,) as a second input.
        sample_rate: samples a second, which is saved with the model.

    Returns:
        A model from levels (batch, n), integers, to logits (batch, n, num_levels) of what follows
        each. A sound begins after a level of silence, `num_levels // 2`.

    Raises:
        ValueError: for a size below 1, or fewer than 2 levels or classes.
    """
    return WaveNet(
        num_levels, num_blocks, layers_per_block, num_filters, num_skip, num_classes, sample_rate
    )


@keras.saving.register_keras_serializable(package="keras_genai")
class WaveNet(CheckedModel):
    """The model of `build_wavenet`, whose arguments it has."""

    context_length = None

    def __init__(
        self,
        num_levels=256,
        num_blocks=2,
        layers_per_block=10,
        num_filters=32,
        num_skip=64,
        num_classes=None,
        sample_rate=8000,
        name="wavenet",
        **kwargs,
    ):
        num_levels = check_size("num_levels", num_levels, minimum=2)
        num_blocks, layers_per_block, num_filters, num_skip, sample_rate = check_sizes(
            num_blocks=num_blocks,
            layers_per_block=layers_per_block,
            num_filters=num_filters,
            num_skip=num_skip,
            sample_rate=sample_rate,
        )
        embedding = layers.Embedding(num_levels, num_filters, name="embedding")
        dilated_layers = [
            DilatedLayer(num_filters, num_skip, 2**i, name=f"block_{block + 1}_dilation_{2**i}")
            for block in range(num_blocks)
            for i in range(layers_per_block)
        ]
        hidden = layers.Dense(num_skip, activation="relu", name="hidden")
        head = layers.Dense(num_levels, dtype="float32", name="logits")

        levels = keras.Input((None,), dtype="int32", name="levels")
        labels = label_input(num_classes)
        one_hot = None if labels is None else OneHot(int(num_classes))(labels)
        x, total = embedding(levels), 0.0  # (batch, n, num_filters)
        for layer in dilated_layers:
            x, skip = layer(x, one_hot)
            total = total + skip
        logits = head(hidden(ops.relu(total)))
        super().__init__(with_labels(levels, labels), logits, name=name, **kwargs)

        self.embedding, self.dilated_layers = embedding, dilated_layers
        self.hidden, self.head = hidden, head
        self.vocab_size, self.num_classes, self.sample_rate = num_levels, num_classes, sample_rate
        self.settings = {
            "num_levels": num_levels,
            "num_blocks": num_blocks,
            "layers_per_block": layers_per_block,
            "num_filters": num_filters,
            "num_skip": num_skip,
            "num_classes": num_classes,
            "sample_rate": sample_rate,
        }

    def check_data(self, x, y):
        """Raise ValueError unless x is levels, or [levels, labels], and y levels, -1 for none."""
        levels, labels = (*x, None)[:2] if isinstance(x, (list, tuple)) else (x, None)
        for name, values in (("x", np.asarray(levels)), ("y", np.asarray(y))):
            if values.ndim != 2:
                raise ValueError(f"{name}: expected levels (batch, n), got shape {values.shape}.")
            ignored = (name == "y") & (values == IGNORED)
            check_range(name, values[~ignored], self.vocab_size, "levels")
        check_labels(labels, self.num_classes, len(levels))

    def initial_state(self, batch_size, max_length=None, conditioning=None):
        """Return each layer's last inputs, zeros, as many as its dilation, however long the sound.

        Args:
            batch_size, max_length: as in `autoregressive`; the length makes no difference.
            conditioning: labels (batch_size,) if the model is conditional.
        """
        rings = [layer.initial_state(batch_size) for layer in self.dilated_layers]
        if self.num_classes is None:
            return {"rings": rings}
        labels = ops.one_hot(conditioning, self.num_classes, dtype=self.compute_dtype)
        return {"rings": rings, "labels": labels}

    def step(self, tokens, state, position, length=None):
        """Read levels (batch, n); see `autoregressive`."""
        x, total, rings = self.embedding(tokens), 0.0, []
        for layer, ring in zip(self.dilated_layers, state["rings"]):
            x, skip, ring = layer.step(x, ring, position, length, state.get("labels"))
            total = total + skip
            rings.append(ring)
        return self.head(self.hidden(ops.relu(total))), {**state, "rings": rings}

    def log_prob(self, waveform, labels=None):
        """Return the log-likelihood of sounds, rounded to their levels.

        Args:
            waveform: (batch, n) in [-1, 1], or a list of arrays of any lengths.
            labels: an integer or integers (batch,) if the model is conditional, else None.

        Returns:
            (sounds, samples), in nats: log p of each sound (batch,), and the part of each sample,
            given those before it: (batch, n), for a list a list of arrays.
        """
        if any(np.ndim(row) != 1 for row in waveform) or len(waveform) == 0:
            raise ValueError(
                "waveform: expected (batch, n) or a list of arrays (n,), "
                f"got shape {np.shape(waveform)}."
            )
        labels = check_labels(labels, self.num_classes, len(waveform))
        levels = [self._begin(audio.mu_law_encode(row, self.vocab_size)) for row in waveform]
        levels = levels if isinstance(waveform, (list, tuple)) else np.stack(levels)
        return autoregressive.log_prob(self, levels, conditioning=labels)

    def _begin(self, levels):
        """Return levels (…, n) after one of silence."""
        silence = np.full((*levels.shape[:-1], 1), self.vocab_size // 2, "int32")
        return np.concatenate([silence, levels], axis=-1)

    def generate(
        self, num_samples=1, num_steps=8000, labels=None, seed=None, sampler=Sampler()
    ) -> np.ndarray:
        """Draw sounds sample after sample.

        Args:
            num_samples: how many sounds, n.
            num_steps: length of each, in samples.
            labels: an integer or integers (n,) if the model is conditional, else None.
            seed: the same seed gives the same sounds; training is not touched.
            sampler: as `autoregressive.generate` takes it.

        Returns:
            Waveforms, float32 (n, num_steps) in [-1, 1].
        """
        num_samples = check_size("num_samples", num_samples)
        labels = check_labels(labels, self.num_classes, num_samples)
        prompt = self._begin(np.zeros((num_samples, 0), "int32"))
        levels = autoregressive.generate(
            self, prompt, num_steps, sampler, seed, conditioning=labels
        )
        return audio.mu_law_decode(levels[:, 1:], self.vocab_size)

    def get_config(self):
        return {"name": self.name, **self.settings}
