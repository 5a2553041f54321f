"""Noise schedule and sampling steps of diffusion: arithmetic without a network.

The forward process adds noise in T steps with variances beta_t (Ho et al. 2020, equation 2). With
alpha_t = 1 - beta_t and abar_t = alpha_1 … alpha_t, its closed form is (equation 4)

    q(x_t | x_0) = N(sqrt(abar_t) x_0, (1 - abar_t) I)

`ddpm_step`, `ddim_step` and `DPMSolverStep` are one step of the reverse process. Timesteps count
from 0: t = 0 is the papers' t = 1, the least noise. x_0 is always the clean image, not x_t at
t = 0; the step from t = 0 leads to x_0, where abar = 1.
"""

import functools
import math

import keras
import numpy as np
from keras import ops

from keras_genai.validation import check_choice, check_size, is_number

# Of the spacing of Karras et al. 2022 (table 1), with a larger least sigma, found by measurement.
SIGMA_MIN, SIGMA_MAX, RHO = 0.05, 80.0, 7


@keras.saving.register_keras_serializable(package="keras_genai")
class NoiseSchedule:
    """Variances of the forward process as float64 tables over the timesteps.

    Args:
        beta_schedule: `"linear"`, betas from 1e-4 to 0.02 (Ho et al. 2020, section 4), scaled by
            1000 / num_timesteps so that all schedules end at nearly pure noise; or `"cosine"`
            (Nichol & Dhariwal 2021, equation 17, s = 0.008), which keeps more of the image in the
            middle of the process. Defaults to `"linear"`.
        num_timesteps: Int. Number of timesteps, T. Defaults to `1000`.

    Attributes:
        betas: Float64 array `(T,)`. Variance added by each step.
        alphas_cumprod: Float64 array `(T,)`. abar_t, the square of the factor of x_0 in x_t.

    Raises:
        ValueError: for another schedule, for fewer than 1 timestep, or for fewer than 21 timesteps
            of the linear schedule, whose last beta would not be below 1.
    """

    def __init__(self, beta_schedule="linear", num_timesteps=1000):
        check_choice("beta_schedule", beta_schedule, ("linear", "cosine"))
        self.beta_schedule = beta_schedule
        minimum = 21 if beta_schedule == "linear" else 1
        self.num_timesteps = check_size("num_timesteps", num_timesteps, minimum)
        if beta_schedule == "linear":
            scale = 1000 / self.num_timesteps
            self.betas = np.linspace(1e-4 * scale, 0.02 * scale, self.num_timesteps)
        else:
            time = np.arange(self.num_timesteps + 1) / self.num_timesteps
            f = np.cos((time + 0.008) / 1.008 * np.pi / 2) ** 2  # abar_t = f(t) / f(0)
            # Clipped (section 3.2): the last beta would be 1.
            self.betas = np.minimum(1 - f[1:] / f[:-1], 0.999)
        self.alphas_cumprod = np.cumprod(1 - self.betas)

    def add_noise(self, x_0, t, noise):
        """Return x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise (Ho et al. 2020, equation 4).

        Args:
            x_0: Float tensor `(batch, height, width, channels)`. Images in [-1, 1].
            t: Int tensor `(batch,)`, or an int for all. Timesteps from 0 to T - 1.
            noise: Float tensor of x_0's shape. Standard normal noise.

        Returns:
            Float tensor of x_0's shape.
        """
        signal_rate, noise_rate = self._rates(t, x_0)
        return signal_rate * x_0 + noise_rate * noise

    def get_velocity(self, x_0, t, noise):
        """Return v = sqrt(abar_t) noise - sqrt(1 - abar_t) x_0 (Salimans & Ho 2022, section 4)."""
        signal_rate, noise_rate = self._rates(t, x_0)
        return signal_rate * noise - noise_rate * x_0

    def predict_noise_from_v(self, x_t, t, v):
        """Return the noise in x_t for a velocity: sqrt(1 - abar_t) x_t + sqrt(abar_t) v."""
        signal_rate, noise_rate = self._rates(t, x_t)
        return noise_rate * x_t + signal_rate * v

    def predict_start_from_noise(self, x_t, t, noise):
        """Return x_0 = (x_t - sqrt(1 - abar_t) noise) / sqrt(abar_t) (Ho et al. 2020, eq. 15)."""
        signal_rate, noise_rate = self._rates(t, x_t)
        return (x_t - noise_rate * noise) / signal_rate

    def predict_noise_from_start(self, x_t, t, x_0):
        """Return the noise in x_t for a clean image: (x_t - sqrt(abar_t) x_0) / sqrt(1 - abar_t).

        The inverse of `predict_start_from_noise`.
        """
        signal_rate, noise_rate = self._rates(t, x_t)
        return (x_t - signal_rate * x_0) / noise_rate

    def _rates(self, t, images):
        """Return sqrt(abar_t) and sqrt(1 - abar_t), floats or broadcastable to `images`."""
        if isinstance(t, int):  # without the operations on tensors of `take`
            alpha_bar = float(self.alphas_cumprod[t])
            return math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
        shape = (-1, *[1] * (len(images.shape) - 1))
        dtype = keras.backend.standardize_dtype(images.dtype)
        return [
            ops.reshape(ops.take(ops.convert_to_tensor(table, dtype), t), shape)
            for table in (np.sqrt(self.alphas_cumprod), np.sqrt(1 - self.alphas_cumprod))
        ]

    def timesteps(self, num_steps, timestep_spacing="trailing"):
        """Return the timesteps of a shorter reverse process, ascending.

        Args:
            num_steps: Int. Number of sampling steps, n, at most T.
            timestep_spacing: `"trailing"`, evenly spaced up to rounding, the last one T - 1; or
                `"karras"`, evenly spaced in sigma^(1/7), where sigma is the ratio of noise to
                signal (Karras et al. 2022, equation 5), from 0.05 to 80 or what the schedule has of
                it: smaller steps where there is little noise. A timestep that is taken, of many
                steps or few timesteps, is replaced by the next free one. Defaults to `"trailing"`.

        Returns:
            Int array `(n,)`.

        Raises:
            ValueError: for more steps than the schedule has, and for another spacing.
        """
        num_steps = check_size("num_steps", num_steps)
        check_choice("timestep_spacing", timestep_spacing, ("trailing", "karras"))
        if num_steps > self.num_timesteps:
            raise ValueError(
                f"num_steps: expected at most the schedule's {self.num_timesteps}, got {num_steps}."
            )
        if timestep_spacing == "trailing":
            ends = np.arange(1, num_steps + 1) * self.num_timesteps / num_steps
            return np.round(ends).astype(int) - 1
        sigmas = np.sqrt((1 - self.alphas_cumprod) / self.alphas_cumprod)
        sigma_min, sigma_max = max(SIGMA_MIN, sigmas[0]), min(SIGMA_MAX, sigmas[-1])
        roots = np.linspace(sigma_max ** (1 / RHO), sigma_min ** (1 / RHO), num_steps)[::-1]
        nearest = np.interp(RHO * np.log(roots), np.log(sigmas), np.arange(self.num_timesteps))
        # Many steps: no timestep twice.
        order = np.arange(num_steps)
        timesteps = np.maximum.accumulate(np.round(nearest).astype(int) - order) + order
        return np.minimum(timesteps, self.num_timesteps - num_steps + order)

    def get_config(self):
        return {"beta_schedule": self.beta_schedule, "num_timesteps": self.num_timesteps}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def ddpm_step(x_t, predicted_noise, alpha_bar, alpha_bar_prev, z):
    """Sample x_(t-1) from x_t (Ho et al. 2020, Algorithm 2, line 4).

    x_(t-1) = (x_t - (1 - alpha_t) / sqrt(1 - abar_t) noise) / sqrt(alpha_t) + sigma_t z

    sigma_t^2 is the variance of the posterior q(x_(t-1) | x_t, x_0) (equation 7); the paper's other
    choice, sigma_t^2 = beta_t, is not offered. When timesteps are skipped, alpha_t is the product
    of the alphas between the two (Nichol & Dhariwal 2021, equation 19).

    Args:
        x_t: Float tensor. Noisy images.
        predicted_noise: Float tensor of x_t's shape. Output of the network.
        alpha_bar: Float. abar of the timestep of x_t.
        alpha_bar_prev: Float. abar of the timestep to go to, 1 for x_0.
        z: Float tensor of x_t's shape. Standard normal noise.

    Returns:
        x_(t-1), a float tensor of x_t's shape.
    """
    alpha = alpha_bar / alpha_bar_prev
    sigma = math.sqrt((1 - alpha_bar_prev) / (1 - alpha_bar) * (1 - alpha))
    mean = (x_t - (1 - alpha) / math.sqrt(1 - alpha_bar) * predicted_noise) / math.sqrt(alpha)
    return mean + sigma * z


def ddim_step(x_t, predicted_noise, alpha_bar, alpha_bar_prev, z, eta=0.0):
    """Sample x_(t-1) from x_t (Song et al. 2020, equation 12).

    x_(t-1) = sqrt(abar_(t-1)) x_0 + sqrt(1 - abar_(t-1) - sigma_t^2) noise + sigma_t z

    where x_0 is predicted from x_t and the noise, and sigma_t is that of DDPM times eta
    (equation 16). Song et al. write alpha_t for the abar_t of this module.

    Args:
        x_t: Float tensor. Noisy images.
        predicted_noise: Float tensor of x_t's shape. Output of the network.
        alpha_bar: Float. abar of the timestep of x_t.
        alpha_bar_prev: Float. abar of the timestep to go to, 1 for x_0.
        z: Float tensor of x_t's shape. Standard normal noise.
        eta: Float from 0 to 1. 0 is deterministic, 1 is DDPM. Defaults to `0.0`.

    Returns:
        x_(t-1), a float tensor of x_t's shape.
    """
    sigma = eta * math.sqrt(
        (1 - alpha_bar_prev) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_prev)
    )
    predicted_x_0 = (x_t - math.sqrt(1 - alpha_bar) * predicted_noise) / math.sqrt(alpha_bar)
    direction_to_x_t = math.sqrt(1 - alpha_bar_prev - sigma**2) * predicted_noise
    return math.sqrt(alpha_bar_prev) * predicted_x_0 + direction_to_x_t + sigma * z


class DPMSolverStep:
    """Steps of DPM-Solver++(2M) (Lu et al. 2022, "DPM-Solver++", Algorithm 2), deterministic.

    A step of DDIM with another x_0: the one predicted at the middle of the step, on the line
    through the predictions of this step and of the last one. Positions are half the log-SNR,
    lambda = log(abar / (1 - abar)) / 2. The first step, and the one to x_0, where lambda is
    infinite, are those of DDIM. An instance remembers the last prediction: each trajectory needs
    its own.
    """

    def __init__(self):
        self._last = None  # predicted x_0, and lambda

    def __call__(self, x_t, predicted_noise, alpha_bar, alpha_bar_prev, z):
        """Return x_(t-1); the arguments are those of `ddim_step`, z is not used."""
        x_0 = (x_t - math.sqrt(1 - alpha_bar) * predicted_noise) / math.sqrt(alpha_bar)
        position, predicted_x_0 = _half_log_snr(alpha_bar), x_0
        if self._last is not None and alpha_bar_prev < 1:
            last_x_0, last_position = self._last
            step, last_step = _half_log_snr(alpha_bar_prev) - position, position - last_position
            x_0 = x_0 + step / (2 * last_step) * (x_0 - last_x_0)
        self._last = predicted_x_0, position
        noise = (x_t - math.sqrt(alpha_bar) * x_0) / math.sqrt(1 - alpha_bar)
        return math.sqrt(alpha_bar_prev) * x_0 + math.sqrt(1 - alpha_bar_prev) * noise


def _half_log_snr(alpha_bar: float) -> float:
    return 0.5 * (math.log(alpha_bar) - math.log1p(-alpha_bar))


def step_function(method, eta):
    """Return the function of a step of one trajectory.

    Raises:
        ValueError: for another method, and for noise of a method other than DDIM.
    """
    check_choice("method", method, ("ddim", "ddpm", "dpm_solver++"))
    if not is_number(eta) or not 0 <= eta <= (method == "ddim"):
        expected = "from 0 to 1" if method == "ddim" else f"of 0, as method is {method!r}"
        raise ValueError(f"eta: expected a number {expected}, got {eta!r}.")
    steps = {"ddpm": ddpm_step, "dpm_solver++": DPMSolverStep()}
    return steps.get(method, functools.partial(ddim_step, eta=eta))
