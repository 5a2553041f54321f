"""Checks of arguments and arrays: valid values pass, errors name the argument and its value."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_genai.attention import TransformerDecoderLayer
from keras_genai.autoregressive import GREEDY, Sampler, stream
from keras_genai.cnn import build_cnn
from keras_genai.conditioning import sample_prior
from keras_genai.diffusion import DDPM, NoiseSchedule, build_unet
from keras_genai.gan import GAN, build_discriminator, build_generator
from keras_genai.gpt2 import GPT2
from keras_genai.pixelcnn import PixelCNN
from keras_genai.random_state import check_seed, random_generator
from keras_genai.rnn import build_forecaster, build_language_model
from keras_genai.seq2seq import Seq2SeqTransformer
from keras_genai.vae import VAE, KLDivergenceLoss, build_decoder, build_encoder, build_vae
from keras_genai.validation import (
    check_bools,
    check_choice,
    check_fraction,
    check_identifier,
    check_images,
    check_labels,
    check_number,
    check_range,
    check_same,
    check_size,
    check_sizes,
    check_tokens,
)
from keras_genai.wavenet import WaveNet, receptive_field

# Sizes.


@pytest.mark.parametrize(
    "build",
    [
        lambda n: build_encoder(n, (n,), n, num_classes=n),
        lambda n: build_decoder(n, (n,), n, num_classes=n),
        lambda n: build_generator(n, (n,), n, num_classes=n),
        lambda n: build_discriminator(n, (n,), num_classes=n),
        lambda n: build_cnn((n, n, n), n),
        lambda n: build_language_model(n, "gru", n, n, num_layers=n),
        lambda n: build_forecaster(n, n, units=n),
    ],
)
def test_builders_accept_numpy_sizes(build):
    # Such as labels.max() + 1. Keras rejects them as sizes and cannot serialize them.
    model = build(np.int64(4))
    assert "4" in model.to_json() and model.count_params() == build(4).count_params()


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_check_size_returns_a_python_int(value):
    size = check_size("units", value, minimum=3)
    assert type(size) is int and size == 3


@pytest.mark.parametrize("value", [2, 0, -1, 3.0, "3", None, True, np.float32(3)])
def test_check_size_raises(value):
    with pytest.raises(ValueError) as error:
        check_size("units", value, minimum=3)
    assert str(error.value) == f"units: expected a whole number of at least 3, got {value!r}."


def test_check_sizes_returns_ints_and_tuples_in_order():
    sizes = check_sizes(latent_dim=np.int64(2), hidden_dims=[np.int64(4), 3], units=5)
    assert sizes == [2, (4, 3), 5]
    assert type(sizes[0]) is int and type(sizes[1][0]) is int
    assert check_sizes(hidden_dims=()) == [()]


@pytest.mark.parametrize(
    "sizes, message",
    [
        (dict(latent_dim=0), "latent_dim: expected a whole number of at least 1, got 0"),
        (dict(hidden_dims=(4, 0)), "hidden_dims: expected a whole number of at least 1, got 0"),
        (dict(hidden_dims=4), "hidden_dims: expected a sequence of whole numbers, got 4"),
    ],
)
def test_check_sizes_raises(sizes, message):
    with pytest.raises(ValueError, match=message):
        check_sizes(**sizes)


# Single values.


def test_check_choice():
    check_choice("method", "ddim", ("ddim", "ddpm"))
    with pytest.raises(ValueError, match="method: expected one of 'ddim', 'ddpm', got 'euler'"):
        check_choice("method", "euler", ("ddim", "ddpm"))


@pytest.mark.parametrize("value", [0, 0.0, 0.5, 1 - 2**-53])
def test_check_fraction_accepts_zero_to_below_one(value):
    check_fraction("dropout", value)


@pytest.mark.parametrize("value", [1, 1.0, -0.1, float("nan"), float("inf"), "0.5", None])
def test_check_fraction_raises(value):
    with pytest.raises(ValueError) as error:
        check_fraction("dropout", value)
    expected = f"dropout: expected a fraction from 0 to less than 1, got {value!r}."
    assert str(error.value) == expected


def test_check_same():
    check_same("decoder", "latent_dim", 20, 20)
    with pytest.raises(ValueError, match="decoder: expected latent_dim 20, .* got 10"):
        check_same("decoder", "latent_dim", 20, 10)


@pytest.mark.parametrize("value", [10**400, -(10**400)])
def test_ints_above_all_floats_raise(value):
    with pytest.raises(ValueError, match="beta: expected a finite number, got"):
        check_number("beta", value)


def test_sizes_beyond_int32_raise():
    assert check_size("units", 2**31 - 1) == 2**31 - 1
    with pytest.raises(ValueError, match="units: expected a whole number of at most 2147483647"):
        check_size("units", 2**31)


@pytest.mark.parametrize("value", [{}, "relux", 3, keras.layers.ReLU, np.zeros(2)])
def test_check_identifier_names_the_argument(value):
    with pytest.raises(ValueError, match="^output_activation: expected an activation"):
        check_identifier("output_activation", value, keras.activations.get, "an activation")


@pytest.mark.parametrize("value", [None, "relu", keras.activations.relu, keras.layers.ReLU()])
def test_check_identifier_returns_what_keras_returns(value):
    found = check_identifier("activation", value, keras.activations.get, "an activation")
    assert found is keras.activations.get(value)


@pytest.mark.parametrize("value", ["relu", "linear", keras.activations.tanh])
def test_generator_whose_images_would_leave_their_range_raises(value):
    # The scaling from [-1, 1] to [0, 1] depends on the name.
    with pytest.raises(ValueError, match="output_activation: expected one of 'tanh', 'sigmoid'"):
        build_generator(2, (3,), 6, output_activation=value)


@pytest.mark.parametrize("name", ["generator_optimizer", "discriminator_optimizer"])
@pytest.mark.parametrize("value", [{}, 0, "adamm", np.zeros(2), np.zeros(0), keras.optimizers.Adam])
def test_optimizers_of_a_gan_are_refused_by_name(name, value):
    model = GAN(build_generator(2, (3,), 6), build_discriminator(6, (3,)))
    with pytest.raises(ValueError, match=f"^{name}: expected an optimizer"):
        model.compile(**{name: value})


# Numbers that are set after construction.


def small_vae():
    return VAE(build_encoder(4, (3,), 2), build_decoder(2, (3,), 4))


def small_ddpm():
    return DDPM(build_unet((4, 4, 1), (2, 4)), NoiseSchedule("cosine", 4), seed=0)


SETTABLE = [
    (small_vae, "beta"),
    (small_vae, "kl_weight"),
    (KLDivergenceLoss, "weight"),
    (small_ddpm, "cond_drop_prob"),
    (small_ddpm, "ema_momentum"),
]


@pytest.mark.parametrize("build, name", SETTABLE)
def test_settable_numbers_are_refused_by_name(build, name):
    owner = build()
    for value in (float("nan"), float("inf"), "0.5", None, True, [0.5], 10**400):
        with pytest.raises(ValueError, match=f"^{name}: expected a"):
            setattr(owner, name, value)
    if name != "weight":
        with pytest.raises(ValueError, match=f"^{name}: expected a"):
            setattr(owner, name, -0.5)
    quarter = np.float32(0.25)
    for value in (0.25, quarter, np.array(0.25), tf.constant(0.25), keras.Variable(quarter)):
        setattr(owner, name, value)
        assert getattr(owner, name) == pytest.approx(0.25)


@pytest.mark.slow
def test_ema_momentum_set_after_training_began_counts():
    model = small_ddpm()
    model.compile("adam", jit_compile=False)
    images = np.random.default_rng(0).uniform(size=(8, 4, 4, 1)).astype("float32")
    model.fit(images, verbose=0)
    model.ema_momentum = 0.0  # the average of the weights is their last value
    model.fit(images, verbose=0)
    for average, weight in zip(model.ema_network.weights, model.network.weights, strict=True):
        np.testing.assert_allclose(average, weight, rtol=1e-6)


# Arrays.


def test_check_range_accepts_all_integer_dtypes_and_empty_arrays():
    for dtype in ("int8", "uint8", "int64"):
        check_range("labels", np.array([0, 9], dtype), 10)
    check_range("labels", np.array([], int), 10)


@pytest.mark.parametrize(
    "values, message",
    [
        ([0, 10], "labels: expected integers from 0 to 9, got values from 0 to 10"),
        ([-1, 3], "labels: expected integers from 0 to 9, got values from -1 to 3"),
        ([1.0], "labels: expected integers, got an array of float64"),
        ([True], "labels: expected integers, got an array of bool"),
    ],
)
def test_check_range_raises(values, message):
    with pytest.raises(ValueError, match=message):
        check_range("labels", np.array(values), 10)


@pytest.mark.parametrize(
    "images",
    [
        np.linspace(0, 1, 12).reshape(2, 2, 3),
        np.ones((1, 2, 3), "uint8"),
        np.zeros((4, 2, 3), bool),
    ],
)
def test_check_images_accepts_pixels_from_0_to_1(images):
    check_images("x", images, (2, 3))


@pytest.mark.parametrize(
    "images, message",
    [
        (np.zeros((2, 3)), r"x: expected shape \(n, 2, 3\), got \(2, 3\)"),
        (np.float32(0), r"x: expected shape \(n, 2, 3\), got \(\)"),
        ([np.zeros((1, 2, 3))] * 2, r"x: expected one array \(n, 2, 3\), got a list of 2"),
        (np.zeros((0, 2, 3)), "x: expected at least one image, got an empty array"),
        (np.full((1, 2, 3), "a"), "x: expected numbers, got an array of <U1"),
        (np.full((1, 2, 3), -0.1), r"x: expected pixels scaled to \[0, 1\], got values from -0.1"),
        (np.full((1, 2, 3), 255, "uint8"), "from 255 to 255. Divide 8-bit pixels by 255"),
        (np.full((1, 2, 3), np.nan), "got values from nan to nan"),
    ],
)
def test_check_images_raises(images, message):
    with pytest.raises(ValueError, match=message):
        check_images("x", images, (2, 3))


def test_check_labels_returns_one_int32_label_per_sample():
    assert check_labels(None, None, 3) is None
    for labels in (2, np.int64(2), [2, 2, 2], np.full(3, 2, "uint8")):
        checked = check_labels(labels, 10, 3)
        assert checked.dtype == "int32" and checked.tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    "labels, num_classes, message",
    [
        (1, None, "labels: expected None, since the model was built without num_classes"),
        (None, 10, "labels: expected integers from 0 to 9, got None"),
        ([1, 2], 10, r"labels: expected shape \(3,\), got \(2,\)"),
        ([[1], [2], [3]], 10, r"labels: expected shape \(3,\), got \(3, 1\)"),
        ([1, 2, 10], 10, "labels: expected integers from 0 to 9, got values from 1 to 10"),
        ([0.5, 1, 2], 10, "labels: expected integers, got an array of float64"),
    ],
)
def test_check_labels_raises(labels, num_classes, message):
    with pytest.raises(ValueError, match=message):
        check_labels(labels, num_classes, 3)


def test_check_tokens_returns_int32_rows_of_arrays_and_lists():
    for tokens in (np.array([[1, 2], [3, 4]]), [[1, 2], np.array([3, 4])]):
        rows = check_tokens("prompt", tokens, 5, minimum=2)
        assert [row.tolist() for row in rows] == [[1, 2], [3, 4]]
        assert all(row.dtype == "int32" for row in rows)
    rows = check_tokens("prompt", [[1], [2, 3, 4]], 5, minimum=1)
    assert [row.tolist() for row in rows] == [[1], [2, 3, 4]]


@pytest.mark.parametrize(
    "tokens, message",
    [
        ([], "prompt: expected at least one sequence, got none"),
        (np.array([1, 2]), r"prompt: expected an array \(batch, n\) or a list of sequences, got"),
        ([[1, 2], [1]], r"prompt: expected sequences of at least 2 token ids, got shape \(1,\)"),
        ([[[1, 2]]], r"prompt: expected sequences of at least 2 token ids, got shape \(1, 2\)"),
        ([[1, 5]], "prompt: expected token ids from 0 to 4, got values from 1 to 5"),
        ([[1, -1]], "prompt: expected token ids from 0 to 4, got values from -1 to 1"),
        ([[1.0, 2.0]], "prompt: expected token ids, got an array of float64"),
    ],
)
def test_check_tokens_raises(tokens, message):
    with pytest.raises(ValueError, match=message):
        check_tokens("prompt", tokens, 5, minimum=2)


# Seeds, numbers, bools, types.


@pytest.mark.parametrize("seed", [0, 7, np.int64(7), np.uint8(7), 2**63 - 1])
def test_seeds_of_any_integer_type_are_converted(seed):
    assert type(check_seed(seed)) is int and check_seed(seed) == seed
    expected = np.random.default_rng(int(seed)).random(3)
    np.testing.assert_array_equal(random_generator(seed).random(3), expected)


@pytest.mark.parametrize("seed", [-1, 1.5, "0", True, 2**63, np.float64(1), [1], np.array([1])])
def test_other_seeds_raise(seed):
    vae_networks = build_encoder(6, (3,), 2), build_decoder(2, (3,), 6)
    gan_networks = build_generator(2, (3,), 6), build_discriminator(6, (3,))
    for use in (
        random_generator,
        lambda seed: VAE(*vae_networks, seed=seed),
        lambda seed: build_vae(*vae_networks, seed=seed),
        lambda seed: VAE(*vae_networks).generate(seed=seed),
        lambda seed: GAN(*gan_networks, seed=seed),
        lambda seed: DDPM(build_unet((4, 4, 1), (2,)), NoiseSchedule("cosine", 5), seed=seed),
        lambda seed: build_language_model(3, "gru", 2, 2).generate([[0]], 1, seed=seed),
    ):
        with pytest.raises(
            ValueError, match="^seed: expected None or a whole number of at least 0"
        ):
            use(seed)


def test_numpy_seeds_give_the_numbers_of_the_int_and_can_be_saved():
    networks = build_encoder(6, (3,), 2), build_decoder(2, (3,), 6)
    model = VAE(*networks, seed=np.int64(5))
    assert json.loads(json.dumps(model.get_config()["seed"])) == 5
    np.testing.assert_array_equal(model.generate(2, seed=np.uint8(3)), model.generate(2, seed=3))


def test_small_integer_types_do_not_wrap_around():
    # 4 * np.uint8(100) is 144, and np.uint8(20) * np.uint8(20) also.
    layer = TransformerDecoderLayer(np.uint8(1), np.uint8(200), cross_attention=False)
    layer.build((None, None, 4))
    assert layer.feedforward_intermediate_dense.units == 200 == layer.get_config()["dff"]
    assert GPT2(4, 8, 1, 1, np.uint8(100)).config["dff"] == 400
    assert build_cnn((np.uint8(20), np.uint8(20), 1)).input_shape == (None, 20, 20, 1)
    assert receptive_field(np.uint8(2), np.uint8(10)) == 2047
    assert sample_prior(np.uint8(200), (np.uint8(3),), 0).shape == (200, 3)


@pytest.mark.parametrize("value", [["ddim"], {}, np.array(["ddim", "x"]), object(), 1, True, None])
def test_check_choice_raises_for_any_type(value):
    with pytest.raises(ValueError, match="method: expected one of 'ddim', 1.5, got"):
        check_choice("method", value, ("ddim", 1.5))


def test_check_choice_compares_types():
    check_choice("channels", np.int64(3), (1, 3))
    check_choice("flag", True, (True, None))
    for value, choices in ((1, (True,)), (True, (1,)), (1.0, (1,))):
        with pytest.raises(ValueError, match="flag: expected one of"):
            check_choice("flag", value, choices)


def test_check_number_returns_plain_finite_numbers():
    assert check_number("beta", 2) == 2 and type(check_number("beta", np.float32(0.5))) is float
    assert check_number("beta", 0, 0) == 0 and check_number("beta", 1, 0, 1) == 1


@pytest.mark.parametrize(
    "value", [-1, 0, 2, float("nan"), float("inf"), "1", None, True, [1], np.array([1.0]), 1j]
)
def test_check_number_raises(value):
    message = "^epsilon: expected a finite number above 0 and of at most 1, got"
    with pytest.raises(ValueError, match=message):
        check_number("epsilon", value, maximum=1, above=0)


@pytest.mark.parametrize("value", [1, 0, None, "x", [], np.array([True, False])])
def test_check_bools_raises(value):
    check_bools(causal=np.True_, pooling=False)
    with pytest.raises(ValueError, match="causal: expected True or False, got"):
        check_bools(causal=value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_raise(value):
    networks = build_encoder(6, (3,), 2), build_decoder(2, (3,), 6)
    ddpm = DDPM(build_unet((4, 4, 1), (2,)), NoiseSchedule("cosine", 5))
    model = build_language_model(3, "gru", 2, 2)
    for name, call in {
        "beta": lambda: VAE(*networks, beta=value),
        "beta ": lambda: build_vae(*networks, beta=value),
        "eta": lambda: ddpm.generate(eta=value),
        "guidance_scale": lambda: ddpm.generate(guidance_scale=value),
        "temperature": lambda: model.generate([[0]], 1, sampler=Sampler(value)),
        "top_p": lambda: model.generate([[0]], 1, sampler=Sampler(top_p=value)),
        "length_penalty": lambda: model.beam_search([[0]], 1, length_penalty=value),
        "layer_norm_epsilon": lambda: GPT2(4, 4, 1, 1, 4, layer_norm_epsilon=value),
    }.items():
        with pytest.raises(ValueError, match=f"^{name.strip()}: expected"):
            call()


# Models whose weights are NaN: name, builder, call, and the network that computes the output.


def build_small_vae():
    return VAE(build_encoder(6, (3,), 2), build_decoder(2, (3,), 6))


def build_small_gan():
    return GAN(build_generator(2, (3,), 6), build_discriminator(6, (3,)))


def build_small_ddpm():
    return DDPM(build_unet((4, 4, 1), (2,)), NoiseSchedule("cosine", 2))


START = np.array([[0]])
SOURCE = np.array([[5]])
GENERATING_CALLS = {
    "VAE.generate": (build_small_vae, lambda model: model.generate(), "decoder"),
    "VAE.encode": (build_small_vae, lambda model: model.encode(np.zeros((1, 6))), "encoder"),
    "GAN.generate": (build_small_gan, lambda model: model.generate(), "generator"),
    "DDPM.generate": (build_small_ddpm, lambda model: model.generate(), "unet"),
    "PixelCNN": (lambda: PixelCNN((2, 2, 1), 2, 2), lambda model: model.generate(), "pixelcnn"),
    "WaveNet": (lambda: WaveNet(8, 1, 2, 2, 2), lambda model: model.generate(length=2), "wavenet"),
    "sampling": (lambda: GPT2(4, 8, 1, 1, 4), lambda model: model.generate(START, 2), "gpt2"),
    "greedy": (
        lambda: build_language_model(3, "gru", 2, 2),
        lambda model: model.generate(START, 2, sampler=GREEDY),
        "language_model",
    ),
    "stream": (lambda: GPT2(4, 8, 1, 1, 4), lambda model: list(stream(model, START, 2)), "gpt2"),
    "beam search": (
        lambda: GPT2(4, 8, 1, 1, 4),
        lambda model: model.beam_search(START, 2),
        "gpt2",
    ),
    "translate": (
        lambda: Seq2SeqTransformer(8, 8, 4, 1, 4, 2, 4),
        lambda model: model.translate(SOURCE),
        "seq2seq_transformer",
    ),
    "translate with beams": (
        lambda: Seq2SeqTransformer(8, 8, 4, 1, 4, 2, 4),
        lambda model: model.translate(SOURCE, beam_width=2),
        "seq2seq_transformer",
    ),
}


@pytest.mark.parametrize("eager", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", GENERATING_CALLS)
def test_a_model_of_nan_raises_and_generates_nothing(name, eager, request):
    # The largest of NaN would be token 0, or a black image.
    tf.config.run_functions_eagerly(eager)
    request.addfinalizer(lambda: tf.config.run_functions_eagerly(False))
    build, call, network = GENERATING_CALLS[name]
    model = build()
    call(model)
    for weight in model.weights:
        if weight.dtype == "float32":
            weight.assign(np.full(weight.shape, np.nan))
    with pytest.raises(ValueError, match=f"^{network}: expected finite weights, got NaN or inf"):
        call(model)
