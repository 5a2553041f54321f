"""Diffusion: article 3, section 6 (Ho et al. 2020, "Denoising Diffusion Probabilistic Models").

The forward process, a Markov chain, adds noise to an image x_0 in T small steps; its closed form is

    q(x_t | x_0) = N(sqrt(abar_t) x_0, (1 - abar_t) I)                          (equation 4)

A network is trained to predict the added noise from x_t and t by mean squared error (equation 14,
Algorithm 1), a reweighted variational bound on -log p(x_0). Sampling reverses the process, from
pure noise to an image (Algorithm 2). DDIM (Song et al. 2020) samples in fewer steps,
deterministically for eta = 0.

`noise_schedule` has the arithmetic, `unet` the network, and this file the model.

Corrected from the article, section 6, which describes a Markov chain of many steps (马尔可夫链), as
is right:
- It mentions neither noise nor a schedule. Its first paragraph, "gradually generates each pixel or
  feature" (逐步生成数据的每个像素或特征), can be read as pixel by pixel: all pixels are denoised at
  once.
- Its second paragraph names several "diffusion layers" (扩散层): one network, conditioned on the
  timestep, serves all steps.
- Its second paragraph maximizes "the posterior probability of observed data and latent variables"
  (观测数据与潜在变量的后验概率). Training minimizes a variational bound on -log p(x_0), in practice
  its reweighted form, the error of the predicted noise.
"""

import contextlib
import zlib

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_genai.conditioning import check_network, count_classes
from keras_genai.models import ConfigMixin, CustomLossMixin, GenerativeImageModel, SettableFraction
from keras_genai.noise_schedule import NoiseSchedule, ddim_step, ddpm_step, step_function
from keras_genai.random_state import SeedStateMixin, random_generator
from keras_genai.replicas import apply_gradients, run_on_replicas
from keras_genai.unet import SinusoidalTimeEmbedding, build_unet
from keras_genai.validation import (
    as_array,
    check_bools,
    check_choice,
    check_images,
    check_labels,
    check_outputs,
    check_range,
    check_size,
    check_type,
    is_number,
)

__all__ = [
    "DDPM",
    "NoiseSchedule",
    "SinusoidalTimeEmbedding",
    "build_unet",
    "ddim_step",
    "ddpm_step",
]

SAMPLING_BATCH_SIZE = 64


@keras.saving.register_keras_serializable(package="keras_genai")
class DDPM(SeedStateMixin, ConfigMixin, CustomLossMixin, GenerativeImageModel):
    """A diffusion model with its own `train_step` (Ho et al. 2020, Algorithm 1).

    Metric: `loss`, the mean squared error of the predicted noise or velocity; the metrics of
    `compile` compare the two. `evaluate` and `generate` use `ema_network`, whose weights are an
    exponential moving average; `evaluate` samples new timesteps and noise at each call.

    Args:
        network: `keras.Model` from `build_unet`. With `num_classes`, the model is trained by
            `fit(x, labels)`.
        schedule: `NoiseSchedule` of the forward process.
        seed: Int or `None`. Seed of the timesteps and noise of training. Defaults to `None`.
        cond_drop_prob: Float in [0, 1). Probability of training without the label, so that the
            network also learns the unconditional prediction that classifier-free guidance needs (Ho
            & Salimans 2022, Algorithm 1). With 0, a conditional model cannot sample without labels
            or with guidance. Defaults to `0.1`.
        ema_momentum: Float in [0, 1). Decay of the exponential moving average of the weights.
            Ho et al. 2020 use 0.9999 in longer training. Defaults to `0.999`.
        prediction_type: `"noise"` (Ho et al. 2020) or `"v"`, the velocity, a mixture of noise and
            image (Salimans & Ho 2022, section 4). At high noise levels, a small error of the
            predicted noise is a large error of the predicted x_0; the loss of v weights these
            levels more, and shapes and labels are learned in fewer steps. Defaults to `"noise"`.

    Raises:
        ValueError: for a network with other inputs or outputs, or an argument out of range.

    Example:
        model = DDPM(build_unet(), NoiseSchedule())
        model.compile(keras.optimizers.Adam(1e-3))
        model.fit(x)
        digits = model.generate(16)
    """

    cond_drop_prob, ema_momentum = SettableFraction(), SettableFraction()
    null_label = -1  # one-hot row of zeros: the unconditional input of classifier-free guidance

    def __init__(
        self,
        network,
        schedule,
        seed=None,
        cond_drop_prob=0.1,
        ema_momentum=0.999,
        prediction_type="noise",
        name="ddpm",
        **kwargs,
    ):
        self.check_network(network)
        input_shape, output_shape = network.inputs[0].shape, network.outputs[0].shape
        if len(input_shape) != 4:
            raise ValueError(
                f"network: expected images (batch, height, width, channels), got {input_shape}."
            )
        if output_shape != input_shape:
            raise ValueError(
                f"network: expected an output of the input's shape {input_shape}, "
                f"got {output_shape}."
            )
        check_type("schedule", schedule, NoiseSchedule)
        check_choice("prediction_type", prediction_type, ("noise", "v"))
        super().__init__(network.inputs, network(network.inputs), name=name, **kwargs)
        self.network, self.schedule = network, schedule
        self.cond_drop_prob, self.ema_momentum = cond_drop_prob, ema_momentum
        self.prediction_type = prediction_type
        self.num_classes = count_classes(network)
        self.label_shape = next((x.shape[1:] for x in network.inputs[2:]), None)
        self.ema_network = keras.models.clone_model(network)
        self.ema_network.set_weights(network.get_weights())
        self.ema_network.trainable = False
        if not any(layer is self.ema_network for layer in self._layers):  # older Keras
            self._layers = [*self._layers, self.ema_network]
        self.create_seed_generators(seed)
        self._checksum, self._in_training = self._get_checksum(), False
        self.loss_tracker = keras.metrics.Mean(name="loss")
        signature = [tf.TensorSpec((None, *input_shape[1:])), tf.TensorSpec((None,), tf.int32)]
        signature += [tf.TensorSpec(x.shape, tf.int32) for x in network.inputs[2:]]
        self._ema_prediction = tf.function(
            lambda *inputs: self.ema_network(list(inputs), training=False),
            input_signature=signature,
        )

    def check_network(self, network) -> None:
        """Raise ValueError for a network with other inputs or outputs."""
        check_network("network", network, ("x_t", "t"), ("noise",))

    def encode_labels(self, labels, num_samples):
        """Return the labels of `generate` as the third input of the network, an int32 array."""
        return check_labels(labels, self.num_classes, num_samples)

    def compute_loss_and_logs(self, data, training):
        """Return the scalar loss of a batch and a dict of metric results."""
        x, labels, sample_weight = self.unpack(data)
        t, noise = self.sample_timesteps_and_noise(x, training)
        if training and labels is not None:
            shape = (ops.shape(labels)[0], *[1] * len(self.label_shape))
            dropped = keras.random.uniform(shape, seed=self.seed_generator) < self.cond_drop_prob
            labels = ops.where(dropped, self.null_label, labels)
        x_0 = 2 * x - 1  # [0, 1] to [-1, 1]
        x_t = self.schedule.add_noise(x_0, t, noise)
        target = noise
        if self.prediction_type == "v":
            target = self.schedule.get_velocity(x_0, t, noise)
        network = self.network if training else self.ema_network
        inputs = [x_t, t] if labels is None else [x_t, t, labels]
        predicted = ops.cast(network(inputs, training=training), target.dtype)
        losses = ops.mean(ops.square(predicted - target), axis=(1, 2, 3))  # (batch,)
        return self.reduce_and_log(losses, sample_weight, target, predicted, network.losses)

    def sample_timesteps_and_noise(self, x, training=True):
        """Sample t `(batch,)`, int32, and standard normal noise of x's shape."""
        generator, batch_shape = self.get_seed_generator(training), ops.shape(x)[:1]
        t = keras.random.randint(batch_shape, 0, self.schedule.num_timesteps, seed=generator)
        return t, keras.random.normal(ops.shape(x), dtype=x.dtype, seed=generator)

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss, logs = self.compute_loss_and_logs(data, training=True)
            loss = self.optimizer.scale_loss(loss)  # no effect without a LossScaleOptimizer
        weights = self.network.trainable_weights
        apply_gradients(self.optimizer, tape.gradient(loss, weights), weights)

        # Smaller in the first steps, so that the random initial weights leave the average.
        steps = ops.cast(self.optimizer.iterations, "float32")
        momentum = ops.minimum(self.ema_momentum, (1 + steps) / (10 + steps))
        for average, weight in zip(self.ema_network.weights, self.network.weights, strict=True):
            average.assign(weight + ops.cast(momentum, weight.dtype) * (average - weight))
        return logs

    # The average follows the weights in training. Set in another way, it starts anew from them.

    def _get_checksum(self) -> int:
        checksum = 0
        for weight in self.network.get_weights():
            checksum = zlib.crc32(weight.tobytes(), checksum)
        return checksum

    def _restart_average_if_replaced(self):
        if self._in_training:
            return
        checksum = self._get_checksum()
        if self._checksum not in (None, checksum):
            self.ema_network.set_weights(self.network.get_weights())
        self._checksum = checksum

    @contextlib.contextmanager
    def _training(self):
        self._restart_average_if_replaced()
        self._in_training = True
        try:
            yield
        finally:
            self._in_training, self._checksum = False, self._get_checksum()

    def fit(self, *args, **kwargs):
        with self._training():
            return super().fit(*args, **kwargs)

    def train_on_batch(self, *args, **kwargs):
        with self._training():
            return super().train_on_batch(*args, **kwargs)

    def evaluate(self, *args, **kwargs):
        self._restart_average_if_replaced()
        return super().evaluate(*args, **kwargs)

    def set_weights(self, weights):
        super().set_weights(weights)  # of both networks
        self._checksum = self._get_checksum()

    def load_weights(self, *args, **kwargs):
        """Load the weights of both networks; see `keras.Model.load_weights`."""
        super().load_weights(*args, **kwargs)
        self._checksum = self._get_checksum()

    def quantize(self, *args, **kwargs):
        super().quantize(*args, **kwargs)  # both networks, whose variables are new
        self._checksum, old = self._get_checksum(), self._ema_prediction
        self._ema_prediction = tf.function(old.python_function, old.input_signature)

    def save_own_variables(self, store):
        self._restart_average_if_replaced()  # before Keras saves the networks
        super().save_own_variables(store)
        store["checksum"] = np.array(self._get_checksum(), "int64")

    def load_own_variables(self, store):
        super().load_own_variables(store)  # before Keras loads the networks
        self._checksum = int(store["checksum"][()]) if "checksum" in store.keys() else None  # noqa: SIM118

    def add_noise(self, x, t, seed=None) -> np.ndarray:
        """Apply the forward process to images.

        Args:
            x: Float array `(n, height, width, channels)`. Images in [0, 1].
            t: Int or ints `(n,)`. Timesteps from 0 to `schedule.num_timesteps - 1`.
            seed: Int or `None`. Seed of the noise. Defaults to `None`.

        Returns:
            Noisy images in the scale of x; noise exceeds [0, 1].

        Raises:
            ValueError: for images or timesteps out of range.
        """
        check_images("x", x, self.image_shape)
        x, t = np.asarray(x, "float32"), as_array("t", t)
        if t.shape not in ((), x.shape[:1]):
            raise ValueError(
                f"t: expected an integer or integers ({len(x)},), got shape {t.shape}."
            )
        t = np.broadcast_to(t, len(x))
        check_range("t", t, self.schedule.num_timesteps)
        noise = random_generator(seed).standard_normal(x.shape, dtype="float32")
        return np.asarray(self.schedule.add_noise(2 * x - 1, t, noise) + 1) / 2

    def generate(
        self,
        num_samples=1,
        labels=None,
        *,
        guidance_scale=1.0,
        num_steps=None,
        method="ddim",
        timestep_spacing="trailing",
        eta=0.0,
        clip_denoised=True,
        seed=None,
    ) -> np.ndarray:
        """Generate images by the reverse process, from noise to x_0.

        Args:
            num_samples: Int. Number of images, n. Defaults to `1`.
            labels: Int or int array `(n,)` for a conditional model; `None` samples unconditionally.
                Defaults to `None`.
            guidance_scale: Float >= 0. Scale s of classifier-free guidance, prediction =
                unconditional + s * (conditional - unconditional), as in diffusers: 1 is no
                guidance. s = 1 + w for the w of Ho & Salimans 2022, equation 6. A larger scale
                follows the label more closely, with less variety, at twice the cost. Defaults to
                `1.0`.
            num_steps: Int or `None`. Number of sampling steps; fewer than the schedule's timesteps
                skips timesteps. Defaults to `None`: 50, or all timesteps of a shorter schedule.
            method: `"ddim"`, `"ddpm"` or `"dpm_solver++"`, for few steps. Defaults to `"ddim"`.
            timestep_spacing: `"trailing"`, even, or `"karras"`, for few steps; see
                `NoiseSchedule.timesteps`. Defaults to `"trailing"`.
            eta: Float from 0 to 1. Noise of DDIM's steps, 1 as much as DDPM's. Defaults to `0.0`.
            clip_denoised: Bool. Whether to clip the x_0 predicted at each step to the valid range.
                Defaults to `True`.
            seed: Int or `None`. Seed of all noise. Training is not affected. Defaults to `None`.

        Returns:
            Float32 array `(n, height, width, channels)`, in [0, 1] if clipped.

        Raises:
            ValueError: for labels or options that are invalid for the model.
        """
        frames = self.generate_progressive(
            num_samples,
            labels,
            num_frames=1,
            guidance_scale=guidance_scale,
            num_steps=num_steps,
            method=method,
            timestep_spacing=timestep_spacing,
            eta=eta,
            clip_denoised=clip_denoised,
            seed=seed,
        )
        return frames[-1]

    def generate_progressive(
        self,
        num_samples=1,
        labels=None,
        *,
        num_frames=10,
        guidance_scale=1.0,
        num_steps=None,
        method="ddim",
        timestep_spacing="trailing",
        eta=0.0,
        clip_denoised=True,
        seed=None,
    ) -> np.ndarray:
        """Generate images like `generate`, and keep intermediate results.

        Args:
            num_frames: Int. Number of evenly spaced results to keep after the initial noise, at
                most one per step. Defaults to `10`.
            num_samples, labels, guidance_scale, num_steps, method, timestep_spacing, eta,
                clip_denoised, seed: See `generate`.

        Returns:
            Float32 array `(num_frames + 1, n, height, width, channels)`, first the noise, last the
            images. All frames but the last may exceed [0, 1].

        Raises:
            ValueError: as `generate`, and for more frames than steps.
        """
        self._restart_average_if_replaced()
        num_samples = check_size("num_samples", num_samples)
        if labels is not None:
            labels = self.encode_labels(labels, num_samples)
        self._check_guidance(guidance_scale, labels)
        if num_steps is None:
            num_steps = min(50, self.schedule.num_timesteps)
        timesteps = self.schedule.timesteps(num_steps, timestep_spacing).tolist()
        num_frames = check_size("num_frames", num_frames)
        if num_frames > len(timesteps):
            raise ValueError(
                f"num_frames: expected at most one per step, {len(timesteps)}, got {num_frames}."
            )
        check_bools(clip_denoised=clip_denoised)
        rng = random_generator(seed)
        kept_steps = np.round(np.linspace(0, len(timesteps), num_frames + 1)).astype(int)
        frames = np.empty((num_frames + 1, num_samples, *self.image_shape), "float32")
        for start in range(0, num_samples, SAMPLING_BATCH_SIZE):
            batch = slice(start, start + SAMPLING_BATCH_SIZE)
            x_T = rng.standard_normal(frames[0, batch].shape, dtype="float32")
            key = rng.integers(2**31, size=2, dtype="int32")
            batch_labels = None if labels is None else labels[batch]
            step = step_function(method, eta)  # a new one: that of DPM-Solver has a memory
            options = (step, guidance_scale, clip_denoised, key)
            trajectory = self._reverse_process(x_T, batch_labels, timesteps, *options)
            for i, x in enumerate(trajectory):
                frames[kept_steps == i, batch] = x
        check_outputs(self.ema_network, frames[-1])
        frames = (frames + 1) / 2  # [-1, 1] to [0, 1]
        if clip_denoised:
            frames[-1] = np.clip(frames[-1], 0, 1)  # clipped x_0, up to rounding
        return frames

    def _check_guidance(self, guidance_scale, labels) -> None:
        valid = is_number(guidance_scale) and 0 <= guidance_scale < np.inf
        if not valid or (guidance_scale != 1 and labels is None):
            expected = "a number of at least 0" if labels is not None else "1, without labels"
            raise ValueError(f"guidance_scale: expected {expected}, got {guidance_scale!r:.99}.")
        unconditional = labels is None or guidance_scale != 1
        if unconditional and self.label_shape is not None and self.cond_drop_prob == 0:
            raise ValueError(
                "cond_drop_prob: expected above 0 in training to sample without labels or with "
                "guidance, got 0."
            )

    def _reverse_process(self, x_T, labels, timesteps, step, guidance_scale, clip_denoised, key):
        """Yield x_T, …, x_0 in [-1, 1] (Ho et al. 2020, Algorithm 2)."""
        alphas_cumprod = self.schedule.alphas_cumprod[timesteps].tolist()
        x = tf.constant(x_T)
        yield x
        for i in reversed(range(len(timesteps))):
            alpha_bar, alpha_bar_prev = alphas_cumprod[i], alphas_cumprod[i - 1] if i > 0 else 1.0
            noise = self._predict_noise(x, timesteps[i], labels, guidance_scale)
            if clip_denoised:
                # Clip the predicted x_0 to the range of the images, as in the code of Ho et al.,
                # and recompute the noise, so that x_t still consists of both.
                x_0 = self.schedule.predict_start_from_noise(x, timesteps[i], noise)
                x_0 = ops.clip(x_0, -1.0, 1.0)
                noise = self.schedule.predict_noise_from_start(x, timesteps[i], x_0)
            z = tf.random.stateless_normal(x.shape, tf.random.fold_in(key, i))
            x = step(x, noise, alpha_bar, alpha_bar_prev, z)
            yield x

    def _predict_noise(self, x_t, timestep, labels, guidance_scale):
        """Return the noise in x_t predicted by the EMA network, with classifier-free guidance."""
        batch_size = x_t.shape[0]
        t = np.full(batch_size, timestep, "int32")
        null_labels = np.full((batch_size, *(self.label_shape or ())), self.null_label, "int32")
        if labels is None or guidance_scale == 1:
            prediction = self._predict(x_t, t, null_labels if labels is None else labels)
        else:  # both predictions in one batch
            prediction = self._predict(
                ops.tile(x_t, (2, 1, 1, 1)), np.tile(t, 2), np.concatenate([labels, null_labels])
            )
            conditional, unconditional = ops.split(prediction, 2)
            prediction = unconditional + guidance_scale * (conditional - unconditional)
        if self.prediction_type == "v":
            return self.schedule.predict_noise_from_v(x_t, timestep, prediction)
        return prediction

    def _predict(self, x_t, t, labels):
        inputs = map(tf.convert_to_tensor, [x_t, t, labels][: len(self.network.inputs)])
        prediction = run_on_replicas(self.distribute_strategy, self._ema_prediction, *inputs)
        return ops.cast(prediction, "float32")

    def get_config(self):
        names = ("network", "schedule", "seed", "cond_drop_prob", "ema_momentum", "prediction_type")
        options = keras.saving.serialize_keras_object({name: getattr(self, name) for name in names})
        return {**super().get_config(), **options}
