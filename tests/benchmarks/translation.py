"""BLEU and chrF of article1-transformer, beside copying the most similar sentence's translation.

    pip install ".[test,benchmark]"
    python tests/benchmarks/translation.py [FILE.keras]

On the 1,000 held-out pairs, and on those of them without a near twin in the training set: the
similarity is the cosine of the sentences' words weighted by tf-idf, and that of a twin at least
0.6. A copy needs no network: a translator that has learned to translate must beat it on both.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from keras_genai import load_model, pretrained
from keras_genai.datasets import load_translations
from keras_genai.tasks import score_translations


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", metavar="FILE.keras", help="[the shipped weights]")
    options = parser.parse_args()
    model = load_model(options.model) if options.model else pretrained.load("article1-transformer")
    pairs = load_translations()
    (known, answers), (sources, references) = (
        zip(*part) for part in (pairs[:-1000], pairs[-1000:])
    )
    vectors = TfidfVectorizer().fit(known)
    similarity = (vectors.transform(sources) @ vectors.transform(known).T).toarray()
    translations = {"copy of the nearest": [answers[i] for i in similarity.argmax(axis=1)]}
    for name, beam_width in (("greedy", 1), ("beam of 4", 4)):
        start = time.perf_counter()
        translations[name] = model.translate(sources, beam_width)
        print(f"{name}: {time.perf_counter() - start:.0f} s with compilation", flush=True)
    for name, kept in (
        ("all", np.full(1000, True)),
        ("without a twin", similarity.max(axis=1) < 0.6),
    ):
        rows = np.flatnonzero(kept)
        for translator, lines in translations.items():
            scores = score_translations([lines[i] for i in rows], [references[i] for i in rows])
            figures = ", ".join(f"{metric} {score:.1f}" for metric, score in scores.items())
            print(f"{name} ({len(rows)} pairs), {translator}: {figures}")


if __name__ == "__main__":
    main()
