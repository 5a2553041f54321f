"""Sounds that the shipped article3-wavenet draws, beside the recordings of the same kind.

    python tests/benchmarks/sounds.py [--samples 12] [--temperatures 1 0.9 0.8]

For each kind the median, and the quarter on either side of it, of: onset, the time until the
loudest sample; decay, the time until nine tenths of the energy are over; and the centre of the
spectrum. A sound whose loudest sample is below 0.05 counts as silent, and only as that.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from keras_genai import datasets, pretrained
from keras_genai.autoregressive import Sampler


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=12, help="of each kind [12]")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1, 0.9, 0.8], metavar="T")
    options = parser.parse_args()
    model = pretrained.load("article3-wavenet")
    waveforms, labels, kinds = datasets.load_drums()
    report("recordings", waveforms, labels, kinds, model.sample_rate)
    labels = np.repeat(np.arange(len(kinds)), options.samples)
    for temperature in options.temperatures:
        sampler = Sampler(temperature=temperature)
        drawn = model.generate(len(labels), model.sample_rate, labels, seed=5, sampler=sampler)
        report(f"temperature {temperature:g}", drawn, labels, kinds, model.sample_rate)


def report(name, waveforms, labels, kinds, sample_rate):
    for kind, kind_name in enumerate(kinds):
        sounds = [sound for sound, label in zip(waveforms, labels) if label == kind]
        heard = [sound for sound in sounds if np.abs(sound).max() >= 0.05]
        measured = np.transpose([measure(sound, sample_rate) for sound in heard])
        onset, decay, centre = np.quantile(measured, [0.5, 0.25, 0.75], axis=1).T
        print(
            f"{name}, {kind_name}: onset {onset[0]:.3f} s ({onset[1]:.3f} to {onset[2]:.3f}), "
            f"decay {decay[0]:.3f} s ({decay[1]:.3f} to {decay[2]:.3f}), centre {centre[0]:.0f} Hz "
            f"({centre[1]:.0f} to {centre[2]:.0f}), {len(sounds) - len(heard)} of {len(sounds)} "
            "silent",
            flush=True,
        )


def measure(sound, sample_rate):
    """Return the onset and the decay in seconds, and the centre of the spectrum in Hz."""
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
