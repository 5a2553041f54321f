"""Diagrams: legible labels that do not collide, and the sizes of the built networks."""

import inspect
import itertools
import re

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.path import Path
from test_structure import FAMILIES

from keras_genai import diagrams
from keras_genai.cnn import build_cnn
from keras_genai.gan import build_discriminator, build_generator
from keras_genai.gpt2 import GPT2
from keras_genai.pixelcnn import PixelCNN
from keras_genai.rnn import RecurrentLanguageModel
from keras_genai.seq2seq import Seq2SeqTransformer
from keras_genai.unet import build_unet
from keras_genai.vae import build_decoder, build_encoder
from keras_genai.wavenet import WaveNet, receptive_field

# The diagrams of each family.
DIAGRAMS = {
    "vae": ["plot_autoencoder", "plot_vae"],
    "gan": ["plot_gan"],
    "cnn": ["plot_cnn"],
    "rnn": ["plot_rnn", "plot_lstm_cell"],
    "transformer": ["plot_transformer", "plot_multi_head_attention"],
    "gpt2": ["plot_gpt2"],
    "pixelcnn": ["plot_pixelcnn"],
    "wavenet": ["plot_wavenet"],
    "diffusion": ["plot_diffusion", "plot_unet"],
}
NAMES = list(itertools.chain(*DIAGRAMS.values()))


def texts_of(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts if text.get_text()]


def test_every_family_and_every_diagram_is_in_the_table():
    assert sorted(DIAGRAMS) == sorted(FAMILIES)
    assert sorted(NAMES) == sorted(name for name in vars(diagrams) if name.startswith("plot_"))


def render(figure):
    """Return the Axes, the renderer, and the texts with their bounding boxes, in pixels."""
    figure.set_dpi(100)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (axes,) = figure.axes
    renderer = canvas.get_renderer()
    return axes, [(t, t.get_window_extent(renderer)) for t in axes.texts if t.get_text()]


CASES = [(name, {}) for name in NAMES]
CASES += [("plot_wavenet", {"layers_per_block": n}) for n in (1, 2, 3, 5)]


@pytest.mark.parametrize("name, arguments", CASES, ids=lambda value: str(value))
def test_labels_fit_and_nothing_collides(name, arguments):
    figure = getattr(diagrams, name)(**arguments)
    assert isinstance(figure, Figure) and figure.get_figwidth() <= 9
    axes, texts = render(figure)
    for text, extent in texts:
        assert text.get_fontsize() >= 9 and text.get_color() == "black"
        assert figure.bbox.containsx(extent.x0) and figure.bbox.containsx(extent.x1), text
        assert figure.bbox.containsy(extent.y0) and figure.bbox.containsy(extent.y1), text
    for (text, extent), (other, other_extent) in itertools.combinations(texts, 2):
        assert not extent.overlaps(other_extent), (text, other)
    for patch in axes.patches:
        box = None if isinstance(patch, FancyArrowPatch) else patch.get_window_extent()
        for text, extent in texts:
            if isinstance(patch, FancyArrowPatch):
                path = patch.get_path()
                drawn = path.codes != Path.CLOSEPOLY  # whose point is (0, 0)
                path = Path(path.vertices[drawn], path.codes[drawn]).transformed(axes.transData)
                assert not path.intersects_bbox(extent, filled=False), (text, patch)
            elif isinstance(patch, (Circle, FancyBboxPatch, Rectangle)):
                inside = box.contains((extent.x0 + extent.x1) / 2, (extent.y0 + extent.y1) / 2)
                corners = extent.corners()
                assert inside or not box.overlaps(extent), (text, patch)
                assert not inside or all(box.contains(*corner) for corner in corners), (text, patch)


def widths(network):
    """Return the size of the input and those of the Dense layers."""
    return [network.inputs[0].shape[-1]] + [
        layer.units for layer in network.layers if hasattr(layer, "units")
    ]


def test_autoencoder_sizes():
    # The encoder has two layers of the latent size, mean and log-variance.
    encoder, decoder = widths(build_encoder()), widths(build_decoder())
    for figure, latent in ((diagrams.plot_vae(), 3), (diagrams.plot_autoencoder(), 1)):
        sizes = [int(text) for text in texts_of(figure) if text.isdigit()]
        expected = [*encoder[:2], *[encoder[2]] * latent, *decoder[1:]]
        assert sizes == expected
    assert encoder[2] == encoder[3] == decoder[0]


def numbers(text):
    """Return the numbers of a label, without those of its formulas."""
    return [int(number) for number in re.findall(r"\d+", re.sub(r"\$.*?\$", "", text))]


def labels(figure, *words):
    """Return the numbers of each label that begins with a word, in the order of drawing."""
    return [numbers(text) for text in texts_of(figure) if text.startswith(words)]


def test_gan_sizes():
    figure = diagrams.plot_gan()
    noise, *generator, pixels = widths(build_generator())
    assert labels(figure, "noise") == [[noise]]
    assert labels(figure, "generator $G$") == [generator]
    assert labels(figure, "$G(z)$", "data") == [[pixels], [pixels]]
    assert labels(figure, "discriminator $D$") == [widths(build_discriminator())[1:]]


def test_cnn_sizes():
    sizes = [numbers(text) for text in texts_of(diagrams.plot_cnn()) if text[0].isdigit()]
    shapes = [list(layer.output.shape[1:]) for layer in build_cnn().layers]
    assert sizes == shapes[1:]  # the first two are of the same image


def test_rnn_sizes():
    model = RecurrentLanguageModel(5)
    embed_dim, units = model.config["embed_dim"], model.config["units"]
    figure = diagrams.plot_rnn()
    assert labels(figure, "Embedding")[0] == [embed_dim]
    assert labels(figure, "RNN cell")[0] == [units]


def test_transformer_sizes():
    config = Seq2SeqTransformer(8, 8, 8).config
    d_model, num_heads, dff = config["d_model"], config["num_heads"], config["dff"]
    figure = diagrams.plot_transformer()
    assert config["norm_first"]
    assert labels(figure, "Embedding") == [[d_model]] * 2
    assert labels(figure, "self-attention", "cross-attention") == [[num_heads]] * 3
    assert labels(figure, "feed-forward") == [[d_model, dff, d_model]] * 2
    assert [text for text in texts_of(figure) if "×" in text] == [f"{config['num_layers']} ×"] * 2

    figure = diagrams.plot_multi_head_attention()
    head_dim = d_model // num_heads
    assert labels(figure, str(num_heads)) == [[num_heads, head_dim]]
    assert labels(figure, "query", "key", "value", "output") == [[d_model]] * 4
    assert any(rf"\sqrt{{{head_dim}}}" in text for text in texts_of(figure))


def test_gpt2_sizes():
    # The defaults of the constructor: a model of 124 million parameters takes long to build.
    parameters = inspect.signature(GPT2).parameters
    config = {name: parameter.default for name, parameter in parameters.items()}
    figure, d_model = diagrams.plot_gpt2(), config["d_model"]
    assert labels(figure, "token Embedding") == [[config["vocab_size"], d_model]]
    assert labels(figure, "position") == [[config["context_length"], d_model]]
    assert labels(figure, "self-attention") == [[config["num_heads"]]]
    assert labels(figure, "feed-forward") == [[d_model, 4 * d_model, d_model]]
    assert labels(figure, "output") == [[d_model, config["vocab_size"]]]
    assert labels(figure, str(config["num_layers"])) == [[config["num_layers"]]]


def test_pixelcnn_kernels():
    layer = PixelCNN((8, 8, 1), 2, 2).gated_layers[1]
    kernels = [list(c.kernel_size) for c in (layer.vertical_conv, layer.horizontal_conv)]
    assert labels(diagrams.plot_pixelcnn(), "conv") == kernels


def test_unet_sizes():
    unet, figure = build_unet(), diagrams.plot_unet()
    sums = [layer for layer in unet.layers if layer.__class__.__name__ == "Add"]
    shapes = [list(layer.output.shape[1:]) for layer in sums]
    # A residual block has two sums, of the embedding and of the residual; attention has one.
    blocks = [*shapes[1:6:2], *shapes[8::2]]
    drawn = labels(figure, "residual block")  # left and right, level by level
    assert drawn[0::2] + drawn[1::2][::-1] == blocks
    assert labels(figure, "self-attention") == [shapes[6]]
    dense = next(layer for layer in unet.layers if layer.__class__.__name__ == "Dense")
    assert labels(figure, "sinusoidal") == [[dense.input.shape[-1]]]
    assert labels(figure, "Dense") == [[dense.units]]
    assert labels(figure, "noise", "$x_t$") == [list(unet.output.shape[1:])] * 2


@pytest.mark.parametrize("num_layers", [1, 2, 3, 4, 5])
def test_wavenet_receptive_field(num_layers):
    figure = diagrams.plot_wavenet(num_layers)
    samples = receptive_field(1, num_layers)
    assert labels(figure, "receptive") == [[samples]]
    layers = WaveNet(4, 1, num_layers, 2, 2).residual_blocks
    assert sorted(labels(figure, "dilation")) == [[layer.dilation_rate] for layer in layers]
    circles = [patch for patch in figure.axes[0].patches if isinstance(patch, Circle)]
    inputs = [circle for circle in circles if circle.center[1] == 0.75]
    filled = [circle for circle in inputs if circle.get_facecolor()[:3] != (1, 1, 1)]
    assert len(inputs) == samples + 1 and len(filled) == samples  # the oldest one is not seen


@pytest.mark.parametrize("num_layers", [0, 6, 2.5, "4", None])
def test_wavenet_refuses_other_numbers_of_layers(num_layers):
    with pytest.raises(ValueError, match="layers_per_block: expected"):
        diagrams.plot_wavenet(num_layers)
