"""Task on texts of several classes: which book is a passage from?"""

import re

import numpy as np
import tensorflow as tf

from keras_genai import datasets
from keras_genai.embeddings import PAD_TOKEN_ID
from keras_genai.files import find_files, replace_file, to_path
from keras_genai.pipelines import resumable_dataset
from keras_genai.tasks.base import Data, Task, check_no_cache, split_train_test
from keras_genai.text import TranslationTokenizer
from keras_genai.validation import check_fraction, check_sizes

VALIDATION_BATCH_SIZE = 256
NUM_SAMPLES = 20  # of `predictions.txt`
# Headings, speakers and stage directions of As You Like It; the lines of a speech begin with a tab.
PLAY_MARKUP = re.compile(
    r"^ACT .*|^SCENE .*|^\tAS YOU LIKE IT$|^[^\t\n]+\t|\[[^\]]*\]", re.MULTILINE
)


class TextClassificationTask(Task):
    """Passages of several texts, of which the last tenths are held out.

    The metric is the percentage of held-out passages that are assigned to their class. Passages
    have a fixed number of byte-pair tokens, which are learned from the first parts of the training
    texts, equally long. What is only typographic is dropped, since it would identify a text: upper
    case, punctuation and line ends (the verses of Paradise Lost), and in As You Like It also the
    list of persons, the speakers, the headings and the stage directions.

    Classes are balanced, so that guessing has an accuracy of 1 / number of classes, whatever the
    lengths of the texts. An epoch has as many training passages of each class as the shortest text
    holds; their positions are random, new ones in each epoch. Test passages do not overlap, and
    those of the longer texts are evenly spaced.

    `Data.train` is a list of int arrays of tokens, one for each class, `Data.test` a tuple of
    passages `(m, length)` and classes `(m,)`. The user's own data is a folder with one `.txt` file
    for each class, or with a subfolder of `.txt` files for each class; it is held in memory.

    Args:
        length: Int. Number of tokens of a passage. Defaults to `64`.
        vocab_size: Int. Maximum number of byte-pair tokens. Defaults to `2048`.
        token_dropout: Float in [0, 1). Share of the tokens of training passages that are replaced
            by padding (Iyyer et al. 2015). Defaults to `0.0`.
    """

    example_unit = "passages"

    def __init__(self, length=64, vocab_size=2048, token_dropout=0.0):
        self.length, self.vocab_size = check_sizes(length=length, vocab_size=vocab_size)
        self.token_dropout = check_fraction("token_dropout", token_dropout)

    def load(self, source=None, cache=None) -> Data:
        check_no_cache(cache, "texts of several classes")
        texts = _load_books() if source is None else _load_folder(source)
        parts = [split_train_test(text) for text in texts.values()]
        shortest = min(len(train) for train, _ in parts)
        tokenizer = TranslationTokenizer.train(
            "\n".join(train[:shortest] for train, _ in parts), self.vocab_size, words_only=True
        )
        train_tokens, test_tokens = (
            [tokenizer.encode(text) if text else np.empty(0, "int32") for text in side]
            for side in zip(*parts, strict=True)
        )
        for name, train, test in zip(texts, train_tokens, test_tokens, strict=True):
            if min(len(train), len(test)) < self.length:
                raise ValueError(
                    f"{source}: {name}: expected at least {self.length} tokens in the last tenth, "
                    f"which is held out, and in the rest, got {len(test)} and {len(train)}."
                )
        num_passages = min(map(len, train_tokens)) // self.length
        dataset_info = {
            "tokenizer": tokenizer.tokenizer_json,
            "class_names": list(texts),
            "max_seq_length": self.length,
        }
        return Data(
            train_tokens,
            self._test_passages(test_tokens),
            num_passages * len(texts),
            dataset_info,
        )

    def _test_passages(self, test_tokens) -> tuple[np.ndarray, np.ndarray]:
        """Return an equal number of passages of each class, and their classes."""
        num_passages = min(map(len, test_tokens)) // self.length
        passages = []
        for tokens in test_tokens:
            adjacent = tokens[: len(tokens) // self.length * self.length].reshape(-1, self.length)
            rows = np.linspace(0, len(adjacent) - 1, num_passages).round().astype(int)
            passages.append(adjacent[rows])
        labels = np.repeat(np.arange(len(test_tokens), dtype="int32"), num_passages)
        return np.concatenate(passages), labels

    def train_dataset(self, data, batch_size, seed, epoch, input_context=None):
        """Return passages of the classes in turn, each from a random position."""
        sizes = tf.constant([len(tokens) for tokens in data.train], tf.int64)
        firsts = tf.cumsum(sizes, exclusive=True)
        tokens = tf.concat(data.train, axis=0)

        def gather(rows, seeds, longest):
            shape = data.num_examples, 1 + self.length
            uniform = tf.gather(tf.random.stateless_uniform(shape, seeds, dtype=tf.float64), rows)
            labels = rows % len(data.train)
            num_positions = tf.cast(tf.gather(sizes, labels) - self.length + 1, tf.float64)
            starts = tf.gather(firsts, labels) + tf.cast(uniform[:, 0] * num_positions, tf.int64)
            positions = starts[:, None] + tf.range(self.length, dtype=tf.int64)
            dropped = uniform[:, 1:] < self.token_dropout  # (batch, length)
            return tf.where(dropped, PAD_TOKEN_ID, tf.gather(tokens, positions)), labels

        return resumable_dataset(
            data.num_examples, batch_size, seed, epoch, gather, input_context=input_context
        )

    def validation_data(self, data):
        return {"validation_data": data.test, "validation_batch_size": VALIDATION_BATCH_SIZE}

    def evaluate(self, model, data):
        """Return the accuracy of all test passages and of those of each class, in percent."""
        passages, labels = data.test
        probabilities = model.predict(passages, VALIDATION_BATCH_SIZE, verbose=0)
        correct = probabilities.argmax(-1) == labels
        names = data.dataset_info["class_names"]
        return {
            "value": 100 * float(correct.mean()),
            "class_accuracies": {
                name: 100 * float(correct[labels == i].mean()) for i, name in enumerate(names)
            },
        }

    def save_samples(self, model, data, folder):
        """Write 20 test passages with their class, the predicted one and its probability."""
        passages, labels = data.test
        rows = np.linspace(0, len(labels) - 1, NUM_SAMPLES).round().astype(int)
        probabilities = model.predict(passages[rows], verbose=0)
        names = data.dataset_info["class_names"]
        lines = (
            f"{names[labels[row]]}, predicted {names[p.argmax()]} ({p.max():.1%}):\n"
            f"  {model.tokenizer.decode(passages[row]).strip()}\n"
            for row, p in zip(rows, probabilities, strict=True)
        )
        with replace_file(folder / "predictions.txt") as unfinished:
            unfinished.write_text("\n".join(lines), encoding="utf-8")


def _load_books() -> dict[str, str]:
    """Return the text of each book by its name."""
    texts = {name: datasets.load_book(name) for name in datasets.BOOKS}
    play = texts["as_you_like_it"]
    texts["as_you_like_it"] = PLAY_MARKUP.sub("", play[play.index("ACT I\n") :])
    return texts


def _load_folder(source) -> dict[str, str]:
    """Return the text of each class of a folder, in the order of their names."""
    folder = to_path(source)
    paths, class_names = find_files(folder, (".txt",), "text files", min_files=2)
    if class_names is None:
        class_names = [path.stem for path in paths]
    texts: dict[str, list[str]] = {name: [] for name in sorted(set(class_names))}
    if len(texts) < 2:
        raise ValueError(
            f"{source}: expected .txt files of at least two classes, a file or a folder for each, "
            f"got one class, {class_names[0]}."
        )
    for path, name in zip(paths, class_names, strict=True):
        texts[name].append(datasets.load_text(path))
    return {name: "\n".join(parts) for name, parts in texts.items()}
