"""Command line: python -m keras_genai list | train | generate | evaluate | demo.

`list` and `--help` do not load TensorFlow: the modules that need it are imported by the commands.
"""

import contextlib
import gc
import io
import os
import pathlib
import shlex
import sys
import warnings

from keras_genai import catalog, cluster
from keras_genai.arguments import (
    DIFFUSION_OPTIONS,
    UsageError,
    build_parser,
    check_encoding,
    count_tokens,
    default_prompt,
    output_path,
    reject,
    worker_arguments,
)
from keras_genai.runs import Output, check_keras_settings

SAMPLING_OPTIONS = ("temperature", "top_k", "top_p")
TEXT_OPTIONS = (*SAMPLING_OPTIONS, "sliding_window", "form")
DEFAULT_NUM_IMAGES, DEFAULT_NEW_TOKENS = 64, 400
TEXT_TEMPERATURE = 0.8
BEAM_WIDTH = 4
INPUT_ERRORS = (ValueError, OSError, ImportError)  # TimeoutError is an OSError
MAX_MESSAGE = 1000  # characters
PADDED_VOCAB_SIZE = 50304  # GPT-2's, padded to a multiple of 64


def main(arguments: list[str] | None = None) -> int:
    """Run a command line and return its exit code.

    An error of any kind is one line on the standard error.

    Args:
        arguments: List of strings, or `None` for those of the process. Defaults to `None`.

    Returns:
        0 on success, 1 if training or writing failed, 2 for invalid input, 130 after Ctrl-C.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # hide TensorFlow's log
    if not os.environ.get("KERAS_BACKEND"):
        os.environ["KERAS_BACKEND"] = "tensorflow"  # rather than the backend in keras.json
    arguments = sys.argv[1:] if arguments is None else arguments
    output, errors = Output(sys.stdout), Output(sys.stderr)
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            return _run(arguments, output)
        finally:
            output.flush()
            errors.flush()


def _run(arguments, output: Output) -> int:
    """Run a command, and turn every error into one line and an exit code."""
    try:
        options = build_parser(list_recipes, train, generate, evaluate, demo).parse_args(arguments)
        check_encoding(options)
        options.arguments = arguments
        options.line = shlex.join(["python", "-m", "keras_genai", *arguments])
        code = options.command(options)
        output.flush()
        if output.error is None or isinstance(output.error, BrokenPipeError):
            return code
        print(f"keras_genai: standard output: {output.error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        resume = " train --resume continues after the last whole epoch."
        print("\nStopped." + (resume if arguments[:1] == ["train"] else ""), file=sys.stderr)
        return 130
    except Exception as error:
        print(f"keras_genai: {_describe(error)}", file=sys.stderr)
        return 2 if isinstance(error, INPUT_ERRORS) else 1


class TrainingError(RuntimeError):
    """Training that failed after it had begun."""


def _describe(error: BaseException) -> str:
    """Return one line for an error, with the type of an unexpected one."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}."
    message = " ".join(str(error).split())
    if len(message) > MAX_MESSAGE:  # an error of TensorFlow may have a whole graph
        message = f"{message[:MAX_MESSAGE]} …"
    known = (*INPUT_ERRORS, TrainingError, FloatingPointError, cluster.LostWorkerError)
    return message if message and isinstance(error, known) else f"{type(error).__name__}: {message}"


# Commands.


def list_recipes(options) -> int:
    """Print a table of all recipes."""
    header = ("name", "article", "model", "data", "expected metric")
    rows = [
        (r.name, r.article, r.model, r.data, f"{r.metric}: {r.expected:g}")
        for r in catalog.RECIPES.values()
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    return 0


def train(options) -> int:
    """Train a recipe into its run folder, and print its metric beside the expected value."""
    recipe = catalog.find(options.name)
    if options.workers is not None:
        return _launch_workers(options)

    from keras_genai import recipes
    from keras_genai.experiments import EXPERIMENTS

    variant = f"{recipe.name}-{options.data}"  # --data tang
    if variant in catalog.RECIPES and options.data in EXPERIMENTS[recipe.name].task.named_sources:
        recipe, options.data = catalog.RECIPES[variant], None
    folder = options.output or pathlib.Path("runs") / recipe.name

    training = recipes.prepare(
        recipe.name,
        epochs=options.epochs,
        batch_size=options.batch_size,
        seed=options.seed,
        data=options.data,
        image_size=options.image_size,
        channels=options.channels,
        folder=folder,
        resume=options.resume,
        cache=options.cache,
        distribute=options.distribute,
        dtype=options.dtype,
        jit_compile=options.jit_compile,
        command=options.line,
    )
    if not training.is_first:
        training.fit(verbose=0)
        training.evaluate()
        return 0
    epochs = training.settings["epochs"]
    print(
        f"{recipe.name}: {recipe.model}. {training.data.num_examples:,} "
        f"{training.task.example_unit}, {epochs} epochs."
    )
    if recipe.notes:
        print(recipe.notes)
    try:
        training.fit()
        value = training.evaluate()["value"]
    except Exception as error:
        print()  # the progress bar has no end of line
        saved = training.run.model_path
        kept = f" The last good model is {saved}." if saved.exists() else ""
        raise TrainingError(f"{_describe(error)}{kept}") from error
    if value is None:
        print(f"{recipe.metric}: not measured, since it needs a classifier of MNIST digits.")
    else:
        print(
            f"{recipe.metric}: {value:.6g} after {epochs} epochs, expected {recipe.expected:g} ± "
            f"{recipe.tolerance:g} after {recipe.epochs} on {recipe.data}."
        )
    print(f"The model, its history and samples are in {folder}.")
    return 0


def _launch_workers(options) -> int:
    """Run the command line as several workers on this machine."""
    arguments = worker_arguments(options)
    if cluster.read_cluster() is not None:
        raise UsageError("--workers: expected no TF_CONFIG, which already has the workers")
    return cluster.launch([sys.executable, "-m", "keras_genai", *arguments], options.workers)


def generate(options) -> int:
    """Generate from a pretrained model or a saved one: to a file, or text to the terminal."""
    from keras_genai import distribution
    from keras_genai.audio_vae import AudioVAE
    from keras_genai.diffusion import DDPM
    from keras_genai.language_model import CausalLM
    from keras_genai.transformer import SequentialTransformer
    from keras_genai.translation_model import TranslationModel
    from keras_genai.wavenet import WaveNet

    check_keras_settings()
    scope: contextlib.AbstractContextManager = contextlib.nullcontext()
    if options.distribute is not None:
        scope = distribution.strategy(options.distribute).scope()
    with scope:
        model = _load(options)
    if not isinstance(model, DDPM):
        reject(options, DIFFUSION_OPTIONS, "only for a diffusion model")
    if isinstance(model, TranslationModel):
        return _translate(model, options)
    if isinstance(model, SequentialTransformer) and model.is_classifier:
        return _classify(model, options)
    if not hasattr(model, "generate"):
        raise UsageError(f"{options.source}: expected a generative model, got a {model.name}")
    if isinstance(model, CausalLM):
        return _generate_text(model, options)
    if isinstance(model, (WaveNet, AudioVAE)):
        return _generate_sounds(model, options)
    return _generate_images(model, options)


def _load(options):
    """Return the model that the options name."""
    from keras_genai import load_model, pretrained
    from keras_genai.gpt2_checkpoint import load_gpt2
    from keras_genai.text import GPT2Tokenizer, check_tokenizer

    if options.weights is not None:
        if options.source != "article4-gpt2":
            raise UsageError("--weights: only for article4-gpt2")
        model = load_gpt2(options.weights)
        if model.tokenizer is None:  # the checkpoint has none
            tokenizer = GPT2Tokenizer.gpt2()
            padded = model.vocab_size <= PADDED_VOCAB_SIZE
            check_tokenizer("--weights", tokenizer, model.vocab_size, padded=padded)
            model.tokenizer = tokenizer
        return model
    if options.source.endswith(".keras"):
        return load_model(options.source)
    return pretrained.load(catalog.find(options.source).name)


def _translate(model, options) -> int:
    """Translate the lines of a text by beam search."""
    reject(options, ("count", "label", "length", *TEXT_OPTIONS), "not for translation")
    if options.prompt is None:
        raise UsageError("--prompt: expected a text to translate")
    lines = [line for line in options.prompt.splitlines() if line.strip()]
    if not lines:
        raise UsageError("--prompt: expected a text to translate, got a blank one")
    translations = model.translate(lines, beam_width=BEAM_WIDTH)
    return _write((line + "\n" for line in translations), options.output)


def _classify(model, options) -> int:
    """Write the classes of a text with their probabilities, the likeliest first."""
    reject(options, ("count", "label", "length", *TEXT_OPTIONS), "not for classification")
    if options.prompt is None:
        raise UsageError("--prompt: expected a text to classify")
    _, probabilities = model.classify(options.prompt)
    names = model.class_names or range(len(probabilities))
    ranking = sorted(zip(probabilities, names, strict=True), reverse=True)
    return _write((f"{p:6.1%}  {name}\n" for p, name in ranking), options.output)


def _generate_images(model, options) -> int:
    from keras_genai.callbacks import save_figure
    from keras_genai.plotting import plot_images

    refused = ("label", "only for a class-conditional model")
    refused = refused if hasattr(model, "example_prompts") else ("prompt", "only for a text model")
    reject(options, refused[:1], refused[1])
    reject(options, ("sliding_window", "form"), "only for a text model")
    reject(options, ("length", *SAMPLING_OPTIONS), "only for a text or sound model")
    output, num_samples = output_path(options, ".png"), options.count or DEFAULT_NUM_IMAGES
    given = ((argument, getattr(options, name)) for name, argument in DIFFUSION_OPTIONS.items())
    sampling = {argument: value for argument, value in given if value is not None}
    labels = _labels(model, options, num_samples)
    images = model.generate(num_samples, labels, seed=options.seed, **sampling)
    save_figure(plot_images(images), output)
    print(output)
    return 0


def _generate_sounds(model, options) -> int:
    """Write sounds to one file, one after another."""
    from keras_genai.audio import save_wav
    from keras_genai.tasks import SOUND_TEMPERATURE
    from keras_genai.wavenet import WaveNet

    reject(options, ("prompt", "sliding_window", "form"), "only for a text model")
    sampling = {}
    if isinstance(model, WaveNet):
        sampling = {"length": options.length, "sampler": _sampler(options, SOUND_TEMPERATURE)}
    else:
        reject(options, ("length", *SAMPLING_OPTIONS), "not for a VAE")
    output, num_samples = output_path(options, ".wav"), options.count or model.num_classes or 1
    labels = _labels(model, options, num_samples)
    sounds = model.generate(num_samples, labels, seed=options.seed, **sampling)
    save_wav(output, sounds.reshape(-1), model.sample_rate)
    print(output)
    return 0


def _generate_text(model, options) -> int:
    """Write texts, each piece as soon as it is generated."""
    from keras_genai.forms import form_tokens
    from keras_genai.music import first_tune
    from keras_genai.tasks.music import MAX_NEW_CHARACTERS, check_music_path, save_music
    from keras_genai.text import ABCTokenizer

    reject(options, ("label",), "only for a class-conditional model")
    if model.tokenizer is None:
        raise UsageError(f"{options.source}: expected a model with a tokenizer, to generate text")
    is_music = isinstance(model.tokenizer, ABCTokenizer)
    if is_music and options.output is not None:
        check_music_path(options.output, options.count or 1)
    prompt = default_prompt(model.tokenizer) if options.prompt is None else options.prompt
    default_length = MAX_NEW_CHARACTERS if is_music else DEFAULT_NEW_TOKENS
    length, allowed_tokens = options.length or default_length, None
    if options.form is not None:
        reject(options, ("length",), "not with --form, which has a length")
        allowed_tokens = form_tokens(options.form, model.tokenizer)
        options.length = length = len(allowed_tokens)
    if model.context_length is not None and not options.sliding_window:
        room = model.context_length - count_tokens(model.tokenizer, prompt)
        if room < 1:
            raise UsageError(
                f"--prompt: expected at most {model.context_length - 1} tokens, so that at least "
                f"one is generated, got {model.context_length - room}; --sliding-window "
                "continues beyond the context"
            )
        if options.length is None:
            length = min(length, room)
    sampler = _sampler(options, TEXT_TEMPERATURE)
    streams = [
        model.stream(
            prompt,
            length,
            sampler=sampler,
            seed=options.seed + i,
            sliding_window=options.sliding_window is not None,
            allowed_tokens=allowed_tokens,
        )
        for i in range(options.count or 1)
    ]
    if is_music:
        streams = [first_tune(stream, prompt) for stream in streams]
    first_piece = next(streams[0], "")  # invalid input is reported before a file is opened
    separator = "\n" if is_music else "-" * 40 + "\n"

    def pieces():
        for i, stream in enumerate(streams):
            yield separator if i > 0 else ""
            yield prompt.lstrip("\n")
            yield first_piece if i == 0 else ""
            yield from stream
            yield "\n"

    return _write(pieces(), options.output, save_music if is_music else None)


def evaluate(options) -> int:
    """Print tables of the quality and speed of models, and plot those of images."""
    if bool(options.sources) == options.all:
        raise UsageError("evaluate: expected names or files of models, or --all")
    if options.output is not None and options.output.suffix != ".png":
        raise UsageError(
            f"--output: expected a name that ends in .png, got {str(options.output)!r}"
        )

    from keras_genai import evaluation, pretrained, quality_report
    from keras_genai.callbacks import save_figure

    check_keras_settings()
    names = set(pretrained.names())
    sources = (
        [name for name in catalog.RECIPES if name in names] if options.all else options.sources
    )
    candidates = [evaluation.open_model(source) for source in sources]
    if not any(candidate.makes_images for candidate in candidates):
        reject(options, ("samples", "output"), "only for a model of images")
    rows = []
    for i, candidate in enumerate(candidates):
        print(f"{candidate.name}: {i + 1} of {len(candidates)} …", file=sys.stderr)
        rows.append(evaluation.evaluate(candidate, options.samples, options.seed))
    if options.all:
        rows.insert(0, evaluation.training_images_row())
    if options.output is not None:
        images = [row for row in rows if isinstance(row, quality_report.ImageRow)]
        save_figure(quality_report.plot_quality(images), options.output)
    print((quality_report.to_json if options.json else quality_report.to_table)(rows), end="")
    return 0


def demo(options) -> int:
    """Serve the page of the demo until Ctrl-C."""
    check_keras_settings()
    from keras_genai.demo import server

    return server.serve(options.host, options.port, not options.no_browser)


# Options of several commands.


def _labels(model, options, num_samples):
    """Return the class or prompt of all samples, or all classes or example prompts in turn."""
    from keras_genai.tasks import cycle_labels
    from keras_genai.text_to_image import tokenize

    if options.prompt is not None:
        tokenize([options.prompt], model.vocabulary, model.max_words, "--prompt")
        return options.prompt
    return cycle_labels(model, num_samples) if options.label is None else options.label


def _sampler(options, temperature):
    """Return the sampling options, with a default temperature."""
    from keras_genai.autoregressive import Sampler

    if options.temperature is not None:
        temperature = options.temperature
    return Sampler(temperature, options.top_k, options.top_p)


def _write(pieces, output, save=None) -> int:
    """Write a text piece by piece to the terminal, or to a file: with `save`, if not `None`."""
    from keras_genai.files import save_text

    if output is not None:
        text = "".join(pieces)
        try:
            (save or save_text)(output, text)
        except ValueError:  # a tune that cannot be played: its text is not lost
            print(text, end="")
            raise
        print(output)
        return 0
    for piece in pieces:
        print(piece, end="", flush=True)
        if getattr(sys.stdout, "error", None) is not None:
            break  # nobody reads on
    return 0


if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # characters the terminal lacks become "?"
    warnings.formatwarning = lambda message, *_: f"keras_genai: {message}\n"
    # Compiled functions are many objects and little garbage, which took 0.7 s to look for.
    gc.set_threshold(100_000, 50, 50)
    exit_code = main()
    gc.freeze()  # it took another second at the end
    sys.exit(exit_code)
