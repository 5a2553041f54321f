"""Generated English: the share of known words, and what is copied from the training text.

    python tests/benchmarks/words.py [NAME ...] [--samples 20] [--temperature 0.7] [--print]

A word is known if it occurs in the training text of the models, the first nine tenths of three
books; texts from the held-out tenths for comparison. A text of 1,000 characters, or of the context
length, begins after a line end; its first and last word, which may be cut, do not count. Copied is
what stands in common substrings of 30 characters or more, with white space as one space.
"""

import argparse
import os
import re

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from keras_genai import datasets, pretrained
from keras_genai.autoregressive import Sampler
from keras_genai.evaluation import common_substrings
from keras_genai.quality_report import MIN_COPIED
from keras_genai.tasks.base import split_train_test

NAMES = ("article3-rnn", "article3-lstm", "article4-gpt2")
NUM_CHARACTERS = 1000


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME", help=" ".join(NAMES))
    parser.add_argument("--samples", type=int, default=20, help="texts of each model [20]")
    parser.add_argument("--temperature", type=float, default=0.7, help="of sampling [0.7]")
    parser.add_argument("--print", action="store_true", help="also print the texts")
    options = parser.parse_args()
    parts = [split_train_test(book) for book in datasets.load_books()]
    training_text, held_out = map("\n".join, zip(*parts, strict=True))
    vocabulary, source = set(words(training_text)), collapse(training_text)
    starts = np.linspace(0, len(held_out) - NUM_CHARACTERS, options.samples).astype(int)
    real_texts = [held_out[start : start + NUM_CHARACTERS] for start in starts]
    report("held-out text", real_texts, vocabulary, source)
    for name in options.names:
        texts = generate(pretrained.load(name), options.samples, options.temperature)
        report(name, texts, vocabulary, source)
        if options.print:
            print(*texts, sep="\n----------------------------------------\n")


def report(name: str, texts: list[str], vocabulary: set[str], source: str) -> None:
    found = [word for text in texts for word in words(text)[1:-1]]
    unknown = [word for word in found if word not in vocabulary]
    num_copied = num_characters = longest = 0
    for text in map(collapse, texts):
        lengths = common_substrings(text, source)
        runs = [range(i, i + n) for i, n in enumerate(lengths) if n >= MIN_COPIED]
        num_copied += len(set().union(*runs))
        num_characters += len(text)
        longest = max(longest, *lengths)
    print(
        f"{name}: {100 - 100 * len(unknown) / len(found):.1f}% of {len(found)} words are known; "
        f"{100 * num_copied / num_characters:.1f}% of the text is in copies of {MIN_COPIED} "
        f"characters or more, the longest of which has {longest}",
    )
    print("  not known:", " ".join(unknown[:20]), flush=True)


def collapse(text: str) -> str:
    return " ".join(text.split())


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+(?:'[a-z]+)*", text.lower())


def generate(model, num_texts: int, temperature: float) -> list[str]:
    sampler = Sampler(temperature=temperature)
    num_tokens = min(NUM_CHARACTERS, (model.context_length or NUM_CHARACTERS + 1) - 1)
    texts = model.generate(["\n"] * num_texts, num_tokens, sampler=sampler, seed=0)
    return [text[:NUM_CHARACTERS].strip() for text in texts]


if __name__ == "__main__":
    main()
