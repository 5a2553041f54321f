"""Command line: python -m keras_genai list | train | generate.

`list` and `--help` answer without loading TensorFlow; it is imported where a command needs it.
"""

import argparse
import csv
import datetime
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import sys
import time

from keras_genai.recipes import RECIPES, Recipe


def main(arguments: list[str] | None = None) -> int:
    """Run a command line; return its exit code: 0, 1 at NaN, 2 for bad input, 130 at Ctrl-C."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # hide TensorFlow's log
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        options = _parser().parse_args(arguments)
        options.line = shlex.join(["python", "-m", "keras_genai", *arguments])
        return options.command(options)
    except UsageError as error:
        print(f"keras_genai: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped. train --resume goes on after the last whole epoch.", file=sys.stderr)
        return 130


class UsageError(ValueError):
    """Input that a command cannot work with: reported in one line."""


class Parser(argparse.ArgumentParser):
    """A parser that reports a bad command line as `main` reports all bad input."""

    def error(self, message):
        raise UsageError(message)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m keras_genai",
        description="Train the generative models of the articles, and draw from them.",
    )
    commands = parser.add_subparsers(required=True, metavar="list | train | generate")

    command = commands.add_parser("list", help="name every recipe, with the figure to expect")
    command.set_defaults(command=list_recipes)

    command = commands.add_parser("train", help="train a recipe")
    command.add_argument("name", help="of a recipe: see list")
    command.add_argument("--epochs", type=_count, metavar="N", help="instead of the recipe's")
    command.add_argument("--batch-size", type=_count, metavar="N", help="instead of the recipe's")
    command.add_argument("--seed", type=_seed, metavar="N", help="of weights, order and noise [0]")
    command.add_argument("--output", type=pathlib.Path, metavar="DIR", help="[runs/NAME]")
    command.add_argument(
        "--data",
        metavar="FOLDER-OR-FILE",
        help="your own images or WAV files (a folder a class), text, or CSV file with a heading",
    )
    command.add_argument("--resume", action="store_true", help="go on after the last whole epoch")
    command.set_defaults(command=train)

    command = commands.add_parser(
        "generate",
        help="draw images to a PNG file or sounds to a WAV file, write or translate text",
    )
    command.add_argument("source", metavar="NAME-OR-FILE.keras", help="shipped weights, or a file")
    command.add_argument(
        "--count", type=_count, metavar="N", help="images [64], sounds [1 a class], texts [1]"
    )
    command.add_argument("--seed", type=_seed, default=0, metavar="N", help="of the noise [0]")
    command.add_argument(
        "--output", type=pathlib.Path, metavar="FILE", help="[NAME.png or .wav; a text is printed]"
    )
    command.add_argument(
        "--guidance-scale",
        type=float,
        metavar="W",
        help="diffusion: how much to insist on labels [0]",
    )
    command.add_argument("--steps", type=_count, metavar="N", help="diffusion: from noise [50]")
    command.add_argument("--label", type=_seed, metavar="K", help="class of all, else all in turn")
    command.add_argument(
        "--prompt", metavar="TEXT", help="text: what it begins with [a new line, if known]"
    )
    command.add_argument(
        "--length",
        type=_count,
        metavar="N",
        help="text: tokens to add [400]; sound: samples [a second]",
    )
    command.add_argument(
        "--temperature", type=float, metavar="T", help="text [0.8] and sound [0.9]: see Sampler"
    )
    command.add_argument(
        "--top-k", type=_count, metavar="K", help="text and sound: see Sampler [all]"
    )
    command.add_argument("--top-p", type=float, metavar="P", help="text and sound: see Sampler [1]")
    command.add_argument(
        "--weights", metavar="NAME-OR-FOLDER", help="article4-gpt2: published ones, such as gpt2"
    )
    command.set_defaults(command=generate)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(
            f"expected a whole number from 0 to 2^31 - 1, got {text!r}"
        )
    return int(text)


def list_recipes(options) -> int:
    """Print a table of all recipes."""
    heads = ("name", "article", "model", "data", "expected figure")
    rows = [
        (r.name, r.article, r.model, r.task.data, f"{r.figure}: {r.expected:g}")
        for r in RECIPES.values()
    ]
    widths = [max(map(len, column)) for column in zip(heads, *rows)]
    for row in (heads, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    return 0


def train(options) -> int:
    """Train a recipe into its output folder, and print its figure beside the expected one."""
    recipe = _recipe(options.name)
    if f"{recipe.name}-{options.data}" in RECIPES:  # --data tang
        recipe, options.data = RECIPES[f"{recipe.name}-{options.data}"], None
    folder = options.output or pathlib.Path("runs") / recipe.name
    run = _settings(recipe, folder, options)
    data = _load_data(recipe, run)

    import keras
    import tensorflow as tf

    from keras_genai import load_model
    from keras_genai.callbacks import SaveEachEpoch, StopAtNaN

    saved = folder / "model.keras"
    if options.resume and saved.exists():
        model = _checked(load_model, saved)
        _set_pace(model.optimizer, recipe.count_steps(run))
        first_epoch = int(model.optimizer.iterations) // recipe.count_steps(run, epochs=1)
        run["epochs"] = max(run["epochs"], first_epoch)
    else:
        model = recipe.create(run["seed"], recipe.count_steps(run), **data.facts)
        first_epoch = 0
    _start_files(folder, run, first_epoch)
    print(
        f"{recipe.name}: {recipe.model}. {data.count:,} {recipe.task.unit}, {run['epochs']} epochs."
    )
    if recipe.choices:
        print(recipe.choices)

    epoch = tf.Variable(first_epoch, dtype=tf.int64)
    callbacks = [
        keras.callbacks.LambdaCallback(on_epoch_begin=lambda number, logs: epoch.assign(number)),
        StopAtNaN(),
        keras.callbacks.CSVLogger(folder / "history.csv", append=True),
        SaveEachEpoch(saved),
        *recipe.task.callbacks(folder, model),
    ]
    started = time.monotonic()
    try:
        model.fit(
            recipe.task.batches(data, run["batch_size"], run["seed"], epoch),
            epochs=run["epochs"],
            initial_epoch=first_epoch,
            shuffle=False,  # the batches are
            callbacks=callbacks,
            **recipe.task.validation(data),
        )
    except FloatingPointError as error:
        print(f"\nkeras_genai: {error}", file=sys.stderr)
        return 1
    run["minutes"] = round(run["minutes"] + (time.monotonic() - started) / 60, 1)
    _draw_history(folder)
    recipe.task.draw(model, data, folder)
    run |= _measure(recipe, model, run, data)
    _replace(folder / "run.json", json.dumps(run, indent=2) + "\n")
    print(f"Model, history and pictures are in {folder}.")
    return 0


def generate(options) -> int:
    """Draw from shipped weights or a file of one's own: to a file, or text to the screen."""
    from keras_genai import load_model, pretrained
    from keras_genai.diffusion import DDPM
    from keras_genai.text import LanguageModel
    from keras_genai.transformer import Seq2SeqTransformer
    from keras_genai.wavenet import WaveNet

    if options.weights is not None:
        model = _load_gpt2(options)
    elif options.source.endswith(".keras"):
        model = _checked(load_model, options.source)
    else:
        model = _checked(pretrained.load, _recipe(options.source).name)
    if not isinstance(model, DDPM):
        _refuse(options, ("guidance_scale", "steps"), "for a diffusion model")
    if isinstance(model, Seq2SeqTransformer):
        return _translate(model, options)
    if not hasattr(model, "generate"):
        raise UsageError(f"{options.source}: a {model.name}, which generates nothing")
    if isinstance(model, LanguageModel):
        return _generate_text(model, options)
    if isinstance(model, WaveNet):
        return _generate_sounds(model, options)
    return _generate_images(model, options)


def _load_gpt2(options):
    from keras_genai.checkpoints import load_gpt2
    from keras_genai.text import GPT2Tokenizer

    if options.source != "article4-gpt2":
        raise UsageError("--weights: for article4-gpt2")
    return _checked(load_gpt2, options.weights, _checked(GPT2Tokenizer.gpt2))


def _translate(model, options) -> int:
    """Translate a text, or the lines of a text, by beam search."""
    _refuse(options, ("count", "label", "length", *SAMPLER), "for a model that draws")
    if options.prompt is None:
        raise UsageError("--prompt: expected a text to translate")
    lines = [line for line in options.prompt.splitlines() if line.strip()]
    return _write((line + "\n" for line in _checked(model.translate, lines, 4)), options.output)


SAMPLER = ("temperature", "top_k", "top_p")


def _sampler(options, temperature):
    """Return what the options ask for, at this temperature if they name none."""
    from keras_genai.autoregressive import Sampler

    if options.temperature is not None:
        temperature = options.temperature
    return Sampler(temperature, options.top_k, options.top_p)


def _generate_images(model, options) -> int:
    from keras_genai.plotting import plot_images
    from keras_genai.tasks import labels_in_turn

    _refuse(options, ("prompt",), "for a model that writes text")
    _refuse(options, ("length", *SAMPLER), "for a model that writes text or makes sounds")
    output, count = _output(options, ".png"), options.count or 64
    labels = labels_in_turn(model, count) if options.label is None else options.label
    settings = {"guidance_scale": options.guidance_scale, "num_steps": options.steps}
    settings = {name: value for name, value in settings.items() if value is not None}
    draw = functools.partial(model.generate, count, labels, seed=options.seed, **settings)
    images = _checked(draw)
    _checked(_checked(plot_images, images).savefig, output)
    print(output)
    return 0


def _generate_sounds(model, options) -> int:
    """Write sounds to a file, one after another."""
    from keras_genai.audio import save_wav
    from keras_genai.tasks import SOUND_TEMPERATURE, labels_in_turn

    _refuse(options, ("prompt",), "for a model that writes text")
    output, count = _output(options, ".wav"), options.count or model.num_classes or 1
    labels = labels_in_turn(model, count) if options.label is None else options.label
    length = options.length or model.sample_rate
    sampler = _sampler(options, SOUND_TEMPERATURE)
    sounds = _checked(model.generate, count, length, labels, options.seed, sampler)
    _checked(save_wav, output, sounds.reshape(-1), model.sample_rate)
    print(output)
    return 0


def _output(options, suffix: str) -> pathlib.Path:
    """Return the name of the file to write."""
    output = options.output or pathlib.Path(f"{pathlib.Path(options.source).stem}{suffix}")
    if output.suffix != suffix:
        raise UsageError(f"--output: expected a name that ends in {suffix}, got {str(output)!r}")
    return output


def _generate_text(model, options) -> int:
    """Write texts, each piece as soon as it is drawn."""
    _refuse(options, ("label",), "for a model that is told a class")
    sampler = _sampler(options, 0.8)
    prompt = _first_text(model.tokenizer) if options.prompt is None else options.prompt
    length = options.length or 400
    if options.length is None and model.context_length is not None:
        length = min(length, model.context_length - len(_checked(model.tokenizer.encode, prompt)))
    streams = [
        model.stream(prompt, length, sampler, options.seed + i) for i in range(options.count or 1)
    ]
    # What is wrong with the input shows here, before a file is touched.
    first = _checked(next, streams[0])

    def pieces():
        for i, stream in enumerate(streams):
            yield "-" * 40 + "\n" if i > 0 else ""
            yield prompt.lstrip("\n")
            yield first if i == 0 else ""
            yield from stream
            yield "\n"

    return _write(pieces(), options.output)


def _write(pieces, output) -> int:
    """Write a text piece by piece, to the screen or to a file."""
    if output is not None:
        _checked(output.write_text, "".join(pieces), "utf-8")
        print(output)
        return 0
    for piece in pieces:
        print(piece, end="", flush=True)
    return 0


def _first_text(tokenizer) -> str:
    """Return what a text begins with if nothing is given: a new line, or else the first token."""
    if tokenizer is None:
        raise UsageError("expected a model with a tokenizer, since text is asked for")
    try:
        tokenizer.encode("\n")
        return "\n"
    except ValueError:
        return tokenizer.decode([0])


def _refuse(options, names, reason: str) -> None:
    """Raise UsageError if an option was given that is for another kind of model."""
    for name in names:
        if getattr(options, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')}: {reason}")


def _checked(function, *arguments):
    """Call the function; what it has to say against its input becomes one line on the terminal."""
    try:
        return function(*arguments)
    except (ValueError, OSError, ImportError) as error:
        raise UsageError(" ".join(str(error).split())) from error


def _recipe(name: str) -> Recipe:
    if name not in RECIPES:
        raise UsageError(f"{name}: no such recipe; expected one of {', '.join(RECIPES)}")
    return RECIPES[name]


def _settings(recipe: Recipe, folder: pathlib.Path, options) -> dict:
    """Return the settings of this run; one that goes on keeps those that it began with."""
    given = {"batch_size": options.batch_size, "seed": options.seed}
    given["data"] = options.data
    if options.data is not None and options.data not in recipe.task.names:
        given["data"] = str(pathlib.Path(options.data).resolve())
    default = {"batch_size": recipe.batch_size, "seed": 0, "data": None}
    default |= {"epochs": recipe.epochs, "minutes": 0.0, "command": options.line}
    known = _read_run(folder)
    if known is not None and known["name"] != recipe.name:
        raise UsageError(f"{folder}: holds a run of {known['name']}, not of {recipe.name}")
    if options.resume:
        if known is None:
            raise UsageError(f"{folder}: nothing to resume; train without --resume first")
        for key, value in given.items():
            if value not in (None, known[key]):
                flag = key.replace("_", "-")
                raise UsageError(f"--{flag}: the run was started with {known[key]}, got {value}")
        default |= known
    elif known is not None and "measured" not in known and (folder / "model.keras").exists():
        raise UsageError(
            f"{folder}: holds an unfinished run; --resume goes on with it, --output leaves it alone"
        )
    given["epochs"] = options.epochs
    chosen = {key: value for key, value in given.items() if value is not None}
    return {"name": recipe.name, **default, **chosen}


def _read_run(folder: pathlib.Path) -> dict | None:
    """Return what is known of the run in a folder, None if there is none."""
    path = folder / "run.json"
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from error


def _load_data(recipe: Recipe, run: dict):
    """Return the recipe's data, or the user's; a run that goes on must find what it began with."""
    data = _checked(recipe.task.load, run["data"])
    if run.setdefault("count", data.count) != data.count:
        counts = f"{run['count']} {recipe.task.unit}, not {data.count}"
        raise UsageError(f"{run['data']}: it began with {counts}")
    if run.setdefault("facts", data.facts) != data.facts:
        raise UsageError(f"{run['data']}: it began with other {', '.join(data.facts)}")
    return data


def _set_pace(optimizer, steps: int) -> None:
    """Let a learning rate that decays reach its end with the epochs that are asked for now."""
    from keras.optimizers import schedules

    rate = optimizer.get_config()["learning_rate"]
    if isinstance(rate, dict) and rate["config"].get("decay_steps"):
        rate["config"]["decay_steps"] = steps
        optimizer.learning_rate = schedules.deserialize(rate)


def _start_files(folder: pathlib.Path, run: dict, first_epoch: int) -> None:
    """Write the settings, set an old model aside, cut a history to what the model has seen."""
    run["started"] = datetime.datetime.now().isoformat(timespec="seconds")
    run["versions"] = {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("tensorflow", "keras", "numpy")},
    }
    run.pop("measured", None)
    history, model = folder / "history.csv", folder / "model.keras"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if first_epoch == 0:
            if model.exists():
                os.replace(model, folder / "previous-model.keras")
            for path in (history, *(folder / "samples").glob("epoch-*.png")):
                path.unlink(missing_ok=True)
        else:
            with open(history, newline="") as file:
                lines = [",".join(row) + "\n" for row in csv.reader(file) if row]
            _replace(history, "".join(lines[: 1 + first_epoch]))  # a heading, then a line an epoch
        _replace(folder / "run.json", json.dumps(run, indent=2) + "\n")
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written ({error.strerror})") from error


def _replace(path: pathlib.Path, text: str) -> None:
    """Write a file in one step: a kill leaves the old one or the new one."""
    unfinished = path.with_name(f"unfinished-{path.name}")
    unfinished.write_text(text)
    os.replace(unfinished, path)


def _draw_history(folder: pathlib.Path) -> None:
    from keras_genai.plotting import plot_history

    with open(folder / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    history = {name: [float(row[name]) for row in rows] for name in rows[0] if name != "epoch"}
    plot_history(history).savefig(folder / "history.png")


def _measure(recipe: Recipe, model, run: dict, data) -> dict:
    """Measure the recipe's figure, print it beside the expected one, and return it for run.json."""
    if recipe.task.needs_judge and data.judge is None:
        print(f"{recipe.figure}: not measured, since it takes a classifier of MNIST's digits.")
        return {"figure": recipe.figure, "measured": None}
    figures = recipe.task.measure(model, data)
    print(
        f"{recipe.figure}: measured {figures['measured']:.6g} after {run['epochs']} epochs, "
        f"expected {recipe.expected:g} ± {recipe.tolerance:g} after {recipe.epochs} on "
        f"{recipe.task.data}."
    )
    return {"figure": recipe.figure, **figures}


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # what a terminal cannot show becomes "?"
    sys.exit(main())
