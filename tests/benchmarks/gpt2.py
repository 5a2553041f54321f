"""Tokens per second of GPT-2 here, in transformers and in keras-hub, in alternation.

    pip install ".[benchmark]"
    python tests/benchmarks/gpt2.py generation [--pairs 5]
    python tests/benchmarks/gpt2.py context
    python tests/benchmarks/gpt2.py training [--pairs 5]
    python tests/benchmarks/gpt2.py precision

generation: one sequence, greedy, 64 tokens after a prompt of 16, in the published size (124M) and
in 6 layers of 192 with the published vocabulary. All programs have the same random weights, and
each has a process of its own. The line of each says whether it generates the same tokens, as all
but int8 weights must. keras-hub runs with its default compilation, and with XLA.
context: seconds per token after 64, 256 and 1,024 tokens, and for a prompt of 1,000 tokens.
training: tokens per second of 6 layers of 192 with 2,048 tokens, here and in PyTorch.
precision: speed of the published size for 1, 4 and 16 texts, and held-out nats of the pretrained
`article4-gpt2`, with float32, bfloat16 and int8 weights.

The first run of each program is not timed: it compiles.
"""

import argparse
import concurrent.futures
import contextlib
import functools
import multiprocessing
import operator
import os
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Before TensorFlow: loaded after it, the optimizers of a CUDA build of PyTorch crash.
import torch._dynamo  # noqa: F401

# isort: split

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import tensorflow as tf

from keras_genai.autoregressive import GREEDY
from keras_genai.gpt2 import build_gpt2
from keras_genai.gpt2_checkpoint import load_gpt2, save_gpt2

SIZES = {"124M": {}, "6 x 192": {"num_layers": 6, "num_heads": 6, "d_model": 192}}
PROMPT_LENGTH, MAX_NEW_TOKENS = 16, 64


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", choices=("generation", "context", "training", "precision"))
    parser.add_argument("--pairs", type=int, default=5, help="number of timed runs [5]")
    options = parser.parse_args()
    modes = {"generation": generation, "context": context, "training": training}
    {**modes, "precision": precision}[options.mode](options)


def build_model(**size):
    """Build a model with weights large enough that its greedy text does not repeat one token."""
    keras.utils.set_random_seed(0)
    model = build_gpt2(**size)
    for weight in model.trainable_variables:
        if len(weight.shape) == 2:
            weight.assign(3 * weight)
    return model


def generation(options):
    for name, size in SIZES.items():
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            save_checkpoint(build_model(**size), folder)
            # Threads of one program that wait would slow down the others of the same process.
            processes = {
                program: stack.enter_context(
                    concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
                )
                for program in PROGRAMS
            }
            prompt, texts = random_tokens(1, PROMPT_LENGTH), {}
            columns = {program: [] for program in PROGRAMS}
            for program, process in processes.items():
                process.submit(create_program, program, folder).result()
                _, texts[program] = process.submit(run_program, prompt).result()
                equal = np.array_equal(texts[program], texts["here"])
                print(f"{name}, {program}: {'the same' if equal else 'OTHER'} tokens", flush=True)
            for _ in range(options.pairs):
                for program, process in processes.items():
                    columns[program].append(process.submit(run_program, prompt).result()[0])
        for program, column in columns.items():
            ratios = sorted(map(operator.truediv, column, columns["here"]))
            print(
                f"{name}, {program}: {MAX_NEW_TOKENS / statistics.median(column):.1f} tokens per "
                f"second; here {statistics.median(ratios):.2f} times as fast "
                f"(from {ratios[0]:.2f} to {ratios[-1]:.2f})",
                flush=True,
            )


def create_program(name, folder):
    """Create a program in this process, of which it is the only one."""
    global the_program
    the_program = PROGRAMS[name](folder)


def run_program(prompt):
    """Return the seconds of the program of this process, the median of 3 runs, and its tokens."""
    time.sleep(0.5)  # until the threads of the program before sleep
    seconds = [timed(the_program, prompt, MAX_NEW_TOKENS) for _ in range(3)]
    return statistics.median(seconds), the_program(prompt, MAX_NEW_TOKENS)


def timed(function, *arguments, **keywords) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    function(*arguments, **keywords)
    return time.perf_counter() - start


def random_tokens(num_texts, length):
    return np.random.default_rng(0).integers(0, 50257, (num_texts, length))


def save_checkpoint(model, folder):
    """Save a model for all programs. CTranslate2 has tokens that are the decimals of their ids."""
    import ctranslate2
    import tokenizers
    import transformers

    save_gpt2(model, folder)
    vocabulary = {str(token): token for token in range(50257)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="0"))
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="0", bos_token="0", eos_token="0"
    ).save_pretrained(folder)
    converter = ctranslate2.converters.TransformersConverter(folder)
    converter.convert(os.path.join(folder, "ctranslate2"))


# Programs: functions of tokens (B, T) and a number n, which return the tokens (B, T + n).


def keras_genai_program(model):
    return lambda prompts, count: model.generate(prompts, count, sampler=GREEDY)


def transformers_program(folder):
    import torch
    from transformers import GPT2LMHeadModel

    model = GPT2LMHeadModel.from_pretrained(folder).eval()
    options = {"do_sample": False, "pad_token_id": 0, "eos_token_id": None}

    def run(prompts, count):
        tokens = torch.tensor(prompts)
        with torch.inference_mode():
            mask = torch.ones_like(tokens)
            return model.generate(
                tokens, attention_mask=mask, max_new_tokens=count, **options
            ).numpy()

    return run


def keras_hub_program(folder, **compile_options):
    import keras_hub

    backbone = keras_hub.models.GPT2Backbone.from_preset(folder)
    model = keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)
    model.compile(sampler="greedy", **compile_options)

    def run(prompts, count):
        num_texts, prompt_length = prompts.shape
        tokens = np.pad(prompts, ((0, 0), (0, count))).astype("int32")
        mask = np.tile(np.arange(prompt_length + count) < prompt_length, (num_texts, 1))
        inputs = {"token_ids": tokens, "padding_mask": mask}
        return np.asarray(model.generate(inputs, stop_token_ids=None)["token_ids"])

    return run


def ctranslate2_program(folder, compute_type):
    import ctranslate2

    generator = ctranslate2.Generator(
        os.path.join(folder, "ctranslate2"),
        compute_type=compute_type,
        intra_threads=os.cpu_count(),
    )

    def run(prompts, count):
        # Its lengths count the steps, of which there is one for each token but the last.
        num_steps = prompts.shape[1] + count - 1
        results = generator.generate_batch(
            [[str(token) for token in prompt] for prompt in prompts],
            min_length=num_steps,
            max_length=num_steps,
            sampling_topk=1,
            end_token=[],
        )
        return np.array([result.sequences_ids[0] for result in results])

    return run


PROGRAMS = {
    "here": lambda folder: keras_genai_program(load_gpt2(folder, tokenizer=None)),
    "transformers": transformers_program,
    "keras-hub": keras_hub_program,
    "keras-hub with XLA": functools.partial(keras_hub_program, jit_compile=True),
    "CTranslate2": functools.partial(ctranslate2_program, compute_type="float32"),
    "CTranslate2 with int8": functools.partial(ctranslate2_program, compute_type="int8_float32"),
}


def context(options):
    model = build_model()
    tokens = random_tokens(1, 1024)

    def generate(prompt, max_new_tokens):
        model.generate(prompt, max_new_tokens, sampler=GREEDY)

    for length in (64, 256, 1024):
        prompt = tokens[:, : length - 32]
        generate(prompt, 32)
        generate(prompt, 1)
        pairs = [
            (timed(generate, prompt, 32), timed(generate, prompt, 1)) for _ in range(options.pairs)
        ]
        per_token = statistics.median((long - short) / 31 for long, short in pairs)
        print(f"{length} tokens: {1e3 * per_token:.1f} ms per token", flush=True)
    seconds = [timed(generate, tokens[:, :1000], 1) for _ in range(options.pairs + 1)]
    print(f"a prompt of 1,000 tokens and one more: {statistics.median(seconds[1:]):.2f} s")


def training(options):
    """Train both on the same batch of 16 windows of 256, with dropout, AdamW and clipping."""
    windows = np.random.default_rng(0).integers(0, 2048, (16, 257))
    steps = 10
    model = build_gpt2(2048, 256, 6, 6, 192, dropout=0.1)
    model.compile(
        keras.optimizers.AdamW(1e-3, weight_decay=0.1, global_clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    batch = tuple(tf.constant(part, tf.int32) for part in (windows[:, :-1], windows[:, 1:]))
    dataset = tf.data.Dataset.from_tensors(batch).repeat(steps)
    dataset_options = tf.data.Options()
    dataset_options.autotune.enabled = False  # its thread delays the end of an epoch
    dataset = dataset.with_options(dataset_options)
    programs = (
        lambda: model.fit(dataset, verbose=0),
        pytorch_training(model.config, windows, steps),
    )
    for program in programs:
        program()
    pairs = [[timed(program) for program in programs] for _ in range(options.pairs)]
    keras_speed, pytorch_speed = (
        16 * 256 * steps / statistics.median(column) for column in zip(*pairs, strict=True)
    )
    ratios = sorted(pytorch_seconds / keras_seconds for keras_seconds, pytorch_seconds in pairs)
    print(
        f"training: {keras_speed:.0f} tokens per second, PyTorch {pytorch_speed:.0f}, "
        f"{statistics.median(ratios):.2f} times as fast (from {ratios[0]:.2f} to {ratios[-1]:.2f})"
    )


def pytorch_training(config, windows, steps):
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), config["dropout"])
    pytorch_config = GPT2Config(
        vocab_size=config["vocab_size"],
        n_positions=config["context_length"],
        n_embd=config["d_model"],
        n_layer=config["num_layers"],
        n_head=config["num_heads"],
        **dropout,
    )
    model = GPT2LMHeadModel(pytorch_config).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.1)
    tokens = torch.tensor(windows, dtype=torch.long)

    def run():
        for _ in range(steps):
            optimizer.zero_grad()
            logits = model(tokens[:, :-1], use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    return run


def precision(options):
    from keras_genai import pretrained
    from keras_genai.experiments import EXPERIMENTS

    task = EXPERIMENTS["article4-gpt2"].task
    data = task.load()
    dtypes = ("float32", "bfloat16", "int8")
    models = {dtype: convert(build_model(), dtype) for dtype in dtypes}
    for num_texts in (1, 4, 16):
        prompt = random_tokens(num_texts, PROMPT_LENGTH)
        seconds = {dtype: [] for dtype in dtypes}
        for pair in range(options.pairs + 1):
            for dtype, model in models.items():
                duration = timed(model.generate, prompt, MAX_NEW_TOKENS, sampler=GREEDY)
                if pair > 0:  # the first one compiles
                    seconds[dtype].append(duration)
        for dtype, column in seconds.items():
            ratios = sorted(map(operator.truediv, seconds["float32"], column))
            print(
                f"{num_texts} texts, {dtype}: "
                f"{num_texts * MAX_NEW_TOKENS / statistics.median(column):.1f} tokens per second, "
                f"{statistics.median(ratios):.2f} times as fast as float32 "
                f"(from {ratios[0]:.2f} to {ratios[-1]:.2f})",
                flush=True,
            )
    for dtype in dtypes:
        results = task.evaluate(convert(pretrained.load("article4-gpt2"), dtype), data)
        print(f"{dtype}: {results['value']:.4f} nats per character", flush=True)


def convert(model, dtype):
    """Return the model with weights of a dtype: float32, bfloat16 or int8."""
    if dtype == "int8":
        model.quantize("int8")
    if dtype != "bfloat16":
        return model
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        converted = type(model)(**{**model.config, "tokenizer": model.tokenizer})
    finally:
        keras.config.set_dtype_policy(policy)
    converted.set_weights(model.get_weights())
    return converted


if __name__ == "__main__":
    main()
