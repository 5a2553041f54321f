"""Diagrams of the models, with the names and sizes of the package's defaults.

Every function returns a matplotlib `Figure` without displaying it, in the color of its model. Solid
arrows are tensors; dashed arrows are gradients or shared weights.
"""

from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from keras_genai.drawing import (
    GRAY,
    arrow,
    bar,
    box,
    canvas,
    circle,
    connect,
    connect_bars,
    cuboid,
    grid,
    patch_style,
    pre_norm_layers,
    rectangle,
    sides,
    write,
)
from keras_genai.plotting import COLORS
from keras_genai.validation import check_size


def plot_autoencoder() -> Figure:
    """Plot an autoencoder of the sizes of the VAE: its code z is a point, without a distribution.

    After Hinton & Salakhutdinov 2006, figure 1.
    """
    axes, color = canvas(8, 3.1), COLORS["VAE"]
    x = bar(axes, 0.7, 1.65, 2.1, "$x$", "784", GRAY)
    h = bar(axes, 2.4, 1.65, 1.4, "ReLU", "400", color)
    z = bar(axes, 4.0, 1.65, 0.5, "$z$", "20", color)
    g = bar(axes, 5.6, 1.65, 1.4, "ReLU", "400", color)
    x_hat = bar(axes, 7.3, 1.65, 2.1, r"$\hat{x}$, sigmoid", "784", color)
    connect_bars(axes, x, h, z, g, x_hat)
    write(axes, 2.4, 2.85, "encoder", weight="bold")
    write(axes, 5.6, 2.85, "decoder", weight="bold")
    write(axes, 4.0, 0.15, r"loss: difference between $x$ and its reconstruction $\hat{x}$")
    return axes.figure


def plot_vae() -> Figure:
    """Plot the variational autoencoder, with the default sizes of `vae`.

    After Kingma & Welling 2014, section 2.4: the noise is an input, so that gradients reach the
    encoder through the mean and the standard deviation (reparameterization trick).
    """
    axes, color = canvas(9, 3.8), COLORS["VAE"]
    x = bar(axes, 0.5, 2.1, 2.1, "$x$", "784", GRAY)
    h = bar(axes, 1.8, 2.1, 1.4, "ReLU", "400", color)
    mean = bar(axes, 3.1, 2.65, 0.45, r"$\mu$", "20", color)
    log_var = bar(axes, 3.1, 1.55, 0.45, r"$\log\,\sigma^2$", "20", color)
    z = bar(axes, 5.8, 2.1, 0.45, "$z$", "20", color)
    g = bar(axes, 7.1, 2.1, 1.4, "ReLU", "400", color)
    x_hat = bar(axes, 8.4, 2.1, 2.1, r"$\hat{x}$, sigmoid", "784", color)
    connect_bars(axes, x, h, mean)
    connect_bars(axes, h, log_var)
    connect_bars(axes, z, g, x_hat)
    epsilon = write(axes, 4.35, 0.9, r"$\epsilon \sim N(0, I)$")
    times = circle(axes, 4.35, 1.55, r"$\times$", color)
    plus = circle(axes, 4.95, 2.1, "+", color)
    connect(axes, epsilon, times)
    connect(axes, log_var, times)
    connect(axes, plus, z)
    arrow(axes, mean.right, (plus.x, mean.y), plus.top)
    arrow(axes, times.right, (plus.x, times.y), plus.bottom)
    write(axes, 3.72, 1.7, r"$\sigma$")
    write(axes, 4.45, 3.1, "reparameterization\n" + r"$z = \mu + \sigma \odot \epsilon$")
    write(axes, 1.8, 3.6, r"encoder $q(z\,|\,x)$", weight="bold")
    write(axes, 7.1, 3.6, r"decoder $p(x\,|\,z)$", weight="bold")
    write(axes, 4.5, 0.25, r"loss per image = $-\log\,p(x\,|\,z)$ + KL$(q(z\,|\,x)\,\|\,N(0, I))$")
    return axes.figure


def plot_gan() -> Figure:
    """Plot the generative adversarial network, with the default sizes of `gan`.

    After Goodfellow et al. 2014, Algorithm 1, with the non-saturating loss of section 3.
    """
    axes, color = canvas(9, 3.7), COLORS["GAN"]
    noise = box(axes, 0.6, 1.3, "noise $z$\n100", GRAY, 0.9)
    generator = box(axes, 2.2, 1.3, "generator $G$\n256, 512, 1024", color, 1.4, 0.6)
    fake = box(axes, 3.85, 1.3, "$G(z)$\n784", GRAY, 1.0)
    real = box(axes, 3.85, 2.5, "data $x$\n784", GRAY, 1.0)
    discriminator = box(axes, 5.55, 1.9, "discriminator $D$\n1024, 512, 256, 1", color, 1.6, 0.6)
    d_name = "discriminator loss\n" + r"$-\log D(x) - \log(1 - D(G(z)))$"
    d_loss = box(axes, 7.75, 2.5, d_name, color, 2.4, 0.6, 0.1)
    g_loss = box(axes, 7.75, 1.3, "generator loss\n$-\\log D(G(z))$", color, 2.4, 0.6, 0.1)
    connect(axes, noise, generator, fake)
    for image, loss, y in ((fake, g_loss, 1.8), (real, d_loss, 2.0)):
        arrow(axes, image.right, (4.55, image.y), (4.55, y), (discriminator.left[0], y))
        arrow(axes, (discriminator.right[0], y), (6.45, y), (6.45, loss.y), loss.left)
    arrow(axes, d_loss.top, (7.75, 3.2), (5.55, 3.2), discriminator.top, dashed=True)
    write(axes, 6.65, 3.4, "gradient: trains $D$")
    arrow(axes, g_loss.bottom, (7.75, 0.5), (2.2, 0.5), generator.bottom, dashed=True)
    write(axes, 5.0, 0.27, "gradient through $D$, which is frozen: trains $G$")
    return axes.figure


def plot_cnn() -> Figure:
    """Plot the convolutional classifier of article 4, section 1, with the default sizes of `cnn`.

    After Krizhevsky et al. 2012, figure 2: feature maps as blocks, as wide as they have channels.
    """
    axes = canvas(9, 2.9)
    stages = (
        (0.6, 28, 1, "28×28×1", "image"), (1.85, 28, 32, "28×28×32", "Conv 3×3\nReLU"),
        (3.1, 14, 32, "14×14×32", "max pool\n2×2"), (4.3, 14, 64, "14×14×64", "Conv 3×3\nReLU"),
        (5.45, 7, 64, "7×7×64", "max pool\n2×2"), (6.5, 40, 0, "3136", "Flatten"),
        (7.5, 26, 0, "128", "Dense\nReLU"), (8.45, 12, 0, "10", "Dense\nlogits"),
    )  # fmt: skip
    for x, side, channels, size, operation in stages:
        width, depth = (0.04 + 0.008 * channels, 0.0125 * side) if channels else (0.12, 0)
        cuboid(axes, x, 1.4, width, 0.035 * side, depth, COLORS["data"])
        write(axes, x, 0.3, size)
        write(axes, x, 2.6, operation)
    for (x, *_, size, _), (end, *_, end_size, _) in pairwise(stages):
        start = x + 0.08 + 0.042 * len(size)
        arrow(axes, (start, 0.3), (end - 0.08 - 0.042 * len(end_size), 0.3), color=GRAY)
    return axes.figure


def plot_rnn() -> Figure:
    """Plot a recurrent language model: the cell with its loop, and unrolled over four tokens.

    After Goodfellow et al. 2016, "Deep Learning", figure 10.2, with the default sizes of
    `rnn.RecurrentLanguageModel`. All steps share their weights.
    """
    axes, color = canvas(9, 4.0), COLORS["RNN"]
    write(axes, 2.2, 2.0, "=", fontsize=20)
    before = sides(2.5, 2.0, 0, 0)
    steps = zip((0.85, 3.45, 5.0, 6.55, 8.1), " cats", " ats.", strict=True)
    for step, (x, token, target) in enumerate(steps):
        first = step == 0
        tokens = write(axes, x, 0.3, "token $x_t$" if first else f"“{token}”", height=0.4)
        name = "Embedding\n256" if first else "Embedding"
        embedding = box(axes, x, 1.1, name, color, 1.05, 0.45, 0.12)
        cell = box(axes, x, 2.0, "RNN cell\n512" if first else "RNN cell", color, 1.05, 0.55, 0.4)
        dense = box(axes, x, 2.9, "Dense", color, 1.05, 0.45, 0.12)
        targets = write(axes, x, 3.7, "next token" if first else f"“{target}”", height=0.4)
        connect(axes, tokens, embedding, cell, dense, targets)
        if first:
            edge, (high, low) = cell.right[0], (2.12, 1.88)
            arrow(axes, (edge, high), (1.7, high), (1.7, low), (edge, low))
            write(axes, 1.7, 2.3, "$h_t$")
        else:
            connect(axes, before, cell)
            write(axes, x - 0.78, 2.17, f"$h_{step - 1}$")
            before = cell
    arrow(axes, cell.right, (8.95, 2.0))
    return axes.figure


def plot_lstm_cell() -> Figure:
    """Plot the cell of an LSTM: its state c passes along the top, where only gates change it.

    Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000.
    """
    axes, color = canvas(8, 4.6), COLORS["LSTM"]
    rectangle(axes, 1.15, 1.0, 5.75, 3.25, color, 0.07, zorder=1)
    top, bottom = 3.85, 1.3
    forget = circle(axes, 2.0, top, r"$\times$", color)
    plus = circle(axes, 3.725, top, "+", color)
    update = circle(axes, 3.725, 3.0, r"$\times$", color)
    output = circle(axes, 6.1, 2.55, r"$\times$", color)
    tanh = box(axes, 6.1, 3.2, "tanh", color, 0.6, 0.34)
    names = (r"forget $\sigma$", r"input $\sigma$", "candidate tanh", r"output $\sigma$")
    f, i, g, o = (
        box(axes, x, 2.0, name.replace(" ", "\n"), color, 0.95)
        for x, name in zip((2.0, 3.15, 4.3, 5.45), names, strict=True)
    )
    connect(axes, f, forget, plus)
    connect(axes, update, plus)
    connect(axes, tanh, output)
    arrow(axes, (0.75, top), forget.left)
    arrow(axes, plus.right, (7.3, top))
    arrow(axes, (6.1, top), tanh.top)
    arrow(axes, (0.75, bottom), (o.x, bottom), o.bottom)
    for gate in (f, i, g):
        arrow(axes, (gate.x, bottom), gate.bottom)
    arrow(axes, (1.4, 0.6), (1.4, bottom), head=False)
    for gate, end in ((i, update.left), (g, update.right), (o, output.left)):
        arrow(axes, gate.top, (gate.x, end[1]), end)
    arrow(axes, output.bottom, (6.1, bottom), (7.3, bottom))
    for x, y, name in (
        (2.2, 2.8, "f_t"), (2.95, 2.65, "i_t"), (4.52, 2.65, "g_t"), (5.25, 2.45, "o_t"),
        (0.45, top, "c_{t-1}"), (7.5, top, "c_t"), (0.45, bottom, "h_{t-1}"), (7.5, bottom, "h_t"),
        (1.4, 0.45, "x_t"), (3.5, 0.4, r"c_t = f_t \odot c_{t-1} + i_t \odot g_t"),
        (5.9, 0.4, r"h_t = o_t \odot \tanh c_t"),
    ):  # fmt: skip
        write(axes, x, y, f"${name}$", fontsize=11)
    return axes.figure


def plot_multi_head_attention() -> Figure:
    """Plot multi-head attention, with the default sizes of `seq2seq.Seq2SeqTransformer`.

    After Vaswani et al. 2017, figure 2: one head on the left, all heads on the right.
    """
    axes, color = canvas(8, 5.0), COLORS["Transformer"]
    rectangle(axes, 0.3, 0.75, 2.8, 3.85, color, 0.07, zorder=1)
    product = box(axes, 1.25, 1.5, r"$Q K^\top / \sqrt{16}$", color, 1.4, 0.42)
    mask = box(axes, 1.25, 2.25, "mask (optional)", color, 1.4, 0.42, 0.1)
    softmax = box(axes, 1.25, 3.0, "softmax", color, 1.4, 0.42)
    values = box(axes, 1.7, 3.85, "weighted sum of $V$", color, 1.7, 0.42)
    connect(axes, product, mask, softmax)
    arrow(axes, softmax.top, (1.25, values.bottom[1]))
    arrow(axes, values.top, (1.7, 4.55))
    for x, name, end in ((0.9, "Q", product), (1.6, "K", product), (2.4, "V", values)):
        write(axes, x, 0.45, f"${name}$")
        arrow(axes, (x, 0.6), (x, end.bottom[1]))
    for offset in (0.16, 0.08, 0):  # the heads, one behind the other
        box(axes, 5.7 + offset, 2.45 + offset, "", color, 3.3, 0.6, 0.4)
    heads = write(axes, 5.7, 2.45, "8 heads of width 16: attention", height=0.92)
    concat = box(axes, 5.7, 3.4, "concatenate the heads", color, 2.0, 0.42, 0.1)
    dense = box(axes, 5.7, 4.1, "output Dense, 128", color, 2.0, 0.42)
    connect(axes, heads, concat, dense)
    arrow(axes, dense.top, (5.7, 4.6))
    for x, name in ((4.6, "query"), (5.7, "key"), (6.8, "value")):
        projection = box(axes, x, 1.5, f"{name}\nDense, 128", color, 1.0)
        arrow(axes, projection.top, (x, 2.15))
        write(axes, x + 0.17, 1.95, f"${name[0].upper()}$")
    arrow(axes, (4.6, 0.6), (4.6, 1.25))
    arrow(axes, (6.25, 0.6), (6.25, 0.95), head=False)
    for x in (5.7, 6.8):
        arrow(axes, (6.25, 0.95), (x, 0.95), (x, 1.25))
    write(axes, 4.6, 0.45, "$x$")
    write(axes, 6.25, 0.45, "context ($x$ in self-attention)")
    write(axes, 1.7, 4.8, "attention of one head", weight="bold")
    write(axes, 5.7, 4.8, "multi-head attention", weight="bold")
    return axes.figure


def plot_transformer() -> Figure:
    """Plot the encoder–decoder Transformer, with the default sizes of `seq2seq`.

    Vaswani et al. 2017, figure 1, with the layer normalization before each sublayer (pre-norm,
    Xiong et al. 2020), the default of `seq2seq.Seq2SeqTransformer`, and not after the sum.
    """
    axes, color = canvas(7.6, 8.6), COLORS["Transformer"]
    feed_forward = "feed-forward, ReLU\n128 → 512 → 128"
    encoder = ("self-attention, 8 heads\npadding mask", feed_forward)
    decoder = ("self-attention, 8 heads\ncausal and padding mask",
               "cross-attention, 8 heads\npadding mask of the source", feed_forward)  # fmt: skip
    target = "target tokens so far\n(teacher forcing in training)"
    stacks, ends = ((2.1, -1, "source tokens", encoder), (5.4, 1, target, decoder)), []
    for x, side, name, sublayers in stacks:
        tokens = write(axes, x, 0.3, name, height=0.44)
        embedding = box(axes, x, 0.95, "Embedding, 128", color, 1.7, 0.36)
        plus = circle(axes, x, 1.45, "+", color)
        encoding = write(axes, x + 1.3 * side, 1.4, "positional\nencoding", width=0.9)
        connect(axes, tokens, embedding, plus)
        arrow(axes, (encoding.x - 0.42 * side, 1.45), plus.left if side < 0 else plus.right)
        ends.append(pre_norm_layers(axes, plus, sublayers, 4, color, side))
    (_, encoder_norm), (decoder_boxes, decoder_norm) = ends
    cross, bend = decoder_boxes[1], encoder_norm.y + 0.35
    arrow(axes, encoder_norm.top, (2.1, bend), (3.75, bend), (3.75, cross.y), cross.left)
    dense = box(axes, 5.4, 7.1, "Dense", color, 1.7, 0.36)
    softmax = box(axes, 5.4, 7.7, "softmax", color, 1.7, 0.36)
    probabilities = write(axes, 5.4, 8.35, "probabilities of the next token")
    connect(axes, decoder_norm, dense, softmax, probabilities)
    write(axes, 2.9, bend + 0.17, "context: keys and values")
    write(axes, 0.75, encoder_norm.y, "encoder", weight="bold")
    write(axes, 6.75, decoder_norm.y, "decoder", weight="bold")
    return axes.figure


def plot_gpt2() -> Figure:
    """Plot GPT-2 in its smallest published size, the default of `gpt2.GPT2`.

    Radford et al. 2019, section 2.3: pre-norm layers without cross-attention, and tied embeddings.
    """
    axes, color, x = canvas(6.4, 7.3), COLORS["GPT-2"], 2.6
    tokens = write(axes, x, 0.25, "tokens")
    embedding = box(axes, x, 0.85, "token Embedding\n50257 × 768", color, 1.7)
    plus = circle(axes, x, 1.5, "+", color)
    position = box(axes, 4.95, 1.5, "position Embedding\n1024 × 768", color, 1.7)
    sublayers = ("self-attention, 12 heads\ncausal mask", "feed-forward, GELU\n768 → 3072 → 768")
    _, norm = pre_norm_layers(axes, plus, sublayers, 12, color)
    output = box(axes, x, 5.6, "output layer\n768 × 50257", color, 1.7)
    softmax = box(axes, x, 6.3, "softmax", color, 1.7, 0.36)
    probabilities = write(axes, x, 7.0, "probabilities of the next token")
    connect(axes, tokens, embedding, plus)
    connect(axes, position, plus)
    connect(axes, norm, output, softmax, probabilities)
    arrow(axes, embedding.right, (6.1, 0.85), (6.1, 5.6), output.right, dashed=True)
    write(axes, 4.9, 5.8, "same weights, transposed")
    return axes.figure


def plot_pixelcnn() -> Figure:
    """Plot a layer of the gated PixelCNN, and the pixels on which a prediction depends.

    After van den Oord et al. 2016b, figures 1 and 2. The kernels are those of `pixelcnn`, of size 3
    after the first layer; the horizontal stack reads the vertical stack after its gate.
    """
    axes, color = canvas(9, 4.1), COLORS["PixelCNN"]
    top, bottom = 2.6, 0.95
    # Name, strength of its tint, heights of legend and layer, first input, height × width of kernel
    stacks = (
        ("vertical", 0.7, 1.15, top, "the image", (2, 3)),
        ("horizontal", 0.25, 0.75, bottom, "shifted right", (1, 2)),
    )
    pixels = np.zeros((6, 7))
    pixels[:3], pixels[3, :3] = 0.7, 0.25
    grid(axes, 0.3, 1.6, 0.32, pixels, color)
    write(axes, 1.42, 2.4, "$x_i$")
    convolutions = []
    for stack, strength, legend, y, first, (rows, columns) in stacks:
        rectangle(axes, 0.3, legend - 0.1, 0.2, 0.2, color, strength, GRAY)
        write(axes, 0.6, legend, f"seen by the {stack} stack", ha="left")
        write(axes, 2.95, y + 0.45, f"{stack} stack\n(at first, {first})", ha="left")
        kernel = np.zeros((3, 3))  # uncropped
        kernel[2 - rows : 2, :columns] = strength
        grid(axes, 4.62, y + 0.28, 0.13, kernel, color)
        convolution = box(axes, 4.5, y, f"conv {rows} × {columns}", color, 1.0, 0.4, strength)
        arrow(axes, (2.95, y), convolution.left)
        convolutions.append(convolution)
    vertical_gate = box(axes, 5.6, top, "gate", color, 0.6, 0.4, 0.1)
    shift = box(axes, 6.4, 1.8, "shift down\n1 × 1", color, 1.0, 0.48, 0.1)
    plus = circle(axes, 6.4, bottom, "+", color)
    gate = box(axes, 7.1, bottom, "gate", color, 0.6, 0.4, 0.1)
    dense = box(axes, 7.85, bottom, "1 × 1", color, 0.6, 0.4, 0.1)
    last = circle(axes, 8.45, bottom, "+", color)
    connect(axes, convolutions[0], vertical_gate, sides(8.85, top, 0, 0))
    connect(axes, convolutions[1], plus, gate, dense, last, sides(8.85, bottom, 0, 0))
    connect(axes, sides(6.4, top, 0, 0), shift, plus)
    arrow(axes, (3.3, bottom), (3.3, 0.45), (8.45, 0.45), last.bottom)
    write(axes, 6.0, 0.25, "residual connection")
    write(axes, 1.42, 3.8, "pixels that predict $x_i$", weight="bold")
    write(axes, 6.0, 3.8, "one layer", weight="bold")
    return axes.figure


def plot_wavenet(layers_per_block: int = 4) -> Figure:
    """Plot a block of dilated causal convolutions, and the receptive field of its last output.

    After van den Oord et al. 2016, figure 3.

    Args:
        layers_per_block: Int from 1 to 5. Layers, of dilations 1, 2, 4, … Defaults to `4`.

    Raises:
        ValueError: for another number of layers.
    """
    num_layers = check_size("layers_per_block", layers_per_block)
    if num_layers > 5:
        raise ValueError(f"layers_per_block: expected at most 5, got {num_layers}.")
    samples, height = 2**num_layers, 0.75
    axes, color = canvas(9, 1.3 + height * num_layers), COLORS["WaveNet"]
    xs = np.linspace(1.6, 8.7, samples + 1)
    radius = min(0.1, 0.35 * (xs[1] - xs[0]))
    seen = {(num_layers, samples)}  # (layer, time) on which the last output depends
    for layer in range(num_layers, -1, -1):
        y = 0.75 + height * layer
        dilation = 2 ** (layer - 1)
        for time, x in enumerate(xs):
            active = (layer, time) in seen
            edge, fill, width = (color, 0.5, 1.4) if active else ("#BBBBBB", 0, 0.6)
            axes.add_patch(Circle((x, y), radius, **patch_style(color, fill, edge)))
            for tap in (time - dilation, time) if layer else ():
                if tap >= 0:
                    start, end = (xs[int(tap)], y - height + radius), (x, y - radius)
                    arrow(axes, start, end, color=edge, linewidth=width)
                    if active:
                        seen.add((layer - 1, tap))
        write(axes, 0.1, y, f"dilation {dilation}" if layer else "input", ha="left")
    write(axes, 8.9, axes.get_ylim()[1] - 0.25, "prediction of $x_{t+1}$", ha="right")
    arrow(axes, (xs[-1], 0.45), (xs[1], 0.45), color=color)
    arrow(axes, (xs[1], 0.45), (xs[-1], 0.45), color=color)
    write(axes, 5.15, 0.22, f"receptive field: {samples} samples up to $x_t$")
    return axes.figure


def plot_diffusion() -> Figure:
    """Plot the forward and the reverse process of diffusion as a chain of images.

    After Ho et al. 2020, figure 2. The images follow equation 4, from a 3 of two open rings.
    """
    axes, color = canvas(9, 2.7), COLORS["diffusion"]
    rows, columns = np.mgrid[1:-1:28j, -1:1:28j]
    rings = [np.abs(np.hypot(columns, rows + y) - 0.32) < 0.11 for y in (-0.32, 0.32)]
    digit = np.where(np.where(rows > 0, *rings), 1.0, -1.0)
    digit[(columns < -0.1) & (np.abs(rows) < 0.33)] = -1
    noise = np.random.default_rng(0).normal(size=digit.shape)
    states = ((0.75, 1.0, "x_0"), (3.35, 0.7, "x_{t-1}"), (5.65, 0.35, "x_t"), (8.25, 0, "x_T"))
    for x, alpha_cumprod, name in states:
        image = np.sqrt(alpha_cumprod) * digit + np.sqrt(1 - alpha_cumprod) * noise
        extent = (x - 0.55, x + 0.55, 0.85, 1.95)
        axes.imshow(image, cmap="gray", vmin=-1.5, vmax=1.5, extent=extent, aspect="auto")
        write(axes, x, 0.65, f"${name}$", fontsize=12)
    for (left, *_), (right, *_) in pairwise(states):
        arrow(axes, (left + 0.62, 1.65), (right - 0.62, 1.65))
        arrow(axes, (right - 0.62, 1.15), (left + 0.62, 1.15), color=color)
    for x in (2.05, 6.95):
        write(axes, x, 1.4, "…", fontsize=14)
    axes.set(xlim=(0, 9), ylim=(0, 2.7))
    write(axes, 4.5, 2.25, r"forward process $q(x_t\,|\,x_{t-1})$: adds noise")
    write(axes, 4.5, 0.25, r"reverse process $p_\theta(x_{t-1}\,|\,x_t)$: the U-Net removes noise")
    write(axes, 0.75, 2.25, "data")
    write(axes, 8.25, 2.25, "noise $N(0, I)$")
    return axes.figure


def plot_unet() -> Figure:
    """Plot the U-Net of diffusion, with the default sizes of `unet.build_unet`.

    After Ronneberger et al. 2015, figure 1, and Ho et al. 2020, appendix B.
    """
    axes, color = canvas(9, 5.2), COLORS["diffusion"]
    noisy_image = write(axes, 0.5, 3.6, "$x_t$\n28×28×1", width=0.7)
    first = box(axes, 1.6, 3.6, "Conv 3×3\n28×28×32", color, 1.0, strength=0.1)
    halves: dict[float, list] = {3.0: [], 6.2: []}
    down, up = halves.values()
    for y, size in ((3.6, "28×28×32"), (2.2, "14×14×64"), (0.8, "7×7×96")):
        for x, half in halves.items():
            half.append(box(axes, x, y, f"residual block\n{size}", color))
            circle(axes, x - 0.45, y + 0.37, "t", color, 0.11)
    attention = box(axes, 4.6, 0.8, "self-attention\n7×7×96", color, strength=0.5)
    last = box(axes, 7.6, 3.6, "Conv 3×3\n28×28×1", color, 1.0, strength=0.1)
    noise = write(axes, 8.6, 3.6, "noise\n28×28×1", width=0.7)
    connect(axes, noisy_image, first, *down, attention, up[2])
    connect(axes, up[0], last, noise)
    for left, right, below in zip(down, up, up[1:], strict=False):
        y, bend = right.y, right.y - 0.62
        concat = circle(axes, 5.2, y, "c", color)
        connect(axes, left, concat, right)
        arrow(axes, below.top, (6.2, bend), (5.2, bend), concat.bottom)
        write(axes, 4.35, y + 0.15, "skip connection")
        write(axes, 2.3, y - 0.7, "average\npool 2×2")
        write(axes, 6.8, bend - 0.12, "Conv 1×1\nupsample")
    t = box(axes, 0.8, 4.8, "timestep $t$", GRAY, 1.0, 0.4)
    sinusoidal = box(axes, 2.6, 4.8, "sinusoidal, 64", color, 1.3, 0.4, 0.1)
    emb = box(axes, 4.5, 4.8, "Dense, 128, SiLU", color, 1.4, 0.4, 0.1)
    connect(axes, t, sinusoidal, emb, circle(axes, 5.8, 4.8, "t", color, 0.11))
    write(axes, 6.0, 4.8, "time embedding, added\nin each residual block", ha="left")
    circle(axes, 7.3, 0.8, "c", color)
    write(axes, 7.5, 0.8, "concatenation", ha="left")
    return axes.figure
