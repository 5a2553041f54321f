"""Diffusion: schedules and samplers against closed forms, the training step against NumPy."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import largest_difference

import keras_genai
from keras_genai import diffusion
from keras_genai.diffusion import DDPM, NoiseSchedule, build_unet


def random_weights(network, scale=0.3):
    rng = np.random.default_rng(0)
    network.set_weights([rng.normal(scale=scale, size=w.shape) for w in network.get_weights()])
    return network


def random_ddpm(num_classes=None, num_steps=40, **settings):
    """A small model that tells some noise already, and another with averaged weights."""
    network = random_weights(build_unet((4, 4, 1), (3, 4), num_classes=num_classes))
    model = DDPM(network, NoiseSchedule(num_steps=num_steps), **settings)
    model.averaged.set_weights([1.1 * w for w in network.get_weights()])
    return model


# Schedules.


def test_the_linear_schedule_is_that_of_the_paper():
    schedule = NoiseSchedule("linear", 1000)
    betas = [1e-4 + (0.02 - 1e-4) * t / 999 for t in range(1000)]
    for t in (0, 500, 999):
        assert schedule.betas[t] == pytest.approx(betas[t], rel=1e-12)
        left = math.exp(math.fsum(math.log1p(-beta) for beta in betas[: t + 1]))
        assert schedule.alpha_bars[t] == pytest.approx(left, rel=1e-12)
    assert schedule.betas.dtype == schedule.alpha_bars.dtype == "float64"
    # In fewer steps each adds more: as much noise in all.
    shorter = NoiseSchedule("linear", 100)
    assert (shorter.betas[0], shorter.betas[-1]) == pytest.approx((1e-3, 0.2))
    logs = [np.log(s.alpha_bars[-1]) for s in (schedule, shorter)]
    assert logs[0] == pytest.approx(logs[1], rel=0.1)


def test_the_cosine_schedule_is_that_of_the_paper():
    def left(t, steps):
        return math.cos((t / steps + 0.008) / 1.008 * math.pi / 2) ** 2

    for steps in (10, 1000):
        schedule = NoiseSchedule("cosine", steps)
        for t in (0, steps // 2):
            expected = left(t + 1, steps) / left(0, steps)
            assert schedule.alpha_bars[t] == pytest.approx(expected, rel=1e-10)
            assert schedule.betas[t] == pytest.approx(1 - left(t + 1, steps) / left(t, steps))
        assert schedule.betas[-1] == 0.999  # else nothing at all would be left
        before = schedule.alpha_bars[-2]
        assert schedule.alpha_bars[-1] == pytest.approx(0.001 * before, rel=1e-9)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_noise_is_added_as_by_the_steps_themselves(kind):
    schedule = NoiseSchedule(kind, 30)
    rng = np.random.default_rng(0)
    x_0 = np.full((20_000, 1), 0.7)
    x = x_0
    for t, beta in enumerate(schedule.betas):
        x = np.sqrt(1 - beta) * x + np.sqrt(beta) * rng.normal(size=x.shape)
        at_once = schedule.add_noise(x_0, np.full(20_000, t), rng.normal(size=x.shape)).numpy()
        assert at_once.dtype == "float64"
        spread = np.std(x) / 20_000**0.5
        assert abs(x.mean() - at_once.mean()) < 6 * spread
        assert np.var(at_once) / np.var(x) == pytest.approx(1, abs=0.06)
        expected = 0.7 * np.prod(1 - schedule.betas[: t + 1]) ** 0.5
        noiseless = schedule.add_noise(x_0[:1], [t], np.zeros((1, 1)))
        assert float(noiseless[0, 0]) == pytest.approx(expected, rel=1e-12)


def test_what_was_added_can_be_removed():
    schedule = NoiseSchedule("cosine", 30)
    x, noise = np.random.default_rng(0).normal(size=(2, 5, 2, 3, 1))
    t = np.array([0, 7, 14, 20, 29])
    noisy = schedule.add_noise(x, t, noise)
    np.testing.assert_allclose(schedule.remove_noise(noisy, t, noise), x, rtol=1e-6)
    velocity = schedule.velocity(x, t, noise)
    left = schedule.alpha_bars[t].reshape(5, 1, 1, 1)
    np.testing.assert_allclose(velocity, np.sqrt(left) * noise - np.sqrt(1 - left) * x, rtol=1e-9)
    np.testing.assert_allclose(schedule.noise_of_velocity(noisy, t, velocity), noise, rtol=1e-6)
    one = schedule.add_noise(x[1:2], t[1:2], noise[1:2])  # each image at its own step
    np.testing.assert_allclose(noisy[1:2], one, rtol=1e-12)


@pytest.mark.parametrize("num_steps", [40, 8, 1])
def test_steps_back_have_the_mean_and_variance_of_the_posterior(num_steps):
    schedule = NoiseSchedule("linear", 40)
    of_image, of_noisy, spread = schedule.ddpm_weights(num_steps)
    k = 40 // num_steps
    for i, t in enumerate(schedule.times(num_steps)):
        assert t == k * (i + 1) - 1
        left = np.prod(1 - schedule.betas[t - k + 1 : t + 1])  # of x_s in x_t
        if i == 0:
            assert (of_image[0], of_noisy[0], spread[0]) == pytest.approx((1, 0, 0))
            continue
        before = np.prod(1 - schedule.betas[: t - k + 1])
        # Bayes: x_s is N(sqrt(before) x_0, 1 - before), and x_t is N(sqrt(left) x_s, 1 - left).
        variance = 1 / (1 / (1 - before) + left / (1 - left))
        assert spread[i] ** 2 == pytest.approx(variance, rel=1e-9)
        assert of_image[i] == pytest.approx(variance * before**0.5 / (1 - before), rel=1e-9)
        assert of_noisy[i] == pytest.approx(variance * left**0.5 / (1 - left), rel=1e-9)


@pytest.mark.parametrize("kind, num_steps", [("linear", 60), ("linear", 7), ("cosine", 20)])
def test_ddim_is_equation_12_and_with_eta_1_it_is_ddpm(kind, num_steps):
    schedule = NoiseSchedule(kind, 60)
    np.testing.assert_allclose(
        schedule.ddim_weights(num_steps, eta=1.0), schedule.ddpm_weights(num_steps), atol=1e-7
    )
    x_0, noise = np.random.default_rng(0).normal(size=2)
    now = schedule.alpha_bars[schedule.times(num_steps)]
    before = np.append(1.0, now[:-1])
    for eta in (0.0, 0.6):
        of_image, of_noisy, spread = schedule.ddim_weights(num_steps, eta)
        x_t = np.sqrt(now) * x_0 + np.sqrt(1 - now) * noise
        variance = eta**2 * (1 - before) / (1 - now) * (1 - now / before)
        expected = np.sqrt(before) * x_0 + np.sqrt(1 - before - variance) * noise
        np.testing.assert_allclose(of_image * x_0 + of_noisy * x_t, expected, atol=1e-9)
        np.testing.assert_allclose(spread**2, variance, atol=1e-12)


def test_a_chain_that_does_not_divide_ends_at_the_last_step_too():
    times = NoiseSchedule(num_steps=1000).times(7)
    assert times[-1] == 999 and len(times) == 7
    assert set(np.diff(times)) <= {142, 143}
    np.testing.assert_array_equal(NoiseSchedule(num_steps=30).times(30), np.arange(30))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("quadratic",), "kind: expected one of 'linear', 'cosine', got 'quadratic'"),
        (("linear", 20), "num_steps: expected a whole number of at least 21, got 20"),
        (("cosine", 0), "num_steps: expected a whole number of at least 1, got 0"),
        (("cosine", 2.5), "num_steps: expected a whole number of at least 1, got 2.5"),
    ],
)
def test_bad_schedules_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        NoiseSchedule(*arguments)


# Samplers, with a network that is right.


class ExactNoise(keras.layers.Layer):
    """The noise to expect in x_t if the data are normal of this variance: E[noise | x_t]."""

    def __init__(self, schedule, variance, **kwargs):
        super().__init__(**kwargs)
        self.settings = {"schedule": schedule, "variance": variance}
        left = schedule.alpha_bars
        self.table = tf.constant(np.sqrt(1 - left) / (left * variance + 1 - left), tf.float32)

    def call(self, noisy, t):
        return tf.gather(self.table, t)[:, None, None, None] * noisy

    def get_config(self):
        return {**super().get_config(), **self.settings}


def exact_ddpm(schedule, variance, size):
    noisy, t = keras.Input((size, size, 1)), keras.Input((), dtype="int32")
    return DDPM(keras.Model([noisy, t], ExactNoise(schedule, variance)(noisy, t)), schedule)


def variance_in_closed_form(schedule, variance, num_steps, sampler, eta):
    """The variance that a sampler returns, whose every step is linear in x_t."""
    times = schedule.times(num_steps)
    result = 1.0
    for i in reversed(range(num_steps)):
        now = schedule.alpha_bars[times[i]]
        before = schedule.alpha_bars[times[i - 1]] if i else 1.0
        noise = math.sqrt(1 - now) / (now * variance + 1 - now)
        image = (1 - math.sqrt(1 - now) * noise) / math.sqrt(now)
        beta = 1 - now / before
        posterior = beta * (1 - before) / (1 - now)
        if sampler == "ddpm":  # Ho et al. 2020, equation 7
            added = posterior
            factor = math.sqrt(before) * beta / (1 - now) * image
            factor += math.sqrt(now / before) * (1 - before) / (1 - now)
        else:  # Song et al. 2020, equation 12
            added = eta**2 * posterior
            factor = math.sqrt(before) * image + math.sqrt(1 - before - added) * noise
        result = factor**2 * result + added
    return result


def test_the_closed_form_is_known():
    schedule = NoiseSchedule("linear", 1000)
    for expected, *settings in (
        (0.991, 1000, "ddpm", 0.0),
        (0.996, 1000, "ddim", 0.0),
        (0.928, 50, "ddim", 0.0),
    ):
        found = variance_in_closed_form(schedule, 1.0, *settings)
        assert found == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize(
    "kind, variance, num_steps, sampler, eta",
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
def test_samplers_return_the_variance_of_their_own_recursion(
    kind, variance, num_steps, sampler, eta
):
    schedule = NoiseSchedule(kind, 1000)
    expected = variance_in_closed_form(schedule, variance, num_steps, sampler, eta)
    random = sampler == "ddpm" or eta > 0
    model = exact_ddpm(schedule, variance, 80 if random else 8)
    settings = dict(num_steps=num_steps, sampler=sampler, eta=eta, clip=False, seed=0)
    noise, samples = 2 * model.denoising_path(60, frames=1, **settings) - 1
    if random:  # 384,000 numbers: their variance is right to 0.23 % in two cases of three
        assert np.var(samples) == pytest.approx(expected, rel=0.006)
    else:  # each number is a fixed part of its noise
        np.testing.assert_allclose(samples / noise, expected**0.5, rtol=1e-3)


def by_hand(model, seed, labels, guidance_scale, num_steps, clip):
    """DDIM without noise of its own, in NumPy around the averaged network, for one batch."""
    count = len(labels)
    x = np.random.default_rng(seed).standard_normal((count, *model.image_shape), dtype="float32")
    bars, times = model.schedule.alpha_bars, model.schedule.times(num_steps)
    path = [x]
    for i in reversed(range(num_steps)):
        t = np.full(count, times[i], "int32")
        noise = model.averaged([x, t, np.array(labels)]).numpy()
        without = model.averaged([x, t, np.full(count, -1)]).numpy()
        noise = (1 + guidance_scale) * noise - guidance_scale * without
        if model.prediction == "v":
            share = model.schedule.alpha_bars[times[i]]
            noise = np.sqrt(1 - share) * x + np.sqrt(share) * noise
        now, before = bars[times[i]], bars[times[i - 1]] if i else 1.0
        x_0 = (x - np.sqrt(1 - now) * noise) / np.sqrt(now)
        x_0 = np.clip(x_0, -1, 1) if clip else x_0
        noise = (x - np.sqrt(now) * x_0) / np.sqrt(1 - now)
        x = (np.sqrt(before) * x_0 + np.sqrt(1 - before) * noise).astype("float32")
        path.append(x)
    return (np.stack(path) + 1) / 2


@pytest.mark.parametrize(
    "guidance_scale, clip, prediction",
    [(0.0, True, "noise"), (1.5, False, "noise"), (3.0, True, "v")],
)
def test_generate_is_the_chain_by_hand(guidance_scale, clip, prediction):
    model, labels = random_ddpm(num_classes=3, prediction=prediction), [2, 0, 1]
    expected = by_hand(model, 5, labels, guidance_scale, 6, clip)
    settings = dict(guidance_scale=guidance_scale, num_steps=6, clip=clip, seed=5)
    path = model.denoising_path(3, labels, frames=6, **settings)
    np.testing.assert_allclose(path, expected, rtol=1e-4, atol=1e-4)
    images = model.generate(3, labels, **settings)
    np.testing.assert_array_equal(images, path[-1])
    assert images.shape == (3, 4, 4, 1) and images.dtype == "float32"
    if clip:
        assert 0 <= images.min() and images.max() <= 1


def test_without_labels_a_conditional_model_draws_from_all():
    model = random_ddpm(num_classes=3)
    expected = by_hand(model, 5, [-1, -1], 0.0, 4, clip=False)[-1]
    settings = dict(num_steps=4, clip=False, seed=5)
    images = model.generate(2, **settings)
    np.testing.assert_allclose(images, expected, rtol=1e-3, atol=1e-3)
    assert largest_difference([images], [model.generate(2, 1, **settings)]) > 0.1


@pytest.mark.parametrize("settings", [{}, {"sampler": "ddpm"}, {"eta": 0.5}])
def test_the_seed_decides_and_training_is_not_touched(settings):
    model = random_ddpm(seed=3)
    before = [np.copy(model.seed_generator.state), *model.get_weights()]
    # More than one batch of samples.
    draws = [model.generate(70, num_steps=5, seed=seed, **settings) for seed in (1, 1, 2, None)]
    np.testing.assert_array_equal(draws[0], draws[1])
    flat = np.stack([draws[0], *draws[2:]]).reshape(3 * 70, -1)
    assert len(np.unique(flat.round(4), axis=0)) > 200
    assert largest_difference(before, [model.seed_generator.state, *model.get_weights()]) == 0


def test_frames_of_a_path_are_spaced_evenly():
    model = random_ddpm()
    settings = dict(num_steps=7, sampler="ddpm", seed=1)
    whole = model.denoising_path(2, frames=7, **settings)
    some = model.denoising_path(2, frames=3, **settings)
    np.testing.assert_allclose(some, whole[[0, 2, 5, 7]], rtol=1e-5, atol=1e-6)


def test_images_on_the_way_to_noise():
    model = random_ddpm(num_steps=40)
    x = np.random.default_rng(0).uniform(size=(3, 4, 4, 1)).astype("float32")
    noisy = model.add_noise(x, [0, 20, 39], seed=1)
    left = model.schedule.alpha_bars[[0, 20, 39]].reshape(3, 1, 1, 1)
    noise = np.random.default_rng(1).standard_normal(x.shape, dtype="float32")
    expected = (np.sqrt(left) * (2 * x - 1) + np.sqrt(1 - left) * noise + 1) / 2
    np.testing.assert_allclose(noisy, expected, atol=1e-6)
    np.testing.assert_array_equal(model.add_noise(x, 20, seed=1)[1], noisy[1])


# Training.


def record_inputs(monkeypatch):
    """Return a list that gets what the network is called on: x_t, t and labels."""
    seen = []
    original = diffusion._inputs

    def inputs(*parts):
        seen.append([None if part is None else np.asarray(part) for part in parts])
        return original(*parts)

    monkeypatch.setattr(diffusion, "_inputs", inputs)
    return seen


@pytest.mark.parametrize("prediction", ["noise", "v"])
def test_the_loss_is_the_squared_error_of_what_is_predicted(monkeypatch, prediction):
    model = random_ddpm(num_classes=3, seed=0, prediction=prediction)
    x = np.random.default_rng(0).uniform(size=(8, 4, 4, 1)).astype("float32")
    labels, weights = tf.range(8) % 3, np.arange(8).astype("float32")
    t, noise = model.sample_noise(x)
    monkeypatch.setattr(model, "sample_noise", lambda x: (t, noise))
    seen = record_inputs(monkeypatch)
    for training, network in ((True, model.network), (False, model.averaged)):
        loss, _ = model.batch_loss((x, labels, weights), training)
        noisy, steps, told = seen.pop()
        left = model.schedule.alpha_bars[t].reshape(-1, 1, 1, 1)
        expected = np.sqrt(left) * (2 * x - 1) + np.sqrt(1 - left) * noise
        np.testing.assert_allclose(noisy, expected, atol=1e-5)
        np.testing.assert_array_equal(steps, t)
        assert training or np.array_equal(told, labels)  # held-out images keep their labels
        target = noise
        if prediction == "v":
            target = np.sqrt(left) * noise - np.sqrt(1 - left) * (2 * x - 1)
        errors = np.mean((network([noisy, steps, told]) - target) ** 2, axis=(1, 2, 3))
        assert float(loss) == pytest.approx(np.mean(weights * errors), rel=1e-5)


def test_steps_noise_and_dropped_labels_are_drawn_as_they_should(monkeypatch):
    model = random_ddpm(num_classes=3, seed=0, label_dropout=0.2)
    x, labels = np.full((2000, 4, 4, 1), 0.5, "float32"), np.arange(2000) % 3
    seen = record_inputs(monkeypatch)
    for _ in range(2):
        model.batch_loss((x, labels), training=True)
    (_, first, told), (_, second, told_again) = seen
    assert not np.array_equal(first, second)
    counts = np.bincount(first, minlength=40)
    assert len(counts) == 40 and counts.min() > 25 and counts.max() < 85  # 50 on average
    assert np.mean(told == -1) == pytest.approx(0.2, abs=0.03)
    assert np.array_equal(told[told != -1], labels[told != -1])
    assert not np.array_equal(told == -1, told_again == -1)
    _, noise = model.sample_noise(x)
    assert float(np.mean(noise)) == pytest.approx(0, abs=0.02)
    assert float(np.std(noise)) == pytest.approx(1, abs=0.02)


def test_weights_are_averaged_after_each_step():
    model = random_ddpm(seed=0, ema_momentum=0.5)
    model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    x = np.random.default_rng(0).uniform(size=(32, 4, 4, 1)).astype("float32")
    average = model.averaged.get_weights()
    for step in range(1, 13):
        model.train_on_batch(x)
        momentum = min(0.5, (1 + step) / (10 + step))
        average = [
            momentum * a + (1 - momentum) * w for a, w in zip(average, model.network.get_weights())
        ]
        assert largest_difference(model.averaged.get_weights(), average) < 1e-5
    assert largest_difference(average, model.network.get_weights()) > 1e-4
    trained = sum(w.size for w in model.network.get_weights())
    assert sum(np.prod(w.shape) for w in model.trainable_weights) == trained


@pytest.mark.parametrize("policy", ["float64", "mixed_float16"])
def test_it_trains_in_other_precisions_and_on_other_arrays(policy, tmp_path):
    floatx = keras.config.floatx()
    keras.config.set_dtype_policy(policy)
    keras.config.set_floatx("float64" if policy == "float64" else floatx)
    try:
        model = DDPM(build_unet((4, 4, 1), (4, 8)), NoiseSchedule(num_steps=40), seed=0)
        model.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
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


@pytest.mark.parametrize("prediction", ["noise", "v"])
def test_it_learns_an_image(prediction):
    x = np.zeros((64, 4, 4, 1), "float32")
    x[:, 1:3, 1:3] = 1
    network, schedule = build_unet((4, 4, 1), (16, 16)), NoiseSchedule(num_steps=50)
    model = DDPM(network, schedule, seed=0, prediction=prediction)
    model.compile(keras.optimizers.Adam(5e-3), jit_compile=False)
    model.fit(x, batch_size=32, epochs=100, verbose=0)
    for settings in ({}, {"sampler": "ddpm"}):
        samples = model.generate(20, num_steps=25, seed=0, **settings)
        assert np.abs(samples - x[:20]).mean() < 0.1


# Networks.


@pytest.mark.parametrize(
    "image_shape, widths, block_depth, num_classes",
    [
        ((28, 28, 1), (32, 64, 96), 1, None),
        ((8, 12, 3), (5, 33, 12), 2, 4),
        ((5, 3, 1), (7,), 1, 2),
        ((5, 3, 1), (8,), 1, 2),
        ((6, 4, 1), (2, 4), 1, 2),
    ],
)
def test_networks_of_any_size(image_shape, widths, block_depth, num_classes):
    network = build_unet(image_shape, widths, block_depth, num_classes)
    x = np.random.default_rng(0).normal(size=(2, *image_shape)).astype("float32")
    inputs = [x, np.array([0, 9])] + ([] if num_classes is None else [np.array([-1, 1])])
    assert not np.any(network(inputs))  # a new one answers the mean of the noise
    random_weights(network)
    noise = network(inputs)
    assert noise.shape == (2, *image_shape)
    other_time = network([x, np.array([0, 7]), *inputs[2:]])
    np.testing.assert_allclose(other_time[0], noise[0], rtol=1e-4, atol=1e-5)
    assert np.abs(other_time[1] - noise[1]).max() > 1e-3
    if num_classes is not None:
        other_label = network([*inputs[:2], np.array([-1, 0])])
        np.testing.assert_allclose(other_label[0], noise[0], rtol=1e-4, atol=1e-5)
        assert np.abs(other_label[1] - noise[1]).max() > 1e-3


def test_the_network_is_told_sines_and_cosines_of_the_step():
    found = diffusion.TimeEmbedding(6)(np.array([0, 7]))
    angles = [7 * 10_000 ** (-i / 3) for i in range(3)]
    expected = [[0] * 3 + [1] * 3, [math.sin(a) for a in angles] + [math.cos(a) for a in angles]]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_levels_have_the_parts_that_the_docstring_tells_of():
    def block(before, width):
        convolutions = 9 * before * width + 9 * width * width + 2 * width
        skip = before * width + width if before != width else 0
        return 2 * before + convolutions + 128 * width + width + 2 * width + skip

    parts = [64 * 128 + 128, 9 * 32 + 32, block(32, 32), block(32, 64), block(64, 96)]
    parts += [2 * 96 + 4 * (96 * 96 + 96), block(96, 96)]  # attention, and what follows it
    parts += [96 * 64 + 64, block(128, 64), 64 * 32 + 32, block(64, 32), 2 * 32, 9 * 32 + 1]
    assert build_unet().count_params() == sum(parts)
    assert build_unet(num_classes=10).count_params() == sum(parts) + 10 * 128


def test_every_pixel_of_the_noise_sees_the_smallest_images():
    network = random_weights(build_unet((8, 8, 1), (4, 4, 4)))
    x = tf.constant(np.random.default_rng(0).normal(size=(1, 8, 8, 1)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        corner = network([x, tf.constant([3])])[0, 0, 0, 0]
    assert np.all(tape.gradient(corner, x) != 0)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"image_shape": (28, 28)}, r"image_shape: expected \(height, width, channels\), got"),
        ({"image_shape": (30, 28, 1)}, "image_shape: expected multiples of 4, .* got 30 x 28"),
        ({"image_shape": (28, 28, 0)}, "channels: expected a whole number of at least 1, got 0"),
        ({"widths": ()}, "widths: expected a sequence of whole numbers"),
        ({"widths": 32}, "widths: expected a sequence of whole numbers, got 32"),
        ({"widths": (32, 1)}, "widths: expected a whole number of at least 2, got 1"),
        ({"block_depth": 0}, "block_depth: expected"),
        ({"num_classes": 1}, "num_classes: expected"),
    ],
)
def test_bad_networks_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_unet(**arguments)


def test_bad_parts_images_labels_and_settings_are_named():
    network, schedule = build_unet((4, 4, 1), (3,), num_classes=3), NoiseSchedule(num_steps=30)
    model = DDPM(network, schedule)
    model.compile()
    x = np.zeros((2, 4, 4, 1), "float32")
    plain = DDPM(build_unet((4, 4, 1), (3,)), schedule)
    one_input = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(1, 1)])
    for call, message in (
        (lambda: DDPM(one_input, schedule), "network: expected one of images, steps and perhaps"),
        (lambda: DDPM(network, "linear"), "schedule: expected a NoiseSchedule, got 'linear'"),
        (lambda: DDPM(network, schedule, label_dropout=1.0), "label_dropout: expected a share"),
        (lambda: DDPM(network, schedule, ema_momentum=-1), "ema_momentum: expected a share"),
        (
            lambda: DDPM(network, schedule, prediction="x"),
            "prediction: expected one of 'noise', 'v'",
        ),
        (lambda: model.compile(loss="mse"), "loss: expected None"),
        (lambda: model.fit(x - 1, [0, 1]), r"x: expected pixels scaled to \[0, 1\]"),
        (lambda: model.fit(x), "labels: expected integers from 0 to 2, got None"),
        (lambda: model.fit(x, [0, 3]), "labels: expected integers from 0 to 2, got values"),
        (lambda: plain.generate(2, 1), "labels: expected None, since the model was built without"),
        (lambda: model.generate(2, -1), "labels: expected integers from 0 to 2, got values"),
        (lambda: model.generate(0), "num_samples: expected"),
        (lambda: model.generate(2, guidance_scale=1), "guidance_scale: expected 0, without labels"),
        (lambda: model.generate(2, 1, -1.0), "guidance_scale: expected a number of at least 0"),
        (lambda: model.generate(2, 1, math.nan), "guidance_scale: expected a number of at least"),
        (lambda: model.generate(2, num_steps=31), "num_steps: expected at most the .* 30, got 31"),
        (lambda: model.generate(2, num_steps=0), "num_steps: expected"),
        (
            lambda: model.generate(2, num_steps=5, sampler="euler"),
            "sampler: expected one of 'ddim', 'ddpm'",
        ),
        (lambda: model.generate(2, num_steps=5, eta=2), "eta: expected a number from 0 to 1"),
        (
            lambda: model.generate(2, num_steps=5, sampler="ddpm", eta=0.5),
            "eta: expected a number of 0, as sampler is 'ddpm', got 0.5",
        ),
        (
            lambda: model.denoising_path(2, frames=6, num_steps=5),
            "frames: expected at most one a step, 5, got 6",
        ),
        (lambda: model.add_noise(x, 30), "t: expected integers from 0 to 29"),
        (lambda: model.add_noise(x, 0.5), "t: expected integers"),
        (lambda: model.add_noise(x, [1, 2, 3]), r"t: expected an integer or integers \(2,\), got"),
        (lambda: diffusion.TimeEmbedding(5), "dim: expected an even number, got 5"),
        (lambda: model.add_noise(x[..., 0], 3), "x: expected shape"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_a_saved_model_has_its_schedule_and_draws_the_same(tmp_path):
    network = random_weights(build_unet((4, 4, 1), (3, 4), num_classes=2))
    model = DDPM(network, NoiseSchedule("cosine", 12), 7, 0.3, 0.9, "v")
    model.averaged.set_weights([1.1 * w for w in network.get_weights()])
    model.save(tmp_path / "model.keras")
    loaded = keras_genai.load_model(tmp_path / "model.keras")
    settings = loaded.seed, loaded.label_dropout, loaded.ema_momentum, loaded.prediction
    assert settings == (7, 0.3, 0.9, "v")
    assert (loaded.schedule.kind, loaded.schedule.num_steps) == ("cosine", 12)
    settings = dict(num_samples=2, labels=[0, 1], guidance_scale=1.0, num_steps=12, seed=0)
    np.testing.assert_array_equal(loaded.generate(**settings), model.generate(**settings))
