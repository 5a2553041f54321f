"""Callbacks: they do not change training, leave whole files, and stop at NaN."""

import sys
import types

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import largest_difference

import keras_genai
from keras_genai.callbacks import ImageGrid, SaveEachEpoch, StopAtNaN
from keras_genai.gan import GAN, build_discriminator, build_generator
from keras_genai.vae import VAE, build_decoder, build_encoder


def small_vae(num_classes=None):
    keras.utils.set_random_seed(0)
    encoder = build_encoder(hidden_dims=(16,), latent_dim=3, num_classes=num_classes)
    model = VAE(encoder, build_decoder(3, (16,), num_classes=num_classes), seed=0)
    model.compile("adam", jit_compile=False)
    return model


def small_gan():
    keras.utils.set_random_seed(0)
    model = GAN(build_generator(5, (16,)), build_discriminator(784, (16,)), seed=0)
    model.compile(jit_compile=False)
    return model


@pytest.mark.parametrize("build", [small_vae, small_gan])
def test_image_grid_does_not_change_training(digits, tmp_path, build):
    weights = []
    for callbacks in ([], [ImageGrid(tmp_path / "{epoch:02d}.png")]):
        model = build()
        model.fit(digits[0], epochs=3, callbacks=callbacks, verbose=0)
        weights.append(model.get_weights())
    assert largest_difference(*weights) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["01.png", "02.png", "03.png"]


def test_image_grid_draws_the_same_noise_and_labels_each_time(digits, tmp_path):
    model = small_vae(num_classes=10)
    grid = ImageGrid(tmp_path / "{epoch}.png", num_images=4, labels=[0, 1, 2, 3])
    grid.set_model(model)
    grid.on_epoch_end(0)
    grid.on_epoch_end(1)
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()
    square = plt.imread(tmp_path / "1.png").shape
    grid.columns = 4
    grid.on_epoch_end(0)
    row = plt.imread(tmp_path / "1.png").shape
    assert row[0] == square[0] // 2 and row[1] == 2 * square[1]


def test_image_grid_is_shown_inline_in_a_notebook(monkeypatch):
    shown = []
    # Matplotlib asks for the version when it draws the first figure of a process.
    notebook = types.SimpleNamespace(display=shown.append, Image=bytes, version_info=(9, 0))
    for name in ("ipykernel", "IPython", "IPython.display"):
        monkeypatch.setitem(sys.modules, name, notebook)
    grid = ImageGrid(num_images=4)
    grid.set_model(small_vae())
    grid.on_epoch_end(0)
    assert len(shown) == 1 and shown[0].startswith(b"\x89PNG")


def test_saved_file_is_of_the_last_whole_epoch(digits, tmp_path):
    model = small_vae()
    model.fit(digits[0], epochs=2, callbacks=[SaveEachEpoch(tmp_path / "model.keras")], verbose=0)
    loaded = keras_genai.load_model(tmp_path / "model.keras")
    assert largest_difference(loaded.get_weights(), model.get_weights()) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


def test_a_kill_while_saving_leaves_the_earlier_file_whole(digits, tmp_path, monkeypatch):
    model = small_vae()
    save = SaveEachEpoch(tmp_path / "model.keras")
    save.set_model(model)
    save.on_epoch_end(0)
    whole = (tmp_path / "model.keras").read_bytes()

    def killed(path):
        path.write_bytes(whole[:1000])
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        save.on_epoch_end(1)
    assert (tmp_path / "model.keras").read_bytes() == whole


@pytest.mark.parametrize("build", [small_vae, small_gan])
def test_nan_stops_training_and_says_where(digits, build):
    model = build()

    class Spoil(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 5:
                model.set_weights([np.full_like(w, np.nan) for w in model.get_weights()])

    with pytest.raises(FloatingPointError, match="is nan in epoch 1, by step 7"):
        model.fit(digits[0], epochs=2, callbacks=[Spoil(), StopAtNaN()], verbose=0)


def test_nan_of_the_last_step_is_seen_before_the_epoch_is_saved(digits, tmp_path):
    # The loss of that step was still finite. The held-out loss is not.
    model = small_vae()

    class Spoil(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 31:
                model.set_weights([np.full_like(w, np.nan) for w in model.get_weights()])

    callbacks = [Spoil(), StopAtNaN(), SaveEachEpoch(tmp_path / "model.keras")]
    with pytest.raises(FloatingPointError, match="val_.* is nan in epoch 1, at its end"):
        model.fit(digits[0], validation_data=(digits[0],), callbacks=callbacks, verbose=0)
    assert not list(tmp_path.iterdir())
