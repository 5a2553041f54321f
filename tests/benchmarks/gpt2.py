"""Tokens per second of GPT-2 here, in transformers and in keras-hub, in turns.

    pip install ".[benchmark]"
    python tests/benchmarks/gpt2.py generation [--pairs 5]
    python tests/benchmarks/gpt2.py context
    python tests/benchmarks/gpt2.py training [--pairs 5]
    python tests/benchmarks/gpt2.py precision

generation: one sequence, greedy, 64 tokens after a prompt of 16, in the published size (124M) and
in 6 layers of 192 with the published vocabulary. All programs have the same random weights, and
must write the same tokens. keras-hub runs as it compiles itself, and told to take XLA.
context: seconds per token after 64, 256 and 1,024 others, and to read a prompt of 1,000.
training: tokens a second of 6 layers of 192 with 2,048 tokens, here and in PyTorch.
precision: speed of the published size, and held-out nats of the shipped `article4-gpt2`, with
float32, bfloat16 and int8 weights.

The first run of each program is not counted: it compiles.
"""

import argparse
import os
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import tensorflow as tf

from keras_genai.autoregressive import GREEDY
from keras_genai.checkpoints import save_gpt2
from keras_genai.gpt2 import build_gpt2

SIZES = {"124M": {}, "6 x 192": {"num_layers": 6, "num_heads": 6, "d_model": 192}}
PROMPT, NEW = 16, 64


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("generation", "context", "training", "precision"))
    parser.add_argument("--pairs", type=int, default=5, help="runs of each that are timed [5]")
    options = parser.parse_args()
    modes = {"generation": generation, "context": context, "training": training}
    {**modes, "precision": precision}[options.what](options)


def build(**size):
    """A model with weights large enough that its greedy text is not one token again and again."""
    keras.utils.set_random_seed(0)
    model = build_gpt2(**size)
    for weight in model.trainable_variables:
        if len(weight.shape) == 2:
            weight.assign(3 * weight)
    return model


def generation(options):
    for name, size in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            model = build(**size)
            save_gpt2(model, folder)
            programs = {
                "here": ours(model),
                "transformers": theirs(folder),
                "keras-hub": keras_hubs(folder),
                "keras-hub with XLA": keras_hubs(folder, jit_compile=True),
            }
            prompt = np.random.default_rng(0).integers(0, 50257, PROMPT)
            texts = {program: run(prompt) for program, run in programs.items()}
            for program, tokens in texts.items():
                same = np.array_equal(tokens, texts["here"])
                print(f"{name}, {program}: {'the same' if same else 'OTHER'} tokens", flush=True)
            seconds = {program: [] for program in programs}
            for _ in range(options.pairs):
                for program, run in programs.items():
                    seconds[program].append(timed(run, prompt))
        for program, column in seconds.items():
            ratios = sorted(other / own for own, other in zip(seconds["here"], column))
            print(
                f"{name}, {program}: {NEW / statistics.median(column):.1f} tokens a second; here "
                f"{statistics.median(ratios):.2f} times as fast (from {ratios[0]:.2f} to "
                f"{ratios[-1]:.2f})",
                flush=True,
            )


def timed(function, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def ours(model):
    return lambda prompt: model.generate(prompt[None], NEW, GREEDY)[0]


def theirs(folder):
    import torch
    from transformers import GPT2LMHeadModel

    model = GPT2LMHeadModel.from_pretrained(folder).eval()
    settings = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}

    def run(prompt):
        tokens = torch.tensor(prompt[None])
        with torch.inference_mode():
            mask = torch.ones_like(tokens)
            return model.generate(tokens, attention_mask=mask, **settings)[0].numpy()

    return run


def keras_hubs(folder, **settings):
    import keras_hub

    backbone = keras_hub.models.GPT2Backbone.from_preset(folder)
    model = keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)
    model.compile(sampler="greedy", **settings)

    def run(prompt):
        length = PROMPT + NEW
        tokens = np.zeros((1, length), "int32")
        tokens[0, :PROMPT] = prompt
        inputs = {"token_ids": tokens, "padding_mask": np.arange(length)[None] < PROMPT}
        return np.asarray(model.generate(inputs, stop_token_ids=None)["token_ids"])[0]

    return run


def context(options):
    model = build()
    tokens = np.random.default_rng(0).integers(0, 50257, (1, 1024))
    for length in (64, 256, 1024):
        prompt = tokens[:, : length - 32]
        model.generate(prompt, 32, GREEDY)
        model.generate(prompt, 1, GREEDY)
        pairs = [
            (timed(model.generate, prompt, 32, GREEDY), timed(model.generate, prompt, 1, GREEDY))
            for _ in range(options.pairs)
        ]
        per_token = statistics.median((long - short) / 31 for long, short in pairs)
        print(f"{length} tokens: {1e3 * per_token:.1f} ms a token", flush=True)
    seconds = [timed(model.generate, tokens[:, :1000], 1, GREEDY) for _ in range(options.pairs + 1)]
    print(f"a prompt of 1,000 tokens and one more: {statistics.median(seconds[1:]):.2f} s")


def training(options):
    """Both with dropout, AdamW and a clipped gradient, on the same batch of 16 windows of 256."""
    windows = np.random.default_rng(0).integers(0, 2048, (16, 257))
    steps = 10
    model = build_gpt2(2048, 256, 6, 6, 192, dropout=0.1)
    model.compile(
        keras.optimizers.AdamW(1e-3, weight_decay=0.1, global_clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    batch = tuple(tf.constant(part, tf.int32) for part in (windows[:, :-1], windows[:, 1:]))
    batches = tf.data.Dataset.from_tensors(batch).repeat(steps)
    without_tuning = tf.data.Options()
    without_tuning.autotune.enabled = False  # its thread sleeps at the end of an epoch
    batches = batches.with_options(without_tuning)
    programs = (
        lambda: model.fit(batches, verbose=0),
        torch_training(model.settings, windows, steps),
    )
    for program in programs:
        program()
    pairs = [[timed(program) for program in programs] for _ in range(options.pairs)]
    own, theirs = (16 * 256 * steps / statistics.median(column) for column in zip(*pairs))
    ratios = sorted(other / own for own, other in pairs)
    print(
        f"training: {own:.0f} tokens a second, PyTorch {theirs:.0f}, "
        f"{statistics.median(ratios):.2f} times as fast (from {ratios[0]:.2f} to {ratios[-1]:.2f})"
    )


def torch_training(settings, windows, steps):
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), settings["dropout"])
    config = GPT2Config(
        vocab_size=settings["vocab_size"],
        n_positions=settings["context_length"],
        n_embd=settings["d_model"],
        n_layer=settings["num_layers"],
        n_head=settings["num_heads"],
        **rates,
    )
    model = GPT2LMHeadModel(config).train()
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
    from keras_genai.recipes import RECIPES

    task = RECIPES["article4-gpt2"].task
    data = task.load()
    prompt = np.random.default_rng(0).integers(0, 50257, PROMPT)
    for name in ("float32", "bfloat16", "int8"):
        run = ours(in_precision(name, build()))
        run(prompt)
        seconds = statistics.median(timed(run, prompt) for _ in range(options.pairs))
        nats = task.measure(in_precision(name, pretrained.load("article4-gpt2")), data)["measured"]
        print(
            f"{name}: {NEW / seconds:.1f} tokens a second, {nats:.4f} nats per character",
            flush=True,
        )


def in_precision(name, model):
    if name == "int8":
        model.quantize("int8")
    if name != "bfloat16":
        return model
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        lowered = type(model)(**{**model.settings, "tokenizer": model.tokenizer})
    finally:
        keras.config.set_dtype_policy(policy)
    lowered.set_weights(model.get_weights())
    return lowered


if __name__ == "__main__":
    main()
