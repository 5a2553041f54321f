"""The recipes: every experiment of the articles, by name, without loading TensorFlow.

`experiments` has the code of each recipe, `recipes` trains it.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The description of one experiment.

    Attributes:
        name: String. Name on the command line and in `recipes.train`.
        article: String. Article and section that describe the model.
        model: String. Networks in one line.
        data: String. Dataset.
        epochs: Int. Number of epochs.
        batch_size: Int. Number of examples per batch.
        metric: String. Metric of the test data, with its unit.
        expected: Float. Value of the metric after all epochs with seed 0.
        tolerance: Float. Largest deviation to expect with another seed.
        notes: String. Choices where the article leaves a setting open.
    """

    name: str
    article: str
    model: str
    data: str
    epochs: int
    batch_size: int
    metric: str
    expected: float
    tolerance: float
    notes: str = ""


_RECIPES = (
    Recipe(
        name="article1-vae",
        article="article 1, VAE",
        model="VAE 784-400-2-400-784, Bernoulli",
        data="MNIST",
        epochs=10,
        batch_size=64,
        metric="test loss, nats per image",
        expected=154.9,
        tolerance=2.0,
        notes="The article gives no size, batch size or number of epochs. Width, batch size and "
        "epochs are those of article 4; z has 2 dimensions, so that the whole latent space can be "
        "plotted.",
    ),
    Recipe(
        name="article1-gan",
        article="article 1, GAN",
        model="GAN 100-256-512-784, 784-512-256-1",
        data="MNIST",
        epochs=10,
        batch_size=64,
        metric="digits covered, of 10",
        expected=1,
        tolerance=1,
        notes="The article gives no size of the noise, batch size or number of epochs, and its "
        "epoch is one batch. The noise has 100 dimensions as in articles 2 and 4; batch size and "
        "epochs are those of article 4's VAE, and an epoch is one pass over all images.",
    ),
    Recipe(
        name="article1-transformer",
        article="article 1, Transformer",
        model="Transformer, 4 and 4 layers of 128",
        data="English–Chinese help",
        epochs=40,
        batch_size=64,
        metric="BLEU of 1,000 held-out sentences, greedy",
        expected=42.2,
        tolerance=1.5,
        notes="The article gives no data, size or loss. Size and training follow Vaswani et al. "
        "2017 (Adam's betas, warmup, label smoothing) at a quarter of the width and two thirds of "
        "the depth, with pre-norm layers, a dropout of 0.2, and a learning rate that decays to 0.",
    ),
    Recipe(
        name="article1-transformer-classifier",
        article="article 1, Transformer",
        model="Transformer, 2 layers of 64, mean",
        data="four English books",
        epochs=120,
        batch_size=64,
        metric="test accuracy, %",
        expected=93.9,
        tolerance=3,
        notes="The article's own Sequential model, for which it gives no data, size or loss. It "
        "assigns passages of 64 byte pairs to books, without letter case, punctuation and the "
        "speakers of the play. The Bible has 37 times as many words as the play: all books have "
        "equally many passages. Half of the tokens are dropped in training.",
    ),
    Recipe(
        name="article1-text-to-image",
        article="article 1, future developments",
        model="U-Net 32-64-96 in 1000 cosine steps, text encoder of 1 layer of 64",
        data="MNIST with captions",
        epochs=7,
        batch_size=32,
        metric="samples as the prompt says, %",
        expected=0.0,
        tolerance=3.0,
        notes='The article names multimodal generation without code. Captions such as "a thick '
        'slanted seven" are measured from the pixels. Network and schedule are those of '
        "article3-diffusion-cosine.",
    ),
    Recipe(
        name="article2-vae",
        article="article 2, section 4.2",
        model="VAE 784-256-128-32-128-256-784, Gaussian",
        data="MNIST",
        epochs=10,
        batch_size=32,
        metric="test loss, squared error per pixel and 2/784 KL",
        expected=0.0482,
        tolerance=0.001,
        notes="The article's 100 epochs are 100 steps on one batch of noise, a twentieth of a "
        "pass over the images. The epochs are article 4's 10.",
    ),
    Recipe(
        name="article2-gan",
        article="article 2, section 4.1",
        model="GAN 100-256-512-1024-784, 784-512-256-1",
        data="MNIST",
        epochs=6,
        batch_size=32,
        metric="digits covered, of 10",
        expected=1,
        tolerance=1,
        notes="The article's 10,000 epochs are 10,000 steps on one batch of noise: 5.3 passes "
        "over the images, rounded to 6. It does not train the discriminator separately; the loop "
        "is article 1's.",
    ),
    Recipe(
        name="article4-vae",
        article="article 4, section 3",
        model="VAE 784-400-20-400-784, Bernoulli",
        data="MNIST",
        epochs=10,
        batch_size=64,
        metric="test loss, nats per image",
        expected=105.0,
        tolerance=0.5,
    ),
    Recipe(
        name="article4-gan",
        article="article 4, section 2",
        model="GAN 100-256-512-1024-784, 784-1024-512-256-1",
        data="MNIST",
        epochs=50,
        batch_size=64,
        metric="digits covered, of 10",
        expected=10,
        tolerance=1,
    ),
    Recipe(
        name="article4-cnn",
        article="article 4, section 1",
        model="CNN 32-64-128-10",
        data="MNIST",
        epochs=5,
        batch_size=64,
        metric="test accuracy, %",
        expected=99.05,
        tolerance=0.2,
    ),
    Recipe(
        name="conditional-vae",
        article="article 4, section 3, with labels",
        model="VAE 784-400-20-400-784, Bernoulli, beta 5, conditioned on the digit",
        data="MNIST",
        epochs=10,
        batch_size=64,
        metric="samples classified as the requested digit, %",
        expected=97.0,
        tolerance=2.0,
        notes="Not in the article: its VAE, with the digit as a second input of both networks. "
        "With beta 1, z still encodes the digit, and a quarter of the samples show another one "
        "than requested.",
    ),
    Recipe(
        name="conv-vae",
        article="article 4, section 3, with convolutions",
        model="VAE of convolutions 32-64, 256 and 16 units, Bernoulli, a prior of 500 Gaussians",
        data="MNIST",
        epochs=30,
        batch_size=64,
        metric="Fréchet distance to the test images",
        expected=16.1,
        tolerance=5.0,
        notes="Not in the article: convolutions in place of its dense layers, and a learned prior. "
        "The Fréchet distance is that of 10,000 samples, in features of article4-cnn.",
    ),
    Recipe(
        name="conditional-conv-vae",
        article="article 4, section 3, with convolutions and labels",
        model="VAE of convolutions 32-64, 256 and 12 units, Bernoulli, beta 1.25, conditioned on "
        "the digit, a prior of 50 Gaussians for each",
        data="MNIST",
        epochs=30,
        batch_size=64,
        metric="Fréchet distance to the test images",
        expected=13.0,
        tolerance=5.0,
        notes="Not in the article: conv-vae, with the digit as a second input of both networks and "
        "of the prior.",
    ),
    Recipe(
        name="dcgan",
        article="article 4, section 2, with convolutions",
        model="GAN of transposed convolutions 128-64 and convolutions 32-64-128, Wasserstein loss "
        "with gradient penalty",
        data="MNIST",
        epochs=8,
        batch_size=64,
        metric="Fréchet distance to the test images",
        expected=11.4,
        tolerance=5.0,
        notes="Not in the article: the networks of Radford et al. 2016 at a smaller size, the loss "
        "of Gulrajani et al. 2017 with one step of each network in turn, and an average of the "
        "generator's weights.",
    ),
    Recipe(
        name="conditional-dcgan",
        article="article 4, section 2, with convolutions and labels",
        model="GAN of transposed convolutions 128-64 and convolutions 32-64-128, Wasserstein loss "
        "with gradient penalty, conditioned on the digit",
        data="MNIST",
        epochs=8,
        batch_size=64,
        metric="Fréchet distance to the test images",
        expected=3.6,
        tolerance=2.0,
        notes="Not in the article: dcgan, with the digit as a second input of both networks.",
    ),
    Recipe(
        name="article3-rnn",
        article="article 3, section 1",
        model="simple RNN, 256-1113",
        data="three English books",
        epochs=3,
        batch_size=32,
        metric="held-out nats per character",
        expected=1.329,
        tolerance=0.02,
        notes="The article gives no data or size. The network has as many parameters as "
        "article3-lstm's.",
    ),
    Recipe(
        name="article3-lstm",
        article="article 3, section 2",
        model="LSTM, 256-512",
        data="three English books",
        epochs=3,
        batch_size=32,
        metric="held-out nats per character",
        expected=1.242,
        tolerance=0.02,
        notes="The article gives no data or size: As You Like It, the King James Bible and "
        "Paradise Lost, in windows of 128 characters.",
    ),
    Recipe(
        name="article3-lstm-tang",
        article="article 3, section 2",
        model="LSTM, 128-384",
        data="Tang quatrains",
        epochs=12,
        batch_size=32,
        metric="held-out nats per character",
        expected=5.575,
        tolerance=0.05,
        notes="The article gives no data or size. The network is smaller than article3-lstm's, "
        "since 4,508 characters take most of its parameters.",
    ),
    Recipe(
        name="article3-lstm-translation",
        article="article 3, section 2",
        model="encoder and decoder of LSTMs of 288, without attention",
        data="English–Chinese help",
        epochs=20,
        batch_size=32,
        metric="BLEU of 1,000 held-out sentences, greedy",
        expected=15.1,
        tolerance=2.0,
        notes="The article names machine translation without data or size. The networks have about "
        "as many parameters as article1-transformer, 3.4 million, and learn from the same pairs.",
    ),
    Recipe(
        name="article3-lstm-attention",
        article="article 3, section 2",
        model="encoder and decoder of LSTMs of 224, with attention",
        data="English–Chinese help",
        epochs=20,
        batch_size=32,
        metric="BLEU of 1,000 held-out sentences, greedy",
        expected=34.2,
        tolerance=2.0,
        notes="article3-lstm-translation with the attention of Bahdanau et al. 2015, and LSTMs of "
        "fewer units, so that the number of parameters is about the same.",
    ),
    Recipe(
        name="article3-music",
        article="article 3, section 1",
        model="LSTM, 64-384-384",
        data="Irish tunes",
        epochs=25,
        batch_size=16,
        metric="held-out nats per character",
        expected=1.112,
        tolerance=0.02,
        notes="The article names the generation of music without data or size: 1,841 tunes in ABC "
        "notation, in windows of 256 characters.",
    ),
    Recipe(
        name="article3-forecast",
        article="article 3, section 1",
        model="LSTM, 260 weeks to 64 to 52 weeks",
        data="weekly CO2",
        epochs=15,
        batch_size=32,
        metric="held-out absolute error 1 week ahead, ppm",
        expected=0.323,
        tolerance=0.02,
        notes="The article gives no data or size. The input is five years, the output the next "
        "year, week by week.",
    ),
    Recipe(
        name="article3-pixelcnn",
        article="article 3, section 5",
        model="gated PixelCNN, 8 dilated layers of 32",
        data="MNIST",
        epochs=4,
        batch_size=32,
        metric="test loss, nats per image",
        expected=79.59,
        tolerance=0.5,
        notes="The article gives no data or size. MNIST is binarized once: each pixel becomes 1 "
        "with its brightness as the probability.",
    ),
    Recipe(
        name="article3-wavenet",
        article="article 3, section 5",
        model="WaveNet, 2 blocks of 10 layers of 32",
        data="percussion at 8 kHz",
        epochs=100,
        batch_size=2,
        metric="held-out nats per sample",
        expected=3.103,
        tolerance=0.05,
        notes="The article gives no data or size: 98 percussion sounds, conditioned on their "
        "class. In training, each sound is attenuated by a random factor of up to 4, and inverted "
        "with probability 1/2.",
    ),
    Recipe(
        name="article3-diffusion",
        article="article 3, section 6",
        model="U-Net 32-64-96 in 1000 linear steps, conditioned on the digit",
        data="MNIST",
        epochs=12,
        batch_size=64,
        metric="samples classified as the requested digit, %",
        expected=95.9,
        tolerance=2.0,
        notes="The article gives no data, size or schedule. The schedule is that of Ho et al. "
        "2020, and the network predicts v (Salimans & Ho 2022), which learns labels sooner than "
        "noise prediction. One label in ten is dropped, for classifier-free guidance.",
    ),
    Recipe(
        name="article3-diffusion-cosine",
        article="article 3, section 6",
        model="U-Net 32-64-96 in 1000 cosine steps, conditioned on the digit",
        data="MNIST",
        epochs=10,
        batch_size=32,
        metric="samples classified as the requested digit, %",
        expected=96.0,
        tolerance=2.0,
        notes="As article3-diffusion, with the schedule of Nichol & Dhariwal 2021, and batches of "
        "half the size. For few sampling steps, with dpm_solver++ and Karras's spacing.",
    ),
    Recipe(
        name="article3-diffusion-unconditional",
        article="article 3, section 6",
        model="U-Net 32-64-96 in 1000 cosine steps",
        data="MNIST",
        epochs=20,
        batch_size=64,
        metric="digits covered, of 10",
        expected=10,
        tolerance=1,
        notes="As article3-diffusion, without labels, and with the schedule of Nichol & Dhariwal "
        "2021.",
    ),
    Recipe(
        name="article3-audio-vae",
        article="article 3, section 7",
        model="VAE of spectrograms, convolutions 16-32-64-64, conditioned on the class",
        data="percussion at 8 kHz",
        epochs=100,
        batch_size=16,
        metric="distance of reconstructed spectrograms, dB",
        expected=2.69,
        tolerance=0.3,
        notes="The article names the generation of audio without data or size. Phases are "
        "estimated by Griffin-Lim; each sound is in training at seven pitches.",
    ),
    Recipe(
        name="article4-gpt2",
        article="article 4, section 4",
        model="GPT-2, 6 layers of 192, 2,048 byte pairs",
        data="three English books",
        epochs=15,
        batch_size=8,
        metric="held-out nats per character",
        expected=1.102,
        tolerance=0.02,
        notes="The article uses the weights of a GPT-2 trained on 40 GB of text. This is the same "
        "network at a smaller size, trained on 4.2 MB, nine tenths of three books.",
    ),
    Recipe(
        name="article4-gpt2-tang",
        article="article 4, section 4",
        model="GPT-2, 4 layers of 160",
        data="Tang quatrains",
        epochs=20,
        batch_size=16,
        metric="held-out nats per character",
        expected=5.055,
        tolerance=0.05,
        notes="Not in the article: a smaller network, on the poems of article3-lstm-tang and with "
        "two thirds of its parameters, to compare a GPT with an LSTM.",
    ),
    Recipe(
        name="article4-finetune",
        article="article 4, section 4",
        model="article4-gpt2, fine-tuned",
        data="Alice in Wonderland",
        epochs=10,
        batch_size=8,
        metric="held-out nats per character",
        expected=1.358,
        tolerance=0.02,
        notes="The article mentions fine-tuning without code: the GPT of three books is trained "
        "further on a fourth one. tests/benchmarks/finetuning.py compares it with LoRA.",
    ),
)

RECIPES = {recipe.name: recipe for recipe in _RECIPES}


def find(name: str) -> Recipe:
    """Return the recipe of a name.

    Raises:
        ValueError: for an unknown name.
    """
    if not isinstance(name, str):
        raise ValueError(f"name: expected a string, got {name!r:.200}.")
    if name not in RECIPES:
        raise ValueError(f"{name}: no such recipe; expected one of {', '.join(RECIPES)}.")
    return RECIPES[name]
