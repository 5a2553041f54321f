"""The articles' claims on GANs and on data augmentation: networks are trained for each seed."""

import itertools

import keras
import numpy as np
from keras.optimizers import Adam

from keras_genai import metrics
from keras_genai.claim_report import (
    NOT_SHOWN,
    REFUTED,
    SUPPORTED,
    Claim,
    format_mean,
    sign_of_mean,
)
from keras_genai.claim_samples import (
    check_models,
    check_seeds,
    draw,
    family_of,
    load_pixels,
)
from keras_genai.cnn import build_cnn
from keras_genai.experiments import EXPERIMENTS
from keras_genai.gan import GAN, build_discriminator, build_generator
from keras_genai.validation import check_number, check_size

# Adversarial balance.

RATIOS = (1 / 16, 1 / 4, 1, 4, 16, 64)
GAN_BATCH, GAN_LEARNING_RATE = 128, 1e-3
HALF_WIDTH = 0.1  # of the interval around 1/2 in which the accuracy of D is near one half
DISTANCE, ACCURACY = "Fréchet distance", "accuracy of D"


def adversarial_balance(
    seeds=range(5), ratios=RATIOS, epochs: int = 6, num_images: int = 60_000, num_samples=10_000
) -> Claim:
    """Measure a GAN over the strength of its discriminator: article 3, section 4, and article 1.

    Article 3: generator and discriminator have to be balanced (平衡生成器网络和判别器网络之间的对抗
    关系), which yields a generator of high quality (高质量的生成器网络). Article 1: competition
    (竞争性互动) yields more and more convincing output.

    A small dense GAN with the articles' cross-entropy is trained for each ratio of the learning
    rate of D to that of G; the rate of G is always 0.001. The GANs of a seed begin with the same
    weights. Measures: Fréchet distance of the samples to as many test images, and accuracy of D on
    these: its mean, that of real and that of generated images.

    Rule of the verdict: supported if the distance of a setting between the ends is below those of
    both ends, refuted if that of an end is below those of all settings between, each by more than
    three standard errors of the paired difference. Equal rates are compared with both ends, too.
    The accuracy of D is near one half from 0.4 to 0.6; it is reported for the best setting.

    Args:
        seeds: Sequence of at least 2 different ints. Defaults to `range(5)`.
        ratios: Sequence of increasing numbers above 0, with 1 between the first and the last.
            Defaults to `(1/16, 1/4, 1, 4, 16, 64)`.
        epochs: Int. Epochs of each training. Defaults to `6`.
        num_images: Int from 128 to 60,000. Number of training images. Defaults to `60000`.
        num_samples: Int from 100 to 10,000. Number of samples. Defaults to `10000`.

    Raises:
        ValueError: for invalid seeds, ratios or sizes.
    """
    seeds, ratios, epochs = check_seeds(seeds), _check_ratios(ratios), check_size("epochs", epochs)
    num_images = check_size("num_images", num_images, GAN_BATCH, 60_000)
    num_samples = check_size("num_samples", num_samples, 100, 10_000)
    mnist = load_pixels()
    x, test = (images.reshape(len(images), -1) for images in (mnist.train, mnist.test))
    rows: dict = {_format_ratio(ratio): [] for ratio in ratios}
    reference = metrics.image_features(test[:num_samples])
    for seed in seeds:
        for ratio in ratios:
            gan = _train_gan(x[:num_images], ratio, epochs, seed)
            images = gan.generate(num_samples, seed=seed)
            distance = metrics.frechet_distance(reference, metrics.image_features(images))
            real, fake = (
                gan.discriminator.predict(batch, batch_size=500, verbose=0)
                for batch in (test[:num_samples], images)
            )
            correct = float(np.mean(real > 0.5)), float(np.mean(fake <= 0.5))
            rows[_format_ratio(ratio)].append([distance, np.mean(correct), *correct])
    names = (DISTANCE, ACCURACY, "on real images", "on generated images")
    measurements = {
        setting: dict(zip(names, np.transpose(values), strict=True))
        for setting, values in rows.items()
    }
    return Claim(
        "Article 3, section 4",
        "Balance between the generator and the discriminator yields a good generator "
        "(平衡生成器网络和判别器网络之间的对抗关系).",
        measurements,
        balance_verdict(measurements),
        dict.fromkeys(measurements, "GAN"),
        "learning rate of D / of G",
    )


def balance_verdict(measurements: dict) -> str:
    """Return the verdict of `adversarial_balance`; its docstring has the rule.

    Args:
        measurements: Dict of the ratios, in order, with `"1"` among them.
    """
    distances = {setting: values[DISTANCE] for setting, values in measurements.items()}
    first, *between, last = distances

    def is_below(setting, others):
        return all(sign_of_mean(distances[x] - distances[setting]) == 1 for x in others)

    verdict = NOT_SHOWN
    if any(is_below(end, between) for end in (first, last)):
        verdict = REFUTED
    if any(is_below(setting, (first, last)) for setting in between):
        verdict = SUPPORTED
    best = min(distances, key=lambda setting: float(np.mean(distances[setting])))
    accuracy = measurements[best][ACCURACY]
    near = "near" if abs(np.mean(accuracy) - 0.5) <= HALF_WIDTH else "not near"
    ends = " and ".join(f"{format_mean(distances[end])} at {end}" for end in (first, last))
    equal = "is" if is_below("1", (first, last)) else "is not shown to be"
    return (
        f"{verdict}: Fréchet distance {format_mean(distances[best])} at {best} times the learning "
        f"rate of G for D, the best, {ends}; {format_mean(distances['1'])} with equal rates "
        f"{equal} below both ends; accuracy of D at the best {format_mean(accuracy)}, {near} 1/2."
    )


def _check_ratios(ratios) -> list[float]:
    if not isinstance(ratios, (list, tuple)) or len(ratios) < 3:
        raise ValueError(f"ratios: expected at least 3 numbers, got {ratios!r:.200}.")
    checked = [float(check_number("ratios", ratio, above=0)) for ratio in ratios]
    rises = all(a < b for a, b in itertools.pairwise(checked))
    if not rises or 1 not in checked[1:-1]:
        raise ValueError(
            "ratios: expected increasing numbers, with 1 between the first and the last, got "
            f"{ratios!r:.200}."
        )
    return checked


def _format_ratio(ratio: float) -> str:
    inverse = round(1 / ratio)
    return f"1/{inverse}" if ratio < 1 and abs(inverse * ratio - 1) < 1e-9 else f"{ratio:g}"


def _train_gan(x, ratio: float, epochs: int, seed: int) -> GAN:
    """Train a GAN on images `(n, 784)`, with a multiple of G's learning rate for D."""
    keras.utils.set_random_seed(seed)  # initial weights and order of the images
    generator = build_generator(hidden_dims=(256,))
    gan = GAN(generator, build_discriminator(hidden_dims=(256,)), seed=seed)
    # A small beta_1 as in Radford et al. 2016. XLA makes dense networks faster.
    rates = GAN_LEARNING_RATE, GAN_LEARNING_RATE * ratio
    gan.compile(
        *(Adam(rate, beta_1=0.5) for rate in rates), jit_compile=True, steps_per_execution=32
    )
    x = x[: len(x) // GAN_BATCH * GAN_BATCH]  # equal batches, which are compiled once
    gan.fit(x, batch_size=GAN_BATCH, epochs=epochs, verbose=0)
    return gan


# Data augmentation.

SIZES = (100, 300, 1000)
CONDITIONAL_MODELS = (
    "conditional-vae",
    "conditional-conv-vae",
    "conditional-dcgan",
    "article3-diffusion",
)
BATCH = 20  # real images of a step, and as many additional ones
NUM_GENERATED = 2000  # images of each generator, which are repeated in further steps
VAE_BATCH = 100
MAX_SHIFT = 2  # pixels
REAL, OWN_VAE = "real images only", "and a VAE of the same images"
SHIFTS, MORE = "and shifts of the same images", "and other real images"
GAIN = "gain, points, "  # and the number of real images


def augmentation(
    seeds=range(10), sizes=SIZES, models=CONDITIONAL_MODELS, num_steps: int = 300, vae_steps=1000
) -> Claim:
    """Measure a classifier with generated training images: article 1, 数据增强和合成.

    Claim: generated samples extend limited training data (增强有限的训练数据集), so that a model
    generalizes better (提高了 ML 模型的泛化能力).

    Article 4's CNN is trained on 100, 300 and 1,000 images, as many of each digit, and tested on
    all 10,000 test images. All arms of a seed have the same real images, initial weights and number
    of steps. Each step has 20 real images, and in all arms but the first 20 additional ones, of
    2,000 generated images in turn. Copies of the real images instead would change nothing: the loss
    is a mean over the batch. Diffusion takes 10 steps of DPM-Solver++.

    THE PRETRAINED MODELS HAVE SEEN ALL 60,000 TRAINING IMAGES. What their samples add is knowledge
    of 60,000 images, which is not what the article means. The arm of the article's claim has a
    conditional VAE that is trained on the same 100, 300 or 1,000 images only.

    Rule of the verdict, for each number of images: supported if the accuracy with that VAE is above
    that of the real images only by more than three standard errors of the paired difference,
    refuted if it is below it by as much.

    Args:
        seeds: Sequence of at least 2 different ints. Defaults to `range(10)`.
        sizes: Sequence of different multiples of 10, from 20 to 50,000. Numbers of real images.
            Defaults to `(100, 300, 1000)`.
        models: Sequence of names of conditional pretrained models. Defaults to all.
        num_steps: Int. Training steps of the classifier. Defaults to `300`.
        vae_steps: Int. Training steps of the VAE of each seed and size. Defaults to `1000`.

    Raises:
        ValueError: for invalid seeds, numbers or names.
    """
    seeds, models = check_seeds(seeds), check_models(models, conditional=True)
    sizes, num_steps = _check_image_counts(sizes), check_size("num_steps", num_steps)
    vae_steps = check_size("vae_steps", vae_steps)
    mnist, labels = load_pixels(), np.arange(num_steps * BATCH) % 10
    classifier = _Classifier(mnist.test, mnist.test_labels)
    accuracies: dict = {}
    for seed in seeds:
        rng = np.random.default_rng(seed)
        for size in sizes:
            rows = _choose_rows(mnist.train_labels, size, rng)
            order = _cycle(rows, len(labels), rng)
            x, y = mnist.train[order], mnist.train_labels[order]
            others = np.setdiff1d(np.arange(len(mnist.train)), rows)
            others = _cycle(others, len(labels), rng)
            own_vae = _train_vae(mnist.train[rows], mnist.train_labels[rows], vae_steps, seed)
            generated = {
                OWN_VAE: own_vae.generate(NUM_GENERATED, np.arange(NUM_GENERATED) % 10, seed=seed)
            }
            for name in models:
                generated[f"and {name}"] = draw(name, NUM_GENERATED, seed, few_steps=True)
            additional = {REAL: None, SHIFTS: (_shift(x, rng), y)}
            for arm, images in generated.items():
                images = images.reshape(-1, 28, 28, 1)
                additional[arm] = images[np.arange(len(labels)) % NUM_GENERATED], labels
            additional[MORE] = mnist.train[others], mnist.train_labels[others]
            for arm, extra in additional.items():
                value = classifier.train_and_test(x, y, extra, seed)
                accuracies.setdefault(arm, {}).setdefault(size, []).append(value)
    measurements = _to_measurements(accuracies)
    return Claim(
        "Article 1, data augmentation",
        "Generated samples extend limited training data and improve generalization "
        "(增强有限的训练数据集, 提高了 ML 模型的泛化能力).",
        measurements,
        augmentation_verdict(measurements),
        {f"and {name}": family_of(name) for name in models} | {OWN_VAE: "VAE"},
    )


def _to_measurements(accuracies: dict) -> dict:
    """Return accuracy and paired gain over the real images only, of arm to size to list."""
    base = {size: np.array(values) for size, values in accuracies[REAL].items()}
    return {
        arm: {f"accuracy, %, {size:,} images": np.array(values[size]) for size in base}
        | {f"{GAIN}{size:,} images": np.array(values[size]) - base[size] for size in base}
        for arm, values in accuracies.items()
    }


def augmentation_verdict(measurements: dict) -> str:
    """Return the verdict of `augmentation`; its docstring has the rule."""
    parts = []
    own, others = measurements[OWN_VAE], set(measurements) - {REAL, OWN_VAE, SHIFTS, MORE}
    for measure, gains in own.items():
        if measure.startswith(GAIN):
            verdict = {1: SUPPORTED, -1: REFUTED, 0: NOT_SHOWN}[sign_of_mean(gains)]
            parts.append(
                f"{verdict.lower()} for {measure.removeprefix(GAIN)} ({format_mean(gains)} points)"
            )
    line = "With a VAE of the same images: " + ", ".join(parts) + "."
    if others:
        gains = [x for name in others for m, x in measurements[name].items() if GAIN in m]
        means = [float(np.mean(x)) for x in gains]
        line += (
            f" Pretrained models: {min(means):+.1f} to {max(means):+.1f} points, which is knowledge"
            " of all 60,000 training images, not of the limited set."
        )
    return line


def _check_image_counts(sizes) -> list[int]:
    if not isinstance(sizes, (list, tuple)) or not sizes:
        raise ValueError(f"sizes: expected a list of multiples of 10, got {sizes!r:.200}.")
    checked = [check_size("sizes", size, 2 * 10, 50_000) for size in sizes]
    if any(size % 10 for size in checked) or len(set(checked)) < len(checked):
        raise ValueError(f"sizes: expected different multiples of 10, got {sizes!r:.200}.")
    return checked


def _choose_rows(labels, size: int, rng) -> np.ndarray:
    """Return the rows of as many images of each digit."""
    digits = [np.flatnonzero(labels == digit) for digit in range(10)]
    return np.concatenate([rng.choice(rows, size // 10, replace=False) for rows in digits])


def _cycle(rows, number: int, rng) -> np.ndarray:
    """Return rows in random order, each once before one is repeated."""
    passes = -(-number // len(rows))
    return np.concatenate([rng.permutation(rows) for _ in range(passes)])[:number]


def _shift(images, rng) -> np.ndarray:
    """Return images, each shifted by a random number of pixels in both directions."""
    shifts = rng.integers(-MAX_SHIFT, MAX_SHIFT + 1, (len(images), 2))
    # The margin of MNIST is black.
    return np.stack(
        [np.roll(x, shift, axis=(0, 1)) for x, shift in zip(images, shifts, strict=True)]
    )


def _train_vae(x, y, steps: int, seed: int):
    """Train the network of `conditional-vae` on the given images alone."""
    keras.utils.set_random_seed(seed)
    experiment = EXPERIMENTS["conditional-vae"]
    model = experiment.build(seed, num_classes=10)
    experiment.compile(model, steps)
    order = _cycle(np.arange(len(x)), steps * VAE_BATCH, np.random.default_rng(seed))
    model.fit(x[order].reshape(-1, 784), y[order], batch_size=VAE_BATCH, shuffle=False, verbose=0)
    return model


class _Classifier:
    """Article 4's CNN, compiled once: each training begins with new weights.

    Args:
        x, y: Test images and their digits.
    """

    def __init__(self, x, y):
        self.test = x, y
        self.cnn = build_cnn()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.cnn.compile("adam", loss, metrics=["accuracy"], jit_compile=False)
        self.cnn.optimizer.build(self.cnn.trainable_variables)
        self.optimizer_state = [v.numpy() for v in self.cnn.optimizer.variables]

    def train_and_test(self, x, y, extra, seed: int) -> float:
        """Return the test accuracy in percent, with images and labels added to each step."""
        x, y = x.reshape(-1, BATCH, 28, 28, 1), y.reshape(-1, BATCH)
        if extra is not None:
            x = np.concatenate([x, extra[0].reshape(x.shape)], axis=1)
            y = np.concatenate([y, extra[1].reshape(y.shape)], axis=1)
        keras.utils.set_random_seed(seed)
        self.cnn.set_weights(build_cnn().get_weights())
        for variable, value in zip(self.cnn.optimizer.variables, self.optimizer_state, strict=True):
            variable.assign(value)
        x, batch = x.reshape(-1, 28, 28, 1), x.shape[1]
        self.cnn.fit(x, y.reshape(-1), batch, shuffle=False, verbose=0)
        return 100 * self.cnn.evaluate(*self.test, batch_size=500, verbose=0)[1]
