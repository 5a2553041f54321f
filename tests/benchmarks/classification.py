"""Accuracy of article1-transformer-classifier beside a bag of words, by the length of the passage.

    pip install ".[test,benchmark]"
    python tests/benchmarks/classification.py [FILE.keras]

The passages of 16, 32 and 64 tokens are those of the held-out last tenth of each book, in equal
numbers, so that guessing has an accuracy of 25%. They do not overlap: there are few of 64 tokens.
The bag of words is a logistic regression on tf-idf word vectors. It learns from passages at random
positions of the training texts, 10,000 of each book, of the same length as the test passages; the
Transformer is the same for all lengths.

Then, for a short passage of each book, the tokens that attention and occlusion find most important,
and the correlation of the two measures within a passage.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from keras_genai import load_model, pretrained
from keras_genai.tasks import TextClassificationTask

LENGTHS = (16, 32, 64)
NUM_TRAINING_PASSAGES = 10_000  # of each book
NUM_TOKENS = 5  # of the table of important tokens


def train_bag_of_words(train, tokenizer, length):
    """Return a logistic regression on the words of random passages."""
    rng, texts, labels = np.random.default_rng(0), [], []
    for label, tokens in enumerate(train):
        starts = rng.integers(0, len(tokens) - length + 1, NUM_TRAINING_PASSAGES)
        texts += [tokenizer.decode(tokens[start : start + length]) for start in starts]
        labels += NUM_TRAINING_PASSAGES * [label]
    # Among 1, 10 and 100, C hardly matters on the last ninth of the training texts.
    classifier = LogisticRegression(C=10, max_iter=1000)
    return make_pipeline(TfidfVectorizer(), classifier).fit(texts, labels)


def print_accuracies(correct, labels, name, length):
    by_class = ", ".join(f"{100 * correct[labels == label].mean():.0f}" for label in range(4))
    accuracy = correct.mean()
    error = np.sqrt(accuracy * (1 - accuracy) / len(correct))
    print(
        f"{length} tokens, {len(labels)} passages, {name}: {100 * accuracy:.1f}% ± "
        f"{100 * error:.1f} (by book: {by_class})",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", metavar="FILE.keras", help="[the pretrained model]")
    options = parser.parse_args()
    name = "article1-transformer-classifier"
    model = load_model(options.model) if options.model else pretrained.load(name)
    tokenizer, passages_by_length = model.tokenizer, {}
    for length in LENGTHS:
        data = TextClassificationTask(length).load()
        assert data.dataset_info["tokenizer"] == tokenizer.tokenizer_json
        passages, labels = passages_by_length[length] = data.test
        predicted = model.predict(passages, 256, verbose=0).argmax(axis=-1)
        print_accuracies(predicted == labels, labels, "Transformer", length)
        bag_of_words = train_bag_of_words(data.train, tokenizer, length)
        predicted = bag_of_words.predict([tokenizer.decode(tokens) for tokens in passages])
        print_accuracies(predicted == labels, labels, "bag of words", length)

    (passages, labels), correlations = passages_by_length[LENGTHS[0]], []
    for label, class_name in enumerate(model.class_names):
        rows = np.flatnonzero(labels == label)[:25]
        for row in rows:
            # Without the first and the last word, which the passage may cut.
            text = " ".join(tokenizer.decode(passages[row]).split()[1:-1])
            importance = model.token_importance(text)
            measures = importance["attention"], importance["occlusion"]
            correlations.append(np.corrcoef(*measures)[0, 1])
            if row != rows[0]:
                continue
            print(f"\n{class_name}, classified as {importance['class']}: {text}")
            for measure in ("attention", "occlusion"):
                order = np.argsort(-importance[measure])[:NUM_TOKENS]
                tokens = (
                    f"{importance['tokens'][i].strip()} {importance[measure][i]:.3f}" for i in order
                )
                print(f"  {measure}: {', '.join(tokens)}")
    print(
        f"\ncorrelation of attention and occlusion: {np.mean(correlations):.2f} on average over "
        f"{len(correlations)} passages"
    )


if __name__ == "__main__":
    main()
