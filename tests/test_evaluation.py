"""Evaluation of trained models: rows, tables, the figure, and metrics in training."""

import csv
import json
import math
import sys

import keras
import numpy as np
import pytest
from matplotlib.text import Annotation, Text

from keras_genai import cluster, datasets, evaluation, metrics, quality_report
from keras_genai.__main__ import main
from keras_genai.callbacks import SampleMetrics, generate_batches
from keras_genai.learned_prior import LearnedPriorVAE, MixturePrior
from keras_genai.pixelcnn import build_pixelcnn
from keras_genai.quality_report import ImageRow, RecipeRow, TextRow
from keras_genai.rnn import build_forecaster, build_language_model
from keras_genai.text import CharacterTokenizer
from keras_genai.vae import VAE, build_decoder, build_encoder


def small_vae(num_pixels=784, num_classes=None, likelihood="bernoulli"):
    encoder = build_encoder(num_pixels, (8,), 2, num_classes=num_classes)
    decoder = build_decoder(2, (8,), num_pixels, num_classes=num_classes)
    return VAE(encoder, decoder, likelihood=likelihood, seed=0)


def set_to_zero(model):
    """Set all weights to 0: q(z|x) is the prior, and every pixel is 1 with probability 1/2."""
    model.set_weights([np.zeros_like(w) for w in model.get_weights()])
    return model


@pytest.fixture
def few_digits(monkeypatch):
    """Replace MNIST by its first 500 training and test images; return these test images."""
    train, test = ((x[:500], y[:500]) for x, y in datasets.load_mnist())
    monkeypatch.setattr(datasets, "load_mnist", lambda: (train, test))
    monkeypatch.setattr(evaluation, "NUM_IMPORTANCE_SAMPLES", 2)
    evaluation._test_features.cache_clear()
    yield test[0].reshape(500, 784).astype("float32") / 255, test[1]
    evaluation._test_features.cache_clear()


# Image models.


def test_a_model_that_generates_the_test_images_has_no_distance(few_digits, monkeypatch):
    images, digits = few_digits
    model = set_to_zero(small_vae())
    monkeypatch.setattr(model, "generate", lambda n, labels, seed: images[:n])
    row = evaluation.evaluate_image_model(model, 500)
    fractions = np.bincount(digits) / 500  # the classifier is right on all but a few
    assert row.num_samples == 500
    assert row.frechet_distance == pytest.approx(0, abs=1e-6)
    assert row.precision == row.recall == 1
    assert row.digits_covered == 10
    assert row.least_frequent == pytest.approx(100 * min(fractions), abs=1)
    assert row.most_frequent == pytest.approx(100 * max(fractions), abs=1)
    assert row.parameters == 784 * 8 + 8 + 2 * (8 * 2 + 2) + 2 * 8 + 8 + 8 * 784 + 784
    assert row.family == "VAE" and row.accuracy is None


def test_one_repeated_image_has_no_recall_and_one_digit(few_digits, monkeypatch):
    images, _ = few_digits
    model = small_vae()
    monkeypatch.setattr(model, "generate", lambda n, labels, seed: np.repeat(images[:1], n, 0))
    row = evaluation.evaluate_image_model(model, 100)
    assert row.precision == 1 and row.recall <= 1 / 500  # that image itself
    assert row.digits_covered == 1 and (row.least_frequent, row.most_frequent) == (0, 100)
    assert row.frechet_distance > 50


def test_accuracy_is_that_of_the_requested_digits(few_digits, monkeypatch):
    images, digits = few_digits
    model = small_vae(num_classes=10)

    def generate(n, labels, seed, shift=0):
        assert list(labels) == [i % 10 for i in range(n)]
        return np.stack([images[np.flatnonzero(digits == (k + shift) % 10)[0]] for k in labels])

    monkeypatch.setattr(model, "generate", generate)
    assert evaluation.evaluate_image_model(model, 100).accuracy == 100
    monkeypatch.setattr(
        model, "generate", lambda *args, **labels: generate(*args, **labels, shift=1)
    )
    assert evaluation.evaluate_image_model(model, 100).accuracy == 0


@pytest.mark.parametrize("num_classes", [None, 10])
def test_nats_of_a_model_without_weights_are_those_of_fair_coins(few_digits, num_classes):
    row = evaluation.evaluate_image_model(set_to_zero(small_vae(num_classes=num_classes)), 100)
    assert row.nats == pytest.approx(784 * math.log(2), rel=1e-5) and row.nats_is_bound


@pytest.mark.slow
def test_nats_of_a_pixelcnn_are_exact_and_of_two_levels_only(few_digits):
    model = set_to_zero(build_pixelcnn(num_filters=2, num_layers=1))
    row = evaluation.evaluate_image_model(model, 100)
    assert row.nats == pytest.approx(784 * math.log(2), rel=1e-5) and not row.nats_is_bound
    assert evaluation._test_nats(build_pixelcnn(num_filters=2, num_layers=1, num_levels=4)) == (
        None,
        False,
    )


def test_bound_of_a_learned_prior_and_no_nats_of_other_likelihoods(few_digits):
    assert evaluation.evaluate_image_model(small_vae(likelihood="gaussian"), 100).nats is None
    model = small_vae()
    model = LearnedPriorVAE(model.encoder, model.decoder, MixturePrior(2, 3), seed=0)
    row = evaluation.evaluate_image_model(model, 100)
    x = datasets.binarize(few_digits[0])
    expected = metrics.importance_weighted_log_likelihood(model, x, num_samples=2, seed=0)
    assert row.nats == pytest.approx(-expected.mean(), rel=1e-6)
    assert (row.nats_is_bound, row.family) == (True, "VAE")


def test_time_is_without_compilation_and_without_the_smaller_last_batch(few_digits, monkeypatch):
    images, _ = few_digits
    clock, sizes = [0.0], []
    model = small_vae()

    def generate(n, labels, seed):
        sizes.append(n)
        clock[0] += 100 if len(sizes) == 1 or n < 500 else 2
        return images[:n]

    monkeypatch.setattr(model, "generate", generate)
    monkeypatch.setattr(evaluation.time, "perf_counter", lambda: clock[0])
    row = evaluation.evaluate_image_model(model, 600)
    assert sizes == [500, 500, 100]
    assert row.seconds_per_1000 == pytest.approx(4)


def test_batches_have_their_own_seeds_and_labels():
    model = small_vae(num_classes=10)
    labels = np.arange(700) % 10
    calls = []
    model.generate = lambda n, labels, seed: calls.append((n, list(labels), seed)) or np.zeros(n)
    assert sum(map(len, generate_batches(model, 700, labels, 3))) == 700
    assert [n for n, _, _ in calls] == [500, 200]
    assert calls[0][1] + calls[1][1] == labels.tolist()
    assert len({seed for _, _, seed in calls}) == 2
    assert [seed for _, _, seed in calls] != [1, 2]
    first = list(calls)
    list(generate_batches(model, 700, labels, 3))
    assert calls[2:] == first
    list(generate_batches(model, 700, labels, 4))
    assert {seed for _, _, seed in calls[4:]}.isdisjoint(seed for _, _, seed in first)


@pytest.mark.slow
def test_training_images_are_close_to_the_test_images():
    row = evaluation.training_images_row()
    # Measured with another program: 1.9, 0.85 and 0.85.
    assert row.frechet_distance == pytest.approx(1.9, abs=0.1)
    assert row.precision == pytest.approx(0.85, abs=0.01)
    assert row.recall == pytest.approx(0.85, abs=0.01)
    assert abs(row.kernel_distance) < 0.5 and row.accuracy > 99


# Text models.


TEXT = "".join(np.random.default_rng(0).choice(list("abcdefgh "), 3000))


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def small_language_model(text=TEXT):
    tokenizer = CharacterTokenizer.from_text(text)
    model = build_language_model(tokenizer.vocab_size, "gru", 4, 4, tokenizer=tokenizer)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def test_text_model_is_scored_and_its_copies_are_found(text_file, monkeypatch):
    model = set_to_zero(small_language_model())
    collapsed = " ".join(TEXT[:2700].split())
    copied = collapsed[100:150]
    generated = copied + "".join(np.random.default_rng(1).choice(list("abcdefgh"), 50))

    def generate(prompt, max_new_tokens, **options):
        assert prompt.shape == (1, 1) and model.tokenizer.decode(prompt[0]) == TEXT[2699]
        assert options["sliding_window"] and options["seed"] == 5
        return np.append(prompt, model.tokenizer.encode(generated)[None], axis=1)

    monkeypatch.setattr(model, "generate", generate)
    weights = model.get_weights()
    row = evaluation.evaluate_text_model(model, "article3-lstm", text_file, 5, 100)
    assert row.nats_per_character == pytest.approx(math.log(model.vocab_size), rel=1e-5)
    longest = max(
        (generated[i:j] for i in range(100) for j in range(i, 101) if generated[i:j] in collapsed),
        key=len,
    )
    assert row.copy == longest and row.longest_copy == len(longest) >= 50
    assert row.copied_percent == pytest.approx(len(longest))  # of 100 characters
    assert row.num_characters == 100
    assert row.parameters == sum(w.size for w in weights)
    assert row.generated_tokens_per_second > 0


@pytest.mark.slow
def test_speed_of_training_is_in_tokens_per_second(tmp_path, monkeypatch):
    path = tmp_path / "long.txt"
    path.write_text(TEXT * 10)
    clock, model = [0.0], small_language_model()
    weights = model.get_weights()
    trained = type(model).train_on_batch

    def train_on_batch(self, x, y):
        clock[0] += 1000 if not int(self.optimizer.iterations) else 4
        return trained(self, x, y)

    monkeypatch.setattr(type(model), "train_on_batch", train_on_batch)
    monkeypatch.setattr(evaluation.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(evaluation, "_generate_text", lambda *args: ("abc", 1.0))
    row = evaluation.evaluate_text_model(model, "article3-lstm", path)
    assert row.training_tokens_per_second == 32 * 128 / 4  # the recipe's batch
    # Training steps are timed on a copy.
    assert all(map(np.array_equal, model.get_weights(), weights))
    assert int(model.optimizer.iterations) == 0


def test_speed_of_training_is_unknown_for_a_short_text(text_file, monkeypatch):
    monkeypatch.setattr(evaluation, "_generate_text", lambda *args: ("  ", 1.0))
    row = evaluation.evaluate_text_model(small_language_model(), "article3-lstm", text_file)
    assert row.training_tokens_per_second is None
    assert (row.num_characters, row.longest_copy, row.copied_percent, row.copy) == (0, 0, 0, "")


def test_text_of_another_tokenizer_is_refused(text_file):
    model = small_language_model("abcdefghi ")  # one more character than the file has
    with pytest.raises(ValueError, match="data: expected the text that the model was trained on"):
        evaluation.evaluate_text_model(model, "article3-lstm", text_file)


@pytest.mark.parametrize("alphabet", ["ab", "abcd"])
def test_common_substrings_are_those_of_brute_force(alphabet):
    rng = np.random.default_rng(0)
    text, source = ("".join(rng.choice(list(alphabet), n)) for n in (60, 80))
    expected = [
        max(j - i for j in range(i, len(text) + 1) if text[i:j] in source) for i in range(60)
    ]
    assert evaluation.common_substrings(text, source) == expected
    assert evaluation.common_substrings("xabcx", "abcd") == [0, 3, 2, 1, 0]
    assert evaluation.common_substrings("", "a") == []


def test_share_of_copies_counts_each_character_of_long_runs_once():
    assert evaluation._fraction_in_runs([0, 3, 2, 1, 0], 3) == 3 / 5
    assert evaluation._fraction_in_runs([3, 3, 2, 1, 0], 3) == 4 / 5  # two that overlap
    assert evaluation._fraction_in_runs([2, 1, 0], 3) == 0


# Names and files.


def test_a_file_has_recipe_and_minutes_of_the_run_beside_it(tmp_path):
    model = write_run(tmp_path / "run", small_language_model(), data="text.txt", minutes=2.5)
    found = evaluation.open_model(model)
    assert (found.recipe, found.data, found.minutes) == ("article3-lstm", "text.txt", 2.5)
    small_vae().save(tmp_path / "run" / "other.keras")
    found = evaluation.open_model(str(tmp_path / "run" / "other.keras"))
    assert (found.recipe, found.data, found.minutes) == (None,) * 3


def test_pretrained_model_has_its_metadata():
    found = evaluation.open_model("article4-vae")
    assert (found.name, found.recipe, found.data, found.minutes) == ("article4-vae",) * 2 + (
        None,
        1.3,
    )


def write_run(folder, model, **settings):
    folder.mkdir()
    model.save(folder / "model.keras")
    content = {"name": "article3-lstm", "batch_size": 8, "seed": 0, "data": None, "epochs": 1}
    (folder / "run.json").write_text(json.dumps({**content, **settings}))
    return str(folder / "model.keras")


def test_models_that_cannot_be_evaluated_are_refused_by_name(tmp_path):
    models = {
        "pixels": (small_vae(16), r"or \(28, 28, 1\), of 10 classes or none, got images \(16,\)\."),
        "classes": (small_vae(num_classes=3), r"got images \(784,\) of 3 classes"),
        "text": (small_language_model(), "or run.json beside model.keras"),
        "forecast": (build_forecaster(8, 2), "or run.json beside model.keras"),
    }
    for name, (model, message) in models.items():
        path = tmp_path / f"{name}.keras"
        model.save(path)
        with pytest.raises(
            ValueError, match=f"{name}.keras: expected a model of MNIST .*{message}"
        ):
            evaluation.open_model(str(path))
    for source, message in (
        (write_run(tmp_path / "a", small_language_model(), name="article5-rnn"), "no such recipe"),
        (write_run(tmp_path / "b", small_language_model(), name="article4-vae"), "of a language m"),
        (write_run(tmp_path / "c", build_language_model(9, "gru", 4, 4)), "with a tokenizer"),
        (write_run(tmp_path / "d", small_vae(), data="digits"), "of MNIST digits, got one of digi"),
        ("article1-vae", "expected a name with pretrained weights"),
        ("article5-vae", "no such recipe"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluation.open_model(source)
    with pytest.raises(FileNotFoundError, match="no such file"):
        evaluation.open_model(str(tmp_path / "missing.keras"))


def test_invalid_arguments_are_refused_by_name(text_file):
    for call, message in (
        (lambda: evaluation.evaluate_image_model(small_vae(), 99), "num_samples: expected"),
        (lambda: evaluation.evaluate_image_model(small_vae(), 100, -1), "seed: expected"),
        (lambda: evaluation.evaluate_image_model(small_vae(16)), "model: expected a model of MNI"),
        (lambda: evaluation.evaluate_image_model(keras.Sequential()), "model: expected"),
        (lambda: evaluation.measure_images(np.zeros((99, 784))), "number of images: expected"),
        (lambda: evaluation.evaluate_text_model(small_vae(), "article3-lstm"), "model: expected"),
        (lambda: evaluation.evaluate_text_model(small_language_model(), "x"), "no such recipe"),
        (lambda: evaluation.evaluate(small_vae()), "candidate: expected"),
        (lambda: evaluation.common_substrings(b"a", "a"), "text: expected"),
        (lambda: quality_report.to_table([{}]), "rows: expected a list of rows"),
        (lambda: quality_report.to_json(None), "rows: expected a list of rows"),
        (lambda: quality_report.plot_quality([]), "rows: expected a list of at least one"),
        (lambda: quality_report.plot_quality([RECIPE_ROW]), "rows: expected rows of image models"),
        (lambda: quality_report.plot_quality([image_row("a", 0, 1)]), "frechet_distance: expected"),
        (lambda: quality_report.plot_quality([image_row("a", 1, 0)]), "seconds_per_1000: expected"),
    ):
        with pytest.raises(ValueError, match=f"^{message}|: {message}"):
            call()


# Tables and JSON.


def image_row(name, distance, seconds, family="VAE", **values):
    row = {
        "parameters": 652_824, "minutes": 1.3, "num_samples": 10_000, "kernel_distance": 50.314,
        "kernel_distance_error": 0.293, "precision": 0.8051, "recall": 0.32, "digits_covered": 10,
        "least_frequent": 5.12, "most_frequent": 19.5,
    }  # fmt: skip
    return ImageRow(
        name, family, frechet_distance=distance, seconds_per_1000=seconds, **{**row, **values}
    )


TEXT_ROW = TextRow("b", 1000, None, 1.4774, 13097.4, 2437.2, 2000, 40, 12.34, "*a|b*\n  `c'")
RECIPE_ROW = RecipeRow("c", 20_276, 0.7, "test accuracy, %", 99.0499)


def table_cells(line):
    return [cell.strip() for cell in line.replace("\\|", "¦").strip("|").split("|")]


def test_tables_have_a_row_for_each_model():
    rows = [
        RECIPE_ROW,
        image_row("a", 183.6, 0.0167, nats=96.84, nats_is_bound=True, accuracy=96.7),
        image_row("training images", 1.93, None, family=None, parameters=None, minutes=None),
        TEXT_ROW,
    ]
    images, texts, recipes = quality_report.to_table(rows).split("\n\n")
    header, line, *image_lines = map(table_cells, images.splitlines())
    assert header[:4] == ["model", "parameters", "minutes of training", "samples"]
    assert line == ["---"] * len(header)
    assert image_lines == [
        [
            "`a`", "652,824", "1.3", "10,000", "184", "50.31 ± 0.29", "0.805", "0.320", "10",
            "5.1, 19.5", "96.7", "≤ 96.8", "0.0167",
        ],
        [
            "training images", "", "", "10,000", "1.93", "50.31 ± 0.29", "0.805", "0.320", "10",
            "5.1, 19.5", "", "", "",
        ],
    ]  # fmt: skip
    assert table_cells(texts.splitlines()[2]) == [
        "`b`", "1,000", "", "1.477", "13,097", "2,437", "40", "12.3", r"\*a¦b\* \`c'",
    ]  # fmt: skip
    assert table_cells(recipes.splitlines()[2]) == [
        "`c`", "20,276", "0.7", "test accuracy, %", "99.05",
    ]  # fmt: skip
    for table in (images, texts, recipes):
        assert len({len(table_cells(line)) for line in table.splitlines()}) == 1


def test_a_long_copy_is_cut_in_the_table_only():
    row = TextRow("b", 1, None, 1, None, 1, 2000, 200, 1, "x" * 200)
    assert f"| {'x' * 79}… |" in quality_report.to_table([row])
    assert json.loads(quality_report.to_json([row]))["texts"][0]["copy"] == "x" * 200


def test_json_is_valid_and_has_null_for_what_is_not_finite():
    rows = [image_row("a", math.inf, math.nan), TEXT_ROW, RECIPE_ROW]
    content = json.loads(quality_report.to_json(rows), parse_constant=pytest.fail)
    assert list(content) == ["images", "texts", "recipes"]
    (image,), (text,), (recipe,) = content.values()
    assert image["frechet_distance"] is image["seconds_per_1000"] is image["nats"] is None
    assert image["precision"] == 0.8051 and image["digits_covered"] == 10
    assert text["copy"] == "*a|b*\n  `c'" and recipe["value"] == 99.0499


# The figure.


def test_points_are_distances_over_seconds_and_labels_do_not_overlap():
    rows = [
        image_row("training images", 1.9, None, None),
        image_row("article4-vae", 184, 0.0167),
        image_row("conditional-vae", 186, 0.0074),
        image_row("article1-vae", 190, 0.0076),
        image_row("article4-gan", 106, 0.0219, "GAN"),
        image_row("article3-pixelcnn", 40, 4, "PixelCNN"),
        image_row("article3-diffusion", 28, 60, "diffusion"),
        image_row("article3-diffusion-unconditional", 35, 61, "diffusion"),
    ]
    figure = quality_report.plot_quality(rows)
    (axes,) = figure.axes
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert axes.get_xlim() == pytest.approx((0.001, 1000))  # a decade more, for labels
    assert axes.get_ylim() == pytest.approx((1, 1000))
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert [(*line.get_xdata(), *line.get_ydata()) for line in points] == [
        (row.seconds_per_1000, row.frechet_distance) for row in rows[1:]
    ]
    (dashed,) = (line for line in axes.lines if line.get_linestyle() == "--")
    assert set(dashed.get_ydata()) == {1.9}
    labels = [child for child in axes.get_children() if isinstance(child, Annotation)]
    assert {label.get_text() for label in labels} == {row.name for row in rows}
    figure.canvas.draw()
    occupied = [line.get_window_extent() for line in axes.lines]
    for label in labels:
        extent = Text.get_window_extent(label)
        assert not any(map(extent.overlaps, occupied)), label
        assert axes.bbox.x0 <= extent.x0 and extent.x1 <= axes.bbox.x1
        occupied.append(extent)


def test_every_point_has_a_label_where_there_is_no_room():
    figure = quality_report.plot_quality([image_row("the same point", 100, 1)] * 60)
    labels = [child for child in figure.axes[0].get_children() if isinstance(child, Annotation)]
    assert len(labels) == 60
    figure.canvas.draw()


# The command.


@pytest.mark.slow
def test_command_prints_json_and_plots_images(few_digits, tmp_path, monkeypatch, capsys):
    model = small_language_model()
    (tmp_path / "text.txt").write_text(TEXT)
    text = write_run(tmp_path / "run", model, data=str(tmp_path / "text.txt"), minutes=3)
    small_vae().save(tmp_path / "vae.keras")
    monkeypatch.chdir(tmp_path)
    arguments = ["evaluate", "vae.keras", text, "article4-cnn", "--samples", "100"]
    assert main([*arguments, "--json", "--output", "quality.png"]) == 0
    output = capsys.readouterr()
    content = json.loads(output.out)
    assert content["images"][0]["name"] == "vae.keras" and content["images"][0]["minutes"] is None
    assert content["texts"][0]["name"] == text and content["texts"][0]["minutes"] == 3
    recipe = content["recipes"][0]
    assert recipe["metric"] == "test accuracy, %" and 98 < recipe["value"] <= 100  # of 500 images
    assert (tmp_path / "quality.png").read_bytes().startswith(b"\x89PNG")
    assert output.err.splitlines() == [
        f"{name}: {i} of 3 …" for i, name in enumerate(("vae.keras", text, "article4-cnn"), 1)
    ]
    assert main(arguments[:2] + arguments[-2:]) == 0
    assert capsys.readouterr().out.splitlines()[2].startswith("| `vae.keras` | ")


def test_command_takes_all_pretrained_models_in_the_order_of_the_recipes(monkeypatch, capsys):
    from keras_genai import pretrained

    monkeypatch.setattr(evaluation, "open_model", lambda name: evaluation.Candidate(name, None))
    monkeypatch.setattr(
        evaluation, "evaluate", lambda candidate, *args: RecipeRow(candidate.name, 1, 1, "", 1)
    )
    monkeypatch.setattr(evaluation, "training_images_row", lambda: image_row("training", 1, None))
    assert main(["evaluate", "--all", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    names = [row["name"] for row in content["recipes"]]
    assert sorted(names) == pretrained.names() and names[0] == "article1-text-to-image"
    assert [row["name"] for row in content["images"]] == ["training"]


def test_missing_extra_leaves_the_metric_of_a_recipe_out(monkeypatch):
    from keras_genai.experiments import EXPERIMENTS

    def evaluate(model, data):
        raise ImportError("Scores need an extra")

    monkeypatch.setattr(EXPERIMENTS["article3-forecast"].task, "evaluate", evaluate)
    found = evaluation.Candidate("a.keras", build_forecaster(260, 52), "article3-forecast")
    row = evaluation.evaluate(found)
    assert row.name == "a.keras" and row.value is None
    assert "`a.keras`" in quality_report.to_table([row])


# Metrics in training.


def identity_network(num_pixels=16):
    """A network whose features are the pixels."""
    inputs = keras.Input((num_pixels,))
    return keras.Model(inputs, keras.layers.Reshape((num_pixels,))(inputs))


IMAGES = np.random.default_rng(0).random((50, 16), "float32")


def test_callback_logs_the_distance_to_constant_images():
    model = set_to_zero(small_vae(16))  # generates 1/2
    callback = SampleMetrics(IMAGES, num_samples=20, network=identity_network())
    callback.set_model(model)
    callback.on_train_begin()
    logs = {"loss": 1.0}
    callback.on_epoch_end(0, logs)
    # Without a variance, |mu_1 - mu_2|^2 + tr(C_1).
    x = IMAGES.astype("float64")
    expected = np.sum((x.mean(0) - 0.5) ** 2) + np.trace(np.cov(x, rowvar=False))
    assert logs["frechet_distance"] == pytest.approx(expected, rel=1e-5)
    distances = np.linalg.norm(x[:, None] - x, axis=-1)
    radii = np.sort(distances)[:, 3]  # the first is 0
    inside = np.any(np.linalg.norm(x - 0.5, axis=-1) <= radii)
    assert logs["precision"] == float(inside) and logs["recall"] == 0 and logs["loss"] == 1
    assert all(type(value) is float for value in logs.values())


def train(callbacks, epochs=4, **options):
    keras.utils.set_random_seed(0)
    model = small_vae(16, **options)
    model.compile("adam", jit_compile=False)
    labels = None if model.num_classes is None else np.arange(50) % model.num_classes
    history = model.fit(IMAGES, labels, epochs=epochs, callbacks=callbacks, verbose=0).history
    return model, history


@pytest.mark.slow
@pytest.mark.parametrize("num_classes", [None, 3])
def test_callback_does_not_change_training(num_classes):
    labels = None if num_classes is None else 2
    callback = SampleMetrics(IMAGES, num_samples=20, labels=labels, network=identity_network())
    without, history = train([], num_classes=num_classes)
    measured, measured_history = train([callback], num_classes=num_classes)
    for a, b in zip(without.get_weights(), measured.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert history["loss"] == measured_history["loss"]
    assert len(measured_history["frechet_distance"]) == 4


@pytest.mark.slow
def test_later_callbacks_and_the_history_see_the_metrics(tmp_path):
    callback = SampleMetrics(IMAGES, 2, num_samples=20, network=identity_network())
    log = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    _, history = train([callback, log])
    assert np.isnan(history["precision"]).tolist() == [True, False, True, False]
    with open(tmp_path / "log.csv", newline="") as file:
        logged = [float(row["frechet_distance"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(logged, history["frechet_distance"], rtol=1e-6)
    # Recall never rises above 1: training stops after the patience.
    stop = keras.callbacks.EarlyStopping("recall", mode="max", patience=1, baseline=1)
    _, history = train([SampleMetrics(IMAGES, num_samples=20, network=identity_network()), stop])
    assert len(history["recall"]) < 4


def test_callback_refuses_what_does_not_fit_before_training():
    network = identity_network()
    for arguments, message in (
        ({"images": IMAGES + 1}, "images: expected"),
        ({"images": IMAGES[:9]}, "number of images: expected"),
        ({"every": 0}, "every: expected"),
        ({"num_samples": 9}, "num_samples: expected"),
        ({"seed": -1}, "seed: expected"),
        ({"network": None}, "images: expected"),  # of 28 × 28 pixels
    ):
        with pytest.raises(ValueError, match=message):
            SampleMetrics(**{"images": IMAGES, "network": network, **arguments})
    for model, labels, message in (
        (keras.Sequential([keras.Input((2,))]), None, "model: expected an image model with `gen"),
        (small_language_model(), None, "model: expected an image model, got"),
        (small_vae(25), None, r"images: expected those of the model, \(25,\), got 16 values"),
        (small_vae(16), 1, "labels: expected None"),
        (small_vae(16, 3), None, "labels: expected integers from 0 to 2, got None"),
        (small_vae(16, 3), 3, "labels: expected"),
        (small_vae(16, 3), [0] * 19, r"labels: expected shape \(20,\)"),
    ):
        callback = SampleMetrics(IMAGES, num_samples=20, labels=labels, network=network)
        callback.set_model(model)
        with pytest.raises(ValueError, match=message):
            callback.on_train_begin()


WORKER = """
import os
import keras, numpy as np
from keras_genai import distribution
from keras_genai.callbacks import SampleMetrics
from keras_genai.vae import VAE, build_decoder, build_encoder
keras.__version__ = "3.10.0"  # older ones train, but their losses are those of one worker
strategy = distribution.strategy("multi-worker")
inputs = keras.Input((16,))
network = keras.Model(inputs, keras.layers.Reshape((16,))(inputs))
images = np.random.default_rng(0).random((50, 16), "float32")
with strategy.scope():
    model = VAE(build_encoder(16, (8,), 2), build_decoder(2, (8,), 16), seed=0)
    model.compile("adam", jit_compile=False)
metrics = SampleMetrics(images, 2, num_samples=20, network=network)
if not distribution.is_first_worker(strategy):
    metrics._measure = None  # only the first worker measures
stop = keras.callbacks.EarlyStopping("frechet_distance", mode="min", baseline=0, patience=2)
history = model.fit(images, epochs=6, callbacks=[metrics, stop], verbose=0).history
with open(os.environ["OUT"] + str(distribution.read_cluster().index), "w") as file:
    file.write(repr(history["frechet_distance"]))
"""


@pytest.mark.slow
def test_all_workers_log_the_values_of_the_first(tmp_path, monkeypatch):
    monkeypatch.setenv("OUT", str(tmp_path / "history-"))
    program = tmp_path / "program.py"
    program.write_text(WORKER)
    assert cluster.launch([sys.executable, str(program)], 2) == 0
    first, second = (eval((tmp_path / f"history-{i}").read_text(), {"nan": 0}) for i in (0, 1))
    assert first == second and len(first) < 6 and first[0] == 0 < first[1]
