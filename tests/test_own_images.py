"""The user's own pictures: colors and sizes in all recipes of images."""

import numpy as np
import pytest
from keras import layers
from PIL import Image

from keras_genai import evaluation, recipes, tasks
from keras_genai.__main__ import main
from keras_genai.experiments import EXPERIMENTS
from keras_genai.runs import check_same_data

IMAGE_RECIPES = {
    name: experiment.task
    for name, experiment in EXPERIMENTS.items()
    if isinstance(experiment.task, tasks.ImageTask)
    and not isinstance(experiment.task, tasks.TextToImageTask)  # test_text_to_image.py
}
COLOR_RECIPES = [
    "article4-cnn", "conv-vae", "conditional-conv-vae", "dcgan", "conditional-dcgan",
    "article3-diffusion", "article3-diffusion-cosine", "article3-diffusion-unconditional",
]  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of two classes of ten pictures of one color each, 20 × 10 pixels."""
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(20):
        (folder / "ab"[i % 2]).mkdir(exist_ok=True)
        color = (10 * i, 255 - 10 * i, 7)
        Image.new("RGB", (20, 10), color).save(folder / "ab"[i % 2] / f"{i}.png")
    return folder


@pytest.mark.parametrize("name", IMAGE_RECIPES)
def test_models_of_recipes_have_the_size_and_the_channels_of_the_images(name):
    task = IMAGE_RECIPES[name]
    shape = [64, 64, task.channels[-1]]
    num_classes = 3 if task.class_conditional else None
    model = EXPERIMENTS[name].build(0, num_classes=num_classes, image_shape=shape)
    expected = (64 * 64,) if task.flat else tuple(shape)
    if name == "article4-cnn":
        assert (model.input_shape[1:], model.output_shape[1:]) == (expected, (3,))
        return
    assert (model.image_shape, model.num_classes) == (expected, num_classes)


@pytest.mark.parametrize(
    "size, encoder, decoder, discriminator",
    [
        (28, [32, 64], [32, 1], [32, 64, 128]),
        (36, [32, 64], [32, 1], [32, 64, 128]),  # 9 pixels cannot be halved
        (48, [32, 64, 128], [64, 32, 1], [32, 64, 128, 256]),
        (64, [32, 64, 128], [64, 32, 1], [32, 64, 128, 256]),
    ],
)
def test_larger_images_are_halved_more_often(size, encoder, decoder, discriminator):
    def widths(network):
        return [layer.filters for layer in network.layers if isinstance(layer, convolutions)]

    convolutions = (layers.Conv2D, layers.Conv2DTranspose)
    vae, gan = (
        EXPERIMENTS[name].build(0, image_shape=(size, size, 1)) for name in ("conv-vae", "dcgan")
    )
    assert (widths(vae.encoder), widths(vae.decoder)) == (encoder, decoder)
    assert widths(gan.discriminator) == discriminator


def test_pixels_are_those_of_the_pictures(pictures):
    data = tasks.VAETask(flat=False).load(pictures, image_size=12, channels=3)
    assert data.dataset_info == {"num_classes": None, "image_shape": [12, 12, 3]}
    x = np.concatenate([data.train[0], data.test[0]])
    assert x.shape == (20, 12, 12, 3) and x.dtype == "float32"
    found = {tuple(np.round(255 * image[0, 0]).astype(int)) for image in x}
    assert found == {(10 * i, 255 - 10 * i, 7) for i in range(20)}
    assert (x == x[:, :1, :1]).all()


def test_streamed_pixels_are_those_in_memory(pictures, tmp_path):
    task, options = tasks.DiffusionTask(True), {"image_size": 16, "channels": 3}
    streamed = task.load(pictures, cache=tmp_path / "cache", **options)
    loaded = task.load(pictures, **options)
    np.testing.assert_array_equal(streamed.train[0][:], loaded.train[0])
    assert streamed.dataset_info == loaded.dataset_info


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("conv-vae", {"image_size": 30}, "image_size: expected a multiple of 4 .* got 30"),
        ("conv-vae", {"image_size": 7}, "image_size: expected a whole number of at least 8"),
        ("conv-vae", {"image_size": 260}, "image_size: expected a whole number of at most 256"),
        ("conv-vae", {"image_size": (32, 32)}, "image_size: expected a whole number"),
        ("dcgan", {"channels": 2}, "channels: expected one of 1, 3, got 2"),
        ("dcgan", {"channels": True}, "channels: expected one of 1, 3, got True"),
        ("article4-vae", {"channels": 3}, "channels: expected one of 1, got 3"),
        ("article3-pixelcnn", {"channels": 3}, "channels: expected one of 1, got 3"),
        ("conv-vae", {"data": None, "image_size": 32}, "image_size: expected None without data"),
        ("conv-vae", {"data": None, "channels": 1}, "channels: expected None without data"),
        ("article3-rnn", {"image_size": 32}, "image_size: .* as article3-rnn has no images"),
        ("article3-wavenet", {"channels": 1}, "channels: .* as article3-wavenet has no images"),
    ],
)
def test_invalid_options_raise(pictures, name, options, message):
    with pytest.raises(ValueError, match=message):
        recipes.prepare(name, **{"data": pictures, **options})


def test_run_of_a_version_without_sizes_is_resumed(pictures):
    data = tasks.VAETask().load(pictures)
    settings = {"name": "article4-vae", "data": str(pictures), "num_examples": 18}
    check_same_data({**settings, "dataset_info": {"num_classes": None}}, data, tasks.VAETask())
    with pytest.raises(ValueError, match="started with other images"):
        check_same_data({**settings, "dataset_info": {"num_classes": 3}}, data, tasks.VAETask())


def test_recipes_of_color_are_those_of_the_tests():
    assert [name for name, task in IMAGE_RECIPES.items() if 3 in task.channels] == [
        name for name in IMAGE_RECIPES if name in COLOR_RECIPES
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["article4-cnn", "conditional-conv-vae", "conditional-dcgan", "article3-diffusion"]
)
def test_run_of_color_pictures_writes_its_files_and_is_resumed(pictures, tmp_path, name, capsys):
    command = f"train {name} --data {pictures} --batch-size 4 --output {tmp_path}".split()
    assert main([*command, "--epochs", "1", "--image-size", "16", "--channels", "3"]) == 0
    files = {path.name for path in tmp_path.glob("*.png")}
    assert ("predictions.png" if name == "article4-cnn" else "samples.png") in files
    # The size and the channels are those of the run.
    assert main([*command, "--epochs", "2", "--resume"]) == 0
    capsys.readouterr()
    assert main([*command, "--epochs", "2", "--resume", "--image-size", "32"]) == 2
    assert "image_size: the run was started with 16, got 32" in capsys.readouterr().err
    model = str(tmp_path / "model.keras")
    if name == "article4-cnn":
        row = evaluation.evaluate(evaluation.open_model(model))
        assert row.metric == "test accuracy, %" and 0 <= row.value <= 100
        return
    output = tmp_path / "generated.png"
    assert main(["generate", model, "--count", "4", "--output", str(output)]) == 0
    pixels = np.asarray(Image.open(output).convert("RGB")).astype(int)
    assert np.ptp(pixels, axis=-1).max() > 0  # not gray
