"""Callbacks: no influence on training, complete files, an error at NaN."""

import errno
import sys
import types

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
from helpers import largest_difference

import keras_genai
from keras_genai.callbacks import AtomicModelCheckpoint, RaiseOnNaN, SampleGrid, save_figure
from keras_genai.files import replace_file
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


@pytest.mark.slow
@pytest.mark.parametrize("build", [small_vae, small_gan])
def test_sample_grid_does_not_change_training(digits, tmp_path, build):
    weights = []
    for callbacks in ([], [SampleGrid(tmp_path / "{epoch:02d}.png")]):
        model = build()
        model.fit(digits[0], epochs=3, callbacks=callbacks, verbose=0)
        weights.append(model.get_weights())
    assert largest_difference(*weights) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["01.png", "02.png", "03.png"]


def test_sample_grid_has_the_same_noise_and_labels_after_every_epoch(digits, tmp_path):
    model = small_vae(num_classes=10)
    grid = SampleGrid(tmp_path / "{epoch}.png", num_images=4, labels=[0, 1, 2, 3])
    grid.set_model(model)
    grid.on_epoch_end(0)
    grid.on_epoch_end(1)
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()
    square = plt.imread(tmp_path / "1.png").shape
    grid.columns = 4
    grid.on_epoch_end(0)
    row = plt.imread(tmp_path / "1.png").shape
    assert row[0] == square[0] // 2 and row[1] == 2 * square[1]


def test_sample_grid_is_displayed_inline_in_a_notebook(monkeypatch):
    displayed = []
    # Matplotlib reads the version of IPython for the first figure of a process.
    notebook = types.SimpleNamespace(display=displayed.append, Image=bytes, version_info=(9, 0))
    for name in ("ipykernel", "IPython", "IPython.display"):
        monkeypatch.setitem(sys.modules, name, notebook)
    grid = SampleGrid(num_images=4)
    grid.set_model(small_vae())
    grid.on_epoch_end(0)
    assert len(displayed) == 1 and displayed[0].startswith(b"\x89PNG")


def test_checkpoint_contains_the_weights_of_the_last_epoch(digits, tmp_path):
    model = small_vae()
    checkpoint = AtomicModelCheckpoint(tmp_path / "model.keras")
    model.fit(digits[0], epochs=2, callbacks=[checkpoint], verbose=0)
    loaded = keras_genai.load_model(tmp_path / "model.keras")
    assert largest_difference(loaded.get_weights(), model.get_weights()) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


def test_interruption_while_saving_keeps_the_previous_checkpoint(digits, tmp_path, monkeypatch):
    model = small_vae()
    checkpoint = AtomicModelCheckpoint(tmp_path / "model.keras")
    checkpoint.set_model(model)
    checkpoint.on_epoch_end(0)
    complete_file = (tmp_path / "model.keras").read_bytes()

    def interrupted_save(path):
        path.write_bytes(complete_file[:1000])
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "save", interrupted_save)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.on_epoch_end(1)
    assert (tmp_path / "model.keras").read_bytes() == complete_file


def test_error_of_hdf5_names_the_file_and_its_reason(tmp_path, monkeypatch):
    def failing_save(path):
        raise OSError("Can't write data\n(file write failed)")

    model = small_vae()
    monkeypatch.setattr(model, "save", failing_save)
    checkpoint = AtomicModelCheckpoint(tmp_path / "model.keras")
    checkpoint.set_model(model)
    with pytest.raises(OSError, match="Can't write data .file write failed.: .*model.keras"):
        checkpoint.on_epoch_end(0)


def set_weights_to_nan(model, after_batch):
    """Return a callback that sets all weights to NaN at the end of a batch."""

    def on_train_batch_end(batch, logs):
        if batch == after_batch:
            model.set_weights([np.full_like(w, np.nan) for w in model.get_weights()])

    return keras.callbacks.LambdaCallback(on_train_batch_end=on_train_batch_end)


@pytest.mark.slow
@pytest.mark.parametrize("build", [small_vae, small_gan])
def test_nan_raises_with_epoch_and_step(digits, build):
    model = build()
    callbacks = [set_weights_to_nan(model, after_batch=5), RaiseOnNaN()]
    with pytest.raises(FloatingPointError, match="is nan in epoch 1, by step 7"):
        model.fit(digits[0], epochs=2, callbacks=callbacks, verbose=0)


@pytest.mark.slow
def test_nan_after_the_last_step_raises_before_the_epoch_is_saved(digits, tmp_path):
    # The training loss of that step is still finite, but the validation loss is not.
    model = small_vae()
    checkpoint = AtomicModelCheckpoint(tmp_path / "model.keras")
    callbacks = [set_weights_to_nan(model, after_batch=31), RaiseOnNaN(), checkpoint]
    with pytest.raises(FloatingPointError, match="val_.* is nan in epoch 1, at its end"):
        model.fit(digits[0], validation_data=(digits[0],), callbacks=callbacks, verbose=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weight_that_is_not_finite_raises_with_its_name_before_the_epoch_is_saved(
    digits, tmp_path, value
):
    # The kernel of an input that is always 0 has no effect on any loss.
    model = small_vae()
    kernel = model.encoder.layers[1].kernel
    pixels = digits[0][:64].copy()
    pixels[:, 0] = 0

    def break_weight(epoch, logs):
        kernel.assign(np.where(np.eye(784, 16) > 0, value, kernel.numpy()))

    callbacks = [
        keras.callbacks.LambdaCallback(on_epoch_end=break_weight),
        RaiseOnNaN(),
        AtomicModelCheckpoint(tmp_path / "model.keras"),
    ]
    with pytest.raises(FloatingPointError, match="kernel has NaN or infinite values .* epoch 1"):
        model.fit(pixels, epochs=2, callbacks=callbacks, verbose=0)
    assert not list(tmp_path.iterdir())


def losses_after_epochs(callback, first, losses):
    """Call the callback as `fit` does, and return the number of epochs that passed."""
    callback.set_model(types.SimpleNamespace(weights=[]))
    callback.set_params({"steps": 1})
    callback.on_train_begin()
    for epoch, logs in enumerate(losses):
        callback.on_epoch_begin(epoch)
        callback.on_train_batch_end(0, {"loss": first})
        callback.on_epoch_end(epoch, logs)


def test_loss_that_grows_a_thousandfold_and_rises_raises():
    losses = [{"loss": value} for value in (2.0, 1500.0, 2100.0)]
    with pytest.raises(FloatingPointError, match="loss has grown to 2.1e.03 in epoch 3, from 2 at"):
        losses_after_epochs(RaiseOnNaN(), 2.0, losses)
    losses_after_epochs(RaiseOnNaN(max_growth=None), 2.0, losses)
    losses_after_epochs(RaiseOnNaN(), 2.2, losses)
    # A small first loss is no measure; metrics are no losses; the validation loss decides.
    losses_after_epochs(RaiseOnNaN(), 1e-9, [{"loss": 1.0, "accuracy": 1e9}])
    losses_after_epochs(RaiseOnNaN(), 2.0, [{"loss": 1e11, "val_loss": 3.0}])
    with pytest.raises(FloatingPointError, match="val_loss has grown"):
        losses_after_epochs(RaiseOnNaN(), 2.0, [{"loss": 1.0, "val_loss": 1e11}])


def test_interrupted_picture_keeps_the_old_file(tmp_path):
    class Figure:
        def savefig(self, path):
            path.write_bytes(b"half")
            raise KeyboardInterrupt

    (tmp_path / "a.png").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        save_figure(Figure(), tmp_path / "a.png")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.png", b"old")]


@pytest.mark.parametrize("content", [None, b""])
def test_missing_picture_is_written_again(tmp_path, content):
    grid = SampleGrid(tmp_path / "samples" / "{epoch}.png", num_images=4)
    grid.set_model(small_vae())
    path = tmp_path / "samples" / "3.png"
    if content is not None:
        path.parent.mkdir()
        path.write_bytes(content)
    grid.write_missing(3)
    written = path.read_bytes()
    grid.on_epoch_end(2)  # the third epoch
    assert path.read_bytes() == written and len(written) > 0
    path.write_bytes(b"kept")
    grid.write_missing(3)
    assert path.read_bytes() == b"kept"


# Faults that are found before training.


def build_no_generator():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def build_oblong_vae():
    model = VAE(build_encoder(12, (4,), 2), build_decoder(2, (4,), 12))
    model.compile("sgd", jit_compile=False)
    return model


@pytest.mark.parametrize(
    "build, callback, message",
    [
        (build_no_generator, SampleGrid(num_images=4), "model: expected a model with `generate`"),
        (build_oblong_vae, SampleGrid(num_images=4), "images: expected .* got \\(4, 12\\)"),
        (lambda: small_vae(10), SampleGrid(num_images=4), "labels: expected integers from 0 to 9"),
    ],
)
def test_sample_grid_that_cannot_be_drawn_raises_before_training(build, callback, message):
    model = build()
    before = model.get_weights()
    x = np.zeros((8, *model.inputs[0].shape[1:]), "float32")
    y = np.zeros(8, "int32") if len(model.inputs) == 2 else None
    y = np.zeros((8, 1)) if model.name.startswith("sequential") else y
    if len(model.inputs) == 2:
        x = np.zeros((8, 784), "float32")
    with pytest.raises(ValueError, match=message):
        model.fit(x, y, callbacks=[callback], verbose=0)
    assert largest_difference(model.get_weights(), before) == 0


@pytest.mark.parametrize("path", ["{no_epoch}.png", "{}.png", "{epoch.png", "{epoch.x}.png"])
def test_sample_grid_with_another_field_in_its_path_raises(path):
    with pytest.raises(ValueError, match="path: expected {epoch} as the only field"):
        SampleGrid(path)


def test_sample_grid_of_flat_images_that_are_not_square():
    grid = SampleGrid(num_images=2, image_shape=(3, 4))
    grid.set_model(build_oblong_vae())
    grid.on_train_begin()
    assert grid._plot().axes[0].images[0].get_array().shape[:2] == (3, 4)


def test_error_without_a_number_has_its_own_text(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(OSError, match="disk is gone: .*a.txt") as error, replace_file(path):
        raise OSError("disk is gone")
    assert error.value.errno == errno.EIO


def test_folder_of_the_checkpoint_is_created_before_training(tmp_path):
    callback = AtomicModelCheckpoint(tmp_path / "new" / "model.keras")
    callback.on_train_begin()
    assert (tmp_path / "new").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        AtomicModelCheckpoint(tmp_path / "file" / "model.keras").on_train_begin()
