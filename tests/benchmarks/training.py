"""Seconds per epoch of article 4's networks, here and in PyTorch, in alternation on one machine.

    pip install ".[benchmark]"
    python tests/benchmarks/training.py [--pairs 5] [article4-vae article4-gan article4-cnn]

PyTorch has the article's loop, with all data in one tensor from the start: no DataLoader slows it
down. Ours is the recipe under `fit`, as `train` runs it, without samples and checkpoints. The first
epoch of each is not timed: it compiles.
"""

import argparse
import itertools
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Before TensorFlow: loaded after it, the optimizers of a CUDA build of PyTorch crash.
import torch._dynamo

# isort: split

import keras
import tensorflow as tf
import torch
from torch import nn
from torch.nn import functional as F

from keras_genai import datasets, recipes
from keras_genai.experiments import EXPERIMENTS
from keras_genai.recipes import RECIPES


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(PYTORCH_EPOCHS), metavar="NAME")
    parser.add_argument("--pairs", type=int, default=5, help="number of timed epochs [5]")
    options = parser.parse_args()
    versions = (
        f"Keras {keras.__version__}, TensorFlow {tf.__version__}, PyTorch {torch.__version__}"
    )
    print(f"{versions}, {torch.get_num_threads()} threads", flush=True)
    (_, labels), _ = datasets.load_mnist()
    for name in options.names:
        data = EXPERIMENTS[name].task.load()
        pytorch_epochs = PYTORCH_EPOCHS[name](torch.tensor(data.train[0]), torch.tensor(labels))
        programs = keras_epochs(name, data), pytorch_epochs
        for program in programs:
            next(program)
        pairs = [[seconds(program) for program in programs] for _ in range(options.pairs)]
        keras_seconds, pytorch_seconds = (
            statistics.median(column) for column in zip(*pairs, strict=True)
        )
        ratios = sorted(pytorch_seconds / keras_seconds for keras_seconds, pytorch_seconds in pairs)
        print(
            f"{name}: {keras_seconds:.2f} s per epoch, PyTorch {pytorch_seconds:.2f} s, "
            f"{pytorch_seconds / keras_seconds:.2f} times as fast "
            f"(pairs from {ratios[0]:.2f} to {ratios[-1]:.2f})",
            flush=True,
        )


def seconds(program) -> float:
    """Return the seconds of the next epoch of a program."""
    start = time.perf_counter()
    next(program)
    return time.perf_counter() - start


def keras_epochs(name, data):
    """Train a recipe, one epoch for each `next`."""
    model = recipes.create(name, **data.dataset_info)
    epoch = tf.Variable(0, dtype=tf.int64)
    dataset = EXPERIMENTS[name].task.train_dataset(data, RECIPES[name].batch_size, 0, epoch)
    while True:
        model.fit(dataset, shuffle=False, verbose=0)
        epoch.assign_add(1)
        yield


def shuffled_batches(size, batch_size=64):
    """Return the indices of shuffled batches."""
    order = torch.randperm(size)
    return (order[i : i + batch_size] for i in range(0, size, batch_size))


def pytorch_vae(x, labels):
    layers = nn.ModuleList(
        [nn.Linear(784, 400), nn.Linear(400, 20), nn.Linear(400, 20)]
        + [nn.Linear(20, 400), nn.Linear(400, 784)]
    )
    optimizer = torch.optim.Adam(layers.parameters(), lr=1e-3)
    while True:
        for batch in shuffled_batches(len(x)):
            real = x[batch]
            hidden = torch.relu(layers[0](real))
            z_mean, z_log_var = layers[1](hidden), layers[2](hidden)
            z = z_mean + torch.exp(0.5 * z_log_var) * torch.randn_like(z_log_var)
            x_hat = torch.sigmoid(layers[4](torch.relu(layers[3](z))))
            loss = F.binary_cross_entropy(x_hat, real, reduction="sum")
            loss = loss - 0.5 * torch.sum(1 + z_log_var - z_mean.pow(2) - z_log_var.exp())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield


def pytorch_gan(x, labels):
    def stack(widths, activation):
        pairs = itertools.pairwise(widths)
        return [module for a, b in pairs for module in (nn.Linear(a, b), activation())]

    generator = stack([100, 256, 512, 1024], nn.ReLU) + [nn.Linear(1024, 784), nn.Tanh()]
    generator = nn.Sequential(*generator)
    discriminator = stack([784, 1024, 512, 256], lambda: nn.LeakyReLU(0.2))
    discriminator = nn.Sequential(*discriminator, nn.Linear(256, 1), nn.Sigmoid())
    generator_optimizer = torch.optim.Adam(generator.parameters(), lr=2e-4)
    discriminator_optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-4)
    criterion = nn.BCELoss()
    x = 2 * x - 1
    while True:
        for batch in shuffled_batches(len(x)):
            ones, zeros = torch.ones(len(batch), 1), torch.zeros(len(batch), 1)
            fake = generator(torch.randn(len(batch), 100)).detach()
            loss = criterion(discriminator(x[batch]), ones) + criterion(discriminator(fake), zeros)
            discriminator_optimizer.zero_grad()
            loss.backward()
            discriminator_optimizer.step()
            fake = generator(torch.randn(len(batch), 100))
            loss = criterion(discriminator(fake), ones)
            generator_optimizer.zero_grad()
            loss.backward()
            generator_optimizer.step()
        yield


def pytorch_cnn(x, labels):
    model = nn.Sequential(
        *[nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)],
        *[nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)],
        *[nn.Flatten(), nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10)],
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x, y = (2 * x - 1).permute(0, 3, 1, 2).contiguous(), labels.long()
    while True:
        for batch in shuffled_batches(len(x)):
            loss = F.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield


PYTORCH_EPOCHS = {
    "article4-vae": pytorch_vae,
    "article4-gan": pytorch_gan,
    "article4-cnn": pytorch_cnn,
}


if __name__ == "__main__":
    main()
