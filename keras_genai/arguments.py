"""Arguments of the command line: their names, types, limits and help."""

import argparse
import pathlib

from keras_genai.runs import DTYPES

MAX_COUNT = 10_000  # samples in one file
MIN_SAMPLES, MAX_SAMPLES = 100, 100_000  # images of which the quality is measured
MAX_WORKERS = 64  # processes of one machine
MAX_PORT = 65_535
DIFFUSION_OPTIONS = {  # option: argument of `DDPM.generate`
    "guidance_scale": "guidance_scale",
    "steps": "num_steps",
    "method": "method",
    "timestep_spacing": "timestep_spacing",
}


class UsageError(ValueError):
    """Invalid input of a command, reported in one line."""


class Parser(argparse.ArgumentParser):
    """A parser that reports an invalid command line in the same way as other invalid input."""

    def error(self, message):
        raise UsageError(message)


def build_parser(list_recipes, train, generate, evaluate, demo) -> argparse.ArgumentParser:
    """Return the parser; `options.command` is the function of the command, one of the arguments."""
    parser = Parser(
        allow_abbrev=False,
        prog="python -m keras_genai",
        description="Train, sample and evaluate the generative models of the articles.",
    )
    commands = parser.add_subparsers(
        required=True, metavar="list | train | generate | evaluate | demo"
    )

    command = commands.add_parser(
        "list", allow_abbrev=False, help="list all recipes with their expected metrics"
    )
    command.set_defaults(command=list_recipes)

    command = commands.add_parser("train", allow_abbrev=False, help="train a recipe")
    command.set_defaults(command=train)
    add = command.add_argument
    add("name", help="name of a recipe: see list")
    add("--epochs", type=_positive_int, metavar="N", help="number of epochs [the recipe's]")
    add("--batch-size", type=_positive_int, metavar="N", help="batch size [the recipe's]")
    add("--seed", type=_non_negative_int, metavar="N", help="seed of weights, order and noise [0]")
    add("--output", type=pathlib.Path, metavar="DIR", help="run folder [runs/NAME]")
    add(
        "--data",
        metavar="FOLDER-OR-FILE",
        help="your own images or WAV files (one folder per class), text, or series (CSV file)",
    )
    add("--image-size", type=_positive_int, metavar="N", help="your images: height and width [28]")
    add("--channels", type=int, choices=(1, 3), help="your images: gray (1) or color (3) [1]")
    add("--resume", action="store_true", help="continue after the last whole epoch")
    add(
        "--cache",
        type=pathlib.Path,
        metavar="DIR",
        help="stream your data from their files, and keep what is decoded in this folder [off]",
    )
    add("--dtype", choices=DTYPES, help="dtype policy of the model [float32]")
    add(
        "--jit-compile",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="compile the training step with XLA, or not [the recipe's; not on several replicas]",
    )
    add(
        "--distribute",
        choices=("auto", "mirrored", "multi-worker"),
        help="train on all devices of this machine, or with the workers of TF_CONFIG [one device]",
    )
    add(
        "--workers",
        type=lambda text: _positive_int(text, maximum=MAX_WORKERS),
        metavar="N",
        help="start this number of workers on this machine [off]",
    )

    command = commands.add_parser(
        "generate",
        allow_abbrev=False,
        help="write images to a PNG file or sounds to a WAV file; continue, translate or classify "
        "text",
    )
    command.set_defaults(command=generate)
    add = command.add_argument
    add("source", metavar="NAME-OR-FILE.keras", help="pretrained model, or a saved one")
    add(
        "--count",
        type=lambda text: _positive_int(text, maximum=MAX_COUNT),
        metavar="N",
        help="number of images [64], sounds [1 per class] or texts [1]",
    )
    add("--seed", type=_non_negative_int, default=0, metavar="N", help="seed of the noise [0]")
    add(
        "--output",
        type=pathlib.Path,
        metavar="FILE",
        help="output file [NAME.png or NAME.wav; text is printed]; of tunes .abc, .mid, .wav or "
        ".png",
    )
    add(
        "--guidance-scale",
        type=float,
        metavar="S",
        help="diffusion: scale of classifier-free guidance, 1 for none [1]",
    )
    add("--steps", type=_positive_int, metavar="N", help="diffusion: sampling steps [50]")
    add(
        "--method",
        choices=("ddim", "ddpm", "dpm_solver++"),
        help="diffusion: sampler; dpm_solver++ is for few steps, such as 10 [ddim]",
    )
    add(
        "--timestep-spacing",
        choices=("trailing", "karras"),
        help="diffusion: even, or smaller steps where there is little noise [trailing]",
    )
    add(
        "--label",
        type=_non_negative_int,
        metavar="K",
        help="class of all samples [all classes in turn]",
    )
    add(
        "--prompt",
        metavar="TEXT",
        help="text: the prompt [a new line]; text to image: of all samples [examples in turn]",
    )
    add(
        "--length",
        type=_positive_int,
        metavar="N",
        help="text: number of new tokens [400; tunes: 1000]; sound: length in samples [one second]",
    )
    add(
        "--sliding-window",
        action="store_true",
        default=None,
        help="text: continue beyond the context length of the model, from its last tokens",
    )
    add(
        "--form",
        metavar="FORM",
        help="text: form of the new text, '*' for any letter, such as '*****，*****。' [off]",
    )
    add("--temperature", type=float, metavar="T", help="text [0.8] and sound [0.9]: temperature")
    add("--top-k", type=_positive_int, metavar="K", help="text and sound: top-k sampling [off]")
    add("--top-p", type=float, metavar="P", help="text and sound: nucleus sampling [off]")
    add(
        "--weights",
        metavar="NAME-OR-FOLDER",
        help="article4-gpt2: published weights instead of the pretrained ones, such as gpt2",
    )
    add(
        "--distribute",
        choices=("mirrored",),
        help="split the samples over all devices of this machine [one device]",
    )

    command = commands.add_parser(
        "evaluate", allow_abbrev=False, help="print tables of the quality and speed of models"
    )
    command.set_defaults(command=evaluate)
    add = command.add_argument
    add(
        "sources",
        nargs="*",
        metavar="NAME-OR-FILE.keras",
        help="pretrained models, or saved ones: of images of 28 × 28 gray pixels, or of a run",
    )
    add("--all", action="store_true", help="all pretrained models")
    add("--json", action="store_true", help="print JSON instead of tables")
    add(
        "--output",
        type=pathlib.Path,
        metavar="FILE.png",
        help="figure of the image models, quality over sampling time [none]",
    )
    add(
        "--samples",
        type=lambda text: _positive_int(text, MIN_SAMPLES, MAX_SAMPLES),
        metavar="N",
        help="number of generated images [diffusion: 2000, others: 10000]",
    )
    add("--seed", type=_non_negative_int, default=0, metavar="N", help="seed of the samples [0]")

    command = commands.add_parser(
        "demo", allow_abbrev=False, help="open a local page to play with all pretrained models"
    )
    command.set_defaults(command=demo)
    add = command.add_argument
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="address to listen on [127.0.0.1]")
    add(
        "--port",
        type=lambda text: _positive_int(text, maximum=MAX_PORT),
        metavar="N",
        help="port [the first free one from 7860 on]",
    )
    add("--no-browser", action="store_true", help="do not open the page in the browser")
    return parser


def worker_arguments(options) -> list[str]:
    """Return the command line of each worker: that of `options`, without `--workers`.

    Raises:
        UsageError: if the options exclude `--workers`.
    """
    if options.distribute not in (None, "multi-worker"):
        raise UsageError(f"--workers: expected --distribute multi-worker, got {options.distribute}")
    arguments, skip = [], False
    for argument in options.arguments:
        skip, skipped = argument == "--workers", skip
        if not (skip or skipped or argument.startswith("--workers=")):
            arguments.append(argument)
    return arguments if options.distribute else [*arguments, "--distribute", "multi-worker"]


def _positive_int(text: str, minimum: int = 1, maximum: int = 2**31 - 1) -> int:
    if not text.isdecimal() or len(text) > 10 or not minimum <= int(text) <= maximum:
        raise argparse.ArgumentTypeError(
            f"expected a whole number from {minimum} to {maximum}, got {text!r:.50}"
        )
    return int(text)


def _non_negative_int(text: str) -> int:
    return _positive_int(text, 0)


def reject(options, names, reason: str) -> None:
    """Raise UsageError if one of these options was given."""
    for name in names:
        if getattr(options, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')}: {reason}")


def output_path(options, suffix: str) -> pathlib.Path:
    """Return the path of the output: that of the options, or the source with another suffix."""
    output = options.output or pathlib.Path(f"{pathlib.Path(options.source).stem}{suffix}")
    if output.suffix != suffix:
        raise UsageError(f"--output: expected a name that ends in {suffix}, got {str(output)!r}")
    return output


def check_encoding(options) -> None:
    """Raise UsageError for an argument with bytes that are not UTF-8, which Python escapes."""
    for name, values in vars(options).items():
        for value in values if isinstance(values, list) else [values]:
            try:
                str(value).encode("utf-8")
            except UnicodeEncodeError as error:
                raise UsageError(f"{name}: expected a text in UTF-8, got {str(value)!r}") from error


def default_prompt(tokenizer) -> str:
    """Return the start of a tune in ABC, a new line, or the first token of another vocabulary."""
    from keras_genai.tasks.music import tune_prompt
    from keras_genai.text import ABCTokenizer

    if isinstance(tokenizer, ABCTokenizer):
        return tune_prompt(tokenizer)
    try:
        tokenizer.encode("\n")
        return "\n"
    except ValueError:
        return tokenizer.decode([0])


def count_tokens(tokenizer, prompt: str) -> int:
    """Return the number of tokens of a prompt; raise UsageError if it cannot be encoded."""
    try:
        return len(tokenizer.encode(prompt))
    except ValueError as error:
        raise UsageError(f"--prompt{str(error).removeprefix('text')}") from error
