"""Figures: their images, lines, labels and positions, without a display."""

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from keras_genai.plotting import (
    COLORS,
    plot_attention,
    plot_forecasts,
    plot_gates,
    plot_history,
    plot_images,
    plot_interpolation,
    plot_latent_space,
    plot_pixel_nll,
    plot_sounds,
)
from keras_genai.vae import VAE, build_decoder, build_encoder


def image_arrays(figure):
    return [image.get_array() for axes in figure.axes for image in axes.images]


@pytest.fixture
def vae():
    return VAE(build_encoder(16, (8,), 2), build_decoder(2, (8,), 16))


@pytest.mark.parametrize("shape", [(5, 16), (5, 4, 4), (5, 4, 4, 1), (5, 4, 4, 3)])
def test_images_are_plotted_unscaled(shape):
    images = np.random.default_rng(0).uniform(size=shape)
    figure = plot_images(images, columns=3)
    assert isinstance(figure, Figure) and len(image_arrays(figure)) == 5
    for plotted, image in zip(image_arrays(figure), images, strict=True):
        np.testing.assert_array_equal(np.ravel(plotted), np.ravel(image))
    for plotted in figure.axes[0].images:
        assert plotted.get_clim() == (0, 1)  # not scaled to the range of the image


def grid_extents(figure):
    """Return left, right, bottom and top edge of each image, in columns and rows of 0.8 inches."""
    return [np.array(image.get_extent()) / 0.8 for image in figure.axes[0].images]


def test_images_are_arranged_row_by_row():
    figure = plot_images(np.zeros((5, 4, 2)), columns=3)
    assert figure.get_size_inches().tolist() == pytest.approx([3 * 0.8, 2 * 0.8])
    assert figure.axes[0].get_xlim() == pytest.approx((0, 3 * 0.8))
    assert figure.axes[0].get_ylim() == pytest.approx((2 * 0.8, 0))  # downward
    for i, (left, right, bottom, top) in enumerate(grid_extents(figure)):
        assert i // 3 < top < bottom < i // 3 + 1
        assert i % 3 < left < right < i % 3 + 1
        assert bottom - top == pytest.approx(2 * (right - left))  # height is twice the width


def test_titles_are_above_their_images():
    figure = plot_images(np.zeros((3, 4, 4)), columns=2, titles=["a", "b", "c"])
    texts = figure.axes[0].texts
    assert [text.get_text() for text in texts] == ["a", "b", "c"]
    for text, image in zip(texts, figure.axes[0].images, strict=True):
        left, right, _, top = image.get_extent()
        assert text.get_position() == pytest.approx(((left + right) / 2, top - 0.03))
        assert text.get_va() == "baseline"


@pytest.mark.parametrize("shape", [(0, 16), (3, 15), (3,), (2, 4, 4, 2)])
def test_invalid_image_shapes_raise(shape):
    with pytest.raises(ValueError, match="images: expected at least one"):
        plot_images(np.zeros(shape))


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_8_bit_images_are_scaled(channels):
    images = np.full((1, 4, 4, *channels), 40, "uint8")
    figure = plot_images(images)
    np.testing.assert_allclose(np.asarray(image_arrays(figure)[0]), 40 / 255)
    black_and_white = plot_images(np.ones((1, 4, 4, *channels), "uint8"))
    assert np.all(image_arrays(black_and_white)[0] == 1)


@pytest.mark.parametrize("value", [255.0, -20.0, 256, -1, np.nan])
def test_images_beyond_their_range_raise(value):
    with pytest.raises(ValueError, match=r"images: expected pixels in \[0, 1\] or integers from 0"):
        plot_images(np.array([0, 0, 0, value]).reshape(1, 2, 2))


def test_image_shape_of_flat_images_that_are_not_square():
    images = np.arange(144) / 144
    figure = plot_images(images[None], image_shape=(9, 16))
    np.testing.assert_array_equal(image_arrays(figure)[0], images.reshape(9, 16))
    color = plot_images(np.zeros((2, 4, 6, 3)), image_shape=(4, 6, 3))
    assert image_arrays(color)[0].shape == (4, 6, 3)
    with pytest.warns(UserWarning, match="144 pixels are plotted as 12 × 12; for 9 × 16, pass"):
        plot_images(images[None])
    with pytest.raises(ValueError, match="image_shape: expected that of the images"):
        plot_images(images[None], image_shape=(9, 15))


def test_row_labels_are_beside_the_middles_of_their_rows():
    figure = plot_images(np.zeros((3, 4, 4)), columns=2, row_labels=["a", "two\nlines"])
    texts = figure.axes[0].texts
    assert [text.get_text() for text in texts] == ["a", "two\nlines"]
    for text, image in zip(texts, figure.axes[0].images[::2], strict=True):
        left, _, bottom, top = image.get_extent()
        x, y = text.get_position()
        assert x < left and y == pytest.approx((bottom + top) / 2)
    canvas = FigureCanvasAgg(figure)
    box = texts[1].get_window_extent(canvas.get_renderer())
    assert 0 <= box.x0 and box.x1 < figure.axes[0].images[0].get_window_extent().x0
    with pytest.raises(ValueError, match="row_labels: expected 2, got 3"):
        plot_images(np.zeros((3, 4, 4)), columns=2, row_labels=["a", "b", "c"])


def test_wrong_number_of_titles_raises():
    with pytest.raises(ValueError, match="titles: expected 2, got 1"):
        plot_images(np.zeros((2, 4, 4)), titles=["a"])


def test_history_has_training_and_validation_lines():
    figure = plot_history({"loss": [3.0, 2.0], "val_loss": [4.0, 3.0], "kl_loss": [1.0, 1.5]})
    loss, kl_loss = figure.axes
    assert [line.get_ydata().tolist() for line in loss.lines] == [[3, 2], [4, 3]]
    assert loss.lines[0].get_xdata().tolist() == [1, 2]
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["training", "validation"]
    assert loss.get_xlabel() == "epoch"
    assert kl_loss.get_title() == "kl loss" and len(kl_loss.lines) == 1
    assert kl_loss.get_legend() is None  # a single line has no legend
    assert [line.get_linestyle() for line in loss.lines] == ["-", "--"]
    vae_loss = plot_history({"loss": [1.0], "val_loss": [2.0]}, COLORS["VAE"], "nats").axes[0]
    assert vae_loss.get_ylabel() == "nats" and loss.get_ylabel() == ""
    assert {line.get_color() for line in vae_loss.lines} == {COLORS["VAE"]}
    with pytest.raises(ValueError, match="history: expected at least one metric"):
        plot_history({})


def test_manifold_has_each_decoded_point_at_its_coordinates(vae):
    figure = plot_latent_space(vae, size=3, extent=2.0)
    manifold = np.asarray(image_arrays(figure)[0]).reshape(12, 12)
    top_right = vae.decode(np.float32([[2, 2]])).reshape(4, 4)
    bottom_left = vae.decode(np.float32([[-2, -2]])).reshape(4, 4)
    np.testing.assert_allclose(manifold[:4, -4:], top_right, rtol=1e-5)
    np.testing.assert_allclose(manifold[-4:, :4], bottom_left, rtol=1e-5)


def test_encodings_are_colored_and_annotated_by_label(vae):
    x = np.random.default_rng(0).uniform(size=(6, 16)).astype("float32")
    figure = plot_latent_space(vae, x, labels=np.arange(6) % 2, size=2)
    points = figure.axes[1].collections[0]
    np.testing.assert_allclose(points.get_offsets(), vae.encode(x)[0], rtol=1e-5)
    assert points.get_array().tolist() == [0, 1, 0, 1, 0, 1]
    annotations = {text.get_text(): text.get_position() for text in figure.axes[1].texts}
    median = np.median(vae.encode(x)[0][1::2], axis=0)
    assert set(annotations) == {"0", "1"} and annotations["1"] == pytest.approx(median, rel=1e-5)


def test_latent_space_of_one_dimension_raises():
    vae = VAE(build_encoder(16, (8,), 1), build_decoder(1, (8,), 16))
    with pytest.raises(ValueError, match="at least two latent dimensions"):
        plot_latent_space(vae)


def test_interpolation_starts_and_ends_at_the_reconstructions(vae):
    x = np.random.default_rng(0).uniform(size=(4, 16)).astype("float32")
    plotted = image_arrays(plot_interpolation(vae, x[:2], x[2:], steps=5))
    assert len(plotted) == 10
    for row in range(2):
        ends = vae.reconstruct(x[[row, row + 2]])
        np.testing.assert_allclose(np.ravel(plotted[5 * row]), ends[0], rtol=1e-5)
        np.testing.assert_allclose(np.ravel(plotted[5 * row + 4]), ends[1], rtol=1e-5)
        middle = vae.decode(vae.encode(x[[row, row + 2]])[0].mean(axis=0, keepdims=True))
        np.testing.assert_allclose(np.ravel(plotted[5 * row + 2]), middle[0], rtol=1e-5)
    with pytest.raises(ValueError, match="end: expected shape"):
        plot_interpolation(vae, x[:1], x)


def test_figures_are_not_registered_with_pyplot(vae):
    # pyplot displays every registered figure, in a script or below a notebook's cell.
    plot_images(np.zeros((2, 4, 4)))
    plot_latent_space(vae, size=2)
    assert pyplot.get_fignums() == []


def test_forecasts_start_at_their_index():
    series = np.arange(100.0)
    figure = plot_forecasts(series, 80, {"1 ahead": series[80:] + 1})
    observed, forecast, _ = figure.axes[0].lines
    assert observed.get_xdata().tolist() == list(range(70, 100))
    assert forecast.get_xdata().tolist() == list(range(80, 100))
    assert forecast.get_ydata().tolist() == list(range(81, 101))
    with pytest.raises(ValueError, match="1 ahead: expected 20 values, .*, got 3"):
        plot_forecasts(series, 80, {"1 ahead": series[:3]})


def test_gates_have_one_column_per_character():
    rng = np.random.default_rng(0)
    gates = {name: rng.uniform(size=(4, 9)) for name in ("input", "forget", "output")}
    gates["cell"] = np.zeros((4, 9))
    gates["cell"][:, 1] = [1, 1, 2, 2]
    gates["cell"][:, [2, 5]] = [[-1, 3], [1, -3], [-1, 3], [1, -3]]
    figure = plot_gates("abca", gates, max_units=2)  # the slowest, 0, and the fastest, 5
    assert [axes.get_ylabel() for axes in figure.axes] == ["input", "forget", "output", "cell"]
    for axes, name in zip(figure.axes, gates, strict=True):
        values = np.tanh(gates[name]) if name == "cell" else gates[name]
        np.testing.assert_allclose(axes.images[0].get_array(), values[:, [0, 5]].T)
        assert [label.get_text() for label in axes.get_xticklabels()] == list("abca")
    assert plot_gates("abca", gates, max_units=99).axes[0].images[0].get_array().shape == (9, 4)
    first = {name: values[:1] for name, values in gates.items()}
    assert plot_gates("a", first, max_units=3).axes[0].images[0].get_array().shape == (3, 1)
    with pytest.raises(ValueError, match="text: expected 4 characters, got 3"):
        plot_gates("abc", gates)
    with pytest.raises(ValueError, match="max_units: expected a whole number of at least 1, got 0"):
        plot_gates("abca", gates, max_units=0)


def test_attention_has_one_row_per_target_token():
    weights = np.random.default_rng(0).uniform(size=(2, 4, 2, 3))  # layers, heads, target, source
    maps = {"source": ["Open ", "a ", "file"], "target": ["打开", "文件"], "weights": weights}
    axes = plot_attention(maps).axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), weights[1].mean(axis=0))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["Open", "a", "file"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["打开", "文件"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("source token", "target token")
    one_head = plot_attention(maps, layer=0, head=3).axes[0].images[0].get_array()
    np.testing.assert_allclose(one_head, weights[0, 3])


def test_spectrogram_has_the_frequency_and_the_level_of_a_sine():
    time = np.arange(1000) / 1000
    sounds = [0.5 * np.sin(2 * np.pi * 125 * time), np.sin(2 * np.pi * 250 * time[:300])]
    figure = plot_sounds(sounds, 1000, ["low", "high"])
    upper, lower = figure.axes[:2], figure.axes[2:4]
    assert [axes.get_title() for axes in upper] == ["low", "high"]
    for axes, sound in zip(upper, sounds, strict=True):
        np.testing.assert_allclose(axes.lines[0].get_ydata(), sound)
    for axes, hertz, decibels in zip(lower, (125, 250), (-6.02, 0), strict=True):
        spectrum = axes.images[0].get_array()[::-1]  # (frequencies, times), from 0 Hz upward
        peak = np.argmax(spectrum[:, 3])
        assert list(axes.images[0].get_extent()[2:]) == [0, 500]
        assert axes.get_ylim() == (0, 500) and axes.images[0].get_clim() == (-80, 0)
        assert 500 * peak / (len(spectrum) - 1) == hertz
        assert spectrum[peak, 3] == pytest.approx(decibels, abs=0.5)
    assert lower[0].images[0].get_extent()[1] == pytest.approx(1, abs=0.05)
    assert lower[1].images[0].get_extent()[1] == pytest.approx(0.3, abs=0.05)
    assert figure.axes[0].lines[0].get_color() == "black"
    # Shorter than a window, and digital silence.
    short = plot_sounds([np.ones(3), np.zeros(4000)], 8000, ["", ""], COLORS["WaveNet"])
    assert short.axes[0].lines[0].get_color() == COLORS["WaveNet"]
    with pytest.raises(ValueError, match="titles: expected 2, got 1"):
        plot_sounds(sounds, 1000, ["low"])


def test_nll_of_the_pixels_is_below_each_image():
    nll = np.zeros((2, 3, 4))
    nll[1, 2, 3] = 7
    with pytest.raises(ValueError, match=r"nll: expected shape .3, 3, 4., got .2, 3, 4."):
        plot_pixel_nll(np.ones((3, 3, 4, 1)), nll)
    figure = plot_pixel_nll(np.ones((2, 3, 4, 1)), nll)
    np.testing.assert_array_equal(figure.axes[3].images[0].get_array(), nll[1])
    assert [axes.get_title() for axes in figure.axes[2:4]] == ["0 nats", "7 nats"]
    assert {axes.images[0].get_clim() for axes in figure.axes[2:4]} == {(0, 7)}
