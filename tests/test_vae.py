"""VAE: losses against NumPy, the articles' networks, equality of `VAE` and `build_vae`."""

import keras
import numpy as np
import pytest
from helpers import largest_difference
from keras import ops

from keras_genai.vae import (
    VAE,
    Sampling,
    build_decoder,
    build_encoder,
    build_vae,
    kl_divergence,
    reconstruction_loss,
)


def small_networks(num_classes=None, input_dim=784):
    encoder = build_encoder(input_dim, (32,), 4, num_classes=num_classes)
    decoder = build_decoder(4, (32,), input_dim, num_classes=num_classes)
    return encoder, decoder


def dense_layers(network):
    return [layer for layer in network.layers if isinstance(layer, keras.layers.Dense)]


# Losses.


def test_reconstruction_loss_is_the_sum_over_pixels_by_hand():
    rng = np.random.default_rng(0)
    x, x_hat = rng.uniform(size=(3, 5)), rng.uniform(0.01, 0.99, size=(3, 5))
    by_hand = -(x * np.log(x_hat) + (1 - x) * np.log(1 - x_hat)).sum(axis=1)
    result = reconstruction_loss(ops.convert_to_tensor(x), ops.convert_to_tensor(x_hat))
    np.testing.assert_allclose(result, by_hand, rtol=1e-5)
    assert result.shape == (3,)


def test_kl_divergence_is_the_sum_over_latents_by_hand():
    rng = np.random.default_rng(0)
    z_mean, z_log_var = rng.normal(size=(3, 7)), rng.normal(size=(3, 7))
    by_hand = 0.5 * (np.exp(z_log_var) + z_mean**2 - 1 - z_log_var).sum(axis=1)
    result = kl_divergence(ops.convert_to_tensor(z_mean), ops.convert_to_tensor(z_log_var))
    np.testing.assert_allclose(result, by_hand, rtol=1e-5)


@pytest.mark.parametrize(
    "mean, variance, expected",
    # KL(N(m, v) || N(0, 1)) = (v + m^2 - 1 - ln v) / 2.
    [(1.0, 1.0, 0.5), (0.0, 4.0, (3 - np.log(4)) / 2), (-2.0, 0.25, (3.25 + np.log(4)) / 2)],
)
def test_kl_divergence_matches_its_closed_form(mean, variance, expected):
    # Two equal latent dimensions have twice the divergence of one; article 1's mean halves it.
    z_mean, z_log_var = np.full((1, 2), mean), np.full((1, 2), np.log(variance))
    result = kl_divergence(ops.convert_to_tensor(z_mean), ops.convert_to_tensor(z_log_var))
    np.testing.assert_allclose(result, [2 * expected], rtol=1e-6)


def test_kl_divergence_matches_a_monte_carlo_estimate():
    z = np.random.default_rng(0).normal(0.7, np.exp(0.5 * -0.4), size=400_000)
    log_q = -0.5 * ((z - 0.7) ** 2 / np.exp(-0.4) - 0.4)
    estimate = np.mean(log_q + 0.5 * z**2)
    result = kl_divergence(np.float32([[0.7]]), np.float32([[-0.4]]))
    np.testing.assert_allclose(result, [estimate], atol=5e-3)  # 5 standard errors


def test_kl_divergence_is_zero_at_the_prior():
    assert np.all(np.asarray(kl_divergence(np.zeros((2, 3)), np.zeros((2, 3)))) == 0)


@pytest.mark.parametrize("custom", [False, True])
def test_cross_entropy_is_computed_from_the_logits(custom):
    # Keras uses them only if the loss receives the output of the sigmoid itself. Otherwise it clips
    # the probabilities: a logit of -20 would cost 16.1 nats and have no gradient.
    encoder, decoder = build_encoder(3, (), 2), build_decoder(2, (), 3)
    for network in (encoder, decoder):
        network.set_weights([np.zeros_like(weight) for weight in network.get_weights()])
    decoder.layers[-1].bias.assign(np.full(3, -20.0))
    x = np.ones((4, 3), "float32")
    model = VAE(encoder, decoder) if custom else build_vae(encoder, decoder)
    if custom:
        model.compile(keras.optimizers.SGD(0.01))
        assert model.evaluate(x, verbose=0, return_dict=True)["reconstruction_loss"] == 60
        model.fit(x, verbose=0)
    else:
        model.compile(keras.optimizers.SGD(0.01), loss=reconstruction_loss)
        assert model.evaluate(x, x, verbose=0) == 60  # the KL divergence is zero
        model.fit(x, x, verbose=0)
    np.testing.assert_allclose(decoder.layers[-1].bias, [-19.99] * 3, rtol=1e-6)  # gradient -1


# Sampling.


def test_sampling_has_the_mean_and_variance_of_its_inputs():
    z_mean = np.full((200_000, 1), 3.0, "float32")
    z_log_var = np.full((200_000, 1), -1.0, "float32")
    z = np.asarray(Sampling(seed=0)([z_mean, z_log_var]))
    assert abs(z.mean() - 3) < 5 * np.exp(-0.5) / np.sqrt(200_000)
    assert abs(z.var() - np.exp(-1)) < 5 * np.exp(-1) * np.sqrt(2 / 200_000)


def test_sampling_takes_batches_of_any_size():
    # Article 1's noise has a fixed batch size: one row in gives four rows out.
    sampling = Sampling(seed=0)
    for batch_size in (4, 1, 3):
        z = sampling([np.zeros((batch_size, 2)), np.zeros((batch_size, 2))])
        assert z.shape == (batch_size, 2)
        assert len(np.unique(np.asarray(z))) == 2 * batch_size


# Networks of the articles.


def test_parameter_count_matches_article_4():
    encoder, decoder = build_encoder(), build_decoder()
    assert build_vae(encoder, decoder).count_params() == 652_824
    assert VAE(encoder, decoder).count_params() == 652_824


@pytest.mark.parametrize(
    "encoder, decoder, widths",
    [
        # article 1 (its sizes are ours), article 2, article 4
        (dict(latent_dim=2), dict(latent_dim=2), ([400, 2, 2], [400, 784])),
        (
            dict(hidden_dims=(256, 128), latent_dim=32),
            dict(hidden_dims=(128, 256), latent_dim=32),
            ([256, 128, 32, 32], [128, 256, 784]),
        ),
        (dict(), dict(), ([400, 20, 20], [400, 784])),
    ],
)
def test_layers_match_each_article(encoder, decoder, widths):
    encoder = dense_layers(build_encoder(**encoder))
    decoder = dense_layers(build_decoder(**decoder))
    assert [layer.units for layer in encoder] == widths[0]
    assert [layer.units for layer in decoder] == widths[1]
    activations = [layer.activation for layer in encoder + decoder]
    assert activations == [
        *[keras.activations.relu] * (len(encoder) - 2),
        *[keras.activations.linear] * 2,
        *[keras.activations.relu] * (len(decoder) - 1),
        keras.activations.sigmoid,
    ]


# Training.


@pytest.mark.slow
@pytest.mark.parametrize(
    "likelihood, loss", [("bernoulli", reconstruction_loss), ("gaussian", "mse")]
)
@pytest.mark.parametrize("num_classes", [None, 10])
def test_vae_and_build_vae_give_the_same_weights(
    double_precision, digits, likelihood, loss, num_classes
):
    x, y = digits[0][:656], digits[1][:656]  # 20 batches of 32 and one of 16
    keras.utils.set_random_seed(1)
    stock = build_vae(*small_networks(num_classes), beta=0.7, likelihood=likelihood, seed=5)
    stock.compile("adam", loss=loss)
    keras.utils.set_random_seed(1)
    custom = VAE(*small_networks(num_classes), beta=0.7, likelihood=likelihood, seed=5)
    custom.compile("adam")
    before = custom.get_weights()

    stock_loss = stock.fit(x if num_classes is None else [x, y], x, shuffle=False, verbose=0)
    custom_loss = custom.fit(x, None if num_classes is None else y, shuffle=False, verbose=0)

    assert largest_difference(custom.get_weights(), before) > 1e-3
    assert largest_difference(stock.get_weights(), custom.get_weights()) < 1e-9
    np.testing.assert_allclose(stock_loss.history["loss"], custom_loss.history["loss"], rtol=1e-9)


def test_training_reaches_the_encoder_through_z(digits):
    # Article 1's z never reaches the decoder. Without a KL term, the encoder's only gradient is
    # through z.
    model = VAE(*small_networks(), beta=0.0, seed=0)
    model.compile("adam")
    before = model.encoder.get_weights()
    model.fit(digits[0][:64], verbose=0)
    for new, old in zip(model.encoder.get_weights(), before, strict=True):
        assert np.any(new != old)


def test_training_lowers_the_negative_elbo_on_real_digits(digits):
    model = VAE(build_encoder(), build_decoder(), seed=0)
    model.compile("adam")
    losses = model.fit(digits[0], batch_size=64, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < 0.6 * losses[0]


def test_loss_per_image_does_not_depend_on_the_batch_size(digits):
    x = np.repeat(digits[0][:1], 12, axis=0)
    model = VAE(*small_networks(), seed=0)
    model.sampling.call = lambda inputs, training: inputs[
        0
    ]  # no noise: every batch has the same loss
    model.compile("adam", run_eagerly=True)
    losses = [model.evaluate(x[:n], batch_size=n, verbose=0, return_dict=True) for n in (1, 3, 12)]
    np.testing.assert_allclose([log["loss"] for log in losses], losses[0]["loss"], rtol=1e-5)
    z_mean, z_log_var = model.encode(x[:1])
    expected = reconstruction_loss(x[:1], model.decode(z_mean)) + kl_divergence(z_mean, z_log_var)
    np.testing.assert_allclose(losses[0]["loss"], expected[0], rtol=1e-5)


def test_loss_is_the_weighted_sum_of_its_two_metrics(digits):
    model = VAE(*small_networks(), beta=3.0, seed=0)
    model.compile("adam")
    logs = model.evaluate(digits[0], verbose=0, return_dict=True)
    expected = logs["reconstruction_loss"] + 3 * logs["kl_loss"]
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-5)


def test_gaussian_loss_is_proportional_to_the_bound_by_hand(digits):
    # mse + 2/d KL = 2/d (|x - x_hat|^2 / 2 + KL): the bound of a Gaussian of variance 1, times 2/d.
    x = digits[0][:32]
    model = VAE(*small_networks(), likelihood="gaussian", seed=0)
    model.sampling.call = lambda inputs, training: inputs[0]
    model.compile("adam", run_eagerly=True)
    z_mean, z_log_var = model.encode(x)
    bound = 0.5 * ((x - model.decode(z_mean)) ** 2).sum(axis=1) + kl_divergence(z_mean, z_log_var)
    loss = model.evaluate(x, verbose=0, return_dict=True)["loss"]
    np.testing.assert_allclose(loss * 784 / 2, np.mean(bound), rtol=1e-5)


def test_call_sequence_of_article_1_trains_the_class(digits):
    model = VAE(*small_networks(), seed=0)
    model.compile(optimizer="adam")
    losses = model.fit(digits[0], epochs=2, batch_size=64, verbose=0).history["loss"]
    assert losses[1] < losses[0]


# Sampling images, encoding and decoding.


def test_generate_repeats_with_its_seed_and_does_not_affect_training():
    model = VAE(*small_networks(), seed=3)
    state = np.asarray(model.sampling.seed_generator.state)
    images = model.generate(5, seed=1)
    assert images.shape == (5, 784) and images.min() >= 0 and images.max() <= 1
    np.testing.assert_array_equal(images, model.generate(5, seed=1))
    assert np.any(images != model.generate(5, seed=2))
    np.testing.assert_array_equal(model.sampling.seed_generator.state, state)


def test_generate_decodes_standard_normal_noise():
    # The decoder is the identity before its sigmoid, so that the logits of the images are z.
    decoder = build_decoder(4, (), 4)
    decoder.set_weights([np.eye(4, dtype="float32"), np.zeros(4, "float32")])
    model = VAE(build_encoder(4, (), 4), decoder)
    images = model.generate(50_000, seed=0)
    z = np.log(images) - np.log1p(-images)
    assert abs(z.mean()) < 0.02 and abs(z.std() - 1) < 0.02


def test_reconstruct_is_the_decoded_mean(digits):
    model = VAE(*small_networks(), seed=0)
    x = digits[0][:3]
    np.testing.assert_array_equal(model.reconstruct(x), model.decode(model.encode(x)[0]))
    np.testing.assert_array_equal(model.reconstruct(x), model.reconstruct(x))


def test_models_of_the_same_networks_share_their_weights():
    encoder, decoder = small_networks()
    build_vae(encoder, decoder).set_weights([w + 1 for w in VAE(encoder, decoder).get_weights()])
    weights = [VAE(encoder, decoder).get_weights() for _ in range(2)]
    assert largest_difference(*weights) == 0
    assert dense_layers(encoder)[0].bias.numpy().min() == 1


def test_label_reaches_both_networks(digits):
    x = digits[0][:2]
    model = VAE(*small_networks(num_classes=10))
    assert np.any(model.encode(x, 1)[0] != model.encode(x, 2)[0])
    assert np.any(model.generate(2, labels=1, seed=0) != model.generate(2, labels=2, seed=0))
    three, seven = (model.generate(1, labels=label, seed=0) for label in (3, 7))
    assert np.any(three != seven)


def test_labels_are_one_integer_or_one_per_image():
    model = VAE(*small_networks(num_classes=10))
    together = model.generate(3, labels=np.array([4, 4, 4]), seed=0)
    np.testing.assert_array_equal(model.generate(3, labels=4, seed=0), together)


# Invalid input.


@pytest.mark.parametrize(
    "likelihood, loss", [("bernoulli", reconstruction_loss), ("gaussian", "mse")]
)
def test_pixels_below_zero_are_refused_by_both_ways_of_training(digits, likelihood, loss):
    # Article 4 scales its images to [-1, 1]. Keras raises no error, and the loss falls below zero
    # without bound.
    x = 2 * digits[0] - 1
    stock = build_vae(*small_networks(), likelihood=likelihood)
    stock.compile("adam", loss=loss)
    custom = VAE(*small_networks(), likelihood=likelihood)
    custom.compile("adam")
    for fit in (lambda: stock.fit(x, x, verbose=0), lambda: custom.fit(x, verbose=0)):
        with pytest.raises(
            ValueError, match=r"x: expected pixels scaled to \[0, 1\], got .* -1.0 to 1.0"
        ):
            fit()
    with pytest.raises(ValueError, match="y: expected pixels"):
        stock.fit(digits[0], x)
    with pytest.raises(ValueError, match="x: expected pixels"):
        custom.evaluate(x)
    with pytest.raises(ValueError, match="x: expected pixels"):
        custom.fit(digits[0], validation_data=(x,))


@pytest.mark.slow
@pytest.mark.parametrize(
    "x, message",
    [
        (np.zeros((3, 100)), r"x: expected shape \(n, 784\), got \(3, 100\)"),
        (np.zeros((3, 28, 28)), r"x: expected shape \(n, 784\), got \(3, 28, 28\)"),
        (np.zeros((0, 784)), "x: expected at least one image"),
        (np.full((3, 784), np.nan), "got values from nan to nan"),
        (np.full((3, 784), 255, "uint8"), "Divide 8-bit pixels by 255"),
        (np.full((3, 784), "a"), "x: expected numbers"),
    ],
)
def test_invalid_images_raise_in_both_ways_of_training(x, message):
    stock, custom = build_vae(*small_networks()), VAE(*small_networks())
    stock.compile("adam", loss=reconstruction_loss)
    custom.compile("adam")
    with pytest.raises(ValueError, match=message):
        stock.fit(x, x)
    with pytest.raises(ValueError, match=message):
        custom.fit(x)
    with pytest.raises(ValueError, match=message):
        custom.encode(x)


@pytest.mark.parametrize(
    "call",
    [
        lambda model, x, y: model.fit(x, y),
        lambda model, x, y: model.generate(2, labels=1),
        lambda model, x, y: model.encode(x, y),
    ],
    ids=["fit", "generate", "encode"],
)
def test_labels_of_an_unconditional_model_raise(digits, call):
    model = VAE(*small_networks())
    model.compile("adam")
    with pytest.raises(ValueError, match="labels: expected None, .* without num_classes"):
        call(model, *digits)


@pytest.mark.parametrize(
    "call",
    [
        lambda model, x: model.fit(x),
        lambda model, x: model.generate(2),
        lambda model, x: model.encode(x),
    ],
    ids=["fit", "generate", "encode"],
)
def test_missing_labels_of_a_conditional_model_raise(digits, call):
    model = VAE(*small_networks(num_classes=10))
    model.compile("adam")
    with pytest.raises(ValueError, match="labels: expected integers from 0 to 9, got None"):
        call(model, digits[0])


def test_labels_and_num_classes_must_match_in_the_stock_fit(digits):
    x, y = digits
    conditional = build_vae(*small_networks(num_classes=10))
    conditional.compile("adam", loss=reconstruction_loss)
    with pytest.raises(ValueError, match="labels: expected integers from 0 to 9, got None"):
        conditional.fit(x, x)
    unconditional = build_vae(*small_networks())
    unconditional.compile("adam", loss=reconstruction_loss)
    with pytest.raises(ValueError, match="labels: expected None"):
        unconditional.fit([x, y], x)


@pytest.mark.parametrize(
    "labels, message",
    [
        (10, "got values from 10 to 10"),
        (-1, "got values from -1 to -1"),
        ([1, 2], r"labels: expected shape \(3,\), got \(2,\)"),
        (1.5, "labels: expected integers, got an array of float64"),
    ],
)
def test_invalid_labels_raise(labels, message):
    # One-hot encoding silently turns a label out of range into a row of zeros.
    with pytest.raises(ValueError, match=message):
        VAE(*small_networks(num_classes=10)).generate(3, labels=labels)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: build_encoder(latent_dim=0), "latent_dim: .* at least 1, got 0"),
        (lambda: build_decoder(latent_dim=0), "latent_dim: .* at least 1, got 0"),
        (lambda: build_encoder(hidden_dims=(400, -1)), "hidden_dims: .* got -1"),
        (lambda: build_decoder(output_dim=784.0), "output_dim: .* got 784.0"),
        (lambda: build_encoder(num_classes=1), "num_classes: .* at least 2, got 1"),
        (lambda: VAE(*small_networks()).generate(0), "num_samples: .* got 0"),
        (
            lambda: build_vae(*small_networks(), likelihood="poisson"),
            "'bernoulli', 'gaussian', got 'poi",
        ),
        (
            lambda: VAE(build_encoder(), build_decoder(10)),
            r"decoder: expected z of shape \(20,\).* got \(10,\)",
        ),
        (
            lambda: build_vae(build_encoder(num_classes=10), build_decoder()),
            "decoder: expected num_classes 10.* got None",
        ),
    ],
)
def test_error_messages_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# What users pass.


def image_networks():
    """Networks of images `(4, 3, 1)` with the layers of flat ones."""
    keras.utils.set_random_seed(0)
    flat_encoder, flat_decoder = small_networks(input_dim=12)
    x, z = keras.Input((4, 3, 1)), keras.Input((4,))
    encoder = keras.Model(x, flat_encoder(keras.layers.Flatten()(x)))
    return encoder, keras.Model(z, keras.layers.Reshape((4, 3, 1))(flat_decoder(z)))


@pytest.mark.parametrize(
    "likelihood, loss", [("bernoulli", reconstruction_loss), ("gaussian", "mse")]
)
def test_images_with_channels_train_like_flat_ones(likelihood, loss):
    x = np.random.default_rng(0).uniform(size=(16, 12)).astype("float32")
    results = []
    for build_networks, images in (
        (lambda: small_networks(input_dim=12), x),
        (image_networks, x.reshape(16, 4, 3, 1)),
    ):
        for build in (VAE, build_vae):
            keras.utils.set_random_seed(0)
            encoder, decoder = build_networks()
            model = build(encoder, decoder, likelihood=likelihood, seed=0)
            model.compile(
                keras.optimizers.SGD(0.1), **({"loss": loss} if build is build_vae else {})
            )
            y = images if build is build_vae else None
            history = model.fit(images, y, epochs=2, shuffle=False, verbose=0).history["loss"]
            results.append([*history, *(w.sum() for w in encoder.get_weights())])
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=1e-4)


def test_generated_images_have_the_shape_of_the_decoder():
    model = VAE(*image_networks())
    assert model.generate(2).shape == model.reconstruct(model.generate(2)).shape == (2, 4, 3, 1)


def test_latent_of_several_axes_has_the_kl_divergence_of_a_flat_one():
    rng = np.random.default_rng(0)
    z_mean, z_log_var = rng.normal(size=(3, 8)), rng.normal(size=(3, 8))
    flat = kl_divergence(ops.convert_to_tensor(z_mean), ops.convert_to_tensor(z_log_var))
    grid = kl_divergence(z_mean.reshape(3, 2, 2, 2), z_log_var.reshape(3, 2, 2, 2))
    np.testing.assert_allclose(flat, grid, rtol=1e-6)


@pytest.mark.parametrize("build", [VAE, build_vae])
def test_sample_weights_apply_to_both_terms_by_hand(build):
    keras.utils.set_random_seed(0)
    encoder, decoder = small_networks(input_dim=12)
    model = build(encoder, decoder, beta=3.0, seed=0)
    model.compile("sgd", **({"loss": reconstruction_loss} if build is build_vae else {}))
    sampling = model.get_layer("sampling")
    sampling.call = lambda inputs, training=False: inputs[0]  # no noise
    x = np.random.default_rng(0).uniform(size=(8, 12)).astype("float32")
    weights = np.arange(8) / 4
    z_mean, z_log_var = map(np.asarray, encoder(x))
    x_hat = np.asarray(decoder(z_mean))
    reconstruction = -(x * np.log(x_hat) + (1 - x) * np.log(1 - x_hat)).sum(axis=1)
    kl = 0.5 * (np.exp(z_log_var) + z_mean**2 - 1 - z_log_var).sum(axis=1)
    expected = np.mean(weights * (reconstruction + 3 * kl))
    y = x if build is build_vae else None
    result = model.evaluate(x, y, sample_weight=weights, return_dict=True, verbose=0)
    assert result["loss"] == pytest.approx(expected, rel=1e-5)
    if build is VAE:
        assert result["kl_loss"] == pytest.approx(np.mean(weights * kl), rel=1e-5)


@pytest.mark.parametrize("build", [VAE, build_vae])
def test_losses_of_the_networks_are_added(build):
    x_input, z = keras.Input((12,)), keras.Input((2,))
    dense = keras.layers.Dense(4, kernel_regularizer=keras.regularizers.L2(0.1), name="hidden")
    activity = keras.layers.ActivityRegularization(l1=0.3)
    h = activity(dense(x_input))
    encoder = keras.Model(x_input, [keras.layers.Dense(2)(h), keras.layers.Dense(2)(h)])
    decoder = keras.Model(z, keras.layers.Dense(12, "sigmoid")(z))
    model = build(encoder, decoder, seed=0)
    x = np.random.default_rng(0).uniform(size=(8, 12)).astype("float32")
    y = x if build is build_vae else None
    losses = []
    for regularizers in (True, False):
        if not regularizers:
            activity(dense(x))
            penalty = 0.1 * np.sum(np.square(dense.kernel)) + float(activity.losses[0])
            dense.kernel.regularizer = activity.activity_regularizer = None
        model.compile("sgd", **({"loss": reconstruction_loss} if build is build_vae else {}))
        model.get_layer("sampling").evaluation_seed_generator.state.assign([0, 0])
        losses.append(model.evaluate(x, y, verbose=0, return_dict=True)["loss"])
    assert losses[0] - losses[1] == pytest.approx(penalty, rel=1e-3)


@pytest.mark.parametrize("attribute", ["beta", "kl_weight"])
def test_beta_is_set_during_training_and_saved(tmp_path, attribute):
    x = np.random.default_rng(0).uniform(size=(16, 12)).astype("float32")
    model = VAE(*small_networks(input_dim=12), beta=0.0, likelihood="gaussian", seed=0)
    model.compile("adam")
    anneal = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: setattr(model, attribute, float(epoch))
    )
    logs = model.fit(x, epochs=3, callbacks=[anneal], verbose=0).history
    scale = 1 if attribute == "kl_weight" else 2 / 12
    difference = np.subtract(logs["loss"], logs["reconstruction_loss"])
    np.testing.assert_allclose(difference / logs["kl_loss"], scale * np.arange(3), atol=1e-5)
    model.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").beta == model.beta
    model.save_weights(tmp_path / "model.weights.h5")
    other = VAE(*small_networks(input_dim=12), likelihood="gaussian")
    other.load_weights(tmp_path / "model.weights.h5")
    assert other.beta == model.beta


def test_kl_weight_of_the_stock_model_is_set_during_training():
    x = np.random.default_rng(0).uniform(size=(16, 12)).astype("float32")
    model = build_vae(*small_networks(input_dim=12), seed=0)
    model.compile(keras.optimizers.SGD(0.0), loss=reconstruction_loss)
    kl_layer = model.get_layer("kl_divergence")
    losses = []
    for weight in (0.0, 1.0, 5.0):
        kl_layer.weight = weight
        model.get_layer("sampling").seed_generator.state.assign([0, 0])
        losses.append(model.fit(x, x, verbose=0).history["loss"][0])
    kl = np.mean(kl_divergence(*model.get_layer("encoder")(x)))
    np.testing.assert_allclose(np.diff(losses), [kl, 4 * kl], rtol=1e-3)


class SubclassedEncoder(keras.Model):
    """A model whose outputs are known only when it is called."""

    def call(self, x):
        return x, x


@pytest.mark.parametrize(
    "encoder, message",
    [
        (SubclassedEncoder(), "encoder: expected a functional keras.Model, .* SubclassedEncoder"),
        (keras.Sequential([keras.layers.Dense(8)]), "encoder: .* got a Sequential without"),
        ([Ellipsis], "encoder: .* got a list without known inputs"),
        (3, "encoder: expected outputs z_mean, z_log_var, got 3"),
        (1, "encoder: expected outputs z_mean, z_log_var, got 1"),
    ],
)
def test_encoders_of_other_outputs_raise(encoder, message):
    if isinstance(encoder, int):
        x = keras.Input((12,))
        encoder = keras.Model(x, [keras.layers.Dense(4)(x) for _ in range(encoder)])
    for build in (VAE, build_vae):
        with pytest.raises(ValueError, match=message):
            build(encoder, build_decoder(4, (8,), 12))


def test_decoder_of_logits_raises_unless_gaussian():
    z = keras.Input((4,))
    decoder = keras.Model(z, keras.layers.Reshape((12,))(keras.layers.Dense(12)(z)))
    with pytest.raises(
        ValueError, match="decoder: expected probabilities, .* 'linear' of the layer"
    ):
        VAE(build_encoder(12, (8,), 4), decoder)
    VAE(build_encoder(12, (8,), 4), decoder, likelihood="gaussian")
    sigmoid = keras.Model(z, ops.sigmoid(decoder(z)))
    VAE(build_encoder(12, (8,), 4), sigmoid)


def test_labels_without_one_hot_layer_raise():
    x, labels = keras.Input((12,)), keras.Input((), dtype="int32")
    h = keras.layers.Concatenate()([x, keras.layers.Embedding(3, 4)(labels)])
    encoder = keras.Model([x, labels], [keras.layers.Dense(4)(h), keras.layers.Dense(4)(h)])
    with pytest.raises(ValueError, match="encoder: expected labels that a conditioning.OneHot"):
        VAE(encoder, build_decoder(4, (8,), 12))
