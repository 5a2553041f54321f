"""Metrics of generated samples and of predictions: pure functions of arrays, texts and models.

Those of image features are defined in `feature_metrics`, those of a VAE and the units of likelihood
in `likelihood`.
"""

import numpy as np

from keras_genai.feature_metrics import (
    density_coverage,
    frechet_distance,
    image_features,
    kernel_distance,
    precision_recall,
)
from keras_genai.likelihood import (
    bits_per_dimension,
    elbo,
    importance_weighted_log_likelihood,
    perplexity,
)
from keras_genai.validation import (
    as_array,
    as_numbers,
    check_methods,
    check_number,
    check_range,
    check_size,
    check_tokens,
)

WINDOWS_PER_BATCH = 64  # of a text that exceeds the context length

__all__ = [
    "bits_per_dimension",
    "classify_digits",
    "density_coverage",
    "elbo",
    "frechet_distance",
    "image_features",
    "importance_weighted_log_likelihood",
    "kernel_distance",
    "label_accuracy",
    "mean_absolute_error",
    "mode_coverage",
    "nats_per_character",
    "perplexity",
    "precision_recall",
    "sliding_window_log_prob",
    "translation_scores",
    "windows_log_prob",
]


def classify_digits(images, classifier) -> np.ndarray:
    """Return the digits `(n,)` that a classifier predicts for images.

    Args:
        images: Float array `(n, 784)` or `(n, 28, 28, 1)`. Images in [0, 1].
        classifier: `keras.Model` that maps images `(n, 28, 28, 1)` to logits `(n, 10)`, such as
            `pretrained.load("article4-cnn")`.
    """
    images = np.reshape(images, (-1, 28, 28, 1))
    return np.argmax(classifier.predict(images, batch_size=500, verbose=0), axis=-1)


def label_accuracy(predicted, labels) -> float:
    """Return the percentage of predicted labels `(n,)` that equal the requested labels `(n,)`."""
    predicted, labels = as_numbers("predicted", predicted), as_numbers("labels", labels)
    _check_same_shape("predicted", predicted, "labels", labels)
    return 100 * float(np.mean(np.equal(predicted, labels)))


def _check_same_shape(name, array, other_name, other) -> None:
    if array.shape != other.shape or array.ndim == 0 or array.size == 0:
        raise ValueError(
            f"{name}: expected one of each of {other_name}, at least one, got shapes "
            f"{array.shape} and {other.shape}."
        )


def mode_coverage(labels, num_classes=10, threshold=0.01) -> tuple[int, list[float]]:
    """Count the classes that a sample of labels covers.

    Args:
        labels: Int array `(n,)`. Classes of generated samples.
        num_classes: Int. Number of classes. Defaults to `10`.
        threshold: Float. Fraction of the samples from which a class counts as covered. Defaults to
            `0.01`.

    Returns:
        Tuple of the number of covered classes and the fraction of samples of each class.

    Raises:
        ValueError: for no sample, and for a label outside 0 … num_classes - 1.
    """
    num_classes = check_size("num_classes", num_classes)
    threshold = check_number("threshold", threshold, 0, 1)
    labels = as_array("labels", labels)
    if labels.ndim != 1 or len(labels) == 0:
        raise ValueError(f"labels: expected shape (n,), n at least 1, got {labels.shape}.")
    check_range("labels", labels, num_classes)
    fractions = np.bincount(labels, minlength=num_classes) / len(labels)
    return int(np.sum(fractions >= threshold)), fractions.tolist()


def sliding_window_log_prob(model, sequences) -> float:
    """Return the total log-likelihood, in nats, of sequences that may exceed the context length.

    A longer sequence is split into windows that overlap by half. Only the second half of a window
    is scored, so that each token has at least half a context before it; the first window scores
    both halves.

    Args:
        model: Language model with `context_length` and `log_prob`.
        sequences: List of int arrays `(n,)`. The first token of each is not scored.

    Raises:
        ValueError: for another model, and for a sequence of fewer than 2 tokens.
    """
    check_methods("model", model, "a language model", "context_length", "log_prob")
    vocab_size = getattr(model, "vocab_size", np.iinfo("int32").max)
    check_tokens("sequences", sequences, vocab_size, minimum=2)
    if model.context_length is None:
        return float(model.log_prob(sequences)[0].sum())
    return sum(windows_log_prob(model, sequence) for sequence in sequences)


def windows_log_prob(model, tokens) -> float:
    """Return the log-likelihood of one sequence; see `sliding_window_log_prob`.

    Args:
        model: Language model with a context length.
        tokens: Int array `(n,)` or `StreamedArray`, read in parts.
    """
    total, half = 0.0, model.context_length // 2
    starts = range(0, max(1, len(tokens) - half), half)
    for first in range(0, len(starts), WINDOWS_PER_BATCH):  # memory does not grow with the text
        batch = starts[first : first + WINDOWS_PER_BATCH]
        _, log_probs = model.log_prob([tokens[start : start + 2 * half] for start in batch])
        for start, row in zip(batch, log_probs, strict=True):
            total += float(row[half - 1 if start else 0 :].sum())
    return total


def nats_per_character(model, text) -> float:
    """Return the negative log-likelihood of a text per character, in nats.

    The first token is the context of the second: neither its likelihood nor its characters count,
    as in the recipes of language models. The values of different tokenizers can be compared.

    Args:
        model: Language model with a `tokenizer`; see `sliding_window_log_prob`.
        text: String, or list of strings, of at least 2 tokens each. Their nats and characters are
            added.

    Raises:
        ValueError: for another model, or one without tokenizer, for a text of one token, and for
            characters outside the vocabulary.
    """
    names = ("context_length", "log_prob", "tokenizer", "vocab_size")
    check_methods("model", model, "a language model", *names)
    if model.tokenizer is None:
        raise ValueError("model: expected a language model with a tokenizer, got None.")
    texts = [text] if isinstance(text, str) else text
    if not isinstance(texts, (list, tuple)) or not texts:
        raise ValueError(f"text: expected a string or a list of strings, got {text!r:.200}.")
    sequences = [model.tokenizer.encode(item) for item in texts]
    check_tokens("text", sequences, model.vocab_size, minimum=2)
    num_characters = sum(len(model.tokenizer.decode(tokens[1:])) for tokens in sequences)
    return -sliding_window_log_prob(model, sequences) / num_characters


def mean_absolute_error(forecasts, values) -> float:
    """Return the mean absolute difference of forecasts and values, each `(n,)`, in their unit."""
    forecasts, values = as_numbers("forecasts", forecasts), as_numbers("values", values)
    _check_same_shape("forecasts", forecasts, "values", values)
    return float(np.abs(np.subtract(forecasts, values)).mean())


def translation_scores(translations, references) -> dict[str, float]:
    """Score Chinese translations with sacrebleu (extra `text`).

    Args:
        translations: Sequence of strings.
        references: Sequence of strings. The reference translation of each.

    Returns:
        `{"BLEU": …, "chrF": …}`, each from 0 to 100: BLEU of Chinese characters (Papineni et al.
        2002) and chrF (Popović 2015).

    Raises:
        ImportError: without the extra `text`.
    """
    try:
        import sacrebleu
    except ImportError as error:
        raise ImportError('Scores need an extra: pip install "keras_genai[text]".') from error
    translations, references = list(translations), [list(references)]
    return {
        "BLEU": sacrebleu.corpus_bleu(translations, references, tokenize="zh").score,
        "chrF": sacrebleu.corpus_chrf(translations, references).score,
    }
