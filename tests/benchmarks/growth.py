"""How time and memory grow: with the number of sequences, the context, and the size of images.

    pip install ".[benchmark]"
    python tests/benchmarks/growth.py sizes [--rounds 3] [--output growth.png]
    python tests/benchmarks/growth.py memory

sizes: the published GPT-2 (random weights), 1 to 64 sequences of 32 tokens after 16, and a token
after 64 to 1,024 others, beside transformers and CTranslate2; the network of article3-diffusion, 16
images in 10 steps of DDIM, beside PyTorch; and that of article3-pixelcnn, 16 images, beside the
usual loop, which runs the whole network for each pixel, of which 20 pixels are timed. A line per
program and size, medians of `rounds` rounds in which the programs take turns, and a figure. Memory
is the peak of a process less that of the same process before it builds the model.
memory: the peak of each family's recipe in training and in sampling, in the same way, and what the
sixth to the twentieth call add.

Each program and size has a process of its own. The first call is not timed: it compiles.
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

BATCH_SIZES, CONTEXTS, IMAGE_SIZES = (1, 4, 16, 64), (64, 256, 1024), (28, 40, 64)
PROMPT_LENGTH, MAX_NEW_TOKENS, NUM_IMAGES, NUM_STEPS, TIMED_PIXELS = 16, 32, 16, 10, 20
LANGUAGE_PROGRAMS = ("keras_genai", "transformers", "CTranslate2")
PANELS = {  # kind: sizes, programs, titles of the axes
    "sequences": (BATCH_SIZES, LANGUAGE_PROGRAMS, "sequences of 32 tokens", "seconds"),
    "contexts": (CONTEXTS, LANGUAGE_PROGRAMS, "tokens before", "seconds per token"),
    "diffusion": (IMAGE_SIZES, ("keras_genai", "PyTorch"), "height and width", "seconds"),
    "pixelcnn": (IMAGE_SIZES, ("keras_genai", "whole network"), "height and width", "seconds"),
}
TITLES = {
    "sequences": "GPT-2",
    "contexts": "GPT-2, one token",
    "diffusion": "Diffusion, 16 images, 10 steps",
    "pixelcnn": "PixelCNN, 16 images",
}
FAMILIES = {  # recipe: what it samples in a call
    "article4-vae": lambda model: model.generate(64),
    "conv-vae": lambda model: model.generate(64),
    "article4-gan": lambda model: model.generate(64),
    "dcgan": lambda model: model.generate(64),
    "article4-cnn": lambda model: model.predict(random_images(64), verbose=0),
    "article3-rnn": lambda model: model.generate("A", 400),
    "article3-lstm": lambda model: model.generate("A", 400),
    "article3-lstm-translation": lambda model: model.translate(SENTENCE),
    "article1-transformer": lambda model: model.translate(SENTENCE),
    "article4-gpt2": lambda model: model.generate("A", 200),
    "article3-pixelcnn": lambda model: model.generate(64),
    "article3-wavenet": lambda model: model.generate(6, LABELS[:6], length=4000),
    "article3-audio-vae": lambda model: model.generate(6, LABELS[:6]),
    "article3-diffusion": lambda model: model.generate(64, LABELS, num_steps=10),
}
SENTENCE = "He is a good friend of mine."
LABELS = [i % 6 for i in range(64)]
TRAINING_STEPS = 3


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", choices=("sizes", "memory", "measure"))
    parser.add_argument("case", nargs="*", help=argparse.SUPPRESS)  # of measure, in a new process
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each program [3]")
    parser.add_argument("--output", default="growth.png", help="file of the figure [growth.png]")
    options = parser.parse_args()
    {"sizes": sizes, "memory": memory, "measure": measure}[options.mode](options)


def run(*case):
    """Return the result of `measure` in a new process."""
    command = [sys.executable, __file__, "measure", *map(str, case)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"{' '.join(command)}: {result.stderr[-2000:]}")
    return json.loads(result.stdout.splitlines()[-1])


def sizes(options):
    with tempfile.TemporaryDirectory() as folder:
        run("checkpoint", folder)
        results = {}
        for kind, (kind_sizes, programs, *_) in PANELS.items():
            for size in kind_sizes:
                rounds = [
                    [run(kind, program, size, folder) for program in programs]
                    for _ in range(options.rounds)
                ]
                for program, column in zip(programs, zip(*rounds, strict=True), strict=True):
                    seconds, megabytes = map(statistics.median, zip(*column, strict=True))
                    results[kind, program, size] = seconds, megabytes
                    print(
                        f"{kind} {size}, {program}: {seconds:.3g} s, {megabytes:.0f} MB", flush=True
                    )
    plot(results, options.output)


def plot(results, path):
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(13, 6), layout="constrained")
    rows = figure.subplots(2, len(PANELS))
    for column, (kind, (kind_sizes, programs, size_label, time_label)) in enumerate(PANELS.items()):
        for row, label in ((0, time_label), (1, "peak memory, MB")):
            axes = rows[row, column]
            for program in programs:
                values = [results[kind, program, size][row] for size in kind_sizes]
                axes.plot(kind_sizes, values, "o-", label=program)
            axes.set(xscale="log", yscale="log", xlabel=size_label, ylabel=label)
            axes.set_xticks(kind_sizes, kind_sizes)
            axes.minorticks_off()
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
        rows[0, column].set_title(TITLES[kind])
        rows[0, column].legend(fontsize="small")
    figure.savefig(path, dpi=100)


def memory(options):
    print("| | parameters | training | sampling | added by calls 6 to 20 |\n|---|---|---|---|---|")
    for name in FAMILIES:
        num_parameters, training = run("training", name)
        sampling, added = run("sampling", name)
        cells = f"{num_parameters:,} | {training:.0f} MB | {sampling:.0f} MB | {added:+.0f} MB"
        print(f"| `{name}` | {cells} |", flush=True)


# Programs, each in a process of its own.


def measure(options):
    kind, *arguments = options.case
    print(json.dumps(MEASUREMENTS[kind](*arguments)))


def peak():
    """Return the peak memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def timed(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def save_checkpoint(folder):
    import gpt2

    gpt2.save_checkpoint(gpt2.build_model(), folder)


def measure_sequences(program, batch_size, folder):
    """Return the seconds of 32 tokens after 16, and the peak memory."""
    import gpt2

    before, generate = language_program(program, folder)
    prompts = gpt2.random_tokens(int(batch_size), PROMPT_LENGTH)
    generate(prompts, MAX_NEW_TOKENS)
    return timed(generate, prompts, MAX_NEW_TOKENS), peak() - before


def measure_context(program, length, folder):
    """Return the seconds of a token after `length` others or a few less, and the peak memory."""
    import gpt2

    before, generate = language_program(program, folder)
    prompt = gpt2.random_tokens(1, int(length) - 17)
    for num_tokens in (1, 17):
        generate(prompt, num_tokens)
    # A prompt of 1,000 takes as long as many tokens, and one difference varies by half of them.
    differences = [timed(generate, prompt, 17) - timed(generate, prompt, 1) for _ in range(7)]
    return statistics.median(differences) / 16, peak() - before


def language_program(program, folder):
    """Return the memory before the model is built, and the program."""
    import gpt2

    before = peak()
    return before, gpt2.PROGRAMS["here" if program == "keras_genai" else program](folder)


def measure_diffusion(program, size, folder):
    """Return the seconds of 16 images in 10 steps, and the peak memory."""
    import torch._dynamo  # noqa: F401  before TensorFlow, which it crashes beside

    # isort: split
    import diffusion as benchmark
    import numpy as np

    from keras_genai.diffusion import DDPM, NoiseSchedule, build_unet

    before, shape = peak(), (int(size), int(size), 1)
    if program == "keras_genai":
        model = DDPM(build_unet(shape, num_classes=10), NoiseSchedule())
        labels = np.arange(NUM_IMAGES) % 10

        def generate():
            model.generate(NUM_IMAGES, labels, num_steps=NUM_STEPS, seed=0)
    else:
        sample = benchmark.pytorch_ddim(benchmark.pytorch_unet(), NoiseSchedule(), NUM_STEPS)
        x_T = np.random.default_rng(0).standard_normal((NUM_IMAGES, *shape), "float32")

        def generate():
            sample(x_T, np.arange(NUM_IMAGES) % 10)

    generate()
    return timed(generate), peak() - before


def measure_pixelcnn(program, size, folder):
    """Return the seconds of 16 images, and the peak memory."""
    import tensorflow as tf

    from keras_genai import recipes

    before, shape = peak(), (int(size), int(size), 1)
    model = recipes.create("article3-pixelcnn", image_shape=shape)
    if program == "keras_genai":
        model.generate(NUM_IMAGES, seed=0)
        return timed(lambda: model.generate(NUM_IMAGES, seed=1)), peak() - before
    network = tf.function(model)
    images = tf.zeros((NUM_IMAGES, *shape))

    def generate_pixels(count):
        for _ in range(count):
            network(images).numpy()

    generate_pixels(2)
    seconds = timed(generate_pixels, TIMED_PIXELS) / TIMED_PIXELS * int(size) ** 2
    return seconds, peak() - before


def random_images(count):
    import numpy as np

    return np.random.default_rng(0).random((count, 28, 28, 1), "float32")


def measure_training(name):
    """Return the number of parameters, and the peak memory of a few steps with a recipe's data."""
    import scaling

    from keras_genai.catalog import RECIPES

    before = peak()
    model, dataset = scaling.load(name, RECIPES[name].batch_size)
    model.fit(dataset.take(TRAINING_STEPS), shuffle=False, verbose=0)
    return model.count_params(), peak() - before


def measure_sampling(name):
    """Return the peak memory of five calls, and by how much fifteen more raise it."""
    from keras_genai import pretrained

    before = peak()
    model = pretrained.load(name)
    for _ in range(5):
        FAMILIES[name](model)
    after_five = peak()
    for _ in range(15):
        FAMILIES[name](model)
    return after_five - before, peak() - after_five


MEASUREMENTS = {
    "checkpoint": save_checkpoint,
    "sequences": measure_sequences,
    "contexts": measure_context,
    "diffusion": measure_diffusion,
    "pixelcnn": measure_pixelcnn,
    "training": measure_training,
    "sampling": measure_sampling,
}


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    main()
