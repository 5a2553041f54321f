"""The articles' claims: statistics and table by hand, verdicts of made-up figures, known images."""

import importlib.util
import json
import pathlib
import sys

import numpy as np
import pytest
from scipy import stats

from keras_genai import claim_report, claim_samples, claims, datasets, training_claims
from keras_genai.claim_report import Claim, format_mean, sign_of_mean, standard_error
from keras_genai.claims import REAL


def settings(**values):
    """Return measurements of one measure, `"a"`."""
    return {name: {"a": np.array(x)} for name, x in values.items()}


def claim(**values):
    return Claim("Article 1", "Statement.", settings(**values), "Not shown: nothing.")


# Statistics, table and figure.


def test_standard_error_and_table_equal_those_by_hand():
    values = [1.0, 2.0, 6.0]  # mean 3, deviations -2, -1, 3: variance 14 / 2, error sqrt(7 / 3)
    assert standard_error(values) == pytest.approx((7 / 3) ** 0.5)
    assert standard_error(values) == pytest.approx(stats.sem(values))
    table = claim(first=values, second=[0.25, 0.25, 0.25]).table()
    assert table == "| setting | a |\n| --- | --- |\n| first | 3.0 ± 1.5 |\n" + (
        "| second | 0.250 ± 0.000 |\n"
    )
    named = Claim("Article 1", "Statement.", settings(a=values), "Supported.", label="rate")
    assert named.table().startswith("| rate | a |")
    assert [axes.get_ylabel() for axes in named.plot().axes] == ["rate"]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1184, 1216], "1,200 ± 16"),
        ([0.51, 0.53], "0.520 ± 0.010"),
        ([7.0, 8.6], "7.8 ± 0.8"),
        ([10.0, 70.0], "40 ± 30"),
        ([0.0, 0.0], "0.000 ± 0.000"),
    ],
)
def test_decimals_follow_the_error(values, text):
    assert format_mean(values) == text


def test_a_difference_counts_beyond_three_standard_errors():
    noise = np.array([-1.0, 0.0, 1.0])
    error = 1 / 3**0.5
    assert sign_of_mean(noise + 3.01 * error) == 1
    assert sign_of_mean(noise - 3.01 * error) == -1
    assert sign_of_mean(noise + 2.99 * error) == 0
    assert sign_of_mean([0.5, 0.5]) == 1
    assert sign_of_mean([0.0, 0.0]) == 0
    # Two-sided 95% of Student's t with four degrees of freedom.
    assert claim_report.NUM_ERRORS > stats.t.ppf(0.975, 4) > 2


def test_the_figure_has_the_means_the_errors_and_all_values():
    figure = claim(first=[1.0, 2.0, 6.0], second=[4.0, 4.0, 4.0]).plot()
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["first", "second"]
    assert "standard error of 3 seeds" in figure.get_suptitle()
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    np.testing.assert_array_equal(dots[0].get_xdata(), [1, 2, 6])
    bar = axes.collections[0].get_segments()[0]
    np.testing.assert_allclose(bar[:, 0], [3 - (7 / 3) ** 0.5, 3 + (7 / 3) ** 0.5])


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"source": 1}, "source"),
        ({"statement": None}, "statement"),
        ({"verdict": "two\nlines"}, "verdict"),
        ({"families": []}, "families"),
        ({"measurements": {}}, "measurements"),
        ({"measurements": {"x": {}}}, "measurements"),
        ({"measurements": settings(x=[1.0])}, "measurements"),
        ({"measurements": settings(x=[1.0, np.nan])}, "measurements: x: a"),
        ({"measurements": settings(x=[1.0, 2.0], y=[1.0, 2.0, 3.0])}, "measurements"),
        ({"measurements": {**settings(x=[1.0, 2.0]), "y": {"b": [1.0, 2.0]}}}, "measurements"),
    ],
)
def test_a_claim_refuses_other_arguments_by_name(arguments, name):
    valid = {
        "source": "a",
        "statement": "b",
        "measurements": settings(x=[1.0, 2.0]),
        "verdict": "c",
    }
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        Claim(**{**valid, **arguments})


def test_plot_refuses_an_unknown_measure():
    for measures in (["b"], [], "a", 3):
        with pytest.raises(ValueError, match="measures: expected"):
            claim(x=[1.0, 2.0]).plot(measures)


# Verdicts of made-up figures.

NOISE = np.array([-0.01, 0.0, 0.01])


def balance(distances, accuracy):
    return training_claims.balance_verdict(
        {
            setting: {
                training_claims.DISTANCE: distance + NOISE,
                training_claims.ACCURACY: accuracy + NOISE,
            }
            for setting, distance in zip(("1/4", "1", "4"), distances, strict=True)
        }
    )


def test_verdict_on_balance_needs_a_setting_below_both_ends():
    verdict = balance((30, 10, 20), 0.55)
    assert verdict.startswith("Supported: Fréchet distance 10.000 ± 0.006 at 1 times")
    assert "30.000 ± 0.006 at 1/4 and 20.000 ± 0.006 at 4" in verdict
    assert "equal rates is below both ends" in verdict and verdict.endswith("0.006, near 1/2.")
    verdict = balance((30, 20, 10), 0.9)
    assert verdict.startswith("Refuted") and "10.000 ± 0.006 at 4 times" in verdict
    assert "is not shown to be below both ends" in verdict and "not near 1/2" in verdict
    assert balance((30, 10, 10), 0.9).startswith("Not shown")


def quality(precision, certain, recall, distance=5.0):
    real = {"precision": 0.8, "certain": 0.99, "recall": 0.8, "Fréchet distance": 3.0}
    own = dict(zip(real, (precision, certain, recall, distance), strict=True))
    return {
        setting: {key: value + NOISE * (i + 1) for key, value in values.items()}
        for i, (setting, values) in enumerate({REAL: real, claims.PIXELCNN: own}.items())
    }


def test_verdict_on_autoregressive_models_takes_quality_and_diversity_apart():
    verdict = claims.autoregressive_verdict(quality(0.78, 0.95, 0.5))
    assert verdict.startswith("Supported, quality: precision 0.780 ± 0.012 (real images 0.80)")
    assert "Refuted, diversity: recall 0.500 ± 0.012" in verdict
    assert "one trained model each, 3 sets of samples" in verdict and "\n" not in verdict
    verdict = claims.autoregressive_verdict(quality(0.78, 0.7, 0.7))
    assert verdict.startswith("Refuted, quality") and "Not shown, diversity" in verdict


def test_verdict_on_diffusion_names_the_best_model():
    def verdict(detail, kappa):
        values = {REAL: (0.0, 0.95), claims.DIFFUSION: (detail, kappa), "dcgan": (-0.05, 0.5)}
        return claims.diffusion_verdict(
            {
                name: {
                    claims.DETAIL: row[0] + NOISE * (i + 1),
                    claims.KAPPA: row[1] + NOISE * (i + 1),
                }
                for i, (name, row) in enumerate(values.items())
            }
        )

    line = verdict(-0.3, 0.95)
    assert line.startswith("Refuted, detail") and "best model dcgan; Supported, long-range" in line
    assert line.count("best model article3-diffusion") == 1
    assert verdict(-0.01, 0.85).startswith("Supported, detail")
    assert "Not shown, long-range structure: kappa of halves 0.850 ± 0.012" in verdict(0, 0.85)


def test_verdict_on_vaes_needs_one_vae_that_is_near_in_all_measures():
    keys = [key for half in claims.HALVES.values() for key in half]

    def verdict(**rows):
        rows = {REAL: np.ones(6), **{name.replace("_", "-"): row for name, row in rows.items()}}
        return claims.vae_verdict(
            {
                name: {key: row[i] + NOISE * (j + 1) for i, key in enumerate(keys)}
                for j, (name, row) in enumerate(rows.items())
            }
        )

    line = verdict(conv_vae=[0.99, 0.99, 0.99, 0.99, 0.99, 0.5], dcgan=[1] * 6)
    assert line.startswith("Supported, diversity by conv-vae: recall 0.990")
    assert "; Refuted, quality, best conv-vae: precision 0.990" in line
    # The one is diverse, the other one of high quality.
    line = verdict(conv_vae=[0.99, 0.99, 0, 1, 1, 1], article4_vae=[0.1, 0.1, 1, 1, 1, 1])
    assert line.startswith("Supported, diversity by conv-vae")
    assert "Supported, quality by article4-vae" in line
    assert verdict(conv_vae=[0.9, 1, 1, 1, 1, 1]).startswith("Not shown, diversity, best conv-vae")


def test_verdict_on_augmentation_is_that_of_the_vae_of_the_same_images():
    accuracies = {
        training_claims.REAL: {100: [80, 81, 82], 300: [90, 91, 92], 1000: [95, 95, 95]},
        training_claims.OWN_VAE: {100: [78, 79, 80.1], 300: [92, 93.1, 94], 1000: [95, 96, 94]},
        "and conditional-vae": {100: [90, 90, 90], 300: [92, 92, 92], 1000: [95, 95, 95]},
    }
    measurements = training_claims._to_measurements(accuracies)
    gain = measurements[training_claims.OWN_VAE]["gain, points, 100 images"]
    np.testing.assert_allclose(gain, [-2, -2, -1.9])
    verdict = training_claims.augmentation_verdict(measurements)
    assert "refuted for 100 images (-1.97 ± 0.03 points)" in verdict
    assert "supported for 300 images (2.03 ± 0.03 points)" in verdict
    assert "not shown for 1,000 images" in verdict
    assert "+0.0 to +9.0 points, which is knowledge of all 60,000" in verdict


# Images.


@pytest.fixture
def few_digits(monkeypatch):
    """Replace MNIST by its first 400 training and test images; return them in [0, 1]."""
    train, test = ((x[:400], y[:400]) for x, y in datasets.load_mnist())
    monkeypatch.setattr(datasets, "load_mnist", lambda: (train, test))
    return claim_samples.load_pixels()


@pytest.fixture
def draw_known(monkeypatch):
    """Replace the samples of models by known images, a function of (name, seed)."""

    def replace(images):
        def draw(name, num_samples, seed, few_steps=False):
            return np.resize(images(name), (num_samples, 28, 28, 1))

        monkeypatch.setattr(claims, "draw", draw)
        monkeypatch.setattr(training_claims, "draw", draw)

    return replace


def blur(images):
    """Return the mean of each image and its neighbors to the left and above."""
    images = (images + np.roll(images, 1, axis=1)) / 2
    return (images + np.roll(images, 1, axis=2)) / 2


def test_high_frequency_energy_of_waves_is_known():
    x = np.arange(28)
    waves = [0.5 + 0.5 * np.cos(2 * np.pi * k * x / 28) for k in (3, 6, 7, 13)]
    images = np.broadcast_to(np.array(waves)[:, None, :, None], (4, 28, 28, 1))
    # Parseval: the sum of squares of the wave without its mean, 784 / 8, is in its own frequency.
    energies = [claims.high_frequency_energy(image[None]) for image in images]
    np.testing.assert_allclose(energies, [0, 0, 98, 98], atol=1e-9)


def test_blurred_images_have_less_energy_at_high_frequencies(few_digits):
    blurred = claims.high_frequency_energy(blur(few_digits.test))
    assert blurred < 0.5 * claims.high_frequency_energy(few_digits.test)


def test_chimeras_agree_as_often_as_their_digits_are_frequent():
    rng = np.random.default_rng(0)
    upper = rng.integers(0, 10, 200)
    agreement, chance = claims.agreement_of_halves(upper, upper)
    pairs = np.mean(upper[:, None] == upper)
    assert agreement == 1 and chance == pytest.approx(pairs)
    lower = rng.permutation(upper)
    assert claims.agreement_of_halves(upper, lower)[1] == pytest.approx(pairs)
    assert claims.agreement_of_halves(upper[:0], lower[:0]) == (0, 0)


@pytest.mark.slow
def test_copies_of_one_image_have_no_recall(few_digits, draw_known):
    draw_known(lambda name: few_digits.test[:1] if "vae" in name else few_digits.test)
    result = claims.vae_diversity(range(2), 100, ["conv-vae"], ["dcgan"])
    copies = result.measurements["conv-vae"]
    # Only the image itself, if it is among the 100 test images, is in a ball of radius 0.
    assert max(copies["recall"]) <= 0.01 and max(copies["coverage"]) <= 0.2
    assert min(result.measurements["dcgan"]["recall"]) > 0.5
    assert result.verdict.startswith("Refuted, diversity, best conv-vae")
    assert list(result.measurements) == [REAL, "conv-vae", "dcgan"]
    assert all(len(x) == 2 for row in result.measurements.values() for x in row.values())


def test_the_pixelcnn_is_compared_in_black_and_white(few_digits, draw_known, monkeypatch):
    draw_known(lambda name: few_digits.test)
    seen = []
    monkeypatch.setattr(claims, "_quality", lambda *images: seen.append(images) or {
        "Fréchet distance": 0.0, "precision": 1.0, "recall": 1.0, "certain": 1.0
    })  # fmt: skip
    result = claims.autoregressive_quality(range(2), 100, ["dcgan"])
    assert list(result.measurements) == [REAL, "article3-pixelcnn", "dcgan"]
    assert len(seen) == 6
    assert all(set(np.unique(x)) == {0, 1} and len(x) == 100 for pair in seen for x in pair)


@pytest.mark.slow
def test_blur_and_chimeras_are_found(few_digits, draw_known):
    images = few_digits.test
    other_half = np.concatenate([images[:, :14], np.roll(images, 1, axis=0)[:, 14:]], axis=1)
    sets = {"article3-diffusion": other_half, "conv-vae": blur(images), "dcgan": images}
    draw_known(sets.get)
    train, labels = np.concatenate([images] * 10), np.concatenate([few_digits.test_labels] * 10)
    data = claim_samples.MNISTPixels(train, labels, images, few_digits.test_labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claims, "load_pixels", lambda: data)
        result = claims.diffusion_detail(range(2), 400, ["conv-vae", "dcgan"], 2, 4000)
    energy = {name: row["high-frequency energy"] for name, row in result.measurements.items()}
    np.testing.assert_allclose(energy["dcgan"], 1)
    assert max(energy["conv-vae"]) < 0.5
    kappa = {name: np.mean(row[claims.KAPPA]) for name, row in result.measurements.items()}
    assert abs(kappa["article3-diffusion"]) < 0.15 and kappa["dcgan"] > 0.7
    assert (
        "Refuted, long-range structure" in result.verdict and "best model dcgan" in result.verdict
    )


# Training.


@pytest.mark.slow
def test_a_discriminator_that_learns_faster_is_more_accurate(few_digits):
    result = training_claims.adversarial_balance(range(2), (1e-6, 1, 4), 2, 384, 100)
    assert list(result.measurements) == ["1/1000000", "1", "4"]
    rows = result.measurements.values()
    slowest, _, fastest = (row["accuracy of D"] for row in rows)
    assert np.mean(fastest) > np.mean(slowest)
    for row in rows:
        mean = (row["on real images"] + row["on generated images"]) / 2
        np.testing.assert_allclose(row["accuracy of D"], mean)


@pytest.mark.slow
def test_more_real_images_help_a_classifier_and_black_ones_do_not(few_digits, draw_known):
    draw_known(lambda name: np.zeros((1, 28, 28, 1), "float32"))
    result = claims.augmentation(range(2), [50], ["conditional-vae"], num_steps=60, vae_steps=20)
    measure = "gain, points, 50 images"
    gains = {arm: np.mean(row[measure]) for arm, row in result.measurements.items()}
    assert gains[training_claims.REAL] == 0
    assert gains[training_claims.MORE] > 5
    assert gains["and conditional-vae"] < gains[training_claims.MORE]


@pytest.mark.slow
def test_the_classifier_begins_anew_for_each_training(few_digits):
    classifier = training_claims._Classifier(few_digits.test[:50], few_digits.test_labels[:50])
    x, y = few_digits.train[:60], few_digits.train_labels[:60]
    first = classifier.train_and_test(x, y, None, seed=0)
    weights = classifier.cnn.get_weights()
    classifier.train_and_test(x, y, (x[::-1], y[::-1]), seed=1)
    assert classifier.train_and_test(x, y, None, seed=0) == first
    for array, again in zip(weights, classifier.cnn.get_weights(), strict=True):
        np.testing.assert_array_equal(array, again)


def test_rows_have_each_digit_as_often_and_come_in_turn():
    labels = np.repeat(np.arange(10), 7)
    rng = np.random.default_rng(0)
    rows = training_claims._choose_rows(labels, 50, rng)
    np.testing.assert_array_equal(np.bincount(labels[rows]), np.full(10, 5))
    assert len(set(rows)) == 50
    order = training_claims._cycle(rows, 120, rng)
    assert len(order) == 120 and set(order[:50]) == set(order[50:100]) == set(rows)


def test_shifts_move_whole_digits(few_digits):
    shifted = training_claims._shift(few_digits.train[:50], np.random.default_rng(0))
    np.testing.assert_allclose(shifted.sum((1, 2, 3)), few_digits.train[:50].sum((1, 2, 3)), 1e-4)
    assert np.any(shifted != few_digits.train[:50])


# Arguments and program.


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        *((function, {"seeds": [0]}, "seeds") for function in claims.CLAIMS.values()),
        *((function, {"seeds": [0, 0]}, "seeds") for function in claims.CLAIMS.values()),
        *((function, {"seeds": 3}, "seeds") for function in claims.CLAIMS.values()),
        (claims.adversarial_balance, {"ratios": (1, 2, 4)}, "ratios"),
        (claims.adversarial_balance, {"ratios": (4, 1, 0.5)}, "ratios"),
        (claims.adversarial_balance, {"ratios": (0, 1, 2)}, "ratios"),
        (claims.adversarial_balance, {"epochs": 0}, "epochs"),
        (claims.adversarial_balance, {"num_images": 70_000}, "num_images"),
        (claims.adversarial_balance, {"num_samples": 99}, "num_samples"),
        (claims.autoregressive_quality, {"models": ["article4-gpt2"]}, "models"),
        (claims.autoregressive_quality, {"models": []}, "models"),
        (claims.autoregressive_quality, {"num_samples": 20_000}, "num_samples"),
        (claims.diffusion_detail, {"models": ["dcgan", "dcgan"]}, "models"),
        (claims.diffusion_detail, {"probe_epochs": 0.5}, "probe_epochs"),
        (claims.diffusion_detail, {"num_probe_images": 1}, "num_probe_images"),
        (claims.vae_diversity, {"vaes": ["dcgan"]}, "vaes"),
        (claims.vae_diversity, {"vaes": "conv-vae"}, "vaes"),
        (claims.vae_diversity, {"models": [3]}, "models"),
        (claims.augmentation, {"sizes": [105], "models": ["conditional-vae"]}, "sizes"),
        (claims.augmentation, {"sizes": 100, "models": ["conditional-vae"]}, "sizes"),
        (claims.augmentation, {"models": ["conv-vae"]}, "models"),
        (claims.augmentation, {"num_steps": 0, "models": ["conditional-vae"]}, "num_steps"),
        (claims.augmentation, {"vae_steps": 0, "models": ["conditional-vae"]}, "vae_steps"),
    ],
)
def test_claims_refuse_other_arguments_by_name(function, arguments, name):
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        function(**arguments)


def test_samples_are_drawn_once_and_diffusion_takes_few_steps_if_asked(monkeypatch):
    from keras_genai.diffusion import DDPM, NoiseSchedule, build_unet

    network = build_unet((28, 28, 1), (8,), num_classes=10)
    model = DDPM(network, NoiseSchedule("cosine", 20), seed=0)
    calls = []

    def generate(num_samples, labels=None, **options):
        calls.append((num_samples, labels, options.get("num_steps")))
        return np.zeros((num_samples, 28, 28, 1), "float32")

    monkeypatch.setattr(model, "generate", generate)
    monkeypatch.setattr(claim_samples, "load_model", lambda name: model)
    claim_samples.draw.cache_clear()
    images = claim_samples.draw("any", 12, 0)
    assert claim_samples.draw("any", 12, 0) is images and not images.flags.writeable
    claim_samples.draw("any", 12, 0, few_steps=True)
    labels = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert calls == [(12, labels, None), (12, labels, 10)]
    claim_samples.draw.cache_clear()


@pytest.mark.parametrize("name", claims.CLAIMS)
def test_measured_claims_have_the_verdicts_of_their_values_and_are_documented(name):
    claim = claims.load_measured(name)
    verdicts = {
        "adversarial_balance": training_claims.balance_verdict,
        "autoregressive_quality": claims.autoregressive_verdict,
        "diffusion_detail": claims.diffusion_verdict,
        "vae_diversity": claims.vae_verdict,
        "augmentation": training_claims.augmentation_verdict,
    }
    assert claim.verdict == verdicts[name](claim.measurements)
    assert claim.num_seeds == (10 if name == "augmentation" else 5)
    documents = pathlib.Path(__file__).parent / "benchmarks" / "README.md"
    text = documents.read_text(encoding="utf-8")
    assert claim.table() in text
    assert claim.verdict in text.replace("\n> ", " ")


def test_unknown_measured_claim_is_refused():
    with pytest.raises(ValueError, match="name: expected one of 'adversarial_balance', .* got 'b'"):
        claims.load_measured("b")


def test_the_program_prints_and_writes_a_claim(monkeypatch, tmp_path, capsys):
    path = pathlib.Path(__file__).parent / "benchmarks" / "claims.py"
    spec = importlib.util.spec_from_file_location("claims_program", path)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    asked = []

    def measure(seeds):
        asked.append(seeds)
        return claim(first=[1.0, 2.0, 6.0])

    monkeypatch.setattr(program, "CLAIMS", {"one": measure})
    argv = ["claims.py", "one", "--seeds", "3", "--output", str(tmp_path / "new")]
    monkeypatch.setattr(sys, "argv", argv)
    program.main()
    printed = capsys.readouterr().out
    assert "| first | 3.0 ± 1.5 |" in printed and "Not shown: nothing." in printed
    content = json.loads((tmp_path / "new" / "claims.json").read_text(encoding="utf-8"))
    assert content["one"]["measurements"] == {"first": {"a": [1, 2, 6]}}
    assert (tmp_path / "new" / "one.png").stat().st_size > 1000
    assert asked == [range(3)]
    monkeypatch.setattr(sys, "argv", ["claims.py", "two"])
    with pytest.raises(SystemExit):
        program.main()
