"""DDPM: sampling against closed forms and NumPy, the training step against NumPy."""

import copy
import math
import warnings

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import frozen_heap, largest_difference, set_random_weights

import keras_genai
from keras_genai.diffusion import DDPM, NoiseSchedule, build_unet


def random_ddpm(num_classes=None, num_timesteps=40, **arguments):
    """A small model with random weights, other ones in its EMA network."""
    network = set_random_weights(build_unet((4, 4, 1), (3, 4), num_classes=num_classes))
    model = DDPM(network, NoiseSchedule(num_timesteps=num_timesteps), **arguments)
    model.ema_network.set_weights([1.1 * w for w in network.get_weights()])
    return model


# Sampling with the exact prediction.


class ExactNoise(keras.layers.Layer):
    """E[noise | x_t] for images whose pixels are normal with mean 0 and this variance."""

    def __init__(self, schedule, variance, **kwargs):
        super().__init__(**kwargs)
        self.config = {"schedule": schedule, "variance": variance}
        alpha_bar = schedule.alphas_cumprod
        factor = np.sqrt(1 - alpha_bar) / (alpha_bar * variance + 1 - alpha_bar)
        self.factor = tf.constant(factor, tf.float32)

    def call(self, x_t, t):
        return tf.gather(self.factor, t)[:, None, None, None] * x_t

    def get_config(self):
        return {**super().get_config(), **self.config}


def exact_ddpm(schedule, variance, size):
    x_t, t = keras.Input((size, size, 1)), keras.Input((), dtype="int32")
    return DDPM(keras.Model([x_t, t], ExactNoise(schedule, variance)(x_t, t)), schedule)


def closed_form_variance(schedule, variance, num_steps, method, eta):
    """Return the variance of the generated pixels; every step is linear in x_t."""
    timesteps = schedule.timesteps(num_steps)
    result = 1.0
    for i in reversed(range(num_steps)):
        alpha_bar = schedule.alphas_cumprod[timesteps[i]]
        alpha_bar_prev = schedule.alphas_cumprod[timesteps[i - 1]] if i else 1.0
        # Predicted noise and x_0 per unit of x_t.
        noise = math.sqrt(1 - alpha_bar) / (alpha_bar * variance + 1 - alpha_bar)
        x_0 = (1 - math.sqrt(1 - alpha_bar) * noise) / math.sqrt(alpha_bar)
        beta = 1 - alpha_bar / alpha_bar_prev
        posterior_variance = beta * (1 - alpha_bar_prev) / (1 - alpha_bar)
        if method == "ddpm":  # Ho et al. 2020, equation 7
            added = posterior_variance
            factor = math.sqrt(alpha_bar_prev) * beta / (1 - alpha_bar) * x_0
            factor += math.sqrt(alpha_bar / alpha_bar_prev) * (1 - alpha_bar_prev) / (1 - alpha_bar)
        else:  # Song et al. 2020, equation 12
            added = eta**2 * posterior_variance
            factor = math.sqrt(alpha_bar_prev) * x_0
            factor += math.sqrt(1 - alpha_bar_prev - added) * noise
        result = factor**2 * result + added
    return result


@pytest.mark.parametrize(
    "expected, num_steps, method",
    [(0.991, 1000, "ddpm"), (0.996, 1000, "ddim"), (0.928, 50, "ddim")],
)
def test_closed_form_variance_has_known_values(expected, num_steps, method):
    schedule = NoiseSchedule("linear", 1000)
    variance = closed_form_variance(schedule, 1.0, num_steps, method, eta=0.0)
    assert variance == pytest.approx(expected, abs=5e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "beta_schedule, variance, num_steps, method, eta",
    [
        ("linear", 1.0, 1000, "ddim", 0.0),
        ("linear", 1.0, 50, "ddim", 0.0),
        ("cosine", 0.09, 50, "ddim", 0.0),
        ("linear", 1.0, 1000, "ddpm", 0.0),
        ("linear", 1.0, 50, "ddpm", 0.0),
        ("cosine", 0.09, 30, "ddpm", 0.0),
        ("linear", 0.25, 30, "ddim", 0.7),
        ("linear", 0.25, 30, "ddim", 1.0),
    ],
)
def test_generated_variance_equals_the_closed_form(beta_schedule, variance, num_steps, method, eta):
    schedule = NoiseSchedule(beta_schedule, 1000)
    expected = closed_form_variance(schedule, variance, num_steps, method, eta)
    stochastic = method == "ddpm" or eta > 0
    model = exact_ddpm(schedule, variance, 80 if stochastic else 8)
    options = dict(num_steps=num_steps, method=method, eta=eta, clip_denoised=False, seed=0)
    noise, samples = 2 * model.generate_progressive(60, num_frames=1, **options) - 1
    if stochastic:  # the standard error of the variance of 384,000 numbers is 0.23 %
        assert np.var(samples) == pytest.approx(expected, rel=0.006)
    else:  # each pixel is a fixed multiple of its noise
        np.testing.assert_allclose(samples / noise, expected**0.5, rtol=1e-3)


def test_each_batch_of_dpm_solver_starts_anew(monkeypatch):
    monkeypatch.setattr("keras_genai.diffusion.SAMPLING_BATCH_SIZE", 1)
    schedule = NoiseSchedule("cosine", 1000)
    model = exact_ddpm(schedule, 0.09, 2)
    options = dict(num_steps=10, method="dpm_solver++", clip_denoised=False, seed=0)
    noise, samples = 2 * model.generate_progressive(3, num_frames=1, **options) - 1
    # Each pixel is a multiple of its noise: nearer to the exact 0.3 than with DDIM.
    np.testing.assert_allclose(samples / noise, np.full(samples.shape, 0.2592), rtol=1e-3)
    assert closed_form_variance(schedule, 0.09, 10, "ddim", 0.0) ** 0.5 < 0.24


def test_dpm_solver_is_nearer_to_the_exact_samples_with_karras_timesteps():
    model = exact_ddpm(NoiseSchedule("cosine", 1000), 0.09, 2)
    options = dict(num_steps=10, method="dpm_solver++", clip_denoised=False, seed=0)
    ratios = {}
    for spacing in ("trailing", "karras"):
        options["timestep_spacing"] = spacing
        noise, samples = 2 * model.generate_progressive(1, num_frames=1, **options) - 1
        ratios[spacing] = (samples / noise).mean()
    assert abs(ratios["karras"] - 0.3) < 0.5 * abs(ratios["trailing"] - 0.3)


# Sampling with any network.


def reverse_process(model, seed, labels, guidance_scale, num_steps, clip_denoised):
    """Return the frames of deterministic DDIM for one batch, computed in NumPy."""
    num_samples = len(labels)
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((num_samples, *model.image_shape), dtype="float32")
    alphas_cumprod, timesteps = model.schedule.alphas_cumprod, model.schedule.timesteps(num_steps)
    frames = [x]
    for i in reversed(range(num_steps)):
        alpha_bar = alphas_cumprod[timesteps[i]]
        alpha_bar_prev = alphas_cumprod[timesteps[i - 1]] if i else 1.0
        t = np.full(num_samples, timesteps[i], "int32")
        conditional = model.ema_network([x, t, np.array(labels)]).numpy()
        unconditional = model.ema_network([x, t, np.full(num_samples, -1)]).numpy()
        noise = unconditional + guidance_scale * (conditional - unconditional)
        if model.prediction_type == "v":
            noise = np.sqrt(1 - alpha_bar) * x + np.sqrt(alpha_bar) * noise
        x_0 = (x - np.sqrt(1 - alpha_bar) * noise) / np.sqrt(alpha_bar)
        x_0 = np.clip(x_0, -1, 1) if clip_denoised else x_0
        noise = (x - np.sqrt(alpha_bar) * x_0) / np.sqrt(1 - alpha_bar)
        x = np.sqrt(alpha_bar_prev) * x_0 + np.sqrt(1 - alpha_bar_prev) * noise
        x = x.astype("float32")
        frames.append(x)
    return (np.stack(frames) + 1) / 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "guidance_scale, clip_denoised, prediction_type",
    [
        (1.0, True, "noise"),  # no guidance
        (2.5, False, "noise"),
        (4.0, True, "v"),
        (0.0, False, "noise"),  # unconditional
    ],
)
def test_generate_equals_ddim_in_numpy(guidance_scale, clip_denoised, prediction_type):
    model, labels = random_ddpm(num_classes=3, prediction_type=prediction_type), [2, 0, 1]
    expected = reverse_process(model, 5, labels, guidance_scale, 6, clip_denoised)
    options = dict(guidance_scale=guidance_scale, num_steps=6, clip_denoised=clip_denoised, seed=5)
    frames = model.generate_progressive(3, labels, num_frames=6, **options)
    np.testing.assert_allclose(frames, expected, rtol=1e-4, atol=1e-4)
    images = model.generate(3, labels, **options)
    np.testing.assert_array_equal(images, frames[-1])
    assert images.shape == (3, 4, 4, 1) and images.dtype == "float32"
    if clip_denoised:
        assert 0 <= images.min() and images.max() <= 1


@pytest.mark.parametrize("method", ["ddim", "ddpm"])
def test_clipping_moves_x_t_by_its_effect_on_x_0(method):
    schedule = NoiseSchedule(num_timesteps=40)
    model = DDPM(build_unet((4, 4, 1), (3,)), schedule)  # untrained, it predicts a noise of 0
    options = dict(num_frames=2, num_steps=2, method=method, seed=5)
    (x_T, x_t, _), (_, unclipped_x_t, _) = (
        2 * model.generate_progressive(3, clip_denoised=clip_denoised, **options) - 1
        for clip_denoised in (True, False)
    )
    alpha_bar_prev, alpha_bar = schedule.alphas_cumprod[schedule.timesteps(2)]
    x_0 = x_T / np.sqrt(alpha_bar)
    # Coefficient of x_0 in x_t.
    if method == "ddpm":  # Ho et al. 2020, equation 7
        beta = 1 - alpha_bar / alpha_bar_prev
        coefficient = np.sqrt(alpha_bar_prev) * beta / (1 - alpha_bar)
    else:  # Song et al. 2020, equation 12
        noise_per_x_0 = np.sqrt(alpha_bar / (1 - alpha_bar))
        coefficient = np.sqrt(alpha_bar_prev) - np.sqrt(1 - alpha_bar_prev) * noise_per_x_0
    expected = coefficient * (np.clip(x_0, -1, 1) - x_0)
    np.testing.assert_allclose(x_t - unclipped_x_t, expected, rtol=1e-4, atol=1e-4)


def test_without_labels_a_conditional_model_uses_the_null_label():
    model = random_ddpm(num_classes=3)
    expected = reverse_process(model, 5, [-1, -1], 1.0, 4, clip_denoised=False)[-1]
    options = dict(num_steps=4, clip_denoised=False, seed=5)
    images = model.generate(2, **options)
    np.testing.assert_allclose(images, expected, rtol=1e-3, atol=1e-3)
    assert largest_difference([images], [model.generate(2, 1, **options)]) > 0.1


@pytest.mark.parametrize("options", [{}, {"method": "ddpm"}, {"eta": 0.5}])
def test_same_seed_repeats_the_images_and_training_is_not_affected(options):
    model = random_ddpm(seed=3)
    before = [model.seed_generator.state.numpy(), *model.get_weights()]
    # 70 images are more than one batch.
    samples = [model.generate(70, num_steps=5, seed=seed, **options) for seed in (1, 1, 2, None)]
    np.testing.assert_array_equal(samples[0], samples[1])
    flat = np.stack([samples[0], *samples[2:]]).reshape(3 * 70, -1)
    assert len(np.unique(flat.round(4), axis=0)) > 200
    assert largest_difference(before, [model.seed_generator.state, *model.get_weights()]) == 0


def test_frames_are_evenly_spaced():
    model = random_ddpm()
    options = dict(num_steps=7, method="ddpm", seed=1)
    all_frames = model.generate_progressive(2, num_frames=7, **options)
    three_frames = model.generate_progressive(2, num_frames=3, **options)
    np.testing.assert_allclose(three_frames, all_frames[[0, 2, 5, 7]], rtol=1e-5, atol=1e-6)


def test_add_noise_takes_one_timestep_or_one_per_image():
    model = random_ddpm(num_timesteps=40)
    x = np.random.default_rng(0).uniform(size=(3, 4, 4, 1)).astype("float32")
    noisy = model.add_noise(x, [0, 20, 39], seed=1)
    alpha_bar = model.schedule.alphas_cumprod[[0, 20, 39]].reshape(3, 1, 1, 1)
    noise = np.random.default_rng(1).standard_normal(x.shape, dtype="float32")
    expected = (np.sqrt(alpha_bar) * (2 * x - 1) + np.sqrt(1 - alpha_bar) * noise + 1) / 2
    np.testing.assert_allclose(noisy, expected, atol=1e-6)
    np.testing.assert_array_equal(model.add_noise(x, 20, seed=1)[1], noisy[1])


# Training.


class RecordingNetwork:
    """A network that appends the inputs of each call to a list."""

    losses = ()

    def __init__(self, network, calls):
        self.network, self.calls = network, calls

    def __call__(self, inputs, training=None):
        self.calls.append([np.asarray(x) for x in inputs])
        return self.network(inputs, training=training)


def record_inputs(monkeypatch, model):
    """Return a list to which every call of the model's two networks appends its inputs."""
    calls = []
    for name in ("network", "ema_network"):
        monkeypatch.setattr(model, name, RecordingNetwork(getattr(model, name), calls))
    return calls


@pytest.mark.parametrize("prediction_type", ["noise", "v"])
def test_loss_is_the_squared_error_of_the_prediction(monkeypatch, prediction_type):
    model = random_ddpm(3, seed=0, cond_drop_prob=0.9, prediction_type=prediction_type)
    x = np.random.default_rng(0).uniform(size=(8, 4, 4, 1)).astype("float32")
    labels, weights = tf.range(8) % 3, np.arange(8).astype("float32")
    sampled_t, noise = model.sample_timesteps_and_noise(x)
    monkeypatch.setattr(model, "sample_timesteps_and_noise", lambda *_: (sampled_t, noise))
    networks = {True: model.network, False: model.ema_network}
    calls = record_inputs(monkeypatch, model)
    for training, network in networks.items():
        loss, _ = model.compute_loss_and_logs((x, labels, weights), training)
        x_t, t, network_labels = calls.pop()
        alpha_bar = model.schedule.alphas_cumprod[sampled_t].reshape(-1, 1, 1, 1)
        expected = np.sqrt(alpha_bar) * (2 * x - 1) + np.sqrt(1 - alpha_bar) * noise
        np.testing.assert_allclose(x_t, expected, atol=1e-5)
        np.testing.assert_array_equal(t, sampled_t)
        assert training or np.array_equal(network_labels, labels)  # none is dropped in evaluation
        target = noise
        if prediction_type == "v":
            target = np.sqrt(alpha_bar) * noise - np.sqrt(1 - alpha_bar) * (2 * x - 1)
        errors = np.mean((network([x_t, t, network_labels]) - target) ** 2, axis=(1, 2, 3))
        assert float(loss) == pytest.approx(np.mean(weights * errors), rel=1e-5)


def test_distribution_of_timesteps_noise_and_dropped_labels(monkeypatch):
    model = random_ddpm(num_classes=3, seed=0, cond_drop_prob=0.2)
    x, labels = np.full((2000, 4, 4, 1), 0.5, "float32"), np.arange(2000) % 3
    calls = record_inputs(monkeypatch, model)
    for _ in range(2):
        model.compute_loss_and_logs((x, labels), training=True)
    (_, first_t, first_labels), (_, second_t, second_labels) = calls
    assert not np.array_equal(first_t, second_t)
    counts = np.bincount(first_t, minlength=40)
    assert len(counts) == 40 and counts.min() > 25 and counts.max() < 85  # 50 on average
    dropped = first_labels == -1
    assert np.mean(dropped) == pytest.approx(0.2, abs=0.03)
    assert np.array_equal(first_labels[~dropped], labels[~dropped])
    assert not np.array_equal(dropped, second_labels == -1)
    _, noise = model.sample_timesteps_and_noise(x)
    assert float(np.mean(noise)) == pytest.approx(0, abs=0.02)
    assert float(np.std(noise)) == pytest.approx(1, abs=0.02)


@pytest.mark.slow
def test_ema_weights_are_averaged_after_each_step():
    model = random_ddpm(seed=0, ema_momentum=0.5)
    model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    x = np.random.default_rng(0).uniform(size=(32, 4, 4, 1)).astype("float32")
    average = model.ema_network.get_weights()
    for step in range(1, 13):
        model.train_on_batch(x)
        momentum = min(0.5, (1 + step) / (10 + step))
        weights = model.network.get_weights()
        average = [momentum * a + (1 - momentum) * w for a, w in zip(average, weights, strict=True)]
        assert largest_difference(model.ema_network.get_weights(), average) < 1e-5
    assert largest_difference(average, model.network.get_weights()) > 1e-4
    num_trained = sum(w.size for w in model.network.get_weights())
    assert sum(np.prod(w.shape) for w in model.trainable_weights) == num_trained


@pytest.mark.slow
# Under another policy the optimizer has no loss scale: Keras skips its state.
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
@pytest.mark.parametrize("policy", ["float64", "mixed_float16"])
def test_training_in_other_precisions_and_on_other_dtypes(policy, tmp_path):
    floatx = keras.config.floatx()
    keras.config.set_dtype_policy(policy)
    keras.config.set_floatx("float64" if policy == "float64" else floatx)
    try:
        model = DDPM(build_unet((4, 4, 1), (4, 8)), NoiseSchedule(num_timesteps=40), seed=0)
        model.compile(keras.optimizers.Adam(1e-2), run_eagerly=True)
        x = np.random.default_rng(0).integers(2, size=(32, 4, 4, 1))
        for images in (x.astype(bool), x.astype("uint8"), x.astype("float64")):
            assert np.isfinite(model.fit(images, verbose=0).history["loss"][0])
        model.save(tmp_path / "model.keras")
        images = model.generate(2, num_steps=3, seed=0)
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(floatx)
    assert np.all((0 <= images) & (images <= 1))
    loaded = keras_genai.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.generate(2, num_steps=3, seed=0), images, atol=2e-2)


@pytest.mark.slow
@pytest.mark.parametrize("prediction_type", ["noise", "v"])
def test_training_reconstructs_a_constant_image(prediction_type):
    x = np.zeros((6400, 4, 4, 1), "float32")
    x[:, 1:3, 1:3] = 1
    network, schedule = build_unet((4, 4, 1), (16, 16)), NoiseSchedule(num_timesteps=50)
    model = DDPM(network, schedule, seed=0, prediction_type=prediction_type)
    model.compile(keras.optimizers.Adam(5e-3), jit_compile=False)
    model.fit(x, batch_size=32, verbose=0)  # 200 steps
    for method in ("ddim", "ddpm"):
        samples = model.generate(20, num_steps=25, method=method, seed=0)
        assert np.abs(samples - x[:20]).mean() < 0.1


# Saving and invalid input.


@pytest.mark.slow
def test_saved_model_keeps_its_schedule_and_generates_the_same(tmp_path):
    network = set_random_weights(build_unet((4, 4, 1), (3, 4), num_classes=2))
    model = DDPM(network, NoiseSchedule("cosine", 12), 7, 0.3, 0.9, "v")
    model.ema_network.set_weights([1.1 * w for w in network.get_weights()])
    model.save(tmp_path / "model.keras")
    loaded = keras_genai.load_model(tmp_path / "model.keras")
    assert (loaded.seed, loaded.cond_drop_prob) == (7, 0.3)
    assert (loaded.ema_momentum, loaded.prediction_type) == (0.9, "v")
    assert (loaded.schedule.beta_schedule, loaded.schedule.num_timesteps) == ("cosine", 12)
    options = dict(num_samples=2, labels=[0, 1], guidance_scale=2.0, num_steps=12, seed=0)
    np.testing.assert_array_equal(loaded.generate(**options), model.generate(**options))


@pytest.fixture(scope="module")
def conditional_network():
    return build_unet((4, 4, 1), (3,), num_classes=3)


@pytest.fixture(scope="module")
def conditional_model(conditional_network):
    model = DDPM(conditional_network, NoiseSchedule(num_timesteps=30))
    model.compile()
    return model


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"schedule": "linear"}, "schedule: expected a NoiseSchedule, got 'linear'"),
        ({"cond_drop_prob": 1.0}, "cond_drop_prob: expected a fraction from 0 to less than 1"),
        ({"ema_momentum": -1}, "ema_momentum: expected a fraction from 0 to less than 1"),
        ({"prediction_type": "x"}, "prediction_type: expected one of 'noise', 'v'"),
    ],
)
def test_invalid_arguments_raise(conditional_network, arguments, message):
    with pytest.raises(ValueError, match=message):
        DDPM(conditional_network, **{"schedule": NoiseSchedule(num_timesteps=30), **arguments})


def test_network_without_timesteps_raises():
    network = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(1, 1)])
    with pytest.raises(
        ValueError, match="network: expected inputs x_t, t and, if conditional, labels, got 1"
    ):
        DDPM(network, NoiseSchedule(num_timesteps=30))


def test_labels_of_an_unconditional_model_raise():
    model = DDPM(build_unet((4, 4, 1), (3,)), NoiseSchedule(num_timesteps=30))
    with pytest.raises(ValueError, match="labels: expected None, since the model was built witho"):
        model.generate(2, 1)


IMAGES = np.zeros((2, 4, 4, 1), "float32")


@pytest.mark.parametrize(
    "method, args, kwargs, message",
    [
        ("compile", [], {"loss": "mse"}, "loss: expected None"),
        ("fit", [IMAGES - 1, [0, 1]], {}, r"x: expected pixels scaled to \[0, 1\]"),
        ("fit", [IMAGES], {}, "labels: expected integers from 0 to 2, got None"),
        ("fit", [IMAGES, [0, 3]], {}, "labels: expected integers from 0 to 2, got values"),
        ("generate", [2, -1], {}, "labels: expected integers from 0 to 2, got values"),
        ("generate", [0], {}, "num_samples: expected"),
        ("generate", [2], {"guidance_scale": 2}, "guidance_scale: expected 1, without labels"),
        (
            "generate",
            [2, 1],
            {"guidance_scale": -1.0},
            "guidance_scale: expected a number of at least 0",
        ),
        (
            "generate",
            [2, 1],
            {"guidance_scale": math.nan},
            "guidance_scale: expected a number of at least 0",
        ),
        ("generate", [2], {"num_steps": 31}, "num_steps: expected at most the .* 30, got 31"),
        ("generate", [2], {"num_steps": 0}, "num_steps: expected"),
        (
            "generate",
            [2],
            {"num_steps": 5, "method": "euler"},
            "method: expected one of 'ddim', 'ddpm', 'dpm_solver",
        ),
        (
            "generate",
            [2],
            {"num_steps": 5, "method": "dpm_solver++", "eta": 0.5},
            r"eta: expected a number of 0, as method is 'dpm_solver\+\+', got 0.5",
        ),
        (
            "generate",
            [2],
            {"num_steps": 5, "timestep_spacing": "leading"},
            "timestep_spacing: expected one of 'trailing', 'karras'",
        ),
        ("generate", [2], {"num_steps": 5, "eta": 2}, "eta: expected a number from 0 to 1"),
        (
            "generate",
            [2],
            {"num_steps": 5, "method": "ddpm", "eta": 0.5},
            "eta: expected a number of 0, as method is 'ddpm', got 0.5",
        ),
        (
            "generate_progressive",
            [2],
            {"num_frames": 6, "num_steps": 5},
            "num_frames: expected at most one per step, 5, got 6",
        ),
        ("add_noise", [IMAGES, 30], {}, "t: expected integers from 0 to 29"),
        ("add_noise", [IMAGES, 0.5], {}, "t: expected integers"),
        ("add_noise", [IMAGES, [1, 2, 3]], {}, r"t: expected an integer or integers \(2,\), got"),
        ("add_noise", [IMAGES[..., 0], 3], {}, "x: expected shape"),
    ],
)
def test_invalid_images_labels_and_options_raise(conditional_model, method, args, kwargs, message):
    with pytest.raises(ValueError, match=message):
        getattr(conditional_model, method)(*args, **kwargs)


@pytest.mark.parametrize("options", [{}, {"labels": 1, "guidance_scale": 2.0}])
def test_unconditional_prediction_without_dropped_labels_in_training_raises(options):
    model = random_ddpm(num_classes=3, cond_drop_prob=0)
    model.generate(1, labels=1, num_steps=1)
    with pytest.raises(ValueError, match="cond_drop_prob: expected above 0 in training"):
        model.generate(1, num_steps=1, **options)


# What users pass.


def test_weights_of_the_network_that_are_replaced_restart_the_average(tmp_path):
    model, other = random_ddpm(seed=0), random_ddpm(seed=0)
    other.network.set_weights([2 * w for w in other.network.get_weights()])
    other.network.save_weights(tmp_path / "network.weights.h5")
    before = model.generate(1, num_steps=2, seed=0)
    model.network.load_weights(tmp_path / "network.weights.h5")
    after = model.generate(1, num_steps=2, seed=0)
    assert np.any(before != after)
    assert largest_difference(model.ema_network.get_weights(), other.network.get_weights()) == 0


@pytest.mark.parametrize("replace_before", ["evaluate", "fit", "train_on_batch", "save"])
def test_replaced_weights_count_wherever_the_average_is_used(tmp_path, replace_before):
    model = random_ddpm(seed=0, ema_momentum=0.9)
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    model.network.set_weights([2 * w for w in model.network.get_weights()])
    x = np.zeros((2, 4, 4, 1))
    if replace_before == "save":
        model.save(tmp_path / "model.keras")
        model = keras_genai.load_model(tmp_path / "model.keras")
    else:
        getattr(model, replace_before)(x, **({} if "batch" in replace_before else {"verbose": 0}))
    assert largest_difference(model.ema_network.get_weights(), model.network.get_weights()) < 1e-6


def test_average_is_kept_by_everything_else(tmp_path):
    model = random_ddpm(seed=0)
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    average = [np.array(w) for w in model.ema_network.get_weights()]
    model.generate(1, num_steps=1)
    model.set_weights(model.get_weights())
    model.save_weights(tmp_path / "model.weights.h5")
    model.save(tmp_path / "model.keras")
    loaded = keras_genai.load_model(tmp_path / "model.keras")
    weights_loaded = random_ddpm(seed=1)
    weights_loaded.network.set_weights([3 * w for w in model.network.get_weights()])
    weights_loaded.load_weights(tmp_path / "model.weights.h5")
    for same in (model, loaded, weights_loaded):
        same.generate(1, num_steps=1)
        assert largest_difference(same.ema_network.get_weights(), average) == 0
    loaded.network.set_weights([2 * w for w in loaded.network.get_weights()])
    loaded.generate(1, num_steps=1)
    assert largest_difference(loaded.ema_network.get_weights(), loaded.network.get_weights()) == 0


def test_weights_of_both_networks_are_set_and_loaded_together(tmp_path):
    model, path = random_ddpm(seed=0), tmp_path / "model.weights.h5"
    weights = [2 * w for w in model.get_weights()]
    model.set_weights(weights)
    model.generate(1, num_steps=1)
    assert largest_difference(model.get_weights(), weights) == 0
    model.save_weights(path)
    with h5py.File(path, "a") as file:
        del file["vars/checksum"]  # as in files of 0.2.0
    for replace in (False, True):
        loaded = random_ddpm(seed=0)
        loaded.load_weights(path)
        if replace:
            loaded.network.set_weights([3 * w for w in loaded.network.get_weights()])
        loaded.generate(1, num_steps=1)
        expected = loaded.network.get_weights() if replace else model.ema_network.get_weights()
        assert largest_difference(loaded.ema_network.get_weights(), expected) == 0


class GenerateAtEpochEnd(keras.callbacks.Callback):
    """Generation in the middle of a training run."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.generate(1, num_steps=1)


def test_generation_in_callbacks_keeps_the_average():
    averages = []
    for callbacks in ([], [GenerateAtEpochEnd()]):
        keras.utils.set_random_seed(0)
        model = random_ddpm(seed=0)
        model.compile("adam", run_eagerly=True)
        model.fit(np.zeros((4, 4, 4, 1)), epochs=2, callbacks=callbacks, verbose=0)
        averages.append(model.ema_network.get_weights())
    assert largest_difference(*averages) == 0
    assert largest_difference(averages[0], model.network.get_weights()) > 0


def test_checkpoint_of_a_training_run_keeps_its_average(tmp_path):
    model = random_ddpm(seed=0)
    model.compile("adam", run_eagerly=True)
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    model.fit(np.zeros((4, 4, 4, 1)), callbacks=[checkpoint], verbose=0)
    loaded = keras_genai.load_model(tmp_path / "1.keras")
    loaded.generate(1, num_steps=1)
    assert largest_difference(loaded.get_weights(), model.get_weights()) == 0


def test_losses_of_the_network_are_added():
    model = random_ddpm(seed=0)
    x = np.zeros((4, 4, 4, 1), "float32")
    kernel = model.network.get_layer("noise").kernel
    losses = []
    for strength in (0.0, 0.1):
        kernel.regularizer = keras.regularizers.L2(strength)
        model.seed_generator.state.assign([0, 0])
        losses.append(float(model.compute_loss_and_logs(x, training=True)[0]))
    assert losses[1] - losses[0] == pytest.approx(0.1 * np.sum(np.square(kernel)), rel=1e-3)


def test_metrics_compare_target_and_prediction():
    model = random_ddpm(seed=0)
    model.compile(metrics=["mse"], weighted_metrics=["mae"], run_eagerly=True)
    logs = model.evaluate(np.zeros((4, 4, 4, 1)), return_dict=True, verbose=0)
    assert logs["mse"] == pytest.approx(logs["loss"], rel=1e-5) and logs["mae"] > 0


@frozen_heap()
def test_quantized_model_generates_with_its_quantized_weights():
    model = random_ddpm(seed=0)
    options = {"num_steps": 3, "seed": 0, "clip_denoised": False}  # not only black and white
    before = model.generate(2, **options)  # compiled with the weights in float32
    with warnings.catch_warnings():
        # Keras names each layer that it cannot quantize.
        warnings.filterwarnings("ignore", "Layer .* does not have a `quantize", UserWarning)
        model.quantize("int8")
    after = model.generate(2, **options)
    copy_of_model = copy.deepcopy(model)
    assert np.any(before != after)
    np.testing.assert_array_equal(after, copy_of_model.generate(2, **options))
