"""Diffusion: the effect of guidance, the time of sampling, and a training step beside PyTorch.

    python tests/benchmarks/diffusion.py guidance [--samples 1000] [--scales 1 1.5 2 3 5]
    python tests/benchmarks/diffusion.py steps [--pairs 3] [--samplers ddim:10 ddim:10:karras]
        [--model NAME-OR-FILE.keras]
    pip install ".[benchmark]" && python tests/benchmarks/diffusion.py training [--pairs 7]

guidance: label accuracy and variety of samples of the pretrained article3-diffusion, 50 steps of
DDIM, by guidance scale; 1 is no guidance. Label accuracy is the percentage of samples that article
4's CNN classifies as the requested digit; variety is the mean standard deviation of a pixel within
a digit. Test images for comparison. steps: seconds for 64 samples, and, of 64 samples for each run,
the same two metrics, if the model is conditional, and the Fréchet distance to the test images, in
features of article 4's CNN.
training: ten steps of the recipe, and the same network, with the same outputs from the same
weights, in PyTorch; then 64 samples in 50 steps of DDIM, the same images in both.
"""

import argparse
import math
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Before TensorFlow: loaded after it, the optimizers of a CUDA build of PyTorch crash.
import torch._dynamo  # noqa: F401

# isort: split

import keras
import numpy as np

from keras_genai import datasets, load_model, pretrained, recipes
from keras_genai.experiments import EXPERIMENTS
from keras_genai.metrics import (
    classify_digits,
    frechet_distance,
    image_features,
    label_accuracy,
)
from keras_genai.recipes import RECIPES
from keras_genai.tasks import cycle_labels

SAMPLERS = (
    "ddim:10",
    "ddim:25",
    "ddim:50",
    "ddpm:50",
    "dpm_solver++:10",
    "dpm_solver++:10:karras",
    "dpm_solver++:20",
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", choices=["guidance", "steps", "training"])
    parser.add_argument("--samples", type=int, default=1000, help="samples per scale [1000]")
    parser.add_argument(
        "--scales",
        type=float,
        nargs="+",
        default=[1, 1.5, 2, 3, 5],
        metavar="SCALE",
        help="guidance scales, 1 for none [1 1.5 2 3 5]",
    )
    parser.add_argument("--pairs", type=int, default=7, help="number of timed runs [7]")
    parser.add_argument(
        "--samplers",
        nargs="+",
        default=SAMPLERS,
        metavar="METHOD:STEPS[:SPACING]",
        help=f"[{' '.join(SAMPLERS)}]",
    )
    parser.add_argument(
        "--model", default="article3-diffusion", metavar="NAME-OR-FILE.keras", help="of steps"
    )
    options = parser.parse_args()
    {"guidance": guidance, "steps": steps, "training": training}[options.mode](options)


def guidance(options):
    classifier, model = (pretrained.load(name) for name in ("article4-cnn", "article3-diffusion"))
    _, (x, y) = datasets.load_mnist()
    report("test images", x[..., None].astype("float32") / 255, y, classifier)
    labels = np.arange(options.samples) % 10
    for scale in options.scales:
        images = model.generate(options.samples, labels, guidance_scale=scale, seed=1)
        report(f"guidance scale {scale:g}", images, labels, classifier)


def report(name, images, labels, classifier):
    accuracy = label_accuracy(classify_digits(images, classifier), labels)
    variety = np.mean([images[np.equal(labels, digit)].std(axis=0).mean() for digit in range(10)])
    print(f"{name}: label accuracy {accuracy:.1f}%, pixel deviation {variety:.3f}", flush=True)


def steps(options):
    classifier = pretrained.load("article4-cnn")
    load = load_model if options.model.endswith(".keras") else pretrained.load
    model = load(options.model)
    reference = image_features(datasets.load_mnist()[1][0][..., None] / np.float32(255))
    model.generate(64, num_steps=2)
    labels = cycle_labels(model, 64 * options.pairs)
    for sampler in options.samplers:
        method, num_steps, *spacing = sampler.split(":")
        sampling = {"method": method, "num_steps": int(num_steps)}
        if spacing:
            sampling["timestep_spacing"] = spacing[0]
        seconds, images = [], []
        for run in range(options.pairs):
            start = time.perf_counter()
            batch_labels = None if labels is None else labels[64 * run : 64 * run + 64]
            images.append(model.generate(64, batch_labels, seed=run, **sampling))
            seconds.append(time.perf_counter() - start)
        name = ", ".join([method, f"{num_steps} steps", *spacing])
        print(f"{name}: {statistics.median(seconds):.2f} s", flush=True)
        images = np.concatenate(images)
        if labels is not None:
            report(name, images, labels, classifier)
        distance = frechet_distance(reference, image_features(images))
        print(f"{name}: Fréchet distance {distance:.2f}", flush=True)


def training(options):
    import tensorflow as tf
    import torch

    versions = (
        f"Keras {keras.__version__}, TensorFlow {tf.__version__}, PyTorch {torch.__version__}"
    )
    print(f"{versions}, {torch.get_num_threads()} threads", flush=True)
    name = "article3-diffusion"
    batch_size = RECIPES[name].batch_size
    data = EXPERIMENTS[name].task.load()
    x, y = (array[: 10 * batch_size] for array in data.train)
    model = recipes.create(name, **data.dataset_info)
    rng, network = np.random.default_rng(0), pytorch_unet()
    # Random weights: with the initial zeros of the last layer, any two networks agree.
    weights = model.network.get_weights()
    model.network.set_weights([rng.normal(scale=0.1, size=w.shape) for w in weights])
    copy_weights(model.network, network)
    train_pytorch = pytorch_training(model, network, x, y, batch_size)
    dataset_options = tf.data.Options()
    dataset_options.autotune.enabled = False  # its thread delays the end of an epoch
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size)
    dataset = dataset.with_options(dataset_options)
    programs = lambda: model.fit(dataset, shuffle=False, verbose=0), train_pytorch
    compare("a training step", 10, programs, options.pairs)

    model = pretrained.load(name)
    copy_weights(model.ema_network, network)
    sample_pytorch, labels = pytorch_ddim(network, model.schedule, 50), np.arange(64) % 10
    x_T, expected = model.generate_progressive(64, labels, num_frames=1, seed=0)
    np.testing.assert_allclose(sample_pytorch(2 * x_T - 1, labels), expected, atol=0.01)
    programs = (
        lambda: model.generate(64, labels, seed=0),
        lambda: sample_pytorch(2 * x_T - 1, labels),
    )
    compare("64 samples", 1, programs, options.pairs)


def compare(name, num_steps, programs, num_pairs):
    """Print the seconds per step of the programs here and in PyTorch, run in turn."""

    def timed(program):
        start = time.perf_counter()
        program()
        return (time.perf_counter() - start) / num_steps

    for program in programs:
        program()
    pairs = [[timed(program) for program in programs] for _ in range(num_pairs)]
    keras_seconds, pytorch_seconds = (
        statistics.median(column) for column in zip(*pairs, strict=True)
    )
    ratios = sorted(pytorch_seconds / keras_seconds for keras_seconds, pytorch_seconds in pairs)
    print(
        f"{name}: {keras_seconds:.3f} s, PyTorch {pytorch_seconds:.3f} s, "
        f"{statistics.median(ratios):.2f} times as fast "
        f"(pairs from {ratios[0]:.2f} to {ratios[-1]:.2f})",
        flush=True,
    )


def pytorch_unet():
    """Return the network of the recipe in PyTorch."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    def norm(width):
        return nn.GroupNorm(math.gcd(8, width, width // 2), width, eps=1e-3)

    # Modules are created in the order of the Keras layers; see `copy_weights`.
    class ResidualBlock(nn.Module):
        def __init__(self, in_channels, width, emb_dim=128):
            super().__init__()
            self.norm_1 = norm(in_channels)
            self.conv_1 = nn.Conv2d(in_channels, width, 3, padding=1)
            self.emb_projection = nn.Linear(emb_dim, width)
            self.norm_2, self.conv_2 = norm(width), nn.Conv2d(width, width, 3, padding=1)
            self.skip = nn.Conv2d(in_channels, width, 1) if in_channels != width else nn.Identity()

        def forward(self, x, emb):
            h = self.conv_1(F.silu(self.norm_1(x))) + self.emb_projection(emb)[:, :, None, None]
            return self.skip(x) + self.conv_2(F.silu(self.norm_2(h)))

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.time_dense, self.label_dense = nn.Linear(64, 128), nn.Linear(10, 128, bias=False)
            self.first_conv = nn.Conv2d(1, 32, 3, padding=1)
            self.down_blocks = nn.ModuleList([ResidualBlock(32, 32), ResidualBlock(32, 64)])
            self.middle_block_1, self.attention_norm = ResidualBlock(64, 96), norm(96)
            self.attention = nn.MultiheadAttention(96, 1, batch_first=True)
            self.middle_block_2, self.up_blocks = ResidualBlock(96, 96), nn.ModuleList()
            for in_channels, width in ((96, 64), (64, 32)):
                self.up_blocks += [nn.Conv2d(in_channels, width, 1)]
                self.up_blocks += [ResidualBlock(2 * width, width)]
            self.last_norm, self.noise = norm(32), nn.Conv2d(32, 1, 3, padding=1)

        def forward(self, x_t, t, labels):
            frequencies = torch.exp(-math.log(10_000) * torch.arange(32) / 32)
            angles = t[:, None] * frequencies
            one_hot = F.one_hot(labels.clamp(min=0), 10) * (labels >= 0)[:, None]
            emb = self.time_dense(torch.cat([angles.sin(), angles.cos()], 1))
            emb = F.silu(emb + self.label_dense(one_hot.float()))
            x, skips = self.first_conv(x_t), []
            for block in self.down_blocks:
                skips.append(block(x, emb))
                x = F.avg_pool2d(skips[-1], 2)
            x = self.middle_block_1(x, emb)
            tokens = self.attention_norm(x).flatten(2).transpose(1, 2)
            attention_output, _ = self.attention(tokens, tokens, tokens, need_weights=False)
            x = x + attention_output.transpose(1, 2).reshape(x.shape)
            x = self.middle_block_2(x, emb)
            for conv, block in zip(self.up_blocks[::2], self.up_blocks[1::2], strict=True):
                x = F.interpolate(conv(x), scale_factor=2)
                x = block(torch.cat([x, skips.pop()], 1), emb)
            return self.noise(F.silu(self.last_norm(x)))

    return UNet()


def pytorch_training(model, network, x, y, batch_size, learning_rate=2e-3):
    """Return a function that trains a network in PyTorch, with averaged weights, on x."""
    import torch
    from torch.nn import functional as F

    images, labels = torch.tensor(x).permute(0, 3, 1, 2).contiguous(), torch.tensor(y).long()
    alphas_cumprod = torch.tensor(model.schedule.alphas_cumprod, dtype=torch.float32)
    with torch.no_grad():
        t = torch.arange(64) * 15
        expected = model.network([x[:64], t.numpy().astype("int32"), y[:64]])
        output = network(images[:64], t, labels[:64]).permute(0, 2, 3, 1)
        assert np.abs(output.numpy() - expected).max() < 1e-4
    ema_weights = [weight.detach().clone() for weight in network.parameters()]
    optimizer = torch.optim.Adam(network.parameters(), learning_rate, eps=1e-7)

    def train():
        for start in range(0, len(images), batch_size):
            x_0 = 2 * images[start : start + batch_size] - 1
            t, noise = torch.randint(0, 1000, (len(x_0),)), torch.randn(x_0.shape)
            dropped = torch.rand(len(x_0)) < 0.1
            batch_labels = torch.where(dropped, -1, labels[start : start + batch_size])
            alpha_bar = alphas_cumprod[t][:, None, None, None]
            x_t = alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * noise
            velocity = alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * x_0
            loss = F.mse_loss(network(x_t, t, batch_labels), velocity)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            torch._foreach_lerp_(ema_weights, [w.detach() for w in network.parameters()], 0.001)

    return train


def pytorch_ddim(network, schedule, num_steps):
    """Return a function that samples from a network in PyTorch by DDIM."""
    import torch

    timesteps = schedule.timesteps(num_steps).tolist()
    alphas_cumprod = [1, *schedule.alphas_cumprod[timesteps].tolist()]

    def sample(x_T, labels):
        x, labels = torch.tensor(x_T).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)
        with torch.inference_mode():
            for i in reversed(range(num_steps)):
                alpha_bar_prev, alpha_bar = alphas_cumprod[i : i + 2]
                v = network(x, torch.full((len(x),), timesteps[i]), labels)
                x_0 = math.sqrt(alpha_bar) * x - math.sqrt(1 - alpha_bar) * v
                x_0 = x_0.clamp(-1, 1)
                noise = (x - math.sqrt(alpha_bar) * x_0) / math.sqrt(1 - alpha_bar)
                x = math.sqrt(alpha_bar_prev) * x_0 + math.sqrt(1 - alpha_bar_prev) * noise
        return ((x + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1).numpy()

    return sample


def copy_weights(keras_network, network):
    """Copy the weights of a Keras network to a PyTorch one, created in the same order."""
    import torch
    from torch import nn

    module_types = {"Conv2D": nn.Conv2d, "GroupNormalization": nn.GroupNorm, "Dense": nn.Linear}
    for name, module_type in module_types.items():
        keras_layers = [layer for layer in keras_network.layers if type(layer).__name__ == name]
        # The number at the end of a name is the order of creation; "noise" is the last layer.
        keras_layers.sort(key=lambda layer: (layer.name == "noise", name_suffix(layer.name)))
        modules = [module for module in network.modules() if type(module) is module_type]
        for layer, module in zip(keras_layers, modules, strict=True):
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


def name_suffix(name):
    """Return the number at the end of a layer's name, 0 without one."""
    suffix = name.rsplit("_", 1)[-1]
    return int(suffix) if suffix.isdecimal() else 0


if __name__ == "__main__":
    main()
