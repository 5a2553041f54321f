"""Characters per second of article3-lstm's network, here and in PyTorch, in turns.

    pip install ".[benchmark]"
    python tests/benchmarks/generation.py [--pairs 7] [--characters 2000]

One text, a character at a time, each drawn from the softmax. PyTorch has the same weights and the
usual loop: nn.LSTM on one token, softmax, multinomial, without gradients. One text of each comes
first and is not counted: it compiles.
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
    parser.add_argument("--pairs", type=int, default=7, help="texts of each that are timed [7]")
    parser.add_argument("--characters", type=int, default=2000, help="of each text [2000]")
    options = parser.parse_args()
    versions = (
        f"Keras {keras.__version__}, TensorFlow {tf.__version__}, PyTorch {torch.__version__}"
    )
    print(f"{versions}, {torch.get_num_threads()} threads", flush=True)
    model = build_language_model(82)
    programs = ours(model, options.characters), theirs(model, options.characters)
    for program in programs:
        next(program)
    pairs = [[speed(program, options) for program in programs] for _ in range(options.pairs)]
    medians = [statistics.median(column) for column in zip(*pairs)]
    ratios = sorted(ours / theirs for ours, theirs in pairs)
    print(
        f"LSTM 256-512, 82 characters: {medians[0]:.0f} characters a second, PyTorch "
        f"{medians[1]:.0f}, {medians[0] / medians[1]:.2f} times as fast "
        f"(pairs from {ratios[0]:.2f} to {ratios[-1]:.2f})"
    )


def speed(program, options) -> float:
    start = time.perf_counter()
    next(program)
    return options.characters / (time.perf_counter() - start)


def ours(model, characters):
    prompt = np.zeros((1, 1), "int32")
    while True:
        model.generate(prompt, characters)
        yield


def theirs(model, characters):
    embedding, kernel, recurrent, bias, head, head_bias = map(torch.tensor, model.get_weights())
    lstm = nn.LSTM(kernel.shape[0], recurrent.shape[0], batch_first=True)
    with torch.inference_mode():
        lstm.weight_ih_l0.copy_(kernel.T)  # the gates stand in the same order
        lstm.weight_hh_l0.copy_(recurrent.T)
        lstm.bias_ih_l0.copy_(bias)
        lstm.bias_hh_l0.zero_()
    head = head.T.contiguous()
    check(model, embedding, lstm, head, head_bias)
    while True:
        with torch.inference_mode():
            token, state, written = torch.zeros(1, 1, dtype=torch.long), None, []
            for _ in range(characters):
                hidden, state = lstm(embedding[token], state)
                logits = nn.functional.linear(hidden[:, -1], head, head_bias)
                token = torch.multinomial(torch.softmax(logits, dim=-1), 1)
                written.append(token.item())
        yield


def check(model, embedding, lstm, head, head_bias):
    """Raise AssertionError unless the two networks are one."""
    tokens = np.arange(50)[None]
    with torch.inference_mode():
        hidden, _ = lstm(embedding[torch.tensor(tokens)])
        logits = nn.functional.linear(hidden, head, head_bias)
    np.testing.assert_allclose(model(tokens), logits, atol=1e-5)


if __name__ == "__main__":
    main()
