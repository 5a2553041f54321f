"""Noise schedules against the papers; sampling steps against Bayes' theorem and equation 12."""

import math
from functools import partial

import numpy as np
import pytest

from keras_genai.diffusion import DDPM, build_unet
from keras_genai.noise_schedule import DPMSolverStep, NoiseSchedule, ddim_step, ddpm_step

# Tables.


def test_linear_schedule_matches_ho_et_al():
    schedule = NoiseSchedule("linear", 1000)
    betas = [1e-4 + (0.02 - 1e-4) * t / 999 for t in range(1000)]
    for t in (0, 500, 999):
        assert schedule.betas[t] == pytest.approx(betas[t], rel=1e-12)
        alpha_bar = math.exp(math.fsum(math.log1p(-beta) for beta in betas[: t + 1]))
        assert schedule.alphas_cumprod[t] == pytest.approx(alpha_bar, rel=1e-12)
    assert schedule.betas.dtype == schedule.alphas_cumprod.dtype == "float64"


def test_shorter_linear_schedule_ends_with_as_much_noise():
    schedule, shorter = NoiseSchedule("linear", 1000), NoiseSchedule("linear", 100)
    assert (shorter.betas[0], shorter.betas[-1]) == pytest.approx((1e-3, 0.2))
    logs = [np.log(s.alphas_cumprod[-1]) for s in (schedule, shorter)]
    assert logs[0] == pytest.approx(logs[1], rel=0.1)


@pytest.mark.parametrize("num_timesteps", [10, 1000])
def test_cosine_schedule_matches_nichol_and_dhariwal(num_timesteps):
    def f(t):  # equation 17
        return math.cos((t / num_timesteps + 0.008) / 1.008 * math.pi / 2) ** 2

    schedule = NoiseSchedule("cosine", num_timesteps)
    for t in (0, num_timesteps // 2):
        assert schedule.alphas_cumprod[t] == pytest.approx(f(t + 1) / f(0), rel=1e-10)
        assert schedule.betas[t] == pytest.approx(1 - f(t + 1) / f(t))
    assert schedule.betas[-1] == 0.999  # without this maximum, alpha_bar would end at 0
    alpha_bar_prev = schedule.alphas_cumprod[-2]
    assert schedule.alphas_cumprod[-1] == pytest.approx(0.001 * alpha_bar_prev, rel=1e-9)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("quadratic",), "beta_schedule: expected one of 'linear', 'cosine', got 'quadratic'"),
        (("linear", 20), "num_timesteps: expected a whole number of at least 21, got 20"),
        (("cosine", 0), "num_timesteps: expected a whole number of at least 1, got 0"),
        (("cosine", 2.5), "num_timesteps: expected a whole number of at least 1, got 2.5"),
    ],
)
def test_invalid_schedules_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        NoiseSchedule(*arguments)


# Forward process.


@pytest.mark.parametrize("beta_schedule", ["linear", "cosine"])
def test_add_noise_equals_the_single_steps_of_the_chain(beta_schedule):
    schedule = NoiseSchedule(beta_schedule, 30)
    rng = np.random.default_rng(0)
    x_0 = np.full((20_000, 1), 0.7)
    x = x_0
    for t, beta in enumerate(schedule.betas):
        x = np.sqrt(1 - beta) * x + np.sqrt(beta) * rng.normal(size=x.shape)  # equation 2
        x_t = schedule.add_noise(x_0, np.full(20_000, t), rng.normal(size=x.shape)).numpy()
        assert x_t.dtype == "float64"
        standard_error = np.std(x) / 20_000**0.5
        assert abs(x.mean() - x_t.mean()) < 6 * standard_error
        assert np.var(x_t) / np.var(x) == pytest.approx(1, abs=0.06)
        mean = 0.7 * np.prod(1 - schedule.betas[: t + 1]) ** 0.5
        noiseless = schedule.add_noise(x_0[:1], [t], np.zeros((1, 1)))
        assert float(noiseless[0, 0]) == pytest.approx(mean, rel=1e-12)


def test_image_and_noise_are_recovered_from_x_t():
    schedule = NoiseSchedule("cosine", 30)
    x_0, noise = np.random.default_rng(0).normal(size=(2, 5, 2, 3, 1))
    t = np.array([0, 7, 14, 20, 29])
    x_t = schedule.add_noise(x_0, t, noise)
    np.testing.assert_allclose(schedule.predict_start_from_noise(x_t, t, noise), x_0, rtol=1e-6)
    v = schedule.get_velocity(x_0, t, noise)
    alpha_bar = schedule.alphas_cumprod[t].reshape(5, 1, 1, 1)
    expected = np.sqrt(alpha_bar) * noise - np.sqrt(1 - alpha_bar) * x_0
    np.testing.assert_allclose(v, expected, rtol=1e-9)
    np.testing.assert_allclose(schedule.predict_noise_from_v(x_t, t, v), noise, rtol=1e-6)
    one = schedule.add_noise(x_0[1:2], t[1:2], noise[1:2])  # each image has its own timestep
    np.testing.assert_allclose(x_t[1:2], one, rtol=1e-12)


# Reverse process.


def test_timesteps_end_at_the_last_one_even_if_not_divisible():
    timesteps = NoiseSchedule(num_timesteps=1000).timesteps(7)
    assert timesteps[-1] == 999 and len(timesteps) == 7
    assert set(np.diff(timesteps)) <= {142, 143}
    np.testing.assert_array_equal(NoiseSchedule(num_timesteps=30).timesteps(30), np.arange(30))


@pytest.mark.parametrize("beta_schedule", ["cosine", "linear"])
def test_karras_timesteps_are_the_nearest_to_the_sigmas_of_equation_5(beta_schedule):
    schedule = NoiseSchedule(beta_schedule, 1000)
    timesteps = schedule.timesteps(10, "karras")
    sigmas = np.sqrt(1 / schedule.alphas_cumprod - 1)
    for i, t in enumerate(timesteps[::-1]):
        root = 80 ** (1 / 7) + i / 9 * (0.05 ** (1 / 7) - 80 ** (1 / 7))
        assert abs(np.log(sigmas[t] / root**7)) <= np.abs(np.log(sigmas / root**7)).min() + 0.05
    assert schedule.timesteps(1, "karras") == timesteps[-1:]


@pytest.mark.parametrize(
    "beta_schedule, num_timesteps, num_steps",
    [("cosine", 1000, 300), ("linear", 1000, 1000), ("linear", 30, 29), ("cosine", 1, 1)],
)
def test_many_karras_timesteps_are_distinct(beta_schedule, num_timesteps, num_steps):
    timesteps = NoiseSchedule(beta_schedule, num_timesteps).timesteps(num_steps, "karras")
    assert len(timesteps) == num_steps and np.diff(timesteps, prepend=-1).min() >= 1
    assert timesteps[-1] < num_timesteps


def test_unknown_spacing_raises():
    with pytest.raises(ValueError, match="timestep_spacing: expected one of 'trailing', 'karras'"):
        NoiseSchedule().timesteps(10, "leading")


def test_more_steps_than_timesteps_raise():
    with pytest.raises(ValueError, match="num_steps: expected at most the .* 30, got 31"):
        NoiseSchedule(num_timesteps=30).timesteps(31)


def step_coefficients(step, alpha_bar, alpha_bar_prev):
    """Return the coefficients of x_0, x_t and z in a sampling step, which is linear in all three.

    The step takes the noise, which is a function of x_0 and x_t.
    """

    def apply(x_0, x_t, z):
        noise = (x_t - math.sqrt(alpha_bar) * x_0) / math.sqrt(1 - alpha_bar)
        return step(x_t, noise, alpha_bar, alpha_bar_prev, z)

    return [apply(*basis_vector) for basis_vector in np.eye(3)]


def alpha_bar_pairs(schedule, num_steps):
    """Return (alpha_bar, alpha_bar_prev) of each step, by ascending timestep."""
    alpha_bar = schedule.alphas_cumprod[schedule.timesteps(num_steps)].tolist()
    return list(zip(alpha_bar, [1.0, *alpha_bar[:-1]], strict=True))


@pytest.mark.parametrize("num_steps", [40, 8, 1])
def test_ddpm_step_has_the_mean_and_variance_of_the_posterior(num_steps):
    schedule = NoiseSchedule("linear", 40)
    pairs, timesteps = alpha_bar_pairs(schedule, num_steps), schedule.timesteps(num_steps)
    stride = 40 // num_steps
    for i, t in enumerate(timesteps):
        assert t == stride * (i + 1) - 1
        coefficient_x_0, coefficient_x_t, sigma = step_coefficients(ddpm_step, *pairs[i])
        if i == 0:
            assert (coefficient_x_0, coefficient_x_t, sigma) == pytest.approx((1, 0, 0))
            continue
        # Bayes: x_s is N(sqrt(alpha_bar_s) x_0, 1 - alpha_bar_s) and x_t is N(sqrt(alpha) x_s,
        # 1 - alpha), where alpha is the product of the alphas from s to t.
        alpha = np.prod(1 - schedule.betas[t - stride + 1 : t + 1])
        alpha_bar_s = np.prod(1 - schedule.betas[: t - stride + 1])
        variance = 1 / (1 / (1 - alpha_bar_s) + alpha / (1 - alpha))
        assert sigma**2 == pytest.approx(variance, rel=1e-9)
        expected_x_0 = variance * alpha_bar_s**0.5 / (1 - alpha_bar_s)
        assert coefficient_x_0 == pytest.approx(expected_x_0, rel=1e-9)
        expected_x_t = variance * alpha**0.5 / (1 - alpha)
        assert coefficient_x_t == pytest.approx(expected_x_t, rel=1e-9)


@pytest.mark.parametrize(
    "beta_schedule, num_steps", [("linear", 60), ("linear", 7), ("cosine", 20)]
)
def test_ddim_step_with_eta_1_is_ddpm_step(beta_schedule, num_steps):
    for pair in alpha_bar_pairs(NoiseSchedule(beta_schedule, 60), num_steps):
        np.testing.assert_allclose(
            step_coefficients(partial(ddim_step, eta=1.0), *pair),
            step_coefficients(ddpm_step, *pair),
            atol=1e-7,
        )


@pytest.mark.parametrize("eta", [0.0, 0.6])
@pytest.mark.parametrize(
    "beta_schedule, num_steps", [("linear", 60), ("linear", 7), ("cosine", 20)]
)
def test_ddim_step_is_equation_12(beta_schedule, num_steps, eta):
    x_0, noise = np.random.default_rng(0).normal(size=2)
    for alpha_bar, alpha_bar_prev in alpha_bar_pairs(NoiseSchedule(beta_schedule, 60), num_steps):
        x_t = np.sqrt(alpha_bar) * x_0 + np.sqrt(1 - alpha_bar) * noise
        variance = eta**2 * (1 - alpha_bar_prev) / (1 - alpha_bar)  # equation 16
        variance *= 1 - alpha_bar / alpha_bar_prev
        mean = np.sqrt(alpha_bar_prev) * x_0 + np.sqrt(1 - alpha_bar_prev - variance) * noise
        without_z, with_z = (
            ddim_step(x_t, noise, alpha_bar, alpha_bar_prev, z, eta) for z in (0.0, 1.0)
        )
        assert without_z == pytest.approx(mean, abs=1e-9)
        assert (with_z - without_z) ** 2 == pytest.approx(variance, abs=1e-12)


def test_dpm_solver_steps_are_those_of_the_papers_algorithm_2():
    rng = np.random.default_rng(0)
    alpha_bars = [0.01, 0.1, 0.3, 0.8]
    alpha, sigma = np.sqrt(alpha_bars), np.sqrt(1 - np.array(alpha_bars))
    h = np.diff(np.log(alpha / sigma))
    step, x, x_0s = DPMSolverStep(), rng.normal(size=5), []
    for i in range(3):
        noise = rng.normal(size=5)
        x_0s.append((x - sigma[i] * noise) / alpha[i])
        direction = x_0s[0]
        if i > 0:
            ratio = h[i - 1] / h[i]
            direction = (1 + 1 / (2 * ratio)) * x_0s[i] - 1 / (2 * ratio) * x_0s[i - 1]
        expected = sigma[i + 1] / sigma[i] * x - alpha[i + 1] * np.expm1(-h[i]) * direction
        x = step(x, noise, alpha_bars[i], alpha_bars[i + 1], np.ones(5))
        np.testing.assert_allclose(x, expected, rtol=1e-12)


def test_dpm_solver_is_of_second_order():
    """With pixels N(0, 0.09), each step is linear; the exact flow is that of the marginals."""

    def error(step, num_steps):
        log_snr = np.linspace(-3, 3, num_steps + 1)
        alpha_bars = 1 / (1 + np.exp(-log_snr))
        marginals = 0.09 * alpha_bars + 1 - alpha_bars
        x = 1.0
        for i in range(num_steps):
            noise = math.sqrt(1 - alpha_bars[i]) / marginals[i] * x
            x = step(x, noise, alpha_bars[i], alpha_bars[i + 1], 0.0)
        return abs(x - math.sqrt(marginals[-1] / marginals[0]))

    first_order = error(ddim_step, 40) / error(ddim_step, 80)
    second_order = error(DPMSolverStep(), 40) / error(DPMSolverStep(), 80)
    assert first_order == pytest.approx(2, rel=0.1)
    assert second_order == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("step", [ddpm_step, ddim_step, DPMSolverStep()])
def test_last_step_returns_the_predicted_x_0(step):
    x_0, noise = np.random.default_rng(0).normal(size=(2, 4))
    x_t = math.sqrt(0.6) * x_0 + math.sqrt(0.4) * noise
    np.testing.assert_allclose(step(x_t, noise, 0.6, 1.0, z=np.ones(4)), x_0, rtol=1e-12)


@pytest.mark.parametrize("num_timesteps, expected", [(5, 5), (50, 50), (60, 50)])
def test_generate_takes_50_steps_or_all_of_a_shorter_schedule(num_timesteps, expected):
    model = DDPM(build_unet((4, 4, 1), (2,)), NoiseSchedule("cosine", num_timesteps))
    images = model.generate(2, seed=0)
    np.testing.assert_array_equal(images, model.generate(2, num_steps=expected, seed=0))
