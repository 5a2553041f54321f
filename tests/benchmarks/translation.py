"""BLEU and chrF of translation models, by the length of the sentence.

    pip install ".[test,benchmark]"
    python tests/benchmarks/translation.py [NAME-OR-FILE.keras ...]

On the 1,000 held-out pairs: by the number of words of the English sentence; and on those without a
near duplicate in the training set, that is, with a similarity below 0.6 to each training sentence:
the cosine of tf-idf word vectors. A copy of the most similar sentence's translation needs no
network; a translation model should score higher. Translations are greedy, and by a beam of 4.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from keras_genai import load_model, pretrained
from keras_genai.datasets import load_translations
from keras_genai.metrics import translation_scores

NAMES = ("article1-transformer", "article3-lstm-attention", "article3-lstm-translation")
LENGTHS = ((3, 5), (6, 8), (9, 12), (13, 25))  # words


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=NAMES, metavar="NAME-OR-FILE.keras")
    options = parser.parse_args()
    pairs = load_translations()
    (train_sources, train_targets), (sources, references) = (
        zip(*part, strict=True) for part in (pairs[:-1000], pairs[-1000:])
    )
    vectorizer = TfidfVectorizer().fit(train_sources)
    similarity = vectorizer.transform(sources) @ vectorizer.transform(train_sources).T
    similarity = similarity.toarray()
    nearest = similarity.argmax(axis=1)
    translations = {"copy of the nearest": [train_targets[i] for i in nearest]}
    for name in options.models:
        model = load_model(name) if name.endswith(".keras") else pretrained.load(name)
        print(f"{name}: {model.count_params():,} parameters")
        for search, beam_width in (("greedy", 1), ("beam of 4", 4)):
            start = time.perf_counter()
            translations[f"{name}, {search}"] = model.translate(sources, beam_width=beam_width)
            print(f"  {search}: {time.perf_counter() - start:.0f} s with compilation", flush=True)
    num_words = np.array([len(source.split()) for source in sources])
    subsets = {
        "all": np.full(1000, True),
        "without near duplicates": similarity.max(axis=1) < 0.6,
    }
    for shortest, longest in LENGTHS:
        mask = (shortest <= num_words) & (num_words <= longest)
        subsets[f"{shortest} to {longest} words"] = mask
    for subset, mask in subsets.items():
        rows = np.flatnonzero(mask)
        print(f"{subset}: {len(rows)} pairs")
        for name, lines in translations.items():
            scores = translation_scores([lines[i] for i in rows], [references[i] for i in rows])
            values = ", ".join(f"{metric} {score:.1f}" for metric, score in scores.items())
            print(f"  {name}: {values}")


if __name__ == "__main__":
    main()
