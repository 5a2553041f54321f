"""Recipes: the settings of each article, and training as a function."""

import csv
import dataclasses

import keras
import numpy as np
import pytest
from helpers import largest_difference, write_digits

import keras_genai
from keras_genai import recipes, tasks
from keras_genai.__main__ import main
from keras_genai.diffusion import build_unet
from keras_genai.experiments import EXPERIMENTS
from keras_genai.pixelcnn import build_pixelcnn
from keras_genai.recipes import RECIPES
from keras_genai.text import GPT2Tokenizer, TranslationTokenizer
from keras_genai.transformer import TransformerSchedule
from keras_genai.wavenet import build_wavenet


@pytest.mark.parametrize(
    "name, epochs, batch_size",
    [
        ("article1-vae", 10, 64),
        ("article1-gan", 10, 64),
        ("article1-transformer", 40, 64),
        ("article1-transformer-classifier", 120, 64),
        ("article2-vae", 10, 32),
        ("article2-gan", 6, 32),
        ("article1-text-to-image", 7, 32),
        ("article4-vae", 10, 64),
        ("article4-gan", 50, 64),
        ("article4-cnn", 5, 64),
        ("conditional-vae", 10, 64),
        ("conv-vae", 30, 64),
        ("conditional-conv-vae", 30, 64),
        ("dcgan", 8, 64),
        ("conditional-dcgan", 8, 64),
        ("article3-rnn", 3, 32),
        ("article3-lstm", 3, 32),
        ("article3-lstm-tang", 12, 32),
        ("article3-lstm-translation", 20, 32),
        ("article3-lstm-attention", 20, 32),
        ("article3-music", 25, 16),
        ("article3-forecast", 15, 32),
        ("article3-pixelcnn", 4, 32),
        ("article3-wavenet", 100, 2),
        ("article3-diffusion", 12, 64),
        ("article3-diffusion-cosine", 10, 32),
        ("article3-diffusion-unconditional", 20, 64),
        ("article3-audio-vae", 100, 16),
        ("article4-gpt2", 15, 8),
        ("article4-gpt2-tang", 20, 16),
        ("article4-finetune", 10, 8),
    ],
)
def test_epochs_and_batch_size_of_each_recipe(name, epochs, batch_size):
    recipe = RECIPES[name]
    assert (recipe.name, recipe.epochs, recipe.batch_size) == (name, epochs, batch_size)
    assert recipe.article and recipe.model and recipe.metric and recipe.data
    # The notes name the choices that the article leaves open.
    assert bool(recipe.notes) == (name not in ("article4-vae", "article4-gan", "article4-cnn"))


def test_every_recipe_has_an_experiment():
    assert list(EXPERIMENTS) == list(RECIPES)
    assert all(isinstance(experiment.task, tasks.Task) for experiment in EXPERIMENTS.values())


@pytest.mark.parametrize("function", [recipes.create, recipes.prepare, recipes.train])
def test_unknown_recipe_raises(function):
    with pytest.raises(ValueError, match="article5-vae: no such recipe; expected one of article1"):
        function("article5-vae")


def dense_layers(network):
    return [layer for layer in network.layers if isinstance(layer, keras.layers.Dense)]


def widths(network):
    return [layer.units for layer in dense_layers(network)]


def dense_activations(network):
    return [layer.activation.__name__ for layer in dense_layers(network)]


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
    model = recipes.create(name)
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
    model = recipes.create(name)
    assert (widths(model.generator), widths(model.discriminator)) == (generator, discriminator)
    assert dense_activations(model.generator)[-1] == output
    assert set(dense_activations(model.discriminator)[:-1]) == {hidden}


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
    assert recipes.create(name).count_params() == parameters


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, experiment in EXPERIMENTS.items()
        if isinstance(experiment.task, tasks.ImageTask)
    ],
)
def test_image_recipes_use_adam(name):
    model = recipes.create(name)
    optimizers = [model.optimizer]
    if isinstance(EXPERIMENTS[name].task, tasks.GANTask):
        optimizers = [model.generator_optimizer, model.discriminator_optimizer]
    learning_rates = {
        "article4-gan": 2e-4,
        "dcgan": 4e-4,
        "conditional-dcgan": 4e-4,
        "article3-pixelcnn": 6e-3,
        "article1-text-to-image": 2e-3,
        "article3-diffusion": 2e-3,
        "article3-diffusion-cosine": 2e-3,
        "article3-diffusion-unconditional": 2e-3,
    }
    expected = learning_rates.get(name, 1e-3)  # "adam" is Adam(1e-3)
    for optimizer in optimizers:
        assert isinstance(optimizer, keras.optimizers.Adam)
        assert float(optimizer.learning_rate) == np.float32(expected)


def learning_rates(optimizer, steps) -> list[float]:
    """Return the values of a learning rate schedule at some steps."""
    config = optimizer.get_config()["learning_rate"]
    schedule = keras.optimizers.schedules.deserialize(config)
    return [float(schedule(step)) for step in steps]


@pytest.mark.parametrize(
    "name, learning_rate, dataset_info",
    [
        ("article3-rnn", 1e-3, {"characters": "abc"}),
        ("article3-lstm", 2e-3, {"characters": "abc"}),
        ("article3-music", 3e-3, {"characters": "abc"}),
        ("article3-forecast", 3e-3, {}),
    ],
)
def test_recurrent_recipes_clip_gradients_and_decay(name, learning_rate, dataset_info):
    optimizer = recipes.create(name, steps=100, **dataset_info).optimizer
    assert optimizer.global_clipnorm == 1.0
    expected = [learning_rate, learning_rate / 2, 0]
    np.testing.assert_allclose(learning_rates(optimizer, (0, 50, 100)), expected, atol=1e-9)


def create_translator(name, steps):
    """Return the model of a recipe for translation, with vocabularies of 259 tokens."""
    tokenizers = {
        f"{side}_tokenizer": TranslationTokenizer.train("abc", 259).tokenizer_json
        for side in ("input", "target")
    }
    return recipes.create(name, steps=steps, max_seq_length=32, **tokenizers)


@pytest.mark.slow
def test_transformer_has_the_papers_training():
    model = create_translator("article1-transformer", steps=5000)
    assert model.config == {
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
    final_layer_norms = 2 * 2 * 128  # of encoder and decoder
    assert model.count_params() == layers + final_layer_norms + 2 * 259 * 128 + 129 * 259
    optimizer = model.optimizer
    assert (optimizer.beta_1, optimizer.beta_2, optimizer.epsilon) == (0.9, 0.98, 1e-9)
    assert model.loss.label_smoothing == 0.1
    expected = [(128 * 2000) ** -0.5 * 3 / 5, 0]
    np.testing.assert_allclose(learning_rates(optimizer, (1999, 4999)), expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, attention, units",
    [("article3-lstm-translation", False, 288), ("article3-lstm-attention", True, 224)],
)
def test_translation_by_lstms_clips_gradients_and_decays(name, attention, units):
    model = create_translator(name, steps=100)
    assert (model.config["attention"], model.config["units"]) == (attention, units)
    assert (model.config["embed_dim"], model.config["dropout"]) == (128, 0.2)
    assert model.optimizer.global_clipnorm == 1.0
    rates = learning_rates(model.optimizer, (0, 50, 100))
    np.testing.assert_allclose(rates, [2e-3, 1e-3, 0], atol=1e-9)


def test_gpt2_of_poems_has_four_layers_and_a_warmup():
    model = recipes.create("article4-gpt2-tang", steps=100, characters="abc")
    sizes = {"context_length": 128, "num_layers": 4, "num_heads": 4, "d_model": 160}
    assert model.config == {**model.config, **sizes, "dropout": 0.3}
    rates = learning_rates(model.optimizer, (0, 1, 2, 51, 100))
    np.testing.assert_allclose(rates, [0, 5e-4, 1e-3, 5e-4, 0], atol=1e-9)


def test_gpt2_is_the_articles_network_at_a_smaller_size():
    tokenizer = GPT2Tokenizer.train("abc", 257)
    model = recipes.create("article4-gpt2", steps=100, tokenizer=tokenizer.tokenizer_json)
    assert model.config == {
        "vocab_size": tokenizer.vocab_size,
        "context_length": 256,
        "num_layers": 6,
        "num_heads": 6,
        "d_model": 192,
        "dff": 768,
        "activation": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "tie_embeddings": True,
        "dropout": 0.1,
    }
    assert type(model.optimizer) is keras.optimizers.AdamW
    assert (model.optimizer.weight_decay, model.optimizer.global_clipnorm) == (0.1, 1.0)
    rates = learning_rates(model.optimizer, (0, 1, 2, 51, 100))  # a warmup of 2 steps, 49 to half
    np.testing.assert_allclose(rates, [0, 1.25e-3, 2.5e-3, 1.25e-3, 0], atol=1e-9)


@pytest.mark.slow
def test_pixelcnn_and_wavenet_have_the_defaults_of_their_builders():
    pixelcnn = recipes.create("article3-pixelcnn", steps=100)
    assert pixelcnn.config == build_pixelcnn().config
    wavenet = recipes.create(
        "article3-wavenet", steps=100, class_names=list("abc"), sample_rate=700
    )
    assert wavenet.config == build_wavenet(num_classes=3, sample_rate=700).config
    one_class = recipes.create("article3-wavenet", class_names=[""], sample_rate=700)
    assert one_class.num_classes is None
    for model, learning_rate in ((pixelcnn, 6e-3), (wavenet, 2e-3)):
        rates = learning_rates(model.optimizer, (0, 50, 100))
        np.testing.assert_allclose(rates, [learning_rate, learning_rate / 2, 0], atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, schedule, num_classes",
    [
        ("article3-diffusion", "linear", 10),
        ("article3-diffusion-cosine", "cosine", 10),
        ("article3-diffusion-unconditional", "cosine", None),
    ],
)
def test_diffusion_has_a_papers_schedule_and_the_builders_network(name, schedule, num_classes):
    model = recipes.create(name, 3, steps=100, num_classes=num_classes)
    assert (model.schedule.beta_schedule, model.schedule.num_timesteps) == (schedule, 1000)
    assert model.seed == 3
    assert model.network.count_params() == build_unet(num_classes=num_classes).count_params()
    assert (model.cond_drop_prob, model.ema_momentum, model.prediction_type) == (0.1, 0.999, "v")
    rates = learning_rates(model.optimizer, (0, 50, 100))
    np.testing.assert_allclose(rates, [2e-3, 1e-3, 0], atol=1e-9)


def test_training_loop_of_each_gan():
    models = {
        name: recipes.create(name)
        for name, experiment in EXPERIMENTS.items()
        if isinstance(experiment.task, tasks.GANTask)
    }
    assert {name: (m.joint_batch, m.resample_noise) for name, m in models.items()} == {
        "article1-gan": (True, False),
        "article2-gan": (True, False),
        "article4-gan": (False, True),
        "dcgan": (False, True),
        "conditional-dcgan": (False, True),
    }


@pytest.mark.parametrize("name, num_classes", [("dcgan", None), ("conditional-dcgan", 10)])
def test_dcgan_averages_the_weights_of_the_generator_only(name, num_classes):
    model = recipes.create(name, steps=100)
    assert model.num_classes == num_classes
    assert (model.loss_name, model.discriminator_steps) == ("wasserstein_gp", 1)
    generator, discriminator = model.generator_optimizer, model.discriminator_optimizer
    assert (generator.use_ema, discriminator.use_ema) == (True, False)
    assert generator.ema_momentum == 0.999
    for optimizer in (generator, discriminator):
        assert optimizer.beta_1 == 0.5
        np.testing.assert_allclose(learning_rates(optimizer, (0, 100)), [4e-4, 0], atol=1e-9)


@pytest.mark.parametrize(
    "name, sizes",
    [("conv-vae", (16, 500, None, 1.0)), ("conditional-conv-vae", (12, 50, 10, 1.25))],
)
def test_convolutional_vaes_have_a_learned_prior(name, sizes):
    model = recipes.create(name, steps=100)
    prior = model.prior
    assert (prior.latent_dim, prior.num_components, prior.num_classes, model.beta) == sizes
    assert model.image_shape == (28, 28, 1)
    np.testing.assert_allclose(learning_rates(model.optimizer, (0, 100)), [1e-3, 0], atol=1e-9)


@pytest.mark.parametrize("class_names", [["kick", "snare"], [""]])
def test_vae_of_sounds_has_a_learned_prior_and_clips_gradients(class_names):
    model = recipes.create(
        "article3-audio-vae", 3, steps=100, class_names=class_names, sample_rate=8000
    )
    num_classes = 2 if len(class_names) == 2 else None
    prior = model.prior
    assert (prior.latent_dim, prior.num_components, prior.num_classes) == (16, 16, num_classes)
    assert (model.seed, model.beta, model.likelihood) == (3, 1.0, "bernoulli")
    assert (model.image_shape, model.class_names) == ((128, 128, 1), class_names)
    assert model.optimizer.global_clipnorm == 1.0
    np.testing.assert_allclose(learning_rates(model.optimizer, (0, 100)), [2e-3, 0], atol=1e-9)


def test_same_seed_gives_the_same_initial_weights():
    kernels = [recipes.create("article4-vae", seed).get_weights()[0] for seed in (1, 1, 2)]
    assert np.array_equal(kernels[0], kernels[1]) and not np.array_equal(kernels[0], kernels[2])


def test_images_have_the_shape_and_scale_of_the_models_inputs():
    images = np.array([[[0, 255], [51, 102]]], "uint8")
    x, y = EXPERIMENTS["article4-vae"].task.preprocess(images, [3])
    np.testing.assert_allclose(x, [[0, 1, 0.2, 0.4]], rtol=1e-6)
    assert y is None and x.dtype == "float32"
    x, y = EXPERIMENTS["article4-cnn"].task.preprocess(images, [3])
    assert x.shape == (1, 2, 2, 1) and y.tolist() == [3] and y.dtype == "int32"
    assert EXPERIMENTS["conditional-vae"].task.preprocess(images, [3])[1].tolist() == [3]


def test_reset_decay_steps_stretches_a_warmup_schedule():
    optimizer = keras.optimizers.Adam(TransformerSchedule(16, warmup_steps=3, decay_steps=5))
    recipes.reset_decay_steps(optimizer, 10)
    config = optimizer.get_config()["learning_rate"]["config"]
    assert config == {"d_model": 16, "warmup_steps": 3, "decay_steps": 10}
    rates = learning_rates(optimizer, (8, 9))
    assert rates[1] == 0 < rates[0]


def test_reset_decay_steps_keeps_a_constant_learning_rate():
    optimizer = keras.optimizers.Adam(1e-3)
    recipes.reset_decay_steps(optimizer, 10)
    assert float(optimizer.learning_rate) == np.float32(1e-3)


# train.


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """A CSV file for article3-forecast: 229 training windows, in 8 steps per epoch."""
    path = tmp_path_factory.mktemp("series") / "series.csv"
    rows = "\n".join(f"{t},{t + t % 52}" for t in range(600))
    path.write_text(f"week,value\n{rows}\n")
    return path


@pytest.fixture(scope="module")
def result(series):
    """Result of two epochs without a run folder."""
    return recipes.train("article3-forecast", epochs=2, seed=3, data=series)


@pytest.mark.slow
def test_train_returns_the_model_its_history_and_its_metrics(result, series):
    model, history, metrics = result
    task = EXPERIMENTS["article3-forecast"].task
    assert set(history) == {"loss", "val_loss"}
    assert all(len(values) == 2 for values in history.values())
    assert metrics == task.evaluate(model, task.load(series))
    assert set(metrics) == {"value", "52 steps ahead"}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"epochs": 0}, "epochs: expected a whole number of at least 1, got 0"),
        ({"batch_size": 2.5}, "batch_size: expected a whole number of at least 1, got 2.5"),
        ({"seed": -1}, "seed: expected a whole number of at least 0, got -1"),
        ({"resume": True}, "folder: nothing to resume"),
        ({"data": "nowhere.csv"}, "nowhere.csv: "),
    ],
)
def test_train_with_invalid_options_raises(options, message):
    with pytest.raises(ValueError, match=message):
        recipes.train("article3-forecast", **options)


def test_train_without_a_folder_writes_no_files(series, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipes.train("article3-forecast", epochs=1, data=series)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_train_equals_the_command_line_with_the_same_options(result, series, tmp_path):
    arguments = ["article3-forecast", "--epochs", "2", "--seed", "3", "--data", str(series)]
    assert main(["train", *arguments, "--output", str(tmp_path)]) == 0
    model = keras_genai.load_model(tmp_path / "model.keras")
    assert largest_difference(model.get_weights(), result.model.get_weights()) == 0
    with open(tmp_path / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for name, values in result.history.items():
        assert [float(row[name]) for row in rows] == pytest.approx(values, rel=1e-6)


@pytest.mark.slow
def test_train_resumes_a_run_folder(result, series, tmp_path):
    recipes.train("article3-forecast", epochs=np.int64(1), seed=3, data=series, folder=tmp_path)
    resumed = recipes.train("article3-forecast", epochs=2, folder=tmp_path, resume=True)
    assert all(len(values) == 2 for values in resumed.history.values())
    model = keras_genai.load_model(tmp_path / "model.keras")
    assert largest_difference(model.get_weights(), resumed.model.get_weights()) == 0
    assert int(model.optimizer.iterations) == 2 * 8


def test_train_raises_when_the_loss_becomes_nan(series, monkeypatch):
    experiment = EXPERIMENTS["article3-forecast"]

    def diverging(model, steps):
        model.compile(keras.optimizers.SGD(1e30), loss="mse")

    monkeypatch.setitem(
        EXPERIMENTS, "article3-forecast", dataclasses.replace(experiment, compile=diverging)
    )
    with pytest.raises(FloatingPointError, match="loss is (nan|inf) in epoch 1"):
        recipes.train("article3-forecast", epochs=1, data=series)


def test_metric_without_the_classifier_it_needs_is_none():
    data = tasks.Data(train=None, test=None, num_examples=1, dataset_info={}, classifier=None)
    training = recipes.Training(
        RECIPES["article4-gan"], tasks.GANTask(), data, None, {}, first_epoch=0, run=None
    )
    assert training.evaluate() == {"value": None}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["article4-vae", "article4-cnn"])
def test_run_in_half_precision_is_resumed_although_loss_scaling_skips_steps(name, tmp_path):
    data = tmp_path / "digits"
    data.mkdir()
    write_digits(data, 120)
    options = {"data": data, "folder": tmp_path / "run", "batch_size": 10, "verbose": 0}
    recipes.train(name, epochs=2, dtype="mixed_float16", **options)
    model, history, _ = recipes.train(name, epochs=4, resume=True, **options)
    assert model.dtype_policy.name == "mixed_float16" and len(history["loss"]) == 4
    assert np.isfinite(history["loss"]).all()
    with pytest.raises(ValueError, match="dtype: the run was started with mixed_float16"):
        recipes.train(name, epochs=5, resume=True, dtype="float32", **options)
