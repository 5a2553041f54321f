"""Every experiment of the articles, by name: data, networks, settings, and the figure to expect.

A recipe is a record of what is known without TensorFlow, and the functions that build and compile
the model. Where an article leaves a setting open, `choices` says what we took, and why.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial

from keras_genai import tasks

# Few large calls into TensorFlow cost less than many small ones.
STEPS_PER_EXECUTION = 32


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One experiment.

    Attributes:
        name: on the command line.
        article: and section that it comes from.
        model: the networks in a line.
        task: its data, and what is measured and drawn of it.
        build: (seed, **facts) → the model; the facts are those that the task finds in its data.
        compile: (model, steps) sets the model's optimizer, in place, for so many steps.
        epochs, batch_size: its settings.
        figure: what is measured, with its unit.
        expected: the figure after all epochs on the recipe's own data, as measured with seed 0.
        tolerance: how far another seed may be from it.
        choices: settings that the article leaves open.
    """

    name: str
    article: str
    model: str
    task: tasks.Images | tasks.Text | tasks.Series | tasks.Translation
    build: Callable
    compile: Callable
    epochs: int
    batch_size: int
    figure: str
    expected: float
    tolerance: float
    choices: str = ""

    def create(self, seed: int = 0, steps: int = 1, **facts):
        """Return the model, compiled as the recipe trains it in so many steps, from `seed` on."""
        import keras

        keras.utils.set_random_seed(seed)
        model = self.build(seed, **facts)
        self.compile(model, steps)
        return model

    def count_steps(self, run: dict, epochs: int | None = None) -> int:
        """Return the number of training steps of a run, or of so many epochs of it."""
        epochs = run["epochs"] if epochs is None else epochs
        return epochs * math.ceil(run["count"] / run["batch_size"])


def _article1_vae(seed, num_classes=None):
    from keras_genai.vae import VAE, build_decoder, build_encoder

    return VAE(build_encoder(latent_dim=2), build_decoder(latent_dim=2), seed=seed)


def _article2_vae(seed, num_classes=None):
    from keras_genai.vae import VAE, build_decoder, build_encoder

    encoder = build_encoder(hidden_dims=(256, 128), latent_dim=32)
    decoder = build_decoder(hidden_dims=(128, 256), latent_dim=32)
    return VAE(encoder, decoder, likelihood="gaussian", seed=seed)


def _article4_vae(seed, num_classes=None):
    from keras_genai.vae import VAE, build_decoder, build_encoder

    return VAE(build_encoder(), build_decoder(), seed=seed)


def _conditional_vae(seed, num_classes=10):
    from keras_genai.vae import VAE, build_decoder, build_encoder

    encoder = build_encoder(num_classes=num_classes)
    return VAE(encoder, build_decoder(num_classes=num_classes), beta=5.0, seed=seed)


def _compile_vae(model, steps):
    import keras

    # XLA, which Keras leaves off on a CPU, is faster for dense networks there.
    model.compile(
        keras.optimizers.Adam(1e-3), jit_compile=True, steps_per_execution=STEPS_PER_EXECUTION
    )


def _article1_gan(seed, num_classes=None):
    return _build_small_gan((256, 512), seed)


def _article2_gan(seed, num_classes=None):
    return _build_small_gan((256, 512, 1024), seed)


def _build_small_gan(generator_dims, seed):
    from keras_genai.gan import GAN, build_discriminator, build_generator

    generator = build_generator(
        hidden_dims=generator_dims, output_activation="sigmoid", initializer="glorot"
    )
    discriminator = build_discriminator(
        hidden_dims=(512, 256), activation="relu", rescale=False, initializer="glorot"
    )
    return GAN(generator, discriminator, joint_batch=True, fresh_noise=False, seed=seed)


def _article4_gan(seed, num_classes=None):
    from keras_genai.gan import GAN, build_discriminator, build_generator

    return GAN(build_generator(), build_discriminator(), seed=seed)


def _compile_small_gan(model, steps):
    model.compile("adam", "adam", steps_per_execution=STEPS_PER_EXECUTION)


def _compile_gan(model, steps):
    model.compile(steps_per_execution=STEPS_PER_EXECUTION)


def _article4_cnn(seed, num_classes=10):
    from keras_genai.cnn import build_cnn

    return build_cnn(num_classes=num_classes)


def _compile_cnn(model, steps):
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])


def _language_model(seed, characters, **settings):
    from keras_genai.rnn import build_language_model
    from keras_genai.text import CharacterTokenizer

    tokenizer = CharacterTokenizer(characters)
    return build_language_model(tokenizer.vocab_size, tokenizer=tokenizer, **settings)


def _compile_language_model(model, steps, learning_rate):
    import keras

    decay = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    # Clipped, or a gradient that explodes through time undoes what was learned (section 1).
    optimizer = keras.optimizers.Adam(decay, global_clipnorm=1.0)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))


def _forecaster(seed, window=260, horizon=52):
    from keras_genai.rnn import build_forecaster

    return build_forecaster(window, horizon)


def _compile_forecaster(model, steps):
    import keras

    decay = keras.optimizers.schedules.CosineDecay(3e-3, steps)
    model.compile(keras.optimizers.Adam(decay, global_clipnorm=1.0), loss="mae")


def _translator(seed, input_tokenizer, target_tokenizer, max_seq_length):
    from keras_genai.text import TranslationTokenizer
    from keras_genai.transformer import build_seq2seq_transformer

    source, target = (TranslationTokenizer(text) for text in (input_tokenizer, target_tokenizer))
    return build_seq2seq_transformer(
        source.vocab_size,
        target.vocab_size,
        max_seq_length,
        dropout=0.2,
        input_tokenizer=source,
        target_tokenizer=target,
    )


def _compile_translator(model, steps):
    import keras

    from keras_genai.transformer import WarmupSchedule

    rate = WarmupSchedule(d_model=128, warmup_steps=2000, decay_steps=steps)
    model.compile(keras.optimizers.Adam(rate, beta_2=0.98, epsilon=1e-9))


def _gpt2(seed, tokenizer):
    from keras_genai.gpt2 import build_gpt2
    from keras_genai.text import GPT2Tokenizer

    tokenizer = GPT2Tokenizer(tokenizer)
    return build_gpt2(
        tokenizer.vocab_size,
        context_length=256,
        num_layers=6,
        num_heads=6,
        d_model=192,
        dropout=0.2,
        tokenizer=tokenizer,
    )


def _pretrained_gpt2(seed, tokenizer):
    from keras_genai import pretrained

    return pretrained.load("article4-gpt2")


def _compile_gpt2(model, steps, learning_rate):
    import keras

    decay = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    optimizer = keras.optimizers.AdamW(decay, weight_decay=0.1, global_clipnorm=1.0)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))


def _pixelcnn(seed, num_classes=None):
    from keras_genai.pixelcnn import build_pixelcnn

    return build_pixelcnn(num_classes=num_classes)


def _compile_pixelcnn(model, steps):
    import keras

    decay = keras.optimizers.schedules.CosineDecay(6e-3, steps)
    model.compile(keras.optimizers.Adam(decay))


def _wavenet(seed, kinds, sample_rate):
    from keras_genai.wavenet import build_wavenet

    num_classes = len(kinds) if len(kinds) > 1 else None
    return build_wavenet(num_classes=num_classes, sample_rate=sample_rate)


def _compile_wavenet(model, steps):
    import keras

    decay = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    model.compile(keras.optimizers.Adam(decay, global_clipnorm=1.0), loss)


def _diffusion(seed, num_classes=None):
    from keras_genai.diffusion import DDPM, NoiseSchedule, build_unet

    network = build_unet(num_classes=num_classes)
    return DDPM(network, NoiseSchedule(), seed=seed, prediction="v")


def _compile_diffusion(model, steps):
    import keras

    decay = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    model.compile(keras.optimizers.Adam(decay), jit_compile=False)


_RECIPES = (
    Recipe(
        name="article1-vae",
        article="article 1, VAE",
        model="VAE 784-400-2-400-784, Bernoulli",
        task=tasks.Reconstruction(),
        build=_article1_vae,
        compile=_compile_vae,
        epochs=10,
        batch_size=64,
        figure="test loss, nats per image",
        expected=154.9,
        tolerance=2.0,
        choices="The article names no size, batch or epochs. Width, batch and epochs are "
        "article 4's; z has 2 dimensions, so that the whole latent space can be drawn.",
    ),
    Recipe(
        name="article1-gan",
        article="article 1, GAN",
        model="GAN 100-256-512-784, 784-512-256-1",
        task=tasks.Adversarial(),
        build=_article1_gan,
        compile=_compile_small_gan,
        epochs=10,
        batch_size=64,
        figure="digits covered, of 10",
        expected=1,
        tolerance=1,
        choices="The article names no noise, batch or epochs, and its epoch is one batch. The "
        "noise is articles 2's and 4's 100; batch and epochs are article 4's VAE's, over all "
        "images.",
    ),
    Recipe(
        name="article1-transformer",
        article="article 1, Transformer",
        model="Transformer, 4 and 4 layers of 128",
        task=tasks.Translation(vocab_size=4000),
        build=_translator,
        compile=_compile_translator,
        epochs=40,
        batch_size=64,
        figure="BLEU of 1,000 held-out sentences, greedy",
        expected=42.2,
        tolerance=1.5,
        choices="The article names no data, size or loss. Size and training are those of Vaswani "
        "et al. 2017 (Adam's betas, warm-up, label smoothing) at a quarter of the width and two "
        "thirds of the depth, with norms first, a dropout of 0.2, and a rate that falls to 0.",
    ),
    Recipe(
        name="article2-vae",
        article="article 2, section 4.2",
        model="VAE 784-256-128-32-128-256-784, Gaussian",
        task=tasks.Reconstruction(),
        build=_article2_vae,
        compile=_compile_vae,
        epochs=10,
        batch_size=32,
        figure="test loss, squared error per pixel and 2/784 KL",
        expected=0.0482,
        tolerance=0.001,
        choices="The article's 100 epochs are 100 steps on one batch of noise, a twentieth of a "
        "pass over the images. Epochs are article 4's 10.",
    ),
    Recipe(
        name="article2-gan",
        article="article 2, section 4.1",
        model="GAN 100-256-512-1024-784, 784-512-256-1",
        task=tasks.Adversarial(),
        build=_article2_gan,
        compile=_compile_small_gan,
        epochs=6,
        batch_size=32,
        figure="digits covered, of 10",
        expected=1,
        tolerance=1,
        choices="The article's 10,000 epochs are 10,000 steps on one batch of noise: 5.3 passes "
        "over the images, 6 taken. It trains no discriminator apart; the loop is article 1's.",
    ),
    Recipe(
        name="article4-vae",
        article="article 4, section 3",
        model="VAE 784-400-20-400-784, Bernoulli",
        task=tasks.Reconstruction(),
        build=_article4_vae,
        compile=_compile_vae,
        epochs=10,
        batch_size=64,
        figure="test loss, nats per image",
        expected=105.0,
        tolerance=0.5,
    ),
    Recipe(
        name="article4-gan",
        article="article 4, section 2",
        model="GAN 100-256-512-1024-784, 784-1024-512-256-1",
        task=tasks.Adversarial(),
        build=_article4_gan,
        compile=_compile_gan,
        epochs=50,
        batch_size=64,
        figure="digits covered, of 10",
        expected=10,
        tolerance=1,
    ),
    Recipe(
        name="article4-cnn",
        article="article 4, section 1",
        model="CNN 32-64-128-10",
        task=tasks.Classification(),
        build=_article4_cnn,
        compile=_compile_cnn,
        epochs=5,
        batch_size=64,
        figure="test accuracy, %",
        expected=99.05,
        tolerance=0.2,
    ),
    Recipe(
        name="conditional-vae",
        article="article 4, section 3, with labels",
        model="VAE 784-400-20-400-784, Bernoulli, beta 5, told the digit",
        task=tasks.Reconstruction(labelled=True),
        build=_conditional_vae,
        compile=_compile_vae,
        epochs=10,
        batch_size=64,
        figure="samples read as the digit asked for, %",
        expected=97.0,
        tolerance=2.0,
        choices="Not in the article: its VAE, with the digit as a second input of both networks. "
        "With beta 1, z still knows the digit, and a quarter of the samples are another one than "
        "asked for.",
    ),
    Recipe(
        name="article3-rnn",
        article="article 3, section 1",
        model="simple RNN, 256-1113",
        task=tasks.Text("books"),
        build=partial(_language_model, cell="simple_rnn", embed_dim=256, units=1113, dropout=0.3),
        compile=partial(_compile_language_model, learning_rate=1e-3),
        epochs=12,
        batch_size=32,
        figure="held-out nats per character",
        expected=1.61,
        tolerance=0.02,
        choices="The article names no data or size. Its network has as many parameters as "
        "article3-lstm's.",
    ),
    Recipe(
        name="article3-lstm",
        article="article 3, section 2",
        model="LSTM, 256-512",
        task=tasks.Text("books"),
        build=partial(_language_model, cell="lstm", embed_dim=256, units=512, dropout=0.3),
        compile=partial(_compile_language_model, learning_rate=2e-3),
        epochs=12,
        batch_size=32,
        figure="held-out nats per character",
        expected=1.477,
        tolerance=0.02,
        choices="The article names no data or size: three books, cut into windows of 128.",
    ),
    Recipe(
        name="article3-lstm-tang",
        article="article 3, section 2",
        model="LSTM, 128-384",
        task=tasks.Text("tang"),
        build=partial(_language_model, cell="lstm", embed_dim=128, units=384, dropout=0.5),
        compile=partial(_compile_language_model, learning_rate=2e-3),
        epochs=12,
        batch_size=32,
        figure="held-out nats per character",
        expected=5.575,
        tolerance=0.05,
        choices="The article names no data or size. It is smaller than article3-lstm, since 4,508 "
        "characters take most of its parameters.",
    ),
    Recipe(
        name="article3-forecast",
        article="article 3, section 1",
        model="LSTM, 260 weeks to 64 to 52 weeks",
        task=tasks.Series(window=260, horizon=52),
        build=_forecaster,
        compile=_compile_forecaster,
        epochs=15,
        batch_size=32,
        figure="held-out absolute error 1 week ahead, ppm",
        expected=0.323,
        tolerance=0.02,
        choices="The article names no data or size. Five years are seen, the next one is forecast, "
        "week by week.",
    ),
    Recipe(
        name="article3-pixelcnn",
        article="article 3, section 5",
        model="gated PixelCNN, 8 dilated layers of 32",
        task=tasks.Likelihood(),
        build=_pixelcnn,
        compile=_compile_pixelcnn,
        epochs=4,
        batch_size=32,
        figure="test loss, nats per image",
        expected=79.59,
        tolerance=0.5,
        choices="The article names no data or size. MNIST, each pixel drawn black or white once "
        "with its brightness as probability.",
    ),
    Recipe(
        name="article3-wavenet",
        article="article 3, section 5",
        model="WaveNet, 2 blocks of 10 layers of 32",
        task=tasks.Sounds(),
        build=_wavenet,
        compile=_compile_wavenet,
        epochs=100,
        batch_size=2,
        figure="held-out nats per sample",
        expected=3.103,
        tolerance=0.05,
        choices="The article names no data or size: 98 sounds of percussion, told the kind. In "
        "training each one is up to four times as quiet, and at times upside down.",
    ),
    Recipe(
        name="article3-diffusion",
        article="article 3, section 6",
        model="U-Net 32-64-96 in 1000 linear steps, told the digit",
        task=tasks.Denoising(labelled=True),
        build=_diffusion,
        compile=_compile_diffusion,
        epochs=12,
        batch_size=64,
        figure="samples read as the digit asked for, %",
        expected=95.9,
        tolerance=2.0,
        choices="The article names no data, size or schedule: the schedule is that of Ho et al. "
        "2020, and v is predicted (Salimans & Ho 2022), which learns labels sooner than noise "
        "does. One image in ten is seen without its label, so that samples can be guided.",
    ),
    Recipe(
        name="article3-diffusion-unconditional",
        article="article 3, section 6",
        model="U-Net 32-64-96 in 1000 linear steps",
        task=tasks.Denoising(),
        build=_diffusion,
        compile=_compile_diffusion,
        epochs=4,
        batch_size=64,
        figure="digits covered, of 10",
        expected=10,
        tolerance=1,
        choices="As article3-diffusion, without labels.",
    ),
    Recipe(
        name="article4-gpt2",
        article="article 4, section 4",
        model="GPT-2, 6 layers of 192, 2,048 byte pairs",
        task=tasks.Text("books", window=256, vocab_size=2048),
        build=_gpt2,
        compile=partial(_compile_gpt2, learning_rate=1e-3),
        epochs=30,
        batch_size=8,
        figure="held-out nats per character",
        expected=1.451,
        tolerance=0.02,
        choices="The article takes the weights of a GPT-2 that was trained on 40 GB of text. This "
        "is the same network, smaller, on three books.",
    ),
    Recipe(
        name="article4-finetune",
        article="article 4, section 4",
        model="article4-gpt2, trained further",
        task=tasks.FineTuning("alice", base="article4-gpt2", window=256),
        build=_pretrained_gpt2,
        compile=partial(_compile_gpt2, learning_rate=3e-4),
        epochs=4,
        batch_size=8,
        figure="held-out nats per character",
        expected=1.342,
        tolerance=0.005,
        choices="The article names fine-tuning and shows none: the GPT of three books goes on with "
        "one of them. tests/benchmarks/finetuning.py compares it with LoRA.",
    ),
)

RECIPES = {recipe.name: recipe for recipe in _RECIPES}
