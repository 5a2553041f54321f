"""Generated Tang poems of an LSTM and of a GPT: their form, and what is copied.

    python tests/benchmarks/poems.py [NAME-OR-FILE.keras ...] [--samples 100] [--print]

At each temperature, the share of freely generated poems that are quatrains, four verses of five or
of seven characters; and, of poems generated under the form of five, the share of verses that a
training poem has, and of characters that occur a second time in their poem. Both shares of the
held-out poems of that form for comparison. Last, the NLL of the held-out poems, in nats per
character.
"""

import argparse
import os
import re

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from keras_genai import datasets, load_model, pretrained
from keras_genai.autoregressive import Sampler
from keras_genai.forms import FIVE_CHARACTER_QUATRAIN, form_tokens
from keras_genai.tasks import LanguageModelingTask, split_train_test

NAMES = ("article3-lstm-tang", "article4-gpt2-tang")
TEMPERATURES = (0.4, 0.6, 0.8, 1.0)
LONGEST_POEM = 64  # characters, with the line break


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=NAMES, metavar="NAME-OR-FILE.keras")
    parser.add_argument("--samples", type=int, default=100, help="poems of each kind [100]")
    parser.add_argument("--print", action="store_true", help="also print five poems of each kind")
    options = parser.parse_args()
    train, held_out = split_train_test(datasets.load_quatrains())
    known = {verse for poem in train for verse in verses(poem)}
    report("held-out poems", [poem for poem in held_out if verse_lengths(poem) == [5] * 4], known)
    task = LanguageModelingTask("tang")
    data = task.load()
    for name in options.models:
        model = load_model(name) if name.endswith(".keras") else pretrained.load(name)
        nats = task.evaluate(model, data)["value"]
        print(f"{name}: {model.count_params():,} parameters, {nats:.3f} nats per character")
        allowed = form_tokens(FIVE_CHARACTER_QUATRAIN, model.tokenizer)
        for temperature in TEMPERATURES:
            sampling = {"sampler": Sampler(temperature=temperature), "seed": 0}
            prompts = ["\n"] * options.samples  # a line break starts a poem
            texts = model.generate(prompts, LONGEST_POEM, **sampling)
            free = [text[1:].split("\n")[0] for text in texts]
            share = np.mean([verse_lengths(poem) in ([5] * 4, [7] * 4) for poem in free])
            texts = model.generate(prompts, len(allowed), allowed_tokens=allowed, **sampling)
            poems = [text.strip() for text in texts]
            report(f"  temperature {temperature}: {share:.0%} are quatrains", poems, known)
            if options.print:
                print(*free[:5], *poems[:5], sep="\n")


def report(name: str, poems: list[str], known: set[str]) -> None:
    copied = np.mean([verse in known for poem in poems for verse in verses(poem)])
    letters = ["".join(verses(poem)) for poem in poems]
    repeated = 1 - sum(len(set(poem)) for poem in letters) / sum(map(len, letters))
    print(f"{name}; {copied:.1%} of the verses are copied, {repeated:.1%} of the characters repeat")


def verses(poem: str) -> list[str]:
    return re.findall(r"\w+", poem)


def verse_lengths(poem: str) -> list[int]:
    return [len(verse) for verse in verses(poem)]


if __name__ == "__main__":
    main()
