"""Sounds of article3-wavenet and article3-audio-vae, beside the recordings of the same class.

    python tests/benchmarks/sounds.py [--samples 12] [--temperatures 1 0.9 0.8]

For each class, median and quartiles of: onset, the time of the largest amplitude; decay, the time
until nine tenths of the energy; and the spectral centroid. A sound whose largest amplitude is below
0.05 counts as silent, and is left out of the other statistics. "Griffin-Lim" are the recordings
with estimated phases, the best that a model of spectrograms can do.

Then, in dB, log-spectral distances: to the nearest training sound of the class (copies have 0), and
between two sounds of a class (equal ones have 0). Last, those of the reconstructions of the VAE.
"""

import argparse
import itertools
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from keras_genai import datasets, pretrained, streaming
from keras_genai.autoregressive import Sampler
from keras_genai.spectrograms import (
    compute_spectrograms,
    invert_spectrograms,
    log_spectral_distance,
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=12, help="sounds per class [12]")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1, 0.9, 0.8], metavar="T")
    options = parser.parse_args()
    model, vae = map(pretrained.load, ("article3-wavenet", "article3-audio-vae"))
    waveforms, labels, class_names = datasets.load_drums()
    splits = streaming.split_sounds(labels, np.arange(len(labels)), len(class_names))
    train, test = ((compute(waveforms, rows), labels[rows]) for rows in splits)
    report("recordings", waveforms, labels, class_names, model.sample_rate)
    phased = invert_spectrograms(compute(waveforms, range(len(labels))))
    report("Griffin-Lim", phased, labels, class_names, model.sample_rate)
    labels = np.repeat(np.arange(len(class_names)), options.samples)
    sounds = {}
    for temperature in options.temperatures:
        sampler = Sampler(temperature=temperature)
        sounds[f"WaveNet at temperature {temperature:g}"] = model.generate(
            len(labels), labels, sampler=sampler, seed=5
        )
    sounds["VAE"] = vae.generate(len(labels), labels, seed=5)
    for name, generated in sounds.items():
        report(name, generated, labels, class_names, model.sample_rate)

    report_distances("training", *train, *train)
    report_distances("held-out", *test, *train)
    for name, generated in sounds.items():
        report_distances(name, compute_spectrograms(generated), labels, *train)
    for name, (x, y) in {"training": train, "held-out": test}.items():
        distances = log_spectral_distance(x, vae.reconstruct(x, y))
        print(f"reconstructions of {name} sounds: {distances.mean():.2f} dB")
    x, y = test
    means = np.stack([train[0][train[1] == label].mean(axis=0) for label in y])
    print(f"the mean of the class, to held-out: {log_spectral_distance(x, means).mean():.2f} dB")
    found = compute_spectrograms(invert_spectrograms(x))
    print(f"Griffin-Lim of held-out sounds: {log_spectral_distance(x, found).mean():.2f} dB")


def compute(waveforms, rows):
    return compute_spectrograms([waveforms[row] for row in rows])


def report(name, waveforms, labels, class_names, sample_rate):
    for label, class_name in enumerate(class_names):
        sounds = [waveform for waveform, i in zip(waveforms, labels, strict=True) if i == label]
        audible = [sound for sound in sounds if np.abs(sound).max() >= 0.05]
        statistics = np.transpose([measure(sound, sample_rate) for sound in audible])
        onset, decay, centroid = np.quantile(statistics, [0.5, 0.25, 0.75], axis=1).T
        print(
            f"{name}, {class_name}: onset {onset[0]:.3f} s ({onset[1]:.3f} to {onset[2]:.3f}), "
            f"decay {decay[0]:.3f} s ({decay[1]:.3f} to {decay[2]:.3f}), "
            f"centroid {centroid[0]:.0f} Hz ({centroid[1]:.0f} to {centroid[2]:.0f}), "
            f"{len(sounds) - len(audible)} of {len(sounds)} silent",
            flush=True,
        )


def report_distances(name, x, labels, training_x, training_labels):
    """Print the mean distances of sounds to the nearest other training sound, and in pairs."""
    nearest, pairs = [], []
    for label in np.unique(labels):
        group, training = x[labels == label], training_x[training_labels == label]
        for row in group:
            distances = log_spectral_distance(np.repeat(row[None], len(training), 0), training)
            nearest.append(distances[distances > 0].min())  # not itself
        pairs.append(
            np.mean(
                [log_spectral_distance(a[None], b[None])
                 for a, b in itertools.combinations(group, 2)]
            )
        )  # fmt: skip
    print(
        f"{name}: {np.mean(nearest):.2f} dB to the nearest training sound, at least "
        f"{np.min(nearest):.2f} dB; {np.mean(pairs):.2f} dB between two sounds of a class"
    )


def measure(sound, sample_rate):
    """Return onset and decay in seconds, and the spectral centroid in Hz."""
    energy = np.cumsum(np.square(sound, dtype="float64"))
    power = np.square(np.abs(np.fft.rfft(sound)))
    frequencies = np.fft.rfftfreq(len(sound), 1 / sample_rate)
    return (
        np.argmax(np.abs(sound)) / sample_rate,
        np.searchsorted(energy, 0.9 * energy[-1]) / sample_rate,
        np.sum(power * frequencies) / np.sum(power),
    )


if __name__ == "__main__":
    main()
