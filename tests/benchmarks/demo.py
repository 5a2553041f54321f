"""Seconds of each action of the demo: the first one, with loading and compilation, and later ones.

    python tests/benchmarks/demo.py

The times are those of the functions behind the page, figures included, without the browser.
"""

import statistics
import time

from keras_genai import datasets
from keras_genai.demo import actions, sequences

NUM_LATER = 5  # of which the median is printed
_, (X, _) = datasets.load_mnist()
DRAWING = X[0].ravel().tolist()
PASSAGE = "And the king said unto the people, Go ye into the land of thy fathers."
SENTENCE = "Opens a dialog where you can select the file."


def play_tune():
    *_, tune = sequences.stream_tune("article3-music", "6/8", "D", 0.8, 0)
    return actions.render(sequences.play_tune(tune)[1])


def stream_text(name, prompt):
    return list(sequences.stream_text(name, prompt, 150, 0.8, 0))


ACTIONS = {
    "latent plane": lambda: actions.latent_plane("article4-vae"),
    "point of the latent plane": lambda: actions.decode_point("article4-vae", None, 0.5, 0.5),
    "point, convolutional": lambda: actions.decode_point("conv-vae", None, 0.5, 0.5),
    "10 images of the DCGAN": lambda: actions.render(
        actions.gan_images("conditional-dcgan", 7, 10, 0)
    ),
    "2 diffusion paths, 20 steps, guidance": lambda: actions.render(
        actions.diffusion_path("article3-diffusion", 7, 2, 20, 2, 0)
    ),
    "10 images of a prompt, 10 steps, guidance": lambda: actions.render(
        actions.word_images("article1-text-to-image", "a thick slanted seven", 2, 10, 0)
    ),
    "4 completions": lambda: actions.render(
        actions.complete_digit("article3-pixelcnn", DRAWING, 4, 0)
    ),
    "classification of a drawing": lambda: actions.classify_digit("article4-cnn", DRAWING),
    "150 tokens of GPT-2": lambda: stream_text("article4-gpt2", "In the beginning"),
    "150 characters of the LSTM": lambda: stream_text("article3-lstm", "In the beginning"),
    "150 characters of the Tang GPT-2": lambda: stream_text("article4-gpt2-tang", "明月"),
    "tune, sound and notes": play_tune,
    "translation and attention": lambda: actions.render(
        sequences.translate("article1-transformer", SENTENCE)[1]
    ),
    "classification of a passage": lambda: sequences.classify_author(
        "article1-transformer-classifier", PASSAGE
    ),
    "forecast": lambda: actions.render(sequences.forecast("article3-forecast", 2100)[0]),
    "1 s of sound and spectrogram": lambda: actions.render(
        sequences.generate_sound("article3-wavenet", "tabla", 1, 0.9, 0)[2]
    ),
    "sound of the VAE and spectrogram": lambda: actions.render(
        sequences.generate_sound("article3-audio-vae", "tabla", None, None, 0)[2]
    ),
}


def seconds(action) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main():
    print("| action | first, s | later, s |\n|---|---|---|")
    for name, action in ACTIONS.items():
        first = seconds(action)
        later = statistics.median(seconds(action) for _ in range(NUM_LATER))
        print(f"| {name} | {first:.2f} | {later:.3f} |", flush=True)


if __name__ == "__main__":
    main()
