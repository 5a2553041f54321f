"""Characters per second of article3-lstm's network, here and in PyTorch, in alternation.

    pip install ".[benchmark]"
    python tests/benchmarks/generation.py [--pairs 7] [--characters 2000]

One text, character by character, each sampled from the softmax. PyTorch has the same weights and
the usual loop: nn.LSTM on one token, softmax, multinomial, without gradients. The first text of
each program is not timed: it compiles.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
import torch
from torch import nn

from keras_genai.rnn import build_language_model


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=7, help="number of timed texts [7]")
    parser.add_argument("--characters", type=int, default=2000, help="length of a text [2000]")
    options = parser.parse_args()
    versions = (
        f"Keras {keras.__version__}, TensorFlow {tf.__version__}, PyTorch {torch.__version__}"
    )
    print(f"{versions}, {torch.get_num_threads()} threads", flush=True)
    model = build_language_model(82)
    programs = (
        keras_texts(model, options.characters),
        pytorch_texts(model, options.characters),
    )
    for program in programs:
        next(program)
    pairs = [[speed(program, options) for program in programs] for _ in range(options.pairs)]
    keras_speed, pytorch_speed = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratios = sorted(keras_speed / pytorch_speed for keras_speed, pytorch_speed in pairs)
    print(
        f"LSTM 256-512, 82 characters: {keras_speed:.0f} characters per second, PyTorch "
        f"{pytorch_speed:.0f}, {keras_speed / pytorch_speed:.2f} times as fast "
        f"(pairs from {ratios[0]:.2f} to {ratios[-1]:.2f})"
    )


def speed(program, options) -> float:
    """Return the characters per second of the next text of a program."""
    start = time.perf_counter()
    next(program)
    return options.characters / (time.perf_counter() - start)


def keras_texts(model, num_characters):
    """Generate a text with each `next`."""
    prompt = np.zeros((1, 1), "int32")
    while True:
        model.generate(prompt, num_characters)
        yield


def pytorch_texts(model, num_characters):
    """Generate a text with each `next`, from the same weights in PyTorch."""
    embedding, kernel, recurrent_kernel, bias, head, head_bias = map(
        torch.tensor, model.get_weights()
    )
    lstm = nn.LSTM(kernel.shape[0], recurrent_kernel.shape[0], batch_first=True)
    with torch.inference_mode():
        lstm.weight_ih_l0.copy_(kernel.T)  # both libraries have the gates in the same order
        lstm.weight_hh_l0.copy_(recurrent_kernel.T)
        lstm.bias_ih_l0.copy_(bias)
        lstm.bias_hh_l0.zero_()
    head = head.T.contiguous()
    check_equal_logits(model, embedding, lstm, head, head_bias)
    while True:
        with torch.inference_mode():
            token, state, tokens = torch.zeros(1, 1, dtype=torch.long), None, []
            for _ in range(num_characters):
                hidden, state = lstm(embedding[token], state)
                logits = nn.functional.linear(hidden[:, -1], head, head_bias)
                token = torch.multinomial(torch.softmax(logits, dim=-1), 1)
                tokens.append(token.item())
        yield


def check_equal_logits(model, embedding, lstm, head, head_bias):
    """Raise AssertionError unless both networks give the same logits."""
    tokens = np.arange(50)[None]
    with torch.inference_mode():
        hidden, _ = lstm(embedding[torch.tensor(tokens)])
        logits = nn.functional.linear(hidden, head, head_bias)
    np.testing.assert_allclose(model(tokens), logits, atol=1e-5)


if __name__ == "__main__":
    main()
