"""Recipes: each article's own settings, and who may import whom."""

import ast
import pathlib
import types

import keras
import numpy as np
import pytest

import keras_genai
from keras_genai import tasks
from keras_genai.diffusion import build_unet
from keras_genai.pixelcnn import build_pixelcnn
from keras_genai.recipes import RECIPES
from keras_genai.text import GPT2Tokenizer, TranslationTokenizer
from keras_genai.wavenet import build_wavenet

PACKAGE = pathlib.Path(keras_genai.__file__).parent


@pytest.mark.parametrize(
    "name, epochs, batch_size",
    [
        ("article1-vae", 10, 64),
        ("article1-gan", 10, 64),
        ("article1-transformer", 40, 64),
        ("article2-vae", 10, 32),
        ("article2-gan", 6, 32),
        ("article4-vae", 10, 64),
        ("article4-gan", 50, 64),
        ("article4-cnn", 5, 64),
        ("conditional-vae", 10, 64),
        ("article3-rnn", 12, 32),
        ("article3-lstm", 12, 32),
        ("article3-lstm-tang", 12, 32),
        ("article3-forecast", 15, 32),
        ("article3-pixelcnn", 4, 32),
        ("article3-wavenet", 100, 2),
        ("article3-diffusion", 12, 64),
        ("article3-diffusion-unconditional", 4, 64),
        ("article4-gpt2", 30, 8),
        ("article4-finetune", 4, 8),
    ],
)
def test_settings_of_each_recipe(name, epochs, batch_size):
    recipe = RECIPES[name]
    assert (recipe.name, recipe.epochs, recipe.batch_size) == (name, epochs, batch_size)
    assert recipe.article and recipe.model and recipe.figure and recipe.task.data
    # What an article leaves open is said.
    assert bool(recipe.choices) == (name not in ("article4-vae", "article4-gan", "article4-cnn"))


def widths(network):
    return [layer.units for layer in network.layers if isinstance(layer, keras.layers.Dense)]


@pytest.mark.parametrize(
    "name, encoder, decoder, likelihood",
    [
        ("article1-vae", [400, 2, 2], [400, 784], "bernoulli"),
        ("article2-vae", [256, 128, 32, 32], [128, 256, 784], "gaussian"),
        ("article4-vae", [400, 20, 20], [400, 784], "bernoulli"),
        ("conditional-vae", [400, 20, 20], [400, 784], "bernoulli"),
    ],
)
def test_networks_of_each_vae(name, encoder, decoder, likelihood):
    model = RECIPES[name].create()
    assert (widths(model.encoder), widths(model.decoder)) == (encoder, decoder)
    assert model.likelihood == likelihood
    assert model.beta == (5.0 if name == "conditional-vae" else 1.0)
    assert model.num_classes == (10 if name == "conditional-vae" else None)


@pytest.mark.parametrize(
    "name, generator, discriminator, output, hidden",
    [
        ("article1-gan", [256, 512, 784], [512, 256, 1], "sigmoid", "relu"),
        ("article2-gan", [256, 512, 1024, 784], [512, 256, 1], "sigmoid", "relu"),
        ("article4-gan", [256, 512, 1024, 784], [1024, 512, 256, 1], "tanh", "leaky_relu"),
    ],
)
def test_networks_of_each_gan(name, generator, discriminator, output, hidden):
    model = RECIPES[name].create()
    assert (widths(model.generator), widths(model.discriminator)) == (generator, discriminator)
    dense = [x for x in model.generator.layers if isinstance(x, keras.layers.Dense)]
    assert dense[-1].activation.__name__ == output
    dense = [x for x in model.discriminator.layers if isinstance(x, keras.layers.Dense)]
    assert {layer.activation.__name__ for layer in dense[:-1]} == {hidden}


@pytest.mark.parametrize(
    "name, parameters",
    [
        ("article4-vae", 652_824),
        ("conditional-vae", 652_824 + 2 * 10 * 400),
        ("article4-gan", 1_486_352 + 1_460_225),
        ("article4-cnn", 421_642),
    ],
)
def test_number_of_parameters(name, parameters):
    assert RECIPES[name].create().count_params() == parameters


@pytest.mark.parametrize(
    "name", [name for name in RECIPES if isinstance(RECIPES[name].task, tasks.Images)]
)
def test_optimizers_of_each_recipe(name):
    model = RECIPES[name].create()
    optimizers = [model.optimizer]
    if isinstance(RECIPES[name].task, tasks.Adversarial):
        optimizers = [model.generator_optimizer, model.discriminator_optimizer]
    for optimizer in optimizers:
        assert isinstance(optimizer, keras.optimizers.Adam)
        rates = {
            "article4-gan": 2e-4,
            "article3-pixelcnn": 6e-3,
            "article3-diffusion": 2e-3,
            "article3-diffusion-unconditional": 2e-3,
        }
        expected = rates.get(name, 1e-3)  # "adam" is Adam(1e-3)
        assert float(optimizer.learning_rate) == np.float32(expected)


def test_recurrent_recipes_clip_and_slow_down():
    for name, rate in (
        ("article3-rnn", 1e-3),
        ("article3-lstm", 2e-3),
        ("article3-forecast", 3e-3),
    ):
        facts = {} if name == "article3-forecast" else {"characters": "abc"}
        optimizer = RECIPES[name].create(steps=100, **facts).optimizer
        assert optimizer.global_clipnorm == 1.0
        rates = [float(optimizer._learning_rate(step)) for step in (0, 50, 100)]
        np.testing.assert_allclose(rates, [rate, rate / 2, 0], atol=1e-9)


def test_the_translator_is_trained_as_in_the_paper():
    languages = {
        f"{side}_tokenizer": TranslationTokenizer.train("abc", 259).definition
        for side in ("input", "target")
    }
    model = RECIPES["article1-transformer"].create(steps=5000, max_seq_length=32, **languages)
    assert model.settings == {
        "input_vocab_size": 259,
        "target_vocab_size": 259,
        "max_seq_length": 32,
        "num_layers": 4,
        "d_model": 128,
        "num_heads": 8,
        "dff": 512,
        "dropout": 0.2,
        "norm_first": True,
    }
    attention, feed_forward = 4 * (128 * 128 + 128), 128 * 512 + 512 + 512 * 128 + 128
    layers = 4 * (3 * attention + 2 * feed_forward + 5 * 2 * 128)
    norms = 2 * 2 * 128  # in the end of encoder and decoder
    assert model.count_params() == layers + norms + 2 * 259 * 128 + 129 * 259
    optimizer = model.optimizer
    assert (optimizer.beta_1, optimizer.beta_2, optimizer.epsilon) == (0.9, 0.98, 1e-9)
    assert model.loss.label_smoothing == 0.1
    rates = [float(optimizer._learning_rate(step)) for step in (1999, 4999)]
    np.testing.assert_allclose(rates, [(128 * 2000) ** -0.5 * 3 / 5, 0], rtol=1e-5)


def test_gpt2_is_the_articles_network_made_small():
    tokenizer = GPT2Tokenizer.train("abc", 257).definition
    model = RECIPES["article4-gpt2"].create(steps=100, tokenizer=tokenizer)
    vocabulary = GPT2Tokenizer(tokenizer).vocab_size
    assert model.settings == {
        "vocab_size": vocabulary,
        "context_length": 256,
        "num_layers": 6,
        "num_heads": 6,
        "d_model": 192,
        "dff": 768,
        "activation": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "tie_embeddings": True,
        "dropout": 0.2,
    }
    assert type(model.optimizer) is keras.optimizers.AdamW
    assert (model.optimizer.weight_decay, model.optimizer.global_clipnorm) == (0.1, 1.0)
    rates = [float(model.optimizer._learning_rate(step)) for step in (0, 50, 100)]
    np.testing.assert_allclose(rates, [1e-3, 5e-4, 0], atol=1e-9)


def test_the_sampled_recipes_are_the_builders_defaults():
    pixelcnn = RECIPES["article3-pixelcnn"].create(steps=100)
    assert pixelcnn.settings == build_pixelcnn().settings
    wavenet = RECIPES["article3-wavenet"].create(steps=100, kinds=list("abc"), sample_rate=700)
    assert wavenet.settings == build_wavenet(num_classes=3, sample_rate=700).settings
    one_kind = RECIPES["article3-wavenet"].create(kinds=[""], sample_rate=700)
    assert one_kind.num_classes is None
    for model, rate in ((pixelcnn, 6e-3), (wavenet, 2e-3)):
        rates = [float(model.optimizer._learning_rate(step)) for step in (0, 50, 100)]
        np.testing.assert_allclose(rates, [rate, rate / 2, 0], atol=1e-9)


@pytest.mark.parametrize("num_classes", [10, None])
def test_diffusion_has_the_schedule_of_the_paper_and_the_network_of_the_builder(num_classes):
    model = RECIPES["article3-diffusion"].create(3, steps=100, num_classes=num_classes)
    assert (model.schedule.kind, model.schedule.num_steps, model.seed) == ("linear", 1000, 3)
    assert model.network.count_params() == build_unet(num_classes=num_classes).count_params()
    assert (model.label_dropout, model.ema_momentum, model.prediction) == (0.1, 0.999, "v")
    rates = [float(model.optimizer._learning_rate(step)) for step in (0, 50, 100)]
    np.testing.assert_allclose(rates, [2e-3, 1e-3, 0], atol=1e-9)


def test_loops_of_the_gans():
    loops = {
        name: (model.joint_batch, model.fresh_noise)
        for name, recipe in RECIPES.items()
        if isinstance(recipe.task, tasks.Adversarial)
        for model in [recipe.create()]
    }
    assert loops == {
        "article1-gan": (True, False),
        "article2-gan": (True, False),
        "article4-gan": (False, True),
    }


def test_same_seed_gives_the_same_initial_weights():
    weights = []
    for seed in (1, 1, 2):
        weights.append(RECIPES["article4-vae"].create(seed).get_weights()[0])
    assert np.array_equal(weights[0], weights[1]) and not np.array_equal(weights[0], weights[2])


def test_data_is_arranged_as_the_models_take_it():
    images = np.array([[[0, 255], [51, 102]]], "uint8")
    x, y = RECIPES["article4-vae"].task.arrange(images, [3])
    np.testing.assert_allclose(x, [[0, 1, 0.2, 0.4]], rtol=1e-6)
    assert y is None and x.dtype == "float32"
    x, y = RECIPES["article4-cnn"].task.arrange(images, [3])
    assert x.shape == (1, 2, 2, 1) and y.tolist() == [3] and y.dtype == "int32"
    assert RECIPES["conditional-vae"].task.arrange(images, [3])[1].tolist() == [3]


def test_a_gan_covers_the_digits_that_are_one_in_a_hundred_of_its_samples():
    digits = np.repeat(np.arange(10), [9000, 500, 299, 100, 99, 1, 1, 0, 0, 0])
    model = types.SimpleNamespace(generate=lambda count, seed: np.zeros((count, 784)))
    classifier = types.SimpleNamespace(predict=lambda images, **options: np.eye(10)[digits])
    data = types.SimpleNamespace(judge=classifier)
    figures = RECIPES["article4-gan"].task.measure(model, data)
    assert figures["measured"] == 4
    assert figures["digit_shares"][:5] == [0.9, 0.05, 0.0299, 0.01, 0.0099]


# Who may import whom.


def imports(path: pathlib.Path) -> set[str]:
    """Names of the package's own modules that a file imports, inside its functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "keras_genai":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("keras_genai."):
            found.add(node.module.removeprefix("keras_genai."))
    return found


def test_a_family_imports_no_other_family_and_nothing_of_files_or_plots():
    for family in ("gan", "cnn"):
        assert imports(PACKAGE / f"{family}.py") == {"inputs"}
    for family in ("vae", "diffusion"):
        assert imports(PACKAGE / f"{family}.py") == {"inputs", "training"}
    assert imports(PACKAGE / "rnn.py") == {"inputs", "text"}
    assert imports(PACKAGE / "transformer.py") == {"autoregressive", "inputs", "text", "training"}
    assert imports(PACKAGE / "gpt2.py") == {"autoregressive", "inputs", "text", "transformer"}
    assert imports(PACKAGE / "pixelcnn.py") == {"autoregressive", "inputs", "training"}
    assert imports(PACKAGE / "wavenet.py") == {"audio", "autoregressive", "inputs"}
    for room in ("autoregressive", "audio"):
        assert imports(PACKAGE / f"{room}.py") == {"inputs"}
    assert imports(PACKAGE / "training.py") == set()


def test_only_the_command_line_and_pretrained_import_recipes():
    users = {path.stem for path in PACKAGE.glob("*.py") if "recipes" in imports(path)}
    assert users == {"__main__", "pretrained"}
