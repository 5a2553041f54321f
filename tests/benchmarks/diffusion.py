"""Diffusion: what guidance does, how long samples take, and a training step beside PyTorch.

    python tests/benchmarks/diffusion.py guidance [--samples 1000] [--scales 0 0.5 1 2 4]
    python tests/benchmarks/diffusion.py steps [--pairs 3]
    pip install ".[benchmark]" && python tests/benchmarks/diffusion.py training [--pairs 7]

guidance: how many samples of the shipped article3-diffusion, 50 steps of DDIM, article 4's CNN
reads as the digit that was asked for, and how unlike each other those of one digit are: the mean
distance of a pixel from its mean. Test images for comparison. steps: seconds for 64 samples, and
the same share of right ones. training: ten steps of the recipe, and the same network, with the same
outputs from the same weights, in PyTorch.
"""

import argparse
import math
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from keras_genai import datasets, pretrained
from keras_genai.recipes import RECIPES


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["guidance", "steps", "training"])
    parser.add_argument("--samples", type=int, default=1000, help="for each figure [1000]")
    parser.add_argument("--scales", type=float, nargs="+", default=[0, 0.5, 1, 2, 4], metavar="W")
    parser.add_argument("--pairs", type=int, default=7, help="runs that are timed [7]")
    options = parser.parse_args()
    {"guidance": guidance, "steps": steps, "training": training}[options.what](options)


def guidance(options):
    judge, model = (pretrained.load(name) for name in ("article4-cnn", "article3-diffusion"))
    _, (x, y) = datasets.load_mnist()
    report("test images", x[..., None].astype("float32") / 255, y, judge)
    labels = np.arange(options.samples) % 10
    for scale in options.scales:
        images = model.generate(options.samples, labels, scale, seed=1)
        report(f"guidance scale {scale:g}", images, labels, judge)


def report(name, images, labels, judge):
    read = judge.predict(images, batch_size=500, verbose=0).argmax(-1)
    spread = np.mean([images[labels == digit].std(axis=0).mean() for digit in range(10)])
    print(f"{name}: {100 * np.mean(read == labels):.1f}% right, spread {spread:.3f}", flush=True)


def steps(options):
    judge, model = (pretrained.load(name) for name in ("article4-cnn", "article3-diffusion"))
    model.generate(64, 0, num_steps=2)
    labels = np.arange(64 * options.pairs) % 10
    for sampler, num_steps in (("ddim", 10), ("ddim", 25), ("ddim", 50), ("ddpm", 50)):
        seconds, images = [], []
        for run in range(options.pairs):
            start = time.perf_counter()
            part = labels[64 * run : 64 * run + 64]
            images.append(model.generate(64, part, 0, num_steps, sampler, seed=run))
            seconds.append(time.perf_counter() - start)
        print(f"{sampler}, {num_steps} steps: {statistics.median(seconds):.2f} s", flush=True)
        report(f"{sampler}, {num_steps} steps", np.concatenate(images), labels, judge)


def training(options):
    import tensorflow as tf
    import torch

    versions = (
        f"Keras {keras.__version__}, TensorFlow {tf.__version__}, PyTorch {torch.__version__}"
    )
    print(f"{versions}, {torch.get_num_threads()} threads", flush=True)
    recipe = RECIPES["article3-diffusion"]
    data = recipe.task.load()
    x, y = (part[: 10 * recipe.batch_size] for part in data.train)
    model = recipe.create(**data.facts)
    theirs = pytorch_ddpm(model, x, y, recipe.batch_size)
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(recipe.batch_size)

    def ours():
        model.fit(batches, shuffle=False, verbose=0)

    def timed(program):
        start = time.perf_counter()
        program()
        return (time.perf_counter() - start) / 10

    for program in (ours, theirs):
        program()
    pairs = [[timed(program) for program in (ours, theirs)] for _ in range(options.pairs)]
    own, other = (statistics.median(column) for column in zip(*pairs))
    ratios = sorted(other / own for own, other in pairs)
    print(
        f"a training step: {own:.3f} s, PyTorch {other:.3f} s, {statistics.median(ratios):.2f} "
        f"times as fast (pairs from {ratios[0]:.2f} to {ratios[-1]:.2f})"
    )


def pytorch_ddpm(ours, x, y, batch_size, learning_rate=2e-3):
    """Return a function that trains the same network, with an average of its weights, on x."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    def norm(width):
        return nn.GroupNorm(math.gcd(8, width, width // 2), width, eps=1e-3)

    class Block(nn.Module):
        def __init__(self, before, width, told=128):
            super().__init__()
            self.norm, self.conv = norm(before), nn.Conv2d(before, width, 3, padding=1)
            self.told = nn.Linear(told, width)
            self.norm_2, self.conv_2 = norm(width), nn.Conv2d(width, width, 3, padding=1)
            self.skip = nn.Conv2d(before, width, 1) if before != width else nn.Identity()

        def forward(self, x, told):
            h = self.conv(F.silu(self.norm(x))) + self.told(told)[:, :, None, None]
            return self.skip(x) + self.conv_2(F.silu(self.norm_2(h)))

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.time, self.label = nn.Linear(64, 128), nn.Linear(10, 128, bias=False)
            self.first = nn.Conv2d(1, 32, 3, padding=1)
            self.down = nn.ModuleList([Block(32, 32), Block(32, 64)])
            self.before, self.norm = Block(64, 96), norm(96)
            self.attention = nn.MultiheadAttention(96, 1, batch_first=True)
            self.after, self.up = Block(96, 96), nn.ModuleList()
            for before, width in ((96, 64), (64, 32)):
                self.up += [nn.Conv2d(before, width, 1), Block(2 * width, width)]
            self.last_norm, self.noise = norm(32), nn.Conv2d(32, 1, 3, padding=1)

        def forward(self, noisy, t, labels):
            frequencies = torch.exp(-math.log(10_000) * torch.arange(32) / 32)
            angles = t[:, None] * frequencies
            one_hot = F.one_hot(labels.clamp(min=0), 10) * (labels >= 0)[:, None]
            told = self.time(torch.cat([angles.sin(), angles.cos()], 1))
            told = F.silu(told + self.label(one_hot.float()))
            x, seen = self.first(noisy), []
            for block in self.down:
                seen.append(block(x, told))
                x = F.avg_pool2d(seen[-1], 2)
            x = self.before(x, told)
            places = self.norm(x).flatten(2).transpose(1, 2)
            added, _ = self.attention(places, places, places, need_weights=False)
            x = self.after(x + added.transpose(1, 2).reshape(x.shape), told)
            for narrow, block in zip(self.up[::2], self.up[1::2]):
                x = F.interpolate(narrow(x), scale_factor=2)
                x = block(torch.cat([x, seen.pop()], 1), told)
            return self.noise(F.silu(self.last_norm(x)))

    network = UNet()
    copy_weights(ours.network, network)
    images, labels = torch.tensor(x).permute(0, 3, 1, 2).contiguous(), torch.tensor(y).long()
    bars = torch.tensor(ours.schedule.alpha_bars, dtype=torch.float32)
    with torch.no_grad():
        t = torch.arange(64) * 15
        expected = ours.network([x[:64], t.numpy().astype("int32"), y[:64]])
        found = network(images[:64], t, labels[:64]).permute(0, 2, 3, 1)
        assert np.abs(found.numpy() - expected).max() < 1e-4
    averaged = [weight.detach().clone() for weight in network.parameters()]
    optimizer = torch.optim.Adam(network.parameters(), learning_rate, eps=1e-7)

    def train():
        for start in range(0, len(images), batch_size):
            x = 2 * images[start : start + batch_size] - 1
            t, noise = torch.randint(0, 1000, (len(x),)), torch.randn(x.shape)
            dropped = torch.rand(len(x)) < 0.1
            told = torch.where(dropped, -1, labels[start : start + batch_size])
            left = bars[t][:, None, None, None]
            noisy = left.sqrt() * x + (1 - left).sqrt() * noise
            target = left.sqrt() * noise - (1 - left).sqrt() * x
            loss = F.mse_loss(network(noisy, t, told), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            torch._foreach_lerp_(averaged, [w.detach() for w in network.parameters()], 0.001)

    return train


def copy_weights(keras_network, network):
    """Give a PyTorch network the weights of a Keras one whose layers were made in its order."""
    import torch
    from torch import nn

    rng = np.random.default_rng(0)
    for layer in keras_network.layers:
        # Not zeros, as in a new network, which any network would agree with.
        layer.set_weights([rng.normal(scale=0.1, size=w.shape) for w in layer.get_weights()])
    kinds = {"Conv2D": nn.Conv2d, "GroupNormalization": nn.GroupNorm, "Dense": nn.Linear}
    for name, kind in kinds.items():
        ours = [layer for layer in keras_network.layers if type(layer).__name__ == name]
        # The number at the end of a name tells which was made first; "noise" is the last.
        ours.sort(key=lambda layer: (layer.name == "noise", number(layer.name)))
        theirs = [module for module in network.modules() if type(module) is kind]
        for layer, module in zip(ours, theirs, strict=True):
            kernel, *bias = (torch.tensor(np.array(w)) for w in layer.get_weights())
            with torch.no_grad():
                order = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}[kernel.ndim]
                module.weight.copy_(kernel.permute(*order))
                if bias:
                    module.bias.copy_(bias[0])
    (layer,) = (x for x in keras_network.layers if type(x).__name__ == "MultiHeadAttention")
    weights = [torch.tensor(w).reshape(-1, 96) for w in layer.get_weights()]  # q, k, v and output
    with torch.no_grad():
        module = network.attention
        module.in_proj_weight.copy_(torch.cat([kernel.T for kernel in weights[:6:2]]))
        module.in_proj_bias.copy_(torch.cat([bias[0] for bias in weights[1:6:2]]))
        module.out_proj.weight.copy_(weights[6].T)
        module.out_proj.bias.copy_(weights[7][0])


def number(name):
    end = name.rsplit("_", 1)[-1]
    return int(end) if end.isdecimal() else 0


if __name__ == "__main__":
    main()
