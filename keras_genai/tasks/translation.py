"""Task on pairs of sentences: translation."""

import typing

import keras
import tensorflow as tf

from keras_genai import datasets, metrics
from keras_genai.files import replace_file
from keras_genai.pipelines import make_pair_dataset
from keras_genai.tasks.base import Data, Task, check_no_cache
from keras_genai.text import TranslationTokenizer


class EncodedPairs(typing.NamedTuple):
    """Sentences as texts [(source, target), …] and as padded tokens (sources, targets)."""

    pairs: list
    tokens: tuple


class TranslationTask(Task):
    """Pairs of sentences, of which the last 1,000, or the last tenth, are held out.

    The metric is BLEU of greedy translations of the test sentences. `Data.train` is a tuple of
    padded tokens (sources, targets), `Data.test` a `EncodedPairs`.

    Args:
        vocab_size: Int. Number of byte-pair tokens learned for each language. Defaults to `4000`.
    """

    example_unit = "pairs"

    def __init__(self, vocab_size=4000):
        self.vocab_size = vocab_size

    def load(self, source=None, cache=None) -> Data:
        check_no_cache(cache, "pairs")
        pairs = datasets.load_translations() if source is None else datasets.load_pairs(source)
        if len(pairs) < 10:
            raise ValueError(f"{source}: expected at least 10 pairs, got {len(pairs)}.")
        cut = len(pairs) - min(1000, len(pairs) // 10)
        train_pairs, test_pairs = pairs[:cut], pairs[cut:]
        tokenizers = [
            TranslationTokenizer.train("\n".join(texts), self.vocab_size)
            for texts in zip(*train_pairs, strict=True)
        ]
        train = _encode_pairs(train_pairs, tokenizers)
        test = EncodedPairs(test_pairs, _encode_pairs(test_pairs, tokenizers))
        longest = max(tokens.shape[1] for tokens in (*train, *test.tokens))
        dataset_info = {
            "input_tokenizer": tokenizers[0].tokenizer_json,
            "target_tokenizer": tokenizers[1].tokenizer_json,
            "max_seq_length": -(-longest // 16) * 16,
        }
        return Data(train, test, cut, dataset_info)

    def train_dataset(self, data, batch_size, seed, epoch, input_context=None):
        return make_pair_dataset(*data.train, batch_size, seed, epoch, input_context)

    def validation_data(self, data):
        constant_epoch = tf.Variable(0, dtype=tf.int64)
        return {"validation_data": make_pair_dataset(*data.test.tokens, 64, 0, constant_epoch)}

    def evaluate(self, model, data):
        sources, references = zip(*data.test.pairs, strict=True)
        scores = metrics.translation_scores(model.translate(sources), references)
        return {"value": scores["BLEU"], **scores}

    def save_samples(self, model, data, folder):
        """Write 50 test sentences with their beam-search translation and their reference."""
        pairs = data.test.pairs[:50]
        translations = model.translate([source for source, _ in pairs], beam_width=4)
        lines = (
            f"{source}\n  {translation}\n  ({reference})\n"
            for (source, reference), translation in zip(pairs, translations, strict=True)
        )
        with replace_file(folder / "translations.txt") as unfinished:
            unfinished.write_text("\n".join(lines), encoding="utf-8")


def _encode_pairs(pairs, tokenizers):
    """Return padded tokens of sources and targets; targets have start and end tokens."""
    (sources, targets), (source_tokenizer, target_tokenizer) = zip(*pairs, strict=True), tokenizers
    sources = [source_tokenizer.encode(text) for text in sources]
    targets = [[1, *target_tokenizer.encode(text), 2] for text in targets]
    return tuple(keras.utils.pad_sequences(tokens, padding="post") for tokens in (sources, targets))
