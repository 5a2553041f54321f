"""Arithmetic of `benchmarks/scaling.py`: bytes of a ring all-reduce, FLOPs of a VAE by hand."""

import importlib.util
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from keras_genai.vae import VAE, build_decoder, build_encoder

PATH = pathlib.Path(__file__).parent / "benchmarks" / "scaling.py"
SPEC = importlib.util.spec_from_file_location("scaling", PATH)
scaling = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(scaling)


@pytest.mark.parametrize("num_workers", [2, 3, 8])
def test_ring_bytes_are_those_of_a_ring_all_reduce(num_workers):
    rng, size = np.random.default_rng(0), 24
    gradients = rng.normal(size=(num_workers, size))
    parts = gradients.reshape(num_workers, num_workers, -1).copy()
    sent = 0
    for first, adds in ((0, True), (1, False)):  # sums of parts, then copies of the sums
        for step in range(num_workers - 1):
            indices = [(worker + first - step) % num_workers for worker in range(num_workers)]
            messages = [parts[worker, index].copy() for worker, index in enumerate(indices)]
            sent += messages[0].nbytes
            for worker, index in enumerate(indices):
                neighbor = (worker + 1) % num_workers
                old = parts[neighbor, index] if adds else 0
                parts[neighbor, index] = old + messages[worker]
    expected = np.tile(gradients.sum(axis=0), (num_workers, 1))
    np.testing.assert_allclose(parts.reshape(num_workers, size), expected)
    assert scaling.ring_bytes(gradients[0].nbytes, num_workers) == pytest.approx(sent)


def test_clipped_gradients_are_sent_twice_and_rows_of_embeddings_gathered():
    dense, rows = (400, 400, False, True), (1000, 80, True, True)
    # Two workers: 400 bytes, again 400; then 1,000 of rows, and 80 of the dense gradient.
    assert scaling.sent_bytes([dense, rows], 2) == 400 + 400 + 1000 + 80
    assert scaling.sent_bytes([(400, 400, False, False)], 5) == pytest.approx(640)


def test_crossover_solves_the_equation_and_is_infinite_where_rows_take_longer():
    batch = scaling.crossover(1e6, 100, 1e-4, 1e7)
    assert batch * 1e-4 == pytest.approx((1e6 + 100 * batch) / 1e7)
    assert scaling.crossover(1e6, 100, 1e-5, 1e7) == float("inf")


@pytest.mark.slow
def test_flops_of_the_vae_are_six_for_each_weight():
    model = VAE(build_encoder(784, (40,), 2), build_decoder(2, (40,), 784))
    model.compile("adam")
    one, two = (scaling.count_flops(model, tf.zeros((size, 784))) for size in (8, 16))
    weights = 784 * 40 + 40 * 2 + 40 * 2 + 2 * 40 + 40 * 784
    by_hand = 6 * weights - 2 * 784 * 40  # no gradient with respect to the images
    assert (two - one) / 8 == pytest.approx(by_hand, rel=0.1)  # and activations and the loss
