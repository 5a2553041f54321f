"""The recipes of images."""

from keras_genai.catalog.base import Recipe

IMAGE_RECIPES = (
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
        name="article1-text-to-image",
        article="article 1, future developments",
        model="U-Net 32-64-96 in 1000 cosine steps, text encoder of 1 layer of 64",
        data="MNIST with captions",
        epochs=7,
        batch_size=32,
        metric="samples as the prompt says, %",
        expected=89.3,
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
)
