"""Random numbers: where a seed comes from, and saving of the state of generators."""

import keras
import numpy as np
from keras import layers

from keras_genai.replicas import ReplicaSeedGenerator
from keras_genai.validation import check_fraction


def check_seed(seed) -> int | None:
    """Return a seed as an int, or `None`.

    Raises:
        ValueError: unless `seed` is `None` or a whole number from 0 to 2^63 - 1.
    """
    if seed is None:
        return None
    whole = isinstance(seed, (int, np.integer)) and not isinstance(seed, bool)
    if not whole or not 0 <= seed < 2**63:
        raise ValueError(
            f"seed: expected None or a whole number of at least 0, below 2^63, got {seed!r:.200}."
        )
    return int(seed)


def random_generator(seed: int | None) -> np.random.Generator:
    """Return NumPy's generator of a seed; without one, `keras.utils.set_random_seed` governs it.

    Sampling with it does not change the random state of training.

    Raises:
        ValueError: as `check_seed`.
    """
    seed = check_seed(seed)
    if seed is not None:
        return np.random.default_rng(seed)
    # Without an argument, `default_rng` would take a seed from the operating system.
    return np.random.default_rng(np.random.randint(2**31, size=4))  # noqa: NPY002


class SeedStateMixin:
    """Saving of the state of random generators, which Keras leaves out of its files.

    Without it, training resumed from a file would repeat its first noise. It replaces Keras's own
    saving, so that the class may own no other variable.
    """

    def create_seed_generators(self, seed) -> None:
        """Create one generator for training and one for evaluation, which does not change it."""
        self.seed = seed = check_seed(seed)
        self.seed_generator = ReplicaSeedGenerator(seed)
        self.evaluation_seed_generator = ReplicaSeedGenerator(seed)

    def get_seed_generator(self, training):
        """Return the generator of training, or that of evaluation."""
        return self.seed_generator if training else self.evaluation_seed_generator

    def _generators_by_key(self):
        names = ("seed_generator", "evaluation_seed_generator")
        return {f"{name}_state": getattr(self, name) for name in names if hasattr(self, name)}

    def save_own_variables(self, store):
        for key, generator in self._generators_by_key().items():
            store[key] = np.asarray(generator.state)

    def load_own_variables(self, store):
        for key, generator in self._generators_by_key().items():
            if key in store.keys():  # noqa: SIM118  (a store is no mapping in every Keras)
                generator.state.assign(store[key])


@keras.saving.register_keras_serializable(package="keras_genai")
class Dropout(SeedStateMixin, layers.Dropout):
    """`keras.layers.Dropout` with a random state that is saved, and differs between replicas."""

    def __init__(self, rate, noise_shape=None, seed=None, **kwargs):
        layers.Layer.__init__(self, **kwargs)  # Keras's Dropout would create its own generator
        self.rate, self.noise_shape, self.seed = check_fraction("rate", rate), noise_shape, seed
        if self.rate > 0:
            self.seed_generator = ReplicaSeedGenerator(seed)
        self.supports_masking = self.built = True
