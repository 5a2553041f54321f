"""The articles' claims on generative models as measurements, each with a verdict and error bars.

Claims on pretrained models are measured here: one trained model each, and a set of samples for each
seed, so that the error bars cover the sampling, not the training. Those whose networks are trained
for each seed are in `training_claims`, the images in `claim_samples`, and `Claim`, the result, in
`claim_report`.
"""

import functools

import numpy as np

from keras_genai import datasets, files, metrics
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
    load_model,
    load_pixels,
    read_digits,
    train_classifier,
)
from keras_genai.training_claims import adversarial_balance, augmentation
from keras_genai.validation import check_choice, check_size

__all__ = [
    "CLAIMS",
    "Claim",
    "adversarial_balance",
    "augmentation",
    "autoregressive_quality",
    "diffusion_detail",
    "load_measured",
    "vae_diversity",
]

VAES = ("article4-vae", "conv-vae", "conditional-vae", "conditional-conv-vae")
OTHERS = ("article4-gan", "dcgan", "article3-diffusion")
PIXELCNN, DIFFUSION = "article3-pixelcnn", "article3-diffusion"
REAL = "training images"
TOLERANCE = 0.1  # of a fraction, or of a logarithm: how far below real images still counts as near
CERTAIN = 0.9  # probability
MIN_FREQUENCY = 7  # cycles per image, half of the highest one along an axis
MIN_SAMPLES = 100
SAMPLING = "one trained model each, {} sets of samples"


# Shared parts.


def _measure(seeds, num_samples: int, models, measure) -> dict:
    """Return the measurements of training images and of models.

    Args:
        seeds: List of ints.
        num_samples: Int. Number of images of each set, of test images, too.
        models: List of names.
        measure: Function of (test images, images, seed) that returns a dict of measures.
    """
    mnist = load_pixels()
    rows: dict = {}
    for seed in seeds:
        rng = np.random.default_rng(seed)
        test, train = (
            images[rng.choice(len(images), num_samples, replace=False)]
            for images in (mnist.test, mnist.train)
        )
        rows.setdefault(REAL, []).append(measure(test, train, seed))
        for name in models:
            images = draw(name, num_samples, seed)
            rows.setdefault(name, []).append(measure(test, images, seed))
    return {
        setting: {key: np.array([row[key] for row in results]) for key in results[0]}
        for setting, results in rows.items()
    }


def _quality(test, images) -> dict:
    """Return measures of images `(n, 28, 28, 1)` beside as many test images."""
    reference, features = map(metrics.image_features, (test, images))
    precision, recall = metrics.precision_recall(reference, features)
    _, probabilities = read_digits(load_model("article4-cnn"), images)
    return {
        "Fréchet distance": metrics.frechet_distance(reference, features),
        "precision": precision,
        "recall": recall,
        "certain": float(np.mean(probabilities >= CERTAIN)),
    }


def high_frequency_energy(images) -> float:
    """Return the mean energy of images at frequencies of at least 7 cycles per image.

    Sum of the power spectrum |FFT|² over the pixels, over all waves whose radial frequency is half
    of the highest one along an axis or more.

    Args:
        images: Float array `(n, 28, 28, 1)` in [0, 1].
    """
    power = np.abs(np.fft.fft2(np.asarray(images, "float64")[..., 0])) ** 2
    cycles = np.fft.fftfreq(power.shape[1], 1 / power.shape[1])
    radius = np.hypot(cycles[:, None], cycles)
    return float(power[:, radius >= MIN_FREQUENCY].sum(axis=1).mean() / power[0].size)


def _nearness(measurements: dict, name: str, measures) -> int:
    """Compare a model with training images: 1 if near in all measures, -1 if far in one, else 0.

    Near: at most 0.1 below, shown by more than three standard errors of the paired difference. Far:
    more than 0.1 below, shown as surely.
    """
    signs = [
        sign_of_mean(measurements[name][key] - measurements[REAL][key] + TOLERANCE)
        for key in measures
    ]
    return min(signs)


VERDICTS = {1: SUPPORTED, 0: NOT_SHOWN, -1: REFUTED}


def _list_values(measurements, name, measures) -> str:
    own, real = measurements[name], measurements[REAL]
    return ", ".join(
        f"{key} {format_mean(own[key])} (real images {np.mean(real[key]):.2f})" for key in measures
    )


def _best(measurements, key, best=min) -> str:
    """Return the model with the smallest (or largest) mean of a measure."""
    models = [name for name in measurements if name != REAL]
    return best(models, key=lambda name: float(np.mean(measurements[name][key])))


def _families(measurements) -> dict:
    return {name: family_of(name) for name in measurements}


# Autoregressive models.


def autoregressive_quality(
    seeds=range(5), num_samples: int = 1000, models=("article4-vae", "conv-vae", *OTHERS)
) -> Claim:
    """Measure the PixelCNN beside other families, all in black and white: article 3, section 5.

    Claim: autoregressive models generate images of high quality, lifelike (高质量、逼真), and
    diverse (具有多样性).

    The images of the PixelCNN are black and white. Test and training images and the samples of the
    other models are binarized at random with their brightness as the probability of white, so that
    no model is worse for its gray or for the lack of it. All sets have the same number of images:
    the distance of the training images is the smallest that can be expected.

    Each pretrained model was trained once. The seeds are those of the samples, and the errors do
    not cover the training.

    Rule of the verdict, for quality by precision and by the fraction of images of which article 4's
    CNN is certain (a probability of at least 0.9), and for diversity by recall: supported if each
    is at most 0.1 below that of training images, refuted if one is more than 0.1 below, both by
    more than three standard errors of the paired difference.

    Args:
        seeds: Sequence of at least 2 different ints. Defaults to `range(5)`.
        num_samples: Int from 100 to 10,000. Number of images of each set. Defaults to `1000`.
        models: List of names of the other models. Defaults to a VAE, a GAN and a diffusion model.

    Raises:
        ValueError: for invalid seeds, sizes or names.
    """
    seeds, others = check_seeds(seeds), check_models(models)
    num_samples = check_size("num_samples", num_samples, MIN_SAMPLES, 10_000)
    names = [PIXELCNN, *(name for name in others if name != PIXELCNN)]

    def measure(test, images, seed):
        return _quality(*(datasets.binarize(x, seed + i) for i, x in enumerate((test, images))))

    measurements = _measure(seeds, num_samples, names, measure)
    return Claim(
        "Article 3, section 5",
        "Autoregressive models generate lifelike images of high quality (高质量、逼真) and diverse "
        "ones (多样性).",
        measurements,
        autoregressive_verdict(measurements),
        _families(measurements),
    )


def autoregressive_verdict(measurements: dict) -> str:
    """Return the verdict of `autoregressive_quality`; its docstring has the rule."""
    parts = [
        f"{VERDICTS[_nearness(measurements, PIXELCNN, keys)]}, {half}: "
        + _list_values(measurements, PIXELCNN, keys)
        for half, keys in {"quality": ("precision", "certain"), "diversity": ("recall",)}.items()
    ]
    key = "Fréchet distance"
    best, own = _best(measurements, key), measurements[PIXELCNN][key]
    return (
        f"{'; '.join(parts)}; Fréchet distance {format_mean(own)}, real images "
        f"{format_mean(measurements[REAL][key])}, best model {best}; "
        f"{SAMPLING.format(len(own))}."
    )


# Diffusion.


def diffusion_detail(
    seeds=range(5),
    num_samples: int = 1000,
    models=("article4-vae", "conv-vae", "article4-gan", "dcgan"),
    probe_epochs: int = 2,
    num_probe_images: int = 60_000,
) -> Claim:
    """Measure fine detail and long-range structure of diffusion samples: article 3, section 6.

    Claim: diffusion models handle long-range dependencies (有效处理长程依赖关系), and their images
    have rich detail (丰富细节).

    Detail: energy at high spatial frequencies, see `high_frequency_energy`, divided by that of as
    many test images. The measure is minus the absolute logarithm: 0 for the same energy, below it
    for blur and for noise alike.

    Long-range structure: two classifiers, trained on the upper and on the lower halves of real
    images, read both halves of each sample; neither half shows the other one. Of the samples whose
    halves both read with a probability of at least 0.9, so that blur does not count, the measure is
    Cohen's kappa of the two digits, (agreement - chance) / (1 - chance). Chance is the agreement of
    chimeras, the upper half of one sample above the lower half of another, over all pairs: kappa is
    0 for them, and 1 if the halves always agree.

    Each pretrained model was trained once. The seeds are those of the samples, and the errors do
    not cover the training, nor that of the two classifiers.

    Rule of the verdict, for either measure: supported if it is at most 0.1 below that of training
    images, refuted if it is more than 0.1 below, both by more than three standard errors of the
    paired difference. The verdict names the best model, too.

    Args:
        seeds: Sequence of at least 2 different ints. Defaults to `range(5)`.
        num_samples: Int from 100 to 10,000. Number of images of each set. Defaults to `1000`.
        models: List of names of the other models. Defaults to two VAEs and two GANs.
        probe_epochs: Int. Epochs of the training of the two classifiers. Defaults to `2`.
        num_probe_images: Int from 100 to 60,000. Number of their training images. Defaults to
            `60000`.

    Raises:
        ValueError: for invalid seeds, sizes or names.
    """
    seeds, others = check_seeds(seeds), check_models(models)
    num_samples = check_size("num_samples", num_samples, MIN_SAMPLES, 10_000)
    probe_epochs = check_size("probe_epochs", probe_epochs)
    num_probe_images = check_size("num_probe_images", num_probe_images, 100, 60_000)
    names = [DIFFUSION, *(name for name in others if name != DIFFUSION)]
    mnist = load_pixels()
    x, y = mnist.train[:num_probe_images], mnist.train_labels[:num_probe_images]
    probes = [train_classifier(half, y, probe_epochs) for half in _halves(x)]

    def measure(test, images, seed):
        ratio = high_frequency_energy(images) / high_frequency_energy(test)
        readings = [
            read_digits(probe, half) for probe, half in zip(probes, _halves(images), strict=True)
        ]
        readable = np.all([p >= CERTAIN for _, p in readings], axis=0)
        agreement, chance = agreement_of_halves(*(digits[readable] for digits, _ in readings))
        return {
            "high-frequency energy": ratio,
            DETAIL: -abs(float(np.log(max(ratio, 1e-9)))),
            "halves readable": float(np.mean(readable)),
            "halves agree": agreement,
            "chimeras agree": chance,
            KAPPA: (agreement - chance) / (1 - chance) if chance < 1 else 0.0,
        }

    measurements = _measure(seeds, num_samples, names, measure)
    return Claim(
        "Article 3, section 6",
        "Diffusion models handle long-range dependencies (有效处理长程依赖关系), and their images "
        "have rich detail (丰富细节).",
        measurements,
        diffusion_verdict(measurements),
        _families(measurements),
    )


DETAIL, KAPPA = "detail, 0 is best", "kappa of halves"


def _halves(images):
    middle = images.shape[1] // 2
    return images[:, :middle], images[:, middle:]


def agreement_of_halves(upper, lower) -> tuple[float, float]:
    """Return the fraction of equal digits, and the one over all pairs of an upper and a lower half.

    Args:
        upper, lower: Int arrays `(n,)` of digits. Without any, both fractions are 0.
    """
    if len(upper) == 0:
        return 0.0, 0.0
    upper_fractions, lower_fractions = (
        np.bincount(digits, minlength=10) / len(digits) for digits in (upper, lower)
    )
    return float(np.mean(upper == lower)), float(upper_fractions @ lower_fractions)


def diffusion_verdict(measurements: dict) -> str:
    """Return the verdict of `diffusion_detail`; its docstring has the rule."""
    parts = [
        f"{VERDICTS[_nearness(measurements, DIFFUSION, (key,))]}, {half}: "
        f"{_list_values(measurements, DIFFUSION, (key,))}, best model "
        f"{_best(measurements, key, max)}"
        for half, key in {"detail": DETAIL, "long-range structure": KAPPA}.items()
    ]
    num_seeds = len(measurements[DIFFUSION][DETAIL])
    return f"{'; '.join(parts)}; {SAMPLING.format(num_seeds)}."


# VAE.


def vae_diversity(seeds=range(5), num_samples: int = 1000, vaes=VAES, models=OTHERS) -> Claim:
    """Measure diversity and quality of the samples of VAEs: article 3, section 7.

    Claim: VAEs generate diverse samples of high quality (高质量、多样化的图像样本).

    Diversity: recall and coverage among test images. Quality: precision, density up to 1, the
    fraction of images of which article 4's CNN is certain (a probability of at least 0.9), and
    sharpness up to 1, the ratio of the energy at high spatial frequencies to that of test images:
    blurred images can have high precision.

    Each pretrained model was trained once. The seeds are those of the samples, and the errors do
    not cover the training.

    Rule of the verdict, for each half of the claim: supported if all its measures are, for at least
    one VAE, at most 0.1 below those of training images, refuted if one of them is more than 0.1
    below for every VAE, both by more than three standard errors of the paired difference.

    Args:
        seeds: Sequence of at least 2 different ints. Defaults to `range(5)`.
        num_samples: Int from 100 to 10,000. Number of images of each set. Defaults to `1000`.
        vaes: List of names of VAEs. Defaults to the articles' and the convolutional ones.
        models: List of names of other models. Defaults to two GANs and a diffusion model.

    Raises:
        ValueError: for invalid seeds, sizes or names.
    """
    seeds, models = check_seeds(seeds), check_models(models)
    vaes = check_models(vaes, name="vaes", families=("VAE",))
    num_samples = check_size("num_samples", num_samples, MIN_SAMPLES, 10_000)

    def measure(test, images, seed):
        features = map(metrics.image_features, (test, images))
        density, coverage = metrics.density_coverage(*features)
        ratio = high_frequency_energy(images) / high_frequency_energy(test)
        capped = {"density, up to 1": min(density, 1.0), "sharpness, up to 1": min(ratio, 1.0)}
        return {**_quality(test, images), "coverage": coverage, **capped}

    names = [*vaes, *(name for name in models if name not in vaes)]
    measurements = _measure(seeds, num_samples, names, measure)
    return Claim(
        "Article 3, section 7",
        "VAEs generate diverse samples of high quality (高质量、多样化的图像样本).",
        measurements,
        vae_verdict(measurements),
        _families(measurements),
    )


HALVES = {
    "diversity": ("recall", "coverage"),
    "quality": ("precision", "density, up to 1", "certain", "sharpness, up to 1"),
}


def vae_verdict(measurements: dict) -> str:
    """Return the verdict of `vae_diversity`; its docstring has the rule."""
    vaes = [name for name in measurements if family_of(name) == "VAE"]
    parts = []
    for half, keys in HALVES.items():
        signs = {name: _nearness(measurements, name, keys) for name in vaes}
        near = [name for name in vaes if signs[name] == 1]
        # The VAE whose largest deficit is smallest: the best of them.
        best = max(vaes, key=functools.partial(_smallest_margin, measurements, keys))
        by = f" by {', '.join(near)}" if near else f", best {best}"
        values = _list_values(measurements, near[0] if near else best, keys)
        parts.append(f"{VERDICTS[max(signs.values())]}, {half}{by}: {values}")
    num_seeds = len(measurements[REAL]["recall"])
    return f"{'; '.join(parts)}; {SAMPLING.format(num_seeds)}."


def _smallest_margin(measurements, keys, name) -> float:
    return min(float(np.mean(measurements[name][k] - measurements[REAL][k])) for k in keys)


CLAIMS = {
    function.__name__: function
    for function in (
        adversarial_balance,
        autoregressive_quality,
        diffusion_detail,
        vae_diversity,
        augmentation,
    )
}


def load_measured(name: str) -> Claim:
    """Return a claim as measured with the default arguments, from a file of the package.

    `python tests/benchmarks/claims.py --output FOLDER` measures all claims anew and writes the
    file, `claims.json`.

    Args:
        name: String. Name of the function that measures the claim, a key of `CLAIMS`.

    Raises:
        ValueError: for another name.
    """
    check_choice("name", name, CLAIMS)
    return Claim(**files.read_json(datasets.data_path("claims.json"))[name])
