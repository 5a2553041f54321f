"""BLEU and chrF of article1-transformer, beside copies of the most similar sentence's translation.

    pip install ".[test,benchmark]"
    python tests/benchmarks/translation.py [FILE.keras]

On the 1,000 held-out pairs, and on those of them without a near duplicate in the training set, that
is, with a similarity below 0.6 to each training sentence: the cosine of tf-idf word vectors. A copy
needs no network; a translation model should score higher on both.
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", metavar="FILE.keras", help="[the pretrained model]")
    options = parser.parse_args()
    model = load_model(options.model) if options.model else pretrained.load("article1-transformer")
    pairs = load_translations()
    (train_sources, train_targets), (sources, references) = (
        zip(*part, strict=True) for part in (pairs[:-1000], pairs[-1000:])
    )
    vectorizer = TfidfVectorizer().fit(train_sources)
    similarity = vectorizer.transform(sources) @ vectorizer.transform(train_sources).T
    similarity = similarity.toarray()
    nearest = similarity.argmax(axis=1)
    translations = {"copy of the nearest": [train_targets[i] for i in nearest]}
    for name, beam_width in (("greedy", 1), ("beam of 4", 4)):
        start = time.perf_counter()
        translations[name] = model.translate(sources, beam_width=beam_width)
        print(f"{name}: {time.perf_counter() - start:.0f} s with compilation", flush=True)
    for subset, mask in (
        ("all", np.full(1000, True)),
        ("without near duplicates", similarity.max(axis=1) < 0.6),
    ):
        rows = np.flatnonzero(mask)
        for name, lines in translations.items():
            scores = translation_scores([lines[i] for i in rows], [references[i] for i in rows])
            values = ", ".join(f"{metric} {score:.1f}" for metric, score in scores.items())
            print(f"{subset} ({len(rows)} pairs), {name}: {values}")


if __name__ == "__main__":
    main()
