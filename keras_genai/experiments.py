"""Task, builder and compile function of each recipe.

`catalog` has what is known of a recipe without loading TensorFlow; this module has the code.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial

import keras
from keras.optimizers import Adam, AdamW
from keras.optimizers.schedules import CosineDecay

from keras_genai import pretrained, tasks
from keras_genai.cnn import build_cnn
from keras_genai.diffusion import DDPM, NoiseSchedule, build_unet
from keras_genai.gan import (
    GAN,
    build_conv_discriminator,
    build_conv_generator,
    build_discriminator,
    build_generator,
)
from keras_genai.gpt2 import build_gpt2
from keras_genai.learned_prior import LearnedPriorVAE, MixturePrior
from keras_genai.pixelcnn import build_pixelcnn
from keras_genai.rnn import build_forecaster, build_language_model
from keras_genai.text import CharacterTokenizer, GPT2Tokenizer, TranslationTokenizer
from keras_genai.transformer import TransformerSchedule, build_seq2seq_transformer
from keras_genai.vae import (
    VAE,
    build_conv_decoder,
    build_conv_encoder,
    build_decoder,
    build_encoder,
)
from keras_genai.wavenet import build_wavenet

# Executing several steps per call saves time on small models.
STEPS_PER_EXECUTION = 32
MNIST_SHAPE = (28, 28, 1)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The code of one recipe.

    Attributes:
        task: `tasks.Task`. Data, metric and samples.
        build: Function of (seed, **dataset_info) that returns the model.
        compile: Function of (model, steps) that compiles the model for a number of training steps.
    """

    task: tasks.Task
    build: Callable
    compile: Callable


def _cross_entropy(**options):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **options)


# VAE.


def _scale_widths(widths, image_shape) -> tuple:
    """Return the widths of convolutions that halve an image, with more of them for larger images.

    The first of `widths` halve MNIST's 28 pixels to 7; others follow until no more than 8 are left.
    """
    size = min(image_shape[:2]) // 4
    while size > 8 and size % 2 == 0:
        widths, size = (*widths, 2 * widths[-1]), size // 2
    return widths


def _build_article1_vae(seed, num_classes=None, image_shape=MNIST_SHAPE):
    num_pixels = math.prod(image_shape)
    encoder = build_encoder(num_pixels, latent_dim=2)
    return VAE(encoder, build_decoder(latent_dim=2, output_dim=num_pixels), seed=seed)


def _build_article2_vae(seed, num_classes=None, image_shape=MNIST_SHAPE):
    num_pixels = math.prod(image_shape)
    encoder = build_encoder(num_pixels, hidden_dims=(256, 128), latent_dim=32)
    decoder = build_decoder(hidden_dims=(128, 256), latent_dim=32, output_dim=num_pixels)
    return VAE(encoder, decoder, likelihood="gaussian", seed=seed)


def _build_article4_vae(seed, num_classes=None, image_shape=MNIST_SHAPE, beta=1.0):
    num_pixels = math.prod(image_shape)
    encoder = build_encoder(num_pixels, num_classes=num_classes)
    decoder = build_decoder(output_dim=num_pixels, num_classes=num_classes)
    return VAE(encoder, decoder, beta=beta, seed=seed)


def _build_conv_vae(
    seed, num_classes=None, image_shape=MNIST_SHAPE, *, latent_dim, num_components, beta=1.0
):
    widths = _scale_widths((32, 64), image_shape)
    encoder = build_conv_encoder(
        image_shape, widths, latent_dim=latent_dim, num_classes=num_classes
    )
    decoder = build_conv_decoder(
        latent_dim, widths=widths[::-1], image_shape=image_shape, num_classes=num_classes
    )
    prior = MixturePrior(latent_dim, num_components, num_classes)
    return LearnedPriorVAE(encoder, decoder, prior, beta=beta, seed=seed)


def _compile_conv_vae(model, steps):
    model.compile(Adam(CosineDecay(1e-3, steps)), jit_compile=False)


def _compile_vae(model, steps):
    # XLA, which Keras does not use on a CPU by default, makes dense networks faster there.
    model.compile(Adam(1e-3), jit_compile=True, steps_per_execution=STEPS_PER_EXECUTION)


# GAN.


def _build_small_gan(seed, num_classes=None, image_shape=MNIST_SHAPE, *, generator_dims):
    generator = build_generator(
        hidden_dims=generator_dims,
        output_dim=math.prod(image_shape),
        output_activation="sigmoid",
        initializer="glorot",
    )
    discriminator = build_discriminator(
        math.prod(image_shape),
        hidden_dims=(512, 256),
        activation="relu",
        rescale=False,
        initializer="glorot",
    )
    return GAN(generator, discriminator, joint_batch=True, resample_noise=False, seed=seed)


def _build_article4_gan(seed, num_classes=None, image_shape=MNIST_SHAPE):
    num_pixels = math.prod(image_shape)
    generator = build_generator(output_dim=num_pixels)
    return GAN(generator, build_discriminator(num_pixels), seed=seed)


def _build_dcgan(seed, num_classes=None, image_shape=MNIST_SHAPE):
    generator = build_conv_generator(
        widths=_scale_widths((64, 128), image_shape)[::-1],
        image_shape=image_shape,
        num_classes=num_classes,
    )
    discriminator = build_conv_discriminator(
        image_shape,
        _scale_widths((32, 64, 128), image_shape),
        num_classes=num_classes,
        output_activation="linear",
    )
    return GAN(generator, discriminator, seed=seed, loss="wasserstein_gp")


def _compile_small_gan(model, steps):
    model.compile("adam", "adam", steps_per_execution=STEPS_PER_EXECUTION)


def _compile_gan(model, steps):
    model.compile(steps_per_execution=STEPS_PER_EXECUTION)


def _compile_dcgan(model, steps):
    # A small beta_1 as in Radford et al. 2016. At the end of training, the generator has the
    # average of its weights (Keras's `use_ema`).
    optimizers = [
        Adam(CosineDecay(4e-4, steps), beta_1=0.5, **options)
        for options in ({"use_ema": True, "ema_momentum": 0.999}, {})
    ]
    model.compile(*optimizers, jit_compile=False)


# CNN.


def _build_cnn(seed, num_classes=10, image_shape=MNIST_SHAPE):
    return build_cnn(image_shape, num_classes)


def _compile_cnn(model, steps):
    model.compile(Adam(1e-3), _cross_entropy(), metrics=["accuracy"])


# Recurrent networks.


def _build_language_model(seed, characters, **config):
    tokenizer = CharacterTokenizer(characters)
    return build_language_model(tokenizer.vocab_size, tokenizer=tokenizer, **config)


def _compile_language_model(model, steps, *, learning_rate):
    # Clipping bounds the gradients that explode through time (article 3, section 1).
    optimizer = Adam(CosineDecay(learning_rate, steps), global_clipnorm=1.0)
    model.compile(optimizer, _cross_entropy())


def _build_forecaster(seed, window=260, horizon=52):
    return build_forecaster(window, horizon)


def _compile_forecaster(model, steps):
    model.compile(Adam(CosineDecay(3e-3, steps), global_clipnorm=1.0), loss="mae")


# Transformer and GPT-2.


def _build_translator(seed, input_tokenizer, target_tokenizer, max_seq_length):
    source, target = map(TranslationTokenizer, (input_tokenizer, target_tokenizer))
    return build_seq2seq_transformer(
        source.vocab_size,
        target.vocab_size,
        max_seq_length,
        dropout=0.2,
        input_tokenizer=source,
        target_tokenizer=target,
    )


def _compile_translator(model, steps):
    learning_rate = TransformerSchedule(d_model=128, warmup_steps=2000, decay_steps=steps)
    model.compile(Adam(learning_rate, beta_2=0.98, epsilon=1e-9))


def _build_gpt2(seed, tokenizer):
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


def _load_pretrained_gpt2(seed, tokenizer):
    return pretrained.load("article4-gpt2")


def _compile_gpt2(model, steps, *, learning_rate):
    decay = CosineDecay(learning_rate, steps)
    model.compile(AdamW(decay, weight_decay=0.1, global_clipnorm=1.0), _cross_entropy())


# PixelCNN, WaveNet and diffusion.


def _build_pixelcnn(seed, num_classes=None, image_shape=MNIST_SHAPE):
    return build_pixelcnn(image_shape, num_classes=num_classes)


def _compile_pixelcnn(model, steps):
    model.compile(Adam(CosineDecay(6e-3, steps)))


def _build_wavenet(seed, class_names, sample_rate):
    num_classes = len(class_names) if len(class_names) > 1 else None
    return build_wavenet(num_classes=num_classes, sample_rate=sample_rate)


def _compile_wavenet(model, steps):
    optimizer = Adam(CosineDecay(2e-3, steps), global_clipnorm=1.0)
    model.compile(optimizer, _cross_entropy(ignore_class=-1))


def _build_diffusion(seed, num_classes=None, image_shape=MNIST_SHAPE, *, beta_schedule):
    network = build_unet(image_shape, num_classes=num_classes)
    return DDPM(network, NoiseSchedule(beta_schedule), seed=seed, prediction_type="v")


def _compile_diffusion(model, steps):
    # On a CPU, XLA makes convolutions slower.
    model.compile(Adam(CosineDecay(2e-3, steps)), jit_compile=False)


def _language_model(task, cell, embed_dim, units, dropout, learning_rate):
    return Experiment(
        task,
        partial(
            _build_language_model, cell=cell, embed_dim=embed_dim, units=units, dropout=dropout
        ),
        partial(_compile_language_model, learning_rate=learning_rate),
    )


EXPERIMENTS = {
    "article1-vae": Experiment(tasks.VAETask(), _build_article1_vae, _compile_vae),
    "article1-gan": Experiment(
        tasks.GANTask(), partial(_build_small_gan, generator_dims=(256, 512)), _compile_small_gan
    ),
    "article1-transformer": Experiment(
        tasks.TranslationTask(vocab_size=4000), _build_translator, _compile_translator
    ),
    "article2-vae": Experiment(tasks.VAETask(), _build_article2_vae, _compile_vae),
    "article2-gan": Experiment(
        tasks.GANTask(),
        partial(_build_small_gan, generator_dims=(256, 512, 1024)),
        _compile_small_gan,
    ),
    "article4-vae": Experiment(tasks.VAETask(), _build_article4_vae, _compile_vae),
    "article4-gan": Experiment(tasks.GANTask(), _build_article4_gan, _compile_gan),
    "article4-cnn": Experiment(tasks.ClassificationTask(), _build_cnn, _compile_cnn),
    "conditional-vae": Experiment(
        tasks.VAETask(class_conditional=True),
        partial(_build_article4_vae, num_classes=10, beta=5.0),
        _compile_vae,
    ),
    "conv-vae": Experiment(
        tasks.VAETask(flat=False, frechet=True),
        partial(_build_conv_vae, latent_dim=16, num_components=500),
        _compile_conv_vae,
    ),
    "conditional-conv-vae": Experiment(
        tasks.VAETask(class_conditional=True, flat=False, frechet=True),
        partial(_build_conv_vae, num_classes=10, latent_dim=12, num_components=50, beta=1.25),
        _compile_conv_vae,
    ),
    "dcgan": Experiment(tasks.GANTask(flat=False, frechet=True), _build_dcgan, _compile_dcgan),
    "conditional-dcgan": Experiment(
        tasks.GANTask(class_conditional=True, flat=False, frechet=True),
        partial(_build_dcgan, num_classes=10),
        _compile_dcgan,
    ),
    "article3-rnn": _language_model(
        tasks.LanguageModelingTask("books"), "simple_rnn", 256, 1113, 0.3, learning_rate=1e-3
    ),
    "article3-lstm": _language_model(
        tasks.LanguageModelingTask("books"), "lstm", 256, 512, 0.3, learning_rate=2e-3
    ),
    "article3-lstm-tang": _language_model(
        tasks.LanguageModelingTask("tang"), "lstm", 128, 384, 0.5, learning_rate=2e-3
    ),
    "article3-forecast": Experiment(
        tasks.ForecastingTask(window=260, horizon=52), _build_forecaster, _compile_forecaster
    ),
    "article3-pixelcnn": Experiment(tasks.PixelCNNTask(), _build_pixelcnn, _compile_pixelcnn),
    "article3-wavenet": Experiment(tasks.AudioTask(), _build_wavenet, _compile_wavenet),
    "article3-diffusion": Experiment(
        tasks.DiffusionTask(class_conditional=True),
        partial(_build_diffusion, beta_schedule="linear"),
        _compile_diffusion,
    ),
    "article3-diffusion-unconditional": Experiment(
        tasks.DiffusionTask(), partial(_build_diffusion, beta_schedule="cosine"), _compile_diffusion
    ),
    "article4-gpt2": Experiment(
        tasks.LanguageModelingTask("books", window=256, vocab_size=2048),
        _build_gpt2,
        partial(_compile_gpt2, learning_rate=1e-3),
    ),
    "article4-finetune": Experiment(
        tasks.FineTuningTask("alice", base="article4-gpt2", window=256),
        _load_pretrained_gpt2,
        partial(_compile_gpt2, learning_rate=3e-4),
    ),
}
