"""Metrics: values computed by hand."""

import sys
import types

import numpy as np
import pytest
import sacrebleu
from helpers import set_random_weights, token_log_probs

from keras_genai import feature_metrics, likelihood, metrics, tasks
from keras_genai.rnn import RecurrentLanguageModel
from keras_genai.text import CharacterTokenizer


@pytest.mark.parametrize("shape", [(3, 784), (3, 28, 28, 1)])
def test_classify_digits_returns_the_largest_logit_of_each_image(shape):
    logits = np.zeros((3, 10))
    logits[[0, 1, 2], [7, 0, 9]] = 1.5
    images = np.arange(3 * 784, dtype="float32").reshape(shape)
    inputs = []

    def predict(x, batch_size, verbose):
        inputs.append(x)
        return logits

    digits = metrics.classify_digits(images, types.SimpleNamespace(predict=predict))
    assert digits.tolist() == [7, 0, 9]
    np.testing.assert_array_equal(inputs[0], images.reshape(3, 28, 28, 1))


def test_label_accuracy_is_a_percentage():
    assert metrics.label_accuracy([1, 2, 3, 4, 5], [1, 2, 3, 4, 0]) == 80
    assert metrics.label_accuracy(np.array([1, 2]), [2, 1]) == 0


def test_mode_coverage_counts_classes_from_the_threshold_on():
    labels = np.repeat([0, 1, 2, 4], [50, 39, 10, 1])
    assert metrics.mode_coverage(labels, num_classes=5) == (4, [0.5, 0.39, 0.1, 0, 0.01])
    assert metrics.mode_coverage(labels, num_classes=5, threshold=0.1)[0] == 3
    num_covered, fractions = metrics.mode_coverage(labels)
    assert num_covered == 4 and len(fractions) == 10


class TokenValueModel:
    """A language model whose log-probability of a token is minus its id."""

    def __init__(self, context_length):
        self.context_length, self.windows = context_length, []

    def log_prob(self, sequences):
        self.windows += [list(sequence) for sequence in sequences]
        rows = [-np.asarray(sequence[1:], "float32") for sequence in sequences]
        return np.array([row.sum() for row in rows]), rows


def test_sliding_window_log_prob_scores_each_token_once_after_half_a_context():
    model = TokenValueModel(context_length=4)
    log_prob = metrics.sliding_window_log_prob(model, [[1, 2, 4, 8, 16, 32, 64]])
    assert model.windows == [[1, 2, 4, 8], [4, 8, 16, 32], [16, 32, 64]]
    assert log_prob == -(2 + 4 + 8 + 16 + 32 + 64)


def test_sliding_window_log_prob_adds_several_sequences():
    model = TokenValueModel(context_length=4)
    assert metrics.sliding_window_log_prob(model, [[1, 2], [4, 8, 16, 32]]) == -(2 + 8 + 16 + 32)
    assert model.windows == [[1, 2], [4, 8, 16, 32]]


def test_sliding_window_log_prob_without_a_context_length_scores_whole_sequences():
    model = TokenValueModel(context_length=None)
    sequences = [[1, 2, 4, 8, 16, 32, 64], [128, 256]]
    assert metrics.sliding_window_log_prob(model, sequences) == -(2 + 4 + 8 + 16 + 32 + 64 + 256)
    assert model.windows == sequences


class PairTokenizer:
    """Tokens "a", "b" and "cc", the last of two characters."""

    def encode(self, text):
        return np.array(["abc".index(letter) for letter in text.replace("cc", "c")])

    def decode(self, ids):
        return "".join(["a", "b", "cc"][i] for i in ids)


def pair_model(**attributes):
    model = TokenValueModel(context_length=4)
    model.vocab_size, model.tokenizer = 3, PairTokenizer()
    vars(model).update(attributes)
    return model


def test_nats_per_character_leave_out_the_first_token_and_its_characters():
    model = pair_model()
    # "cc" is the context; "b", "cc" and "b" have 1 + 2 + 1 nats and 4 characters.
    assert metrics.nats_per_character(model, "ccbccb") == 1
    # Longer than the context: 5 nats of 1 + 1 + 2 + 1 + 1 characters.
    assert metrics.nats_per_character(model, "aabccbb") == 5 / 6
    # The sums of nats and of characters, not the mean of the ratios.
    assert metrics.nats_per_character(model, ["ccbccb", "ab"]) == (4 + 1) / (4 + 1)
    assert metrics.nats_per_character(model, ["aa", "ab", "bcc"]) == (0 + 1 + 2) / (1 + 1 + 2)


def test_windows_of_a_long_text_are_scored_in_batches():
    sizes = []

    def log_prob(windows):
        sizes.append(len(windows))
        return None, [np.full(len(window) - 1, -1.0) for window in windows]

    model = types.SimpleNamespace(context_length=4, vocab_size=10, log_prob=log_prob)
    assert metrics.sliding_window_log_prob(model, [np.ones(300, int)]) == -299  # all but the first
    assert sizes == [64, 64, 21]  # of 149 windows


def test_nats_per_character_are_the_metric_of_the_language_modeling_task():
    tokenizer = CharacterTokenizer("abcd")
    model = set_random_weights(RecurrentLanguageModel(4, "lstm", 3, 3, tokenizer=tokenizer))
    text = "abcdabddca"
    data = tasks.base.Data(None, [tokenizer.encode(text)], 0, {})
    expected = tasks.LanguageModelingTask().evaluate(model, data)["value"]
    assert metrics.nats_per_character(model, text) == pytest.approx(expected, rel=1e-6)
    log_probs = token_log_probs(
        model.predict(tokenizer.encode(text)[None], verbose=0)[:, :-1], tokenizer.encode(text)[None]
    )
    assert expected == pytest.approx(-log_probs.mean(), rel=1e-5)


def test_metrics_of_features_and_likelihood_are_names_of_this_module():
    for module in (feature_metrics, likelihood):
        for name in module.__all__:
            assert name in metrics.__all__
            assert getattr(metrics, name) is getattr(module, name)


def test_mean_absolute_error():
    assert metrics.mean_absolute_error([1, 2, 3], np.array([2, 0, 3])) == 1
    assert metrics.mean_absolute_error([0.5], [0.25]) == 0.25


def test_translation_scores_of_a_sentence_with_one_wrong_character():
    # n-gram precisions 4/5, 3/4, 2/3, 1/2 and, for chrF, 0/1; the lengths are equal.
    scores = metrics.translation_scores(
        ["\u4e00\u4e8c\u4e09\u56db\u4e94"], ["\u4e00\u4e8c\u4e09\u56db\u516d"]
    )
    assert scores["BLEU"] == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** (1 / 4))
    assert scores["chrF"] == pytest.approx(100 * (4 / 5 + 3 / 4 + 2 / 3 + 1 / 2 + 0) / 5)


def test_translation_scores_equal_those_of_sacrebleu():
    references = ["\u6253\u5f00\u4e00\u4e2a\u65b0\u6587\u4ef6\u3002", "\u4fdd\u5b58\u6587\u4ef6"]
    translations = ["\u6253\u5f00\u65b0\u6587\u4ef6\u3002", "\u4fdd\u5b58\u6b64\u6587\u4ef6"]
    scores = metrics.translation_scores(iter(translations), tuple(references))
    bleu, chrf = sacrebleu.BLEU(tokenize="zh"), sacrebleu.CHRF()
    assert scores == {
        "BLEU": bleu.corpus_score(translations, [references]).score,
        "chrF": chrf.corpus_score(translations, [references]).score,
    }
    assert 0 < scores["BLEU"] < 100 and scores["chrF"] < 100


def test_translation_scores_name_the_extra_that_they_need(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(ImportError, match=r'pip install "keras_genai\[text\]"'):
        metrics.translation_scores(["a"], ["a"])


LANGUAGE_MODEL = RecurrentLanguageModel(4, "lstm", 3, 3, tokenizer=CharacterTokenizer("abcd"))


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: metrics.label_accuracy([1, 2], [1]),
            r"predicted: .* labels, .* \(2,\) and \(1,\)",
        ),
        (lambda: metrics.label_accuracy([], []), "predicted: expected one of each of labels, at"),
        (
            lambda: metrics.mode_coverage([0, 10]),
            "labels: expected integers from 0 to 9, got .* 10",
        ),
        (lambda: metrics.mode_coverage([]), r"labels: expected shape \(n,\), n at least 1"),
        (lambda: metrics.mode_coverage([0], 0), "num_classes: expected a whole number of at least"),
        (lambda: metrics.mean_absolute_error([1.0], [[1.0]]), "forecasts: expected one of each of"),
        (
            lambda: metrics.mean_absolute_error([np.nan], [1.0]),
            "forecasts: expected finite numbers",
        ),
        (
            lambda: metrics.sliding_window_log_prob(None, []),
            "model: expected a language model, got",
        ),
        (
            lambda: metrics.nats_per_character(TokenValueModel(4), "ab"),
            "model: expected a language model, got .* without tokenizer",
        ),
        (
            lambda: metrics.nats_per_character(pair_model(tokenizer=None), "ab"),
            "model: expected a language model with a tokenizer, got None",
        ),
        (lambda: metrics.nats_per_character(pair_model(), "a"), "text: .* at least 2 token ids"),
        (lambda: metrics.nats_per_character(pair_model(), []), r"text: expected .* got \[\]"),
        (lambda: metrics.nats_per_character(pair_model(), 3), "text: expected .* got 3"),
        (lambda: metrics.nats_per_character(LANGUAGE_MODEL, "xy"), "text: expected characters"),
        (lambda: metrics.nats_per_character(LANGUAGE_MODEL, ["ab", 3]), "text: expected a string"),
    ],
)
def test_invalid_arguments_raise(call, message):
    # NumPy would broadcast two shapes, and count a label outside the classes as one more class.
    with pytest.raises(ValueError, match=message):
        call()
