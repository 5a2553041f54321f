"""Text to image: words, the null text of guidance, captions of digits, and training on a toy."""

import keras
import numpy as np
import pytest
from PIL import Image

from keras_genai import datasets, load_model, morphology
from keras_genai.callbacks import SampleMetrics
from keras_genai.diffusion import DDPM, NoiseSchedule, build_unet
from keras_genai.tasks import TextToImageTask, caption_test_digits
from keras_genai.tasks.text_to_image import all_prompts, describe_digits, prompt_accuracy
from keras_genai.text_to_image import (
    TextToImageDDPM,
    build_text_encoder,
    collect_words,
    tokenize,
)

WORDS = ["black", "square", "white"]


def build_model(cond_drop_prob=0.1, vocabulary=WORDS, max_words=3, seed=0, **kwargs):
    keras.utils.set_random_seed(0)
    encoder = build_text_encoder(len(vocabulary) + 2, max_words, 8, num_heads=2, dff=8)
    network = build_unet((4, 4, 1), (4, 8), text_encoder=encoder)
    return TextToImageDDPM(
        network,
        NoiseSchedule("cosine", 8),
        vocabulary,
        seed=seed,
        cond_drop_prob=cond_drop_prob,
        prediction_type="v",
        **kwargs,
    )


# Words.


def test_ids_count_the_words_of_the_vocabulary_from_2_and_ignore_case_and_punctuation():
    ids = tokenize(["Black square!", "a, white, a"], ["a", *WORDS], max_words=4)
    assert ids.tolist() == [[3, 4, 0, 0], [2, 5, 2, 0]]


def test_words_are_collected_from_captions_in_alphabetical_order():
    assert collect_words(["A white square", "a black, white one."]) == [
        "a", "black", "one", "square", "white"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        (["white sqare"], "words of the vocabulary, black, square, white, got 'white sqare'"),
        (["white white white white"], "expected 1 to 3 words, got 4"),
        (["white", "?!"], "expected 1 to 3 words, got 0 in '\\?!'"),
        ("white", "captions: expected a list of strings"),
        ([], "captions: expected at least one text, got none"),
    ],
)
def test_captions_of_other_words_are_refused(captions, message):
    with pytest.raises(ValueError, match=message):
        build_model().tokenize(captions)


# Network.


def test_the_vector_of_the_null_text_is_zero_and_padding_does_not_count():
    encoder = build_text_encoder(5, 4, 8, num_heads=2, dff=8)
    rng = np.random.default_rng(0)
    encoder.set_weights([rng.normal(size=w.shape) for w in encoder.get_weights()])
    short = build_text_encoder(5, 2, 8, num_heads=2, dff=8)
    short.set_weights(encoder.get_weights())
    tokens = np.array([[0, 0, 0, 0], [2, 4, 0, 0]], "int32")
    null, vector = encoder(tokens).numpy()
    assert np.all(null == 0)
    np.testing.assert_allclose(vector, short(tokens[1:, :2]).numpy()[0], rtol=1e-5)


def test_without_labels_the_prediction_is_that_of_the_network_for_padding():
    model = build_model()
    rng = np.random.default_rng(0)
    model.ema_network.set_weights([rng.normal(size=w.shape) for w in model.ema_network.weights])
    x, t = rng.normal(size=(2, 4, 4, 1)).astype("float32"), np.array([5, 5], "int32")
    v = model.ema_network([x, t, np.zeros((2, 3), "int32")])
    expected = model.schedule.predict_noise_from_v(x, t, v)
    np.testing.assert_allclose(model._predict_noise(x, 5, None, 1.0), expected, rtol=1e-4)


@pytest.mark.parametrize(("cond_drop_prob", "expected"), [(0.0, [0]), (0.5, [0, 1])])
def test_whole_texts_are_dropped_in_training(cond_drop_prob, expected):
    model, seen = build_model(cond_drop_prob), []
    network = model.network

    class Spy:
        losses = ()

        def __call__(self, inputs, training):
            seen.append(np.asarray(inputs[2]))
            return network(inputs, training=training)

    model.__dict__["network"] = Spy()
    tokens = np.tile(np.array([[2, 3, 4]], "int32"), (64, 1))
    model.compile("sgd")
    model.compute_loss_and_logs((np.zeros((64, 4, 4, 1), "float32"), tokens), training=True)
    assert set(map(tuple, seen[0].tolist())) <= {(0, 0, 0), (2, 3, 4)}
    assert sorted({int(row[0] == 0) for row in seen[0]}) == expected


def test_a_network_of_both_classes_and_text_is_refused():
    with pytest.raises(ValueError, match="num_classes: expected None with a text encoder, got 3"):
        build_unet((4, 4, 1), (2,), num_classes=3, text_encoder=build_text_encoder(4))


# Model.


@pytest.mark.parametrize(
    ("network", "vocabulary", "message"),
    [
        ({"num_classes": 3}, WORDS, "network: expected that of build_unet with a text_encoder"),
        ({}, WORDS, "network: expected that of build_unet with a text_encoder"),
        ({"text_encoder": build_text_encoder(9)}, WORDS, "vocabulary: expected 7 words"),
        ({"text_encoder": build_text_encoder(4)}, ["Red", "blue"], "vocabulary: expected diff"),
        ({"text_encoder": build_text_encoder(4)}, ["red", "red"], "vocabulary: expected diff"),
    ],
)
def test_other_networks_and_vocabularies_are_refused(network, vocabulary, message):
    with pytest.raises(ValueError, match=message):
        TextToImageDDPM(build_unet((4, 4, 1), (2, 4), **network), NoiseSchedule(), vocabulary)


def test_a_network_of_two_outputs_is_refused():
    network = build_unet((4, 4, 1), (2, 4), text_encoder=build_text_encoder(4))
    two = keras.Model(network.inputs, [*network.outputs, 2 * network.outputs[0]])
    with pytest.raises(ValueError, match="network: expected .*got 3 inputs and 2 outputs"):
        TextToImageDDPM(two, NoiseSchedule(), WORDS)


def test_a_model_of_labels_refuses_the_network_of_texts():
    network = build_unet((4, 4, 1), (2, 4), text_encoder=build_text_encoder(5))
    with pytest.raises(ValueError, match="network: expected labels that a conditioning.OneHot"):
        DDPM(network, NoiseSchedule())


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (None, "labels: expected"),
        (np.zeros((2, 2), "int32"), r"labels: expected tokens \(2, 3\), got shape \(2, 2\)"),
        (np.full((2, 3), 5), "labels: expected tokens of `tokenize` from 0 to 4"),
        (["white", "black"], "labels: expected tokens of `tokenize`"),
    ],
)
def test_training_refuses_other_tokens(tokens, message):
    model = build_model()
    model.compile("sgd")
    with pytest.raises(ValueError, match=message):
        model.fit(np.zeros((2, 4, 4, 1)), tokens, verbose=0)


def test_generation_takes_a_prompt_or_a_list_of_prompts():
    model = build_model(example_prompts=["white"])
    one, both = (model.generate(2, p, num_steps=2, seed=0) for p in ("white", ["white"] * 2))
    np.testing.assert_array_equal(one, both)
    with pytest.raises(ValueError, match="labels: expected 2, got 1"):
        model.generate(2, ["white"], num_steps=2)
    with pytest.raises(ValueError, match="labels: expected words of the vocabulary.*'blue'"):
        model.generate(1, "blue", num_steps=2)
    with pytest.raises(ValueError, match="example_prompts: expected words.*got 'blue'"):
        build_model(example_prompts=["blue"])


def test_encoders_without_words_and_encoders_of_other_inputs_are_refused():
    tokens = keras.Input((3,), dtype="int32")
    vector = keras.ops.cast(tokens, "float32")
    other = keras.Model(tokens, vector, name="other")
    with pytest.raises(ValueError, match="network: expected that of build_unet with a text_enc"):
        TextToImageDDPM(build_unet((4, 4, 1), (2, 4), text_encoder=other), NoiseSchedule(), WORDS)
    any_length = keras.Input((None,), dtype="int32")
    encoder = keras.Model(any_length, keras.layers.Embedding(3, 4)(any_length)[:, 0])
    with pytest.raises(ValueError, match="text_encoder: expected one input of tokens"):
        build_unet((4, 4, 1), (2, 4), text_encoder=encoder)


def test_prompts_are_labels_of_metrics_in_training():
    model = build_model()
    metrics = SampleMetrics(
        np.random.default_rng(0).random((100, 4, 4, 1)),
        num_samples=100,
        labels=["white"] * 100,
        network=keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten()]),
    )
    metrics.set_model(model)
    metrics.on_train_begin()
    assert metrics.labels == ["white"] * 100


@pytest.mark.slow
def test_a_toy_learns_the_words_and_loads_from_its_file(tmp_path):
    model = build_model(example_prompts=["white square", "black square"])
    x = np.repeat([1.0, 0.0], 256).reshape(-1, 1, 1, 1) * np.ones((1, 4, 4, 1))
    captions = np.repeat(["white square", "black square"], 256).tolist()
    model.compile(keras.optimizers.Adam(1e-2))
    model.fit(x, model.tokenize(captions), epochs=6, verbose=0)
    prompts = ["white square", "black square", "white"]
    images = model.generate(3, prompts, guidance_scale=2.0, seed=0)
    brightness = images.mean(axis=(1, 2, 3))
    assert brightness[0] > 0.9 and brightness[1] < 0.1 and brightness[2] > 0.8
    model.save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    assert loaded.example_prompts == model.example_prompts
    again = loaded.generate(3, prompts, guidance_scale=2.0, seed=0)
    np.testing.assert_allclose(again, images, atol=1e-5)


# Captions of MNIST.


def test_captions_say_what_is_measured():
    images, digits = datasets.load_mnist()[1]
    images, digits = images[:500] / 255, digits[:500]
    captions = describe_digits(images, digits, seed=1)
    for caption, digit, thickness, slant in zip(
        captions, digits, morphology.thickness(images), morphology.slant(images), strict=True
    ):
        words = caption.split()
        assert words[0] == ("an" if words[1] in ("upright", "eight") else "a")
        assert words[-1] == all_prompts()[digit].split()[-1]
        assert set(words[1:-1]) <= {"thin", "thick", "backslanted", "upright", "slanted"}
        assert "thin" not in words or thickness < 2.1
        assert "thick" not in words or thickness > 2.6
        assert "slanted" not in words or slant > 13
        assert "upright" not in words or 0 < slant < 10
        assert "backslanted" not in words or slant < -3
    assert len({len(caption.split()) for caption in captions}) == 3  # 0 to 2 adjectives


@pytest.mark.parametrize("digits", [[10], [-1], [1, 2]])
def test_captions_of_other_digits_are_refused(digits):
    with pytest.raises(ValueError, match="labels: expected"):
        describe_digits(np.zeros((1, 28, 28)), digits)


def test_there_are_120_prompts_and_all_captions_are_among_them():
    prompts = all_prompts()
    assert len(set(prompts)) == 10 * 3 * 4 == len(prompts)
    assert prompts[:3] == ["a zero", "a one", "a two"]
    assert "a thick slanted seven" in prompts and "an upright eight" in prompts
    assert set(caption_test_digits(300)[0]) <= set(prompts)


def test_prompt_accuracy_counts_what_each_prompt_says():
    images = np.zeros((3, 28, 28, 1), "float32")
    images[:, 4:24, 13:15] = 1  # upright bars, 2 pixels thick
    images[2, 4:24, 10:18] = 1

    class Classifier:
        def predict(self, x, **kwargs):
            return np.eye(10)[[1, 1, 7]]

    prompts = ["a thin backslanted one", "a thick one", "a thick seven"]
    assert prompt_accuracy(images, prompts, Classifier()) == {
        "digit": 100.0,
        "thickness": pytest.approx(200 / 3),
        "slant": 0.0,
        "all": pytest.approx(100 / 3),
    }


def test_own_images_are_captioned_by_their_folders(tmp_path):
    for name, value in (("a white-square", 255), ("a_black_square", 0)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(6):
            image = np.full((8, 8), abs(value - i), "uint8")
            Image.fromarray(image).save(tmp_path / "data" / name / f"{i}.png")
    data = TextToImageTask().load(tmp_path / "data", image_size=8)
    assert data.dataset_info["vocabulary"] == ["a", "black", "square", "white"]
    assert data.dataset_info["example_prompts"] == ["a black square", "a white square"]
    x, tokens = data.train
    np.testing.assert_array_equal(tokens == 5, (x.mean(axis=(1, 2, 3)) > 0.5)[:, None] & [0, 1, 0])
