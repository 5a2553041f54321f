"""GAN: the articles' networks, separate steps of both, equality of `GAN` and `train_gan`."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import largest_difference

from keras_genai.gan import GAN, build_discriminator, build_gan, build_generator, train_gan


def small_networks(num_classes=None):
    generator = build_generator(latent_dim=5, hidden_dims=(16,), num_classes=num_classes)
    return generator, build_discriminator(hidden_dims=(16,), num_classes=num_classes)


def dense_layers(network):
    return [layer for layer in network.layers if isinstance(layer, keras.layers.Dense)]


def all_weights_changed(network, before) -> bool:
    """Return whether every weight array of the network differs from `before`."""
    return all(np.any(new != old) for new, old in zip(network.get_weights(), before, strict=True))


# Networks of the articles.


def test_parameter_counts_match_article_4():
    assert build_generator().count_params() == 1_486_352
    assert build_discriminator().count_params() == 1_460_225


def test_discriminator_of_article_4_has_leaky_relus_of_slope_0_2():
    *hidden, last = dense_layers(build_discriminator())
    assert [layer.units for layer in hidden] == [1024, 512, 256] and last.units == 1
    assert last.activation is keras.activations.sigmoid
    for layer in hidden:
        np.testing.assert_allclose(layer.activation(np.float32([-1, 0, 2])), [-0.2, 0, 2])


@pytest.mark.parametrize(
    "arguments, widths, output",
    [
        (
            {"hidden_dims": (256, 512), "output_activation": "sigmoid"},
            [256, 512],
            "sigmoid",
        ),  # article 1
        ({"output_activation": "sigmoid"}, [256, 512, 1024], "sigmoid"),  # article 2
        ({}, [256, 512, 1024], "tanh"),  # article 4
    ],
)
def test_generator_matches_each_article(arguments, widths, output):
    generator = build_generator(**arguments)
    *hidden, last = dense_layers(generator)
    assert [layer.units for layer in hidden] == widths and last.units == 784
    assert {layer.activation.__name__ for layer in hidden} == {"relu"}
    assert last.activation.__name__ == output
    # At both limits the output is 0 and 1: the range [-1, 1] of tanh is scaled to [0, 1].
    last.set_weights([np.zeros((widths[-1], 784)), np.where(np.arange(784) % 2, 50.0, -50.0)])
    np.testing.assert_allclose(generator(np.zeros((1, 100)))[0, :2], [0, 1], atol=1e-6)


def test_discriminator_matches_articles_1_and_2():
    discriminator = build_discriminator(hidden_dims=(512, 256), activation="relu", rescale=False)
    layers = dense_layers(discriminator)
    assert [layer.units for layer in layers] == [512, 256, 1]
    assert [layer.activation.__name__ for layer in layers] == ["relu", "relu", "sigmoid"]
    assert discriminator.count_params() == 784 * 512 + 512 + 512 * 256 + 256 + 257
    assert not any(isinstance(layer, keras.layers.Rescaling) for layer in discriminator.layers)


def test_discriminator_of_article_4_scales_pixels_to_minus_one_to_one():
    discriminator = build_discriminator(2, ())
    discriminator.set_weights([np.float32([[3.0], [5.0]]), np.float32([0.0])])
    logit = 3 * -1 + 5 * 1
    np.testing.assert_allclose(
        discriminator(np.float32([[0, 1]])), [[1 / (1 + np.exp(-logit))]], rtol=1e-5
    )


def test_combined_model_maps_noise_to_a_probability():
    # Article 2, section 4.1: `generator.input` of a Sequential model, targets of the noise's shape.
    dense = keras.layers.Dense
    sequential = (
        keras.Sequential([keras.Input((5,)), dense(784, "sigmoid")]),
        keras.Sequential([keras.Input((784,)), dense(1, "sigmoid")]),
    )
    for networks in (small_networks(), sequential):
        combined = build_gan(*networks)
        assert combined.input_shape == (None, 5) and combined.output_shape == (None, 1)


@pytest.mark.parametrize("build", [build_generator, build_discriminator])
def test_initial_weights_are_distributed_as_in_pytorch(build):
    # torch.nn.Linear: weights and biases are uniform within 1 / sqrt(inputs). Glorot's are larger.
    for layer in dense_layers(build()):
        bound = layer.kernel.shape[0] ** -0.5
        for variable in (layer.kernel, layer.bias):
            values = np.asarray(variable)
            assert np.abs(values).max() <= bound
            if values.size >= 256:
                assert abs(values.std() / (bound / np.sqrt(3)) - 1) < 0.1
    glorot = dense_layers(build(initializer="glorot"))[0]
    assert np.abs(glorot.kernel).max() > glorot.kernel.shape[0] ** -0.5
    assert not np.any(glorot.bias)


# Each step trains one network.


def test_training_the_combined_model_does_not_change_the_discriminator():
    generator, discriminator = small_networks()
    combined = build_gan(generator, discriminator)
    combined.compile("adam", loss="binary_crossentropy")
    before = [generator.get_weights(), discriminator.get_weights()]
    combined.train_on_batch(np.random.default_rng(0).normal(size=(8, 5)), np.ones((8, 1)))
    assert all_weights_changed(generator, before[0])
    assert largest_difference(discriminator.get_weights(), before[1]) == 0


class ZeroLearningRate(keras.optimizers.SGD):
    """An optimizer that changes nothing: all changes come from the other network's optimizer."""

    def __init__(self):
        super().__init__(0.0)


@pytest.mark.slow
@pytest.mark.parametrize("joint_batch", [False, True])
@pytest.mark.parametrize("custom", [False, True])
@pytest.mark.parametrize("which", ["generator", "discriminator"])
def test_each_network_moves_in_its_own_step_only(digits, joint_batch, custom, which):
    generator, discriminator = small_networks()
    before = {"generator": generator.get_weights(), "discriminator": discriminator.get_weights()}
    optimizers = {"generator": ZeroLearningRate(), "discriminator": ZeroLearningRate()}
    optimizers[which] = keras.optimizers.Adam(1e-2)
    if custom:
        model = GAN(generator, discriminator, joint_batch)
        model.compile(optimizers["generator"], optimizers["discriminator"])
        model.fit(digits[0], batch_size=64, epochs=2, verbose=0)
    else:
        train_gan(
            generator, discriminator, digits[0], epochs=2, joint_batch=joint_batch, verbose=0,
            generator_optimizer=optimizers["generator"],
            discriminator_optimizer=optimizers["discriminator"],
        )  # fmt: skip
    for name, network in (("generator", generator), ("discriminator", discriminator)):
        if name == which:
            assert all_weights_changed(network, before[name])
        else:
            assert largest_difference(network.get_weights(), before[name]) == 0


# `discriminator.trainable`. 1,000 images in batches of 64 end with a batch of 40.


class DiscriminatorChanges(keras.callbacks.Callback):
    """Record in `changes`, for every step, whether the discriminator's weights changed."""

    def __init__(self, discriminator):
        super().__init__()
        self.discriminator, self.changes = discriminator, []
        self.weights = [w.copy() for w in discriminator.get_weights()]

    def on_train_batch_end(self, batch, logs=None):
        self.changes.append(all_weights_changed(self.discriminator, self.weights))
        self.weights = [w.copy() for w in self.discriminator.get_weights()]


def train_as_article_1(generator, discriminator, steps=2):
    """Train in article 1's order: compile, freeze, compile the combined model, train in turns."""
    combined = keras.Sequential([generator, discriminator])
    discriminator.compile("adam", "binary_crossentropy")
    discriminator.trainable = False
    combined.compile("adam", "binary_crossentropy")
    for _ in range(steps):
        discriminator.train_on_batch(np.zeros((128, 784)), np.ones((128, 1)))
        combined.train_on_batch(np.zeros((64, 5)), np.ones((64, 1)))


@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
def test_loop_of_article_1_does_not_train_the_discriminator_on_keras_3():
    # If this fails, Keras has changed, and the note in gan.py must change, too.
    generator, discriminator = small_networks()
    before = discriminator.get_weights()
    train_as_article_1(generator, discriminator)
    assert largest_difference(discriminator.get_weights(), before) == 0


@pytest.mark.slow
@pytest.mark.parametrize("joint_batch", [False, True])
@pytest.mark.parametrize("custom", [False, True])
def test_discriminator_still_learns_after_a_shorter_last_batch(digits, joint_batch, custom):
    generator, discriminator = small_networks()
    recorder = DiscriminatorChanges(discriminator)
    if custom:
        model = GAN(generator, discriminator, joint_batch)
        model.compile()
        model.fit(digits[0], batch_size=64, epochs=2, callbacks=[recorder], verbose=0)
    else:
        train_gan(
            generator, discriminator, digits[0], epochs=2, joint_batch=joint_batch,
            callbacks=[recorder], verbose=0,
        )  # fmt: skip
    assert recorder.changes == [True] * 32


@pytest.mark.slow
@pytest.mark.parametrize("joint_batch", [False, True])
def test_discriminator_still_learns_when_train_gan_is_called_twice(digits, joint_batch):
    generator, discriminator = small_networks()
    for _ in range(2):
        recorder = DiscriminatorChanges(discriminator)
        train_gan(
            generator,
            discriminator,
            digits[0],
            joint_batch=joint_batch,
            callbacks=[recorder],
            verbose=0,
        )
        assert recorder.changes == [True] * 16


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
@pytest.mark.parametrize("joint_batch", [False, True])
@pytest.mark.parametrize("custom", [False, True])
def test_discriminator_learns_again_after_the_order_of_article_1(digits, joint_batch, custom):
    generator, discriminator = small_networks()
    train_as_article_1(generator, discriminator)
    recorder = DiscriminatorChanges(discriminator)
    if custom:
        model = GAN(generator, discriminator, joint_batch)
        model.compile()
        model.fit(digits[0], batch_size=64, callbacks=[recorder], verbose=0)
    else:
        train_gan(
            generator,
            discriminator,
            digits[0],
            joint_batch=joint_batch,
            callbacks=[recorder],
            verbose=0,
        )
    assert recorder.changes == [True] * 16


def test_discriminator_learns_after_another_model_has_frozen_it(digits):
    generator, discriminator = small_networks()
    model = GAN(generator, discriminator)
    model.compile()
    build_gan(generator, discriminator)
    before = discriminator.get_weights()
    model.fit(digits[0][:64], verbose=0)
    assert all_weights_changed(discriminator, before)


def test_discriminator_is_trainable_after_training_and_after_loading(digits, tmp_path):
    # Article 1's loop leaves a discriminator that loads with no trainable weight.
    generator, discriminator = small_networks()
    train_gan(generator, discriminator, digits[0][:64], verbose=0)
    discriminator.save(tmp_path / "discriminator.keras")
    loaded = keras.models.load_model(tmp_path / "discriminator.keras")
    assert len(loaded.trainable_weights) == len(discriminator.get_weights()) == 4
    loaded.compile("adam", "binary_crossentropy")
    before = loaded.get_weights()
    loaded.train_on_batch(digits[0][:64], np.ones((64, 1)))
    assert all_weights_changed(loaded, before)


@pytest.mark.slow
def test_discriminator_is_trainable_in_callbacks(digits):
    generator, discriminator = small_networks()
    flags = []
    recorder = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: flags.append(discriminator.trainable)
    )
    train_gan(generator, discriminator, digits[0][:128], callbacks=[recorder], verbose=0)
    assert flags == [True, True]


# `GAN` and `train_gan`.


@pytest.mark.slow
@pytest.mark.parametrize("num_classes", [None, 10])
@pytest.mark.parametrize(
    "joint_batch, resample_noise", [(True, False), (False, True)]
)  # articles 1, 4
def test_gan_and_train_gan_give_the_same_weights(
    double_precision, digits, joint_batch, resample_noise, num_classes
):
    x, y = digits[0][:656], digits[1][:656]  # 20 batches of 32 and one of 16
    labels = None if num_classes is None else y
    keras.utils.set_random_seed(1)
    custom = GAN(*small_networks(num_classes), joint_batch, resample_noise, seed=5)
    keras.utils.set_random_seed(1)
    generator, discriminator = small_networks(num_classes)
    before = generator.get_weights() + discriminator.get_weights()

    custom.compile(jit_compile=False)  # XLA samples other normal numbers from the same seed
    custom_history = custom.fit(x, labels, batch_size=32, epochs=2, shuffle=False, verbose=0)
    history = train_gan(
        generator, discriminator, x, labels, epochs=2, batch_size=32, joint_batch=joint_batch,
        resample_noise=resample_noise, seed=5, shuffle=False, verbose=0,
    )  # fmt: skip

    weights = generator.get_weights() + discriminator.get_weights()
    assert largest_difference(weights, before) > 1e-3
    assert largest_difference(weights, custom.get_weights()) < 1e-9
    for name in ("discriminator_loss", "generator_loss"):
        np.testing.assert_allclose(history.history[name], custom_history.history[name], rtol=1e-5)


@pytest.mark.slow
def test_gan_and_train_gan_agree_with_batch_normalization(double_precision, digits):
    # The discriminator's moving averages may change in its own step only. With joint_batch=True,
    # since Keras's functional model chooses the order of two separate batches.
    def networks():
        keras.utils.set_random_seed(1)
        dense, batch_norm = keras.layers.Dense, keras.layers.BatchNormalization
        generator = [keras.Input((5,)), dense(16, "relu"), batch_norm(), dense(784, "sigmoid")]
        discriminator = [keras.Input((784,)), dense(16, "relu"), batch_norm(), dense(1, "sigmoid")]
        return keras.Sequential(generator), keras.Sequential(discriminator)

    custom = GAN(*networks(), joint_batch=True, seed=5)
    custom.compile(jit_compile=False)
    custom.fit(digits[0][:144], batch_size=32, epochs=2, shuffle=False, verbose=0)
    generator, discriminator = networks()
    train_gan(
        generator, discriminator, digits[0][:144], epochs=2, batch_size=32, joint_batch=True,
        seed=5, shuffle=False, verbose=0,
    )  # fmt: skip
    weights = generator.get_weights() + discriminator.get_weights()
    assert largest_difference(weights, custom.get_weights()) < 1e-9


def test_losses_match_the_articles_formulas(digits):
    real = digits[0][:8]
    noise = np.random.default_rng(0).normal(size=(8, 5)).astype("float32")
    for joint_batch in (False, True):
        model = GAN(*small_networks(), joint_batch)
        model.sample_noise = lambda batch_size, training=True: tf.constant(noise)
        model.compile(run_eagerly=True)
        d_real = np.asarray(model.discriminator(real), "float64")
        d_fake = np.asarray(model.discriminator(model.generator(noise)), "float64")
        real_loss, fake_loss = -np.log(d_real).mean(), -np.log(1 - d_fake).mean()
        # Article 4 adds two means; article 1 takes one mean over a batch twice as large.
        d_loss = (real_loss + fake_loss) / 2 if joint_batch else real_loss + fake_loss
        logs = model.evaluate(real, verbose=0, return_dict=True)
        np.testing.assert_allclose(logs["discriminator_loss"], d_loss, rtol=1e-5)
        np.testing.assert_allclose(logs["generator_loss"], -np.log(d_fake).mean(), rtol=1e-5)
        assert logs["real_accuracy"] == np.float32((d_real > 0.5).mean())
        assert logs["fake_accuracy"] == np.float32((d_fake <= 0.5).mean())


def record_inputs(network) -> list:
    """Return a list to which every later call of the network appends its inputs."""
    recorded = []
    call = network.call

    def recording_call(inputs, **kwargs):
        recorded.append(np.asarray(inputs))
        return call(inputs, **kwargs)

    network.call = recording_call
    return recorded


@pytest.mark.parametrize("resample_noise", [False, True])
def test_resample_noise_gives_the_generator_new_noise(digits, resample_noise):
    samples = []
    model = GAN(*small_networks(), resample_noise=resample_noise, seed=0)
    sample_noise = model.sample_noise
    model.sample_noise = lambda batch_size: samples.append(sample_noise(batch_size)) or samples[-1]
    inputs = record_inputs(model.generator)
    model.compile(run_eagerly=True)
    model.fit(digits[0][:16], batch_size=16, verbose=0)
    assert len(inputs) == 2 and len(samples) == 1 + resample_noise
    assert np.array_equal(inputs[0], inputs[1]) is not resample_noise


def test_an_epoch_is_one_pass_over_all_images(digits):
    # In article 1, one "epoch" is one batch.
    x = digits[0][:100]
    generator, discriminator = small_networks()
    inputs = record_inputs(discriminator)
    tf.config.run_functions_eagerly(True)
    try:
        train_gan(generator, discriminator, x, batch_size=32, epochs=1, seed=0, verbose=0)
    finally:
        tf.config.run_functions_eagerly(False)
    rows = {row.tobytes() for batch in inputs for row in batch.astype("float32")}
    assert {row.tobytes() for row in x} <= rows
    # 4 steps with three batches each: real, generated, and that of the generator's step.
    assert [len(batch) for batch in inputs] == [32, 32, 32] * 3 + [4, 4, 4]


@pytest.mark.slow
def test_train_gan_is_reproducible_and_calls_its_callbacks(digits, tmp_path):
    histories = []
    for seed in (3, 3, 4):
        keras.utils.set_random_seed(0)
        log = tmp_path / f"{len(histories)}.csv"
        histories.append(
            train_gan(
                *small_networks(), digits[0][:256], epochs=2, seed=seed, verbose=0,
                callbacks=[keras.callbacks.CSVLogger(log)],
            ).history
        )  # fmt: skip
        assert len(log.read_text().splitlines()) == 3
    assert histories[0] == histories[1] != histories[2]
    assert list(histories[0]) == ["discriminator_loss", "generator_loss"]


def test_train_gan_stops_when_a_callback_sets_stop_training(digits):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    history = train_gan(*small_networks(), digits[0][:64], epochs=5, callbacks=[Stop()], verbose=0)
    assert len(history.epoch) == 1


def test_default_optimizers_are_those_of_article_4():
    model = GAN(*small_networks())
    model.compile()
    for optimizer in (model.generator_optimizer, model.discriminator_optimizer):
        assert isinstance(optimizer, keras.optimizers.Adam)
        assert float(optimizer.learning_rate) == np.float32(2e-4)
    assert model.generator_optimizer is not model.discriminator_optimizer


# Generation.


def test_generate_is_reproducible_and_does_not_change_training():
    model = GAN(*small_networks(), seed=3)
    state = np.asarray(model.seed_generator.state)
    images = model.generate(5, seed=1)
    assert images.shape == (5, 784) and images.min() >= 0 and images.max() <= 1
    np.testing.assert_array_equal(images, model.generate(5, seed=1))
    assert np.any(images != model.generate(5, seed=2))
    np.testing.assert_array_equal(model.seed_generator.state, state)


def test_labels_change_the_outputs_of_both_networks(digits):
    model = GAN(*small_networks(num_classes=10))
    assert np.any(model.generate(2, labels=1, seed=0) != model.generate(2, labels=2, seed=0))
    x = digits[0][:1]
    output_1, output_2 = (np.asarray(model.discriminator([x, np.array([k])])) for k in (1, 2))
    assert output_1[0, 0] != output_2[0, 0]


# Invalid arguments.


@pytest.mark.parametrize(
    "x, message",
    [
        (np.zeros((3, 100)), r"x: expected shape \(n, 784\), got \(3, 100\)"),
        (np.zeros((0, 784)), "x: expected at least one image"),
        (np.full((3, 784), np.nan), "got values from nan to nan"),
        (np.full((3, 784), -1.0), r"x: expected pixels scaled to \[0, 1\]"),
    ],
)
def test_invalid_images_raise_in_fit_and_train_gan(x, message):
    generator, discriminator = small_networks()
    model = GAN(generator, discriminator)
    model.compile()
    with pytest.raises(ValueError, match=message):
        model.fit(x)
    with pytest.raises(ValueError, match=message):
        train_gan(generator, discriminator, x)


def test_labels_must_match_num_classes(digits):
    x, y = digits
    unconditional, conditional = GAN(*small_networks()), GAN(*small_networks(num_classes=10))
    unconditional.compile()
    conditional.compile()
    for call in (
        lambda: unconditional.fit(x, y),
        lambda: unconditional.generate(2, labels=1),
        lambda: train_gan(unconditional.generator, unconditional.discriminator, x, y),
    ):
        with pytest.raises(ValueError, match="labels: expected None"):
            call()
    for call in (
        lambda: conditional.fit(x),
        lambda: conditional.generate(2),
        lambda: train_gan(conditional.generator, conditional.discriminator, x),
    ):
        with pytest.raises(ValueError, match="labels: expected integers from 0 to 9, got None"):
            call()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: build_generator(latent_dim=0), "latent_dim: .* got 0"),
        (lambda: build_discriminator(input_dim=-3), "input_dim: .* got -3"),
        (lambda: build_generator(num_classes=0), "num_classes: .* got 0"),
        (
            lambda: build_gan(build_generator(output_dim=100), build_discriminator()),
            r"images of shape \(100,\).* \(784,\)",
        ),
        (
            lambda: GAN(build_generator(num_classes=10), build_discriminator()),
            "num_classes 10.* None",
        ),
        (
            lambda: build_generator(initializer="he"),
            "expected one of 'pytorch', 'glorot', got 'he'",
        ),
        (lambda: train_gan(*small_networks(), np.zeros((2, 784)), epochs=0), "epochs: .* got 0"),
        (
            lambda: train_gan(*small_networks(), np.zeros((2, 784)), batch_size=0),
            "batch_size: .* got 0",
        ),
    ],
)
def test_error_messages_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# What users pass.


def train(networks, x, way, epochs=2, **arguments):
    """Train by `train_gan` or by `GAN.fit`, without shuffling; return the model and its history."""
    if way == "train_gan":
        history = train_gan(
            *networks, x, epochs=epochs, batch_size=16, shuffle=False, seed=0, verbose=0,
            **arguments,
        )  # fmt: skip
        return history.model, history.history
    callbacks = arguments.pop("callbacks", None)
    joint_batch = arguments.pop("joint_batch", False)
    model = GAN(*networks, joint_batch=joint_batch, seed=0)
    model.compile(jit_compile=False, **arguments)
    history = model.fit(
        x, epochs=epochs, batch_size=16, shuffle=False, verbose=0, callbacks=callbacks
    )
    return model, history.history


WAYS = ["train_gan", "GAN"]


@pytest.mark.parametrize("way", WAYS)
def test_layers_keep_their_own_trainable_flags(digits, way):
    networks = generator, discriminator = small_networks()
    dense_layers(discriminator)[0].trainable = dense_layers(generator)[1].trainable = False
    before = [layer.get_weights() for network in networks for layer in dense_layers(network)]
    model, _ = train(networks, digits[0][:32], way)
    model, _ = train(networks, digits[0][:32], way)
    after = [layer.get_weights() for network in networks for layer in dense_layers(network)]
    moved = [bool(np.any(a[0] != b[0])) for a, b in zip(before, after, strict=True)]
    assert moved == [True, False, False, True]
    flags = [layer.trainable for network in networks for layer in dense_layers(network)]
    assert flags == moved and discriminator.trainable


def test_frozen_generator_raises():
    generator, discriminator = small_networks()
    generator.trainable = False
    with pytest.raises(ValueError, match="generator: expected trainable weights"):
        GAN(generator, discriminator).compile()


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_scheduled_learning_rate_keeps_the_ratio_of_both_networks(digits, way):
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch: [0.5, 0.25][epoch])
    optimizers = {
        "generator_optimizer": keras.optimizers.SGD(1e-2),
        "discriminator_optimizer": keras.optimizers.SGD(4e-2),
    }
    model, logs = train(small_networks(), digits[0][:32], way, callbacks=[schedule], **optimizers)
    assert float(optimizers["generator_optimizer"].learning_rate) == 0.25
    assert float(optimizers["discriminator_optimizer"].learning_rate) == 1.0
    assert logs["learning_rate"] == [0.5, 0.25]
    plateau = keras.callbacks.ReduceLROnPlateau(
        "generator_loss", mode="min", factor=0.5, patience=1, min_delta=9
    )
    model, _ = train(small_networks(), digits[0][:32], way, callbacks=[plateau])
    for optimizer in (model.generator_optimizer, model.discriminator_optimizer):
        assert float(optimizer.learning_rate) == pytest.approx(1e-4)


def test_rate_of_zero_keeps_the_last_ratio():
    model = GAN(*small_networks())
    model.compile(keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.2))
    for rate in (0.0, 0.3):
        model.optimizer.learning_rate = rate
    assert float(model.discriminator_optimizer.learning_rate) == pytest.approx(0.6)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_backup_continues_an_interrupted_run(double_precision, digits, tmp_path, way):
    def stop(epoch, logs=None):
        if epoch == 2 and not stopped:
            stopped.append(True)
            raise KeyboardInterrupt

    weights = []
    for backup in (False, True):
        keras.utils.set_random_seed(0)
        networks = small_networks()
        stopped = [] if backup else [True]
        callbacks = [keras.callbacks.LambdaCallback(on_epoch_begin=stop)]
        if backup:
            callbacks.append(keras.callbacks.BackupAndRestore(tmp_path / "backup"))
            with pytest.raises(KeyboardInterrupt):
                train(networks, digits[0][:32], way, epochs=4, callbacks=callbacks)
            keras.utils.set_random_seed(1)
            networks = small_networks()  # of a new process: other initial weights
        train(networks, digits[0][:32], way, epochs=4, callbacks=callbacks)
        weights.append([w for network in networks for w in network.get_weights()])
    assert largest_difference(*weights) == 0


@pytest.mark.slow
def test_order_of_a_continued_epoch_is_that_of_an_uninterrupted_run(digits):
    orders = []
    for first_epoch in (0, 1):
        networks, seen = small_networks(), []
        networks[1].train_on_batch = lambda x, y, seen=seen: seen.append(x[:16]) or 0.0
        begin = keras.callbacks.LambdaCallback()
        begin.on_train_begin = lambda logs=None, begin=begin, epoch=first_epoch: setattr(
            begin.model, "_initial_epoch", epoch
        )
        train_gan(
            *networks, digits[0][:32], epochs=2, batch_size=16, joint_batch=True, seed=0,
            callbacks=[begin], verbose=0,
        )  # fmt: skip
        orders.append(np.concatenate(seen[-2:]))
    np.testing.assert_array_equal(*orders)


@pytest.mark.slow
@pytest.mark.parametrize("joint_batch", [True, False])
def test_both_ways_add_the_losses_of_the_networks(double_precision, digits, joint_batch):
    results = []
    for way in WAYS:
        keras.utils.set_random_seed(0)
        networks = small_networks()
        for network in networks:
            dense_layers(network)[0].kernel.regularizer = keras.regularizers.L2(0.01)
            dense_layers(network)[0].activity_regularizer = keras.regularizers.L1(0.01)
        _, logs = train(networks, digits[0][:32], way, joint_batch=joint_batch)
        results.append((networks, logs))
    (networks, logs), (other_networks, other_logs) = results
    for network, other in zip(networks, other_networks, strict=True):
        assert largest_difference(network.get_weights(), other.get_weights()) < 1e-9
    for name in logs:
        np.testing.assert_allclose(logs[name], other_logs[name], rtol=1e-6)


def test_regularizer_is_added_to_the_loss_of_its_network(digits):
    networks = small_networks()
    model = GAN(*networks, seed=0)
    model.compile(jit_compile=False)
    losses = []
    for strength in (0.0, 0.5):
        for network in networks:
            dense_layers(network)[0].kernel.regularizer = keras.regularizers.L2(strength)
        model.compile(jit_compile=False)
        model.evaluation_seed_generator.state.assign([0, 0])
        losses.append(model.evaluate(digits[0][:16], return_dict=True, verbose=0))
    for network, name in zip(networks, ["generator_loss", "discriminator_loss"], strict=True):
        penalty = 0.5 * np.sum(np.square(dense_layers(network)[0].kernel))
        assert losses[1][name] - losses[0][name] == pytest.approx(penalty, rel=1e-4)


@pytest.mark.parametrize("name", ["loss", "loss_weights", "metrics", "weighted_metrics"])
def test_arguments_of_other_losses_raise(name):
    with pytest.raises(ValueError, match=f"{name}: expected none"):
        GAN(*small_networks()).compile(**{name: ["mae"]})


def test_one_optimizer_for_both_networks_raises():
    optimizer = keras.optimizers.Adam()
    with pytest.raises(ValueError, match="discriminator_optimizer: expected another"):
        GAN(*small_networks()).compile(optimizer, optimizer)


def discriminator_of(output):
    image = keras.Input((784,))
    return keras.Model(image, output(image))


@pytest.mark.parametrize(
    "discriminator, message",
    [
        (lambda: discriminator_of(keras.layers.Dense(1)), "expected probabilities, .* 'linear'"),
        (lambda: discriminator_of(keras.layers.Dense(2, "sigmoid")), r"an output \(batch, 1\)"),
        (lambda: keras.Sequential([keras.layers.Dense(1)]), "a Sequential without known inputs"),
    ],
)
def test_discriminators_of_other_outputs_raise(discriminator, message):
    for build in (GAN, build_gan):
        with pytest.raises(ValueError, match=f"discriminator: .*{message}"):
            build(small_networks()[0], discriminator())


def test_images_with_channels_are_generated():
    noise, image = keras.Input((5,)), keras.Input((4, 4, 1))
    generator = keras.Model(
        noise, keras.layers.Reshape((4, 4, 1))(keras.layers.Dense(16, "sigmoid")(noise))
    )
    discriminator = keras.Model(
        image, keras.layers.Dense(1, "sigmoid")(keras.layers.Flatten()(image))
    )
    model = GAN(generator, discriminator)
    model.compile(jit_compile=False)
    model.fit(np.zeros((8, 4, 4, 1)), verbose=0)
    assert model.generate(3).shape == (3, 4, 4, 1)
