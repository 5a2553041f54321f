"""Experiments on images: task, builder and compile function of each recipe."""

import math
from functools import partial

import keras
from keras.optimizers import Adam
from keras.optimizers.schedules import CosineDecay

from keras_genai import tasks
from keras_genai.cnn import build_cnn
from keras_genai.diffusion import DDPM, NoiseSchedule, build_unet
from keras_genai.gan import (
    GAN,
    build_conv_discriminator,
    build_conv_generator,
    build_discriminator,
    build_generator,
)
from keras_genai.learned_prior import LearnedPriorVAE, MixturePrior
from keras_genai.pixelcnn import build_pixelcnn
from keras_genai.tasks import Experiment
from keras_genai.tasks.text_to_image import DIGITS, SLANT, THICKNESS
from keras_genai.text_to_image import FIRST_WORD_ID, TextToImageDDPM, build_text_encoder
from keras_genai.vae import (
    VAE,
    build_conv_decoder,
    build_conv_encoder,
    build_decoder,
    build_encoder,
)

# Executing several steps per call saves time on small models.
STEPS_PER_EXECUTION = 32
MNIST_SHAPE = (28, 28, 1)
MNIST_WORDS = ("a", "an", *THICKNESS, *SLANT, *DIGITS)  # without data


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
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(Adam(1e-3), loss, metrics=["accuracy"])


# PixelCNN and diffusion.


def _build_pixelcnn(seed, num_classes=None, image_shape=MNIST_SHAPE):
    return build_pixelcnn(image_shape, num_classes=num_classes)


def _compile_pixelcnn(model, steps):
    model.compile(Adam(CosineDecay(6e-3, steps)))


def _build_diffusion(seed, num_classes=None, image_shape=MNIST_SHAPE, *, beta_schedule):
    network = build_unet(image_shape, num_classes=num_classes)
    return DDPM(network, NoiseSchedule(beta_schedule), seed=seed, prediction_type="v")


def _build_text_to_image(
    seed, vocabulary=MNIST_WORDS, max_words=4, example_prompts=(), image_shape=MNIST_SHAPE
):
    encoder = build_text_encoder(len(vocabulary) + FIRST_WORD_ID, max_words)
    network, schedule = build_unet(image_shape, text_encoder=encoder), NoiseSchedule("cosine")
    return TextToImageDDPM(
        network, schedule, vocabulary, example_prompts, seed=seed, prediction_type="v"
    )


def _compile_diffusion(model, steps):
    # On a CPU, XLA makes convolutions slower.
    model.compile(Adam(CosineDecay(2e-3, steps)), jit_compile=False)


IMAGE_EXPERIMENTS = {
    "article1-vae": Experiment(tasks.VAETask(), _build_article1_vae, _compile_vae),
    "article1-gan": Experiment(
        tasks.GANTask(), partial(_build_small_gan, generator_dims=(256, 512)), _compile_small_gan
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
    "article3-pixelcnn": Experiment(tasks.PixelCNNTask(), _build_pixelcnn, _compile_pixelcnn),
    "article1-text-to-image": Experiment(
        tasks.TextToImageTask(), _build_text_to_image, _compile_diffusion
    ),
    "article3-diffusion": Experiment(
        tasks.DiffusionTask(class_conditional=True),
        partial(_build_diffusion, beta_schedule="linear"),
        _compile_diffusion,
    ),
    "article3-diffusion-cosine": Experiment(
        tasks.DiffusionTask(class_conditional=True),
        partial(_build_diffusion, beta_schedule="cosine"),
        _compile_diffusion,
    ),
    "article3-diffusion-unconditional": Experiment(
        tasks.DiffusionTask(), partial(_build_diffusion, beta_schedule="cosine"), _compile_diffusion
    ),
}
