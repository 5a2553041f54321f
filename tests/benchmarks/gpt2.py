"""Tokens per second of GPT-2 here, in transformers and in keras-hub, in alternation.

    pip install ".[benchmark]"
    python tests/benchmarks/gpt2.py generation [--pairs 5]
    python tests/benchmarks/gpt2.py context
    python tests/benchmarks/gpt2.py training [--pairs 5]
    python tests/benchmarks/gpt2.py precision

generation: one sequence, greedy, 64 tokens after a prompt of 16, in the published size (124M) and
in 6 layers of 192 with the published vocabulary. All programs have the same random weights. The
line of each says whether it generates the same tokens, as all but int8 weights must. keras-hub runs
with its default compilation, and with XLA.
context: seconds per token after 64, 256 and 1,024 tokens, and for a prompt of 1,000 tokens.
training: tokens per second of 6 layers of 192 with 2,048 tokens, here and in PyTorch.
precision: speed of the published size for 1, 4 and 16 texts, and held-out nats of the pretrained
`article4-gpt2`, with float32, bfloat16 and int8 weights.

The first run of each program is not timed: it compiles.
"""

import argparse
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
from keras_genai.gpt2_checkpoint import save_gpt2

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
        with tempfile.TemporaryDirectory() as folder:
            model = build_model(**size)
            save_gpt2(model, folder)
            programs = {
                "here": keras_genai_program(model),
                "transformers": transformers_program(folder),
                "keras-hub": keras_hub_program(folder),
                "keras-hub with XLA": keras_hub_program(folder, jit_compile=True),
                "CTranslate2": ctranslate2_program(folder, "float32"),
                "CTranslate2 with int8": ctranslate2_program(folder, "int8_float32"),
            }
            prompt = np.random.default_rng(0).integers(0, 50257, PROMPT_LENGTH)
            texts = {program: run(prompt) for program, run in programs.items()}
            for program, tokens in texts.items():
                equal = np.array_equal(tokens, texts["here"])
                print(f"{name}, {program}: {'the same' if equal else 'OTHER'} tokens", flush=True)
            seconds = {program: [] for program in programs}
            for _ in range(options.pairs):
                for program, run in programs.items():
                    seconds[program].append(timed(run, prompt))
        for program, column in seconds.items():
            ratios = sorted(
                other / here for here, other in zip(seconds["here"], column, strict=True)
            )
            print(
                f"{name}, {program}: {MAX_NEW_TOKENS / statistics.median(column):.1f} tokens per "
                f"second; here {statistics.median(ratios):.2f} times as fast "
                f"(from {ratios[0]:.2f} to {ratios[-1]:.2f})",
                flush=True,
            )


def timed(function, *arguments, **keywords) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    function(*arguments, **keywords)
    return time.perf_counter() - start


def keras_genai_program(model):
    return lambda prompt: model.generate(prompt[None], MAX_NEW_TOKENS, sampler=GREEDY)[0]


def transformers_program(folder):
    import torch
    from transformers import GPT2LMHeadModel

    model = GPT2LMHeadModel.from_pretrained(folder).eval()
    options = {
        "max_new_tokens": MAX_NEW_TOKENS,
        "do_sample": False,
        "pad_token_id": 0,
        "eos_token_id": None,
    }

    def run(prompt):
        tokens = torch.tensor(prompt[None])
        with torch.inference_mode():
            mask = torch.ones_like(tokens)
            return model.generate(tokens, attention_mask=mask, **options)[0].numpy()

    return run


def keras_hub_program(folder, **compile_options):
    import keras_hub

    backbone = keras_hub.models.GPT2Backbone.from_preset(folder)
    model = keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)
    model.compile(sampler="greedy", **compile_options)

    def run(prompt):
        length = PROMPT_LENGTH + MAX_NEW_TOKENS
        tokens = np.zeros((1, length), "int32")
        tokens[0, :PROMPT_LENGTH] = prompt
        inputs = {"token_ids": tokens, "padding_mask": np.arange(length)[None] < PROMPT_LENGTH}
        return np.asarray(model.generate(inputs, stop_token_ids=None)["token_ids"])[0]

    return run


def ctranslate2_program(folder, compute_type):
    """Return the program of CTranslate2, in whose vocabulary the tokens are named by their ids."""
    import ctranslate2
    import transformers

    transformers.PreTrainedTokenizerFast(
        tokenizer_object=id_tokenizer(), unk_token="0", bos_token="0", eos_token="0"
    ).save_pretrained(folder)
    converted = os.path.join(folder, "ctranslate2")
    ctranslate2.converters.TransformersConverter(folder).convert(converted, force=True)
    generator = ctranslate2.Generator(
        converted, compute_type=compute_type, intra_threads=os.cpu_count()
    )

    # Its lengths count the steps, of which there is one for each token but the last.
    num_steps = PROMPT_LENGTH + MAX_NEW_TOKENS - 1

    def run(prompt):
        (result,) = generator.generate_batch(
            [[str(token) for token in prompt]],
            min_length=num_steps,
            max_length=num_steps,
            sampling_topk=1,
        )
        return np.array(result.sequences_ids[0])

    return run


def id_tokenizer():
    """Return a tokenizer of the published size whose tokens are the decimals of their ids."""
    import tokenizers

    vocabulary = {str(token): token for token in range(50257)}
    return tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="0"))


def context(options):
    model = build_model()
    tokens = np.random.default_rng(0).integers(0, 50257, (1, 1024))

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
        prompt = np.random.default_rng(0).integers(0, 50257, (num_texts, PROMPT_LENGTH))
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
