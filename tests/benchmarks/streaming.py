"""Peak memory and seconds of an epoch of images, sounds and texts, loaded and streamed.

    python tests/benchmarks/streaming.py [--kinds images sounds texts] [--factors 1 4 16]

Each epoch is read in a process of its own, from 1, 4 and 16 times a set of files of noise: images
of 64×64 gray pixels, seconds of sound at 16,000 samples, and a text of characters, each of 16 MB
when decoded. "Cached" streams twice: the first epoch fills the cache. A process that only imports
the package has the memory of the first line.
"""

import argparse
import multiprocessing
import os
import pathlib
import resource
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_genai import datasets, pipelines
from keras_genai.audio import save_wav
from keras_genai.text import CharacterTokenizer

CHARACTERS = "abcdefghijklmnopqrstuvwxyz ,.\n"
BATCH_SIZE = 32


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", default=list(WRITERS), choices=WRITERS)
    parser.add_argument("--factors", nargs="+", type=int, default=[1, 4, 16])
    options = parser.parse_args()
    print(f"imports: {run(read, [])[1]:.0f} MB")
    print("| data | decoded, MB | loaded, MB (s) | streamed, MB (s) | cached, MB (s) |")
    print("|---|---|---|---|---|")
    for kind in options.kinds:
        for factor in options.factors:
            with tempfile.TemporaryDirectory() as folder:
                path = pathlib.Path(folder) / kind
                path.mkdir()
                decoded, _, _ = run(WRITERS[kind], path, factor)
                results = [
                    run(load_epoch, kind, path),
                    run(stream_epoch, kind, path),
                    run(stream_epoch, kind, path, pathlib.Path(folder) / "cache"),
                ]
            cells = [f"{memory:.0f} ({seconds:.1f})" for _, memory, seconds in results]
            print(f"| {kind} | {decoded / 2**20:.0f} | {' | '.join(cells)} |", flush=True)


def run(function, *arguments):
    """Call a function in a new process; return its result, its peak memory in MB, and seconds.

    A process begins with the peak of the process that starts it, which therefore does nothing else.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=send_result, args=(sender, function, arguments))
    process.start()
    result = receiver.recv()
    process.join()
    return result


def send_result(sender, function, arguments):
    start = time.monotonic()
    result = function(*arguments)
    seconds = time.monotonic() - start
    sender.send((result, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10, seconds))


def write_images(path, factor):
    rng = np.random.default_rng(0)
    for i in range(1000 * factor):
        pixels = rng.integers(256, size=(64, 64), dtype="uint8")
        Image.fromarray(pixels).save(path / f"{i:05d}.png", compress_level=1)
    return 1000 * factor * 4 * 64 * 64


def write_sounds(path, factor):
    rng = np.random.default_rng(0)
    for i in range(250 * factor):
        save_wav(path / f"{i:05d}.wav", rng.uniform(-1, 1, 16_000), 16_000)
    return 250 * factor * 4 * 16_000


def write_texts(path, factor):
    rng = np.random.default_rng(0)
    for i in range(factor):
        text = "".join(rng.choice(list(CHARACTERS), 2**22))
        (path / f"{i:02d}.txt").write_text(text)
    return factor * 4 * 2**22


WRITERS = {"images": write_images, "sounds": write_sounds, "texts": write_texts}


def load_epoch(kind, path):
    epoch = tf.Variable(0, dtype=tf.int64)
    if kind == "images":
        (x, _), _ = datasets.load_image_folder(path, 64)
        dataset = pipelines.make_dataset(x.astype("float32")[..., None] / 255, BATCH_SIZE, 0, epoch)
    elif kind == "sounds":
        waveforms, *_ = datasets.load_sound_folder(path)
        dataset = pipelines.make_audio_dataset(waveforms[:-2], None, BATCH_SIZE, 0, epoch)
    else:
        text = "".join(datasets.load_text(file) for file in sorted(path.iterdir()))
        tokens = CharacterTokenizer(CHARACTERS).encode(text[: int(0.9 * len(text))])
        dataset = pipelines.make_window_dataset(tokens, 128, BATCH_SIZE, 0, epoch)
    read(dataset)


def stream_epoch(kind, path, cache=None):
    options = {"batch_size": BATCH_SIZE, "cache": cache}
    if kind == "images":
        dataset = datasets.image_folder_batches(path, image_size=64, **options)
    elif kind == "sounds":
        dataset = datasets.sound_folder_batches(path, **options)
    else:
        tokenizer = CharacterTokenizer(CHARACTERS)
        dataset = datasets.text_file_batches(path, tokenizer, 128, **options)
    for _ in range(1 if cache is None else 2):
        read(dataset)


def read(dataset):
    for _ in dataset:
        pass


if __name__ == "__main__":
    main()
