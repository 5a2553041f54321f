"""VAE of sounds: article 3, section 7, which names the generation of audio without data or code.

The VAE of `vae`, with convolutions and a learned prior, on the spectrograms of `spectrograms`. The
decoder returns magnitudes without phases, which Griffin-Lim estimates.

The likelihood is Bernoulli, as in article 4: the cross-entropy of gray values in [0, 1], whose
curvature is largest near 0, where most of a spectrogram is. For gray values it is a substitute for
a likelihood; see `vae.reconstruction_loss`.

None of the networks is in the article.
"""

import keras
import numpy as np
from keras import ops

from keras_genai.conditioning import OneHot
from keras_genai.learned_prior import LearnedPriorVAE
from keras_genai.spectrograms import (
    check_waveform,
    compute_spectrograms,
    invert_spectrograms,
    num_samples,
)
from keras_genai.validation import check_labels, check_size, check_strings


@keras.saving.register_keras_serializable(package="keras_genai")
class AudioVAE(LearnedPriorVAE):
    """A `LearnedPriorVAE` of spectrograms `(frames, bins, 1)` that generates waveforms.

    `fit`, `encode`, `decode` and `reconstruct` take and return spectrograms, those of
    `spectrograms.compute_spectrograms` and of `waveforms_to_spectrograms`.

    Args:
        encoder, decoder, prior, beta, likelihood, seed: See `LearnedPriorVAE`. Images are
            `(frames, bins, 1)` with an even number of bins.
        sample_rate: Int. Samples per second, saved with the model. Defaults to `8000`.
        class_names: List of strings, one for each class, or `None`. Saved with the model. Defaults
            to `None`.

    Raises:
        ValueError: as `LearnedPriorVAE`, and for images of another shape, another number of names,
            or an invalid sample rate.

    Example:
        shape = (128, 128, 1)
        encoder = build_conv_encoder(shape, (16, 32, 64, 64))
        decoder = build_conv_decoder(widths=(64, 64, 32, 16), image_shape=shape)
        model = AudioVAE(encoder, decoder, MixturePrior(20))
        model.compile("adam")
        model.fit(model.waveforms_to_spectrograms(waveforms))
        sounds = model.generate(4)
    """

    def __init__(
        self,
        encoder,
        decoder,
        prior,
        beta=1.0,
        likelihood="bernoulli",
        seed=None,
        sample_rate=8000,
        class_names=None,
        **kwargs,
    ):
        super().__init__(encoder, decoder, prior, beta, likelihood, seed, **kwargs)
        self.num_audio_samples = num_samples(self.image_shape)
        self.sample_rate = check_size("sample_rate", sample_rate)
        if class_names is not None:
            class_names = check_strings("class_names", class_names, self.num_classes or 1)
        self.class_names = class_names

    def waveforms_to_spectrograms(self, waveforms) -> np.ndarray:
        """Return spectrograms of the model's shape; see `spectrograms.compute_spectrograms`."""
        return compute_spectrograms(waveforms, self.image_shape)

    def generate(self, num_samples=1, labels=None, *, seed=None) -> np.ndarray:
        """Sample z from the prior, decode it to spectrograms, and estimate their phases.

        Args:
            num_samples: Int. Number of sounds. Defaults to `1`.
            labels: Int or int array `(num_samples,)` for a conditional model, else `None`.
            seed: Int or `None`. Seed of z; the phases do not depend on it. Defaults to `None`.

        Returns:
            Waveforms, float32 `(num_samples, num_audio_samples)` in [-1, 1].

        Raises:
            ValueError: for a size below 1, and for invalid labels.
            ImportError: without librosa.
        """
        return invert_spectrograms(super().generate(num_samples, labels, seed=seed))

    def interpolate(self, start, end, steps=8, labels=None) -> np.ndarray:
        """Return sounds between two sounds.

        With weights w from 0 to 1, sound w has the latent vector (1 - w) z_start + w z_end and, in
        a conditional model, the label (1 - w) y_start + w y_end of one-hot vectors, on which the
        decoder has been trained only where w is 0 or 1. The first and the last sound are the
        reconstructions of both.

        Args:
            start, end: Float arrays `(n,)` in [-1, 1], waveforms of at most `num_audio_samples`.
            steps: Int, at least 2. Number of sounds. Defaults to `8`.
            labels: Int array `(2,)`, the labels of start and end, or an int for both, for a
                conditional model, else `None`.

        Returns:
            Waveforms, float32 `(steps, num_audio_samples)` in [-1, 1].

        Raises:
            ValueError: for invalid sounds or labels, and for fewer than two steps.
            ImportError: without librosa.
        """
        steps = check_size("steps", steps, minimum=2)
        labels = check_labels(labels, self.num_classes, 2)
        waveforms = [
            check_waveform(name, waveform, self.num_audio_samples)
            for name, waveform in (("start", start), ("end", end))
        ]
        z_mean, _ = self.encode(self.waveforms_to_spectrograms(waveforms), labels)
        z = np.linspace(z_mean[0], z_mean[1], steps, dtype="float32")  # (steps, latent_dim)
        if labels is None:
            return invert_spectrograms(self.decode(z))
        one_hot = np.eye(self.num_classes)[labels]
        y = np.linspace(one_hot[0], one_hot[1], steps, dtype="float32")  # (steps, num_classes)
        # The decoder from its one-hot vectors on.
        rows = [layer.output for layer in self.decoder.layers if isinstance(layer, OneHot)]
        network = keras.Model([self.decoder.inputs[0], *rows], self.decoder.outputs[0])
        return invert_spectrograms(ops.convert_to_numpy(network([z] + [y] * len(rows))))

    def get_config(self):
        names = ("sample_rate", "class_names")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
