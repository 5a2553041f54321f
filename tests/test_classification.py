"""Classification of texts: balanced passages, the classes of strings, and importance of tokens."""

import json
import re
import subprocess
import sys

import helpers as reference
import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import add_random_noise

import keras_genai
from keras_genai.__main__ import main
from keras_genai.embeddings import PositionalEmbedding
from keras_genai.plotting import plot_attention
from keras_genai.tasks import TextClassificationTask, classification
from keras_genai.text import CharacterTokenizer, TranslationTokenizer
from keras_genai.transformer import (
    MaskedGlobalAveragePooling1D,
    SequentialTransformer,
    TransformerEncoderLayer,
    build_transformer,
)

CLASSES = ("blue", "green", "red")


# Tokenizer.


@pytest.fixture(scope="module")
def word_tokenizer():
    return TranslationTokenizer.train("the cat sat on the mat", 270, words_only=True)


@pytest.mark.parametrize(
    "text",
    [
        "don't stop now",
        "  Don't\n\n\tSTOP -- now!  ",
        "`Don't stop,' NOW. '",
        "_Don't_ (stop); 'now'",
        "Don't\r\nstop...now\u2014",
    ],
)
def test_only_words_are_encoded(word_tokenizer, text):
    assert word_tokenizer.decode(word_tokenizer.encode(text)) == " don't stop now"


def test_words_of_other_scripts_and_numbers_are_kept(word_tokenizer):
    text = "Été 1667, 失乐园。<pad>"
    assert word_tokenizer.decode(word_tokenizer.encode(text)) == " été 1667 失乐园 pad"
    assert word_tokenizer.encode("?!").tolist() == []
    restored = TranslationTokenizer(**word_tokenizer.get_config())
    assert restored.encode("The CAT").tolist() == word_tokenizer.encode("the cat").tolist()


def test_without_words_only_every_character_is_encoded():
    tokenizer = TranslationTokenizer.train("The cat", 270)
    assert tokenizer.decode(tokenizer.encode("The\n CAT!")) == "The\n CAT!"
    with pytest.raises(ValueError, match="words_only: expected True or False, got 1"):
        TranslationTokenizer.train("abc", 270, words_only=1)


# Data.


def write_folder(folder, lengths=(400, 800, 1600), late="later"):
    """Write a file for each class: its name, and a word that may differ in the last tenth."""
    for name, length in zip(CLASSES, lengths, strict=True):
        first = int(0.9 * length) * f"{name} early\n"
        last = (length - int(0.9 * length)) * f"{name} {late}\n"
        (folder / f"{name}.txt").write_text(first + last, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def task():
    return TextClassificationTask(length=8, vocab_size=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("classes"))


@pytest.fixture(scope="module")
def data(task, folder):
    return task.load(folder)


def decode(data, tokens):
    return TranslationTokenizer(data.dataset_info["tokenizer"]).decode(tokens)


def test_no_passage_has_text_of_both_parts(data):
    assert data.dataset_info["class_names"] == list(CLASSES)
    for name, tokens in zip(CLASSES, data.train, strict=True):
        assert set(decode(data, tokens).split()) == {name, "early"}
    passages, labels = data.test
    assert passages.shape[1] == 8
    for passage, label in zip(passages, labels, strict=True):
        text = decode(data, passage)  # "later" consists of several tokens
        assert CLASSES[label] in text and "early" not in text
        assert set(text.replace(CLASSES[label], "")) <= set(" later")


def test_classes_are_balanced_whatever_the_lengths_of_the_texts(data):
    lengths = [len(tokens) for tokens in data.train]
    assert lengths == sorted(lengths) and lengths[2] > 3 * lengths[0]
    assert data.num_examples == 3 * (lengths[0] // 8)
    counts = np.bincount(data.test[1])
    assert len(counts) == 3 and len(set(counts)) == 1 and counts[0] > 5
    assert data.test[1].dtype == "int32"


def test_test_passages_are_spread_over_the_longer_texts(task):
    texts = [np.arange(3, 3 + 8 * count + count % 8) for count in (2, 9)]
    passages, labels = task._test_passages(texts)
    assert labels.tolist() == [0, 0, 1, 1]
    assert passages[:, 0].tolist() == [3, 3 + 8, 3, 3 + 8 * 8]
    assert np.all(np.diff(passages) == 1)


def read_epoch(task, data, number, batch_size=32):
    epoch = tf.Variable(number, dtype=tf.int64)
    batches = list(task.train_dataset(data, batch_size, 5, epoch))
    passages, labels = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    return passages, labels


def test_epochs_have_other_balanced_passages_that_seed_and_number_determine(task):
    texts = [np.arange(3, 50), np.arange(100, 900)]
    data = classification.Data([x.astype("int32") for x in texts], None, 10, {})
    passages, labels = read_epoch(task, data, 0)
    again, _ = read_epoch(task, data, 0, batch_size=3)
    following, _ = read_epoch(task, data, 1)
    assert sorted(labels) == 5 * [0] + 5 * [1]
    assert np.array_equal(passages, again) and not np.array_equal(passages, following)
    assert np.all(np.diff(passages) == 1)  # a part of one text
    assert np.array_equal(passages[:, -1] >= 100, labels == 1)
    data.num_examples = 2000
    starts = read_epoch(task, data, 0)[0][:, 0]
    short = starts[starts < 100]
    assert (short.min(), short.max()) == (3, 49 - 7)  # the first and the last position
    assert len(set(short)) == 40


def test_half_of_the_tokens_of_training_passages_are_dropped():
    task = TextClassificationTask(length=8, token_dropout=0.5)
    texts = [np.full(50, 1, "int32"), np.full(900, 2, "int32")]
    data = classification.Data(texts, None, 1000, {})
    passages, labels = read_epoch(task, data, 0)
    assert np.all((passages == 0) | (passages == labels[:, None] + 1))
    assert np.mean(passages == 0) == pytest.approx(0.5, abs=0.03)  # 5 standard errors
    assert np.std((passages == 0).mean(axis=0)) < 0.05  # at every place alike
    assert np.array_equal(passages, read_epoch(task, data, 0, batch_size=7)[0])
    data.train = [np.arange(10, 50, dtype="int32"), np.arange(100, 900, dtype="int32")]
    dropped = read_epoch(task, data, 0)[0] == 0  # the same places, whatever the tokens
    assert np.array_equal(dropped, passages == 0)
    starts = (read_epoch(TextClassificationTask(8), data, 0)[0][:, 0])[labels == 1]
    assert abs(np.corrcoef(starts, dropped[labels == 1, 0])[0, 1]) < 0.2  # independent
    with pytest.raises(ValueError, match="token_dropout: expected a fraction from 0"):
        TextClassificationTask(token_dropout=1.0)


def test_books_have_words_alone():
    texts = classification._load_books()
    assert list(texts) == ["alice_in_wonderland", "as_you_like_it", "king_james", "paradise_lost"]
    play = texts["as_you_like_it"]
    assert play.split()[:4] == ["As", "I", "remember,", "Adam,"]  # the first speech
    assert not re.search(r"ROSALIND\t|SCENE|ACT I|\[|\bEnter\b|Exeunt|DRAMATIS|Lord\t", play)
    assert "Nay, but the devil take mocking: speak, sad brow and\n\ttrue maid." in play


def test_folder_may_have_a_subfolder_for_each_class(task, folder, tmp_path, data):
    for name in CLASSES:
        (tmp_path / name).mkdir()
        text = (folder / f"{name}.txt").read_text(encoding="utf-8")
        cut = text.index("\n", len(text) // 2)
        (tmp_path / name / "1.txt").write_text(text[:cut], encoding="utf-8")
        (tmp_path / name / "2.txt").write_text(text[cut + 1 :], encoding="utf-8")
    loaded = task.load(tmp_path)
    assert loaded.dataset_info == data.dataset_info
    assert loaded.sha256() == data.sha256()


@pytest.mark.parametrize(
    "files, message",
    [
        ({}, "expected at least 2 text files, found 0"),
        ({"a.txt": "word " * 999}, "expected at least 2 text files, found 1"),
        (
            {"a/1.txt": "word " * 999, "a/2.txt": "word " * 999},
            "expected .txt files of at least two classes, a file or a folder for each, got one "
            "class, a",
        ),
        (
            {"a.txt": "word " * 999, "b.txt": "word " * 20},
            "b: expected at least 8 tokens in the last tenth, which is held out, and in the rest, "
            "got 2 and 18",
        ),
        ({"a.txt": "word " * 999, "b.txt": "?" * 999}, "b: expected at least 8 .* got 0 and 0"),
        ({"a.txt": "word " * 999, "b.txt": "\n"}, "b.txt: expected a text, got an empty file"),
        ({"a.txt": "word " * 999, "b/1.txt": "word " * 999}, "found both"),
    ],
)
def test_folder_without_two_classes_of_enough_text_raises(task, tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        task.load(tmp_path)


def test_file_and_cache_are_refused(task, folder, tmp_path):
    with pytest.raises(ValueError, match="expected a folder of text files, found none"):
        task.load(folder / "red.txt")
    with pytest.raises(ValueError, match="cache: expected None, as texts of several classes are"):
        task.load(folder, tmp_path)


# Training and evaluation.


@pytest.fixture(scope="module")
def toy_data(task, tmp_path_factory):
    return task.load(write_folder(tmp_path_factory.mktemp("toy"), late="early"))


@pytest.fixture(scope="module")
def toy_model(task, toy_data):
    """A classifier of texts of two words, one of which is the class; trained for some seconds."""
    keras.utils.set_random_seed(0)
    tokenizer = TranslationTokenizer(toy_data.dataset_info["tokenizer"])
    model = build_transformer(
        tokenizer.vocab_size,
        3,
        8,
        num_layers=1,
        d_model=8,
        num_heads=2,
        dff=8,
        pooling="mean",
        tokenizer=tokenizer,
        class_names=CLASSES,
    )
    model.compile(
        keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    epoch = tf.Variable(0, dtype=tf.int64)
    model.fit(task.train_dataset(toy_data, 16, 0, epoch), epochs=2, shuffle=False, verbose=0)
    return model


def test_words_of_three_colors_are_learned(task, toy_data, toy_model, tmp_path):
    scores = task.evaluate(toy_model, toy_data)
    assert scores == {"value": 100, "class_accuracies": dict.fromkeys(CLASSES, 100)}
    validation = toy_model.evaluate(*toy_data.test, verbose=0, return_dict=True)
    assert 100 * validation["accuracy"] == scores["value"]
    task.save_samples(toy_model, toy_data, tmp_path)
    samples = (tmp_path / "predictions.txt").read_text(encoding="utf-8").split("\n\n")
    assert len(samples) == 20
    assert re.match(r"blue, predicted blue \(\d+\.\d%\):\n  (blue )?early", samples[0])


def test_accuracy_is_that_of_each_class_and_of_all_passages(task, data):
    class Blue:
        def predict(self, passages, *args, **kwargs):
            return np.tile([0.5, 0.3, 0.2], (len(passages), 1))

    scores = task.evaluate(Blue(), data)
    assert scores["value"] == pytest.approx(100 / 3)
    assert scores["class_accuracies"] == {"blue": 100, "green": 0, "red": 0}


def test_classify_returns_the_class_of_a_text(toy_model):
    name, probabilities = toy_model.classify("Blue, early!")
    assert name == "blue" and probabilities.shape == (3,)
    assert probabilities.sum() == pytest.approx(1) and probabilities.argmax() == 0
    names, rows = toy_model.classify(["red red", "Blue, early!", "green " * 50])
    assert names == ["red", "blue", "green"]
    np.testing.assert_allclose(rows[1], probabilities, atol=1e-6)


def test_probabilities_of_the_parts_of_a_long_text_are_averaged(toy_model):
    text = "red red red blue blue blue green green early red"  # 10 words, in parts of at most 8
    tokens = toy_model.tokenizer.encode(text)
    assert len(tokens) == 10
    _, probabilities = toy_model.classify(text)
    parts = np.asarray(toy_model(tokens.reshape(2, 5)))
    np.testing.assert_allclose(probabilities, parts.mean(axis=0), atol=1e-6)


def test_without_names_a_class_is_its_index():
    model = build_transformer(
        9, 2, 8, 1, 8, 2, 8, pooling="mean", tokenizer=CharacterTokenizer("_abcdefgh")
    )
    index, probabilities = model.classify("abc")
    assert index == probabilities.argmax() and isinstance(index, int)
    assert model.token_importance("abc")["class"] == index


@pytest.mark.parametrize("text", ["?!", ["red", "?!"]])
def test_text_without_words_raises(toy_model, text):
    with pytest.raises(ValueError, match=r"text: expected at least one token, got none in '\?!'"):
        toy_model.classify(text)


@pytest.mark.parametrize("text", [[], {"a": 1}, 3])
def test_other_values_than_texts_raise(toy_model, text):
    with pytest.raises(ValueError, match="text: expected a string or a list of strings, got "):
        toy_model.classify(text)


def test_only_a_passage_has_attention_maps(toy_model):
    for method in (toy_model.attention_maps, toy_model.token_importance):
        with pytest.raises(ValueError, match="text: expected at most 8 tokens, .* got 9"):
            method("red " * 9)


def test_texts_require_a_tokenizer_and_pooling():
    letters = CharacterTokenizer("_abcd")
    with pytest.raises(ValueError, match="tokenizer: expected that of the texts, but the model ha"):
        build_transformer(5, 2, 8, 1, 8, 2, 8, pooling="mean").classify("abc")
    with pytest.raises(ValueError, match="pooling: expected 'mean', for one class per text"):
        build_transformer(5, 2, 8, 1, 8, 2, 8, tokenizer=letters).classify("abc")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"tokenizer": CharacterTokenizer("ab")}, "tokenizer: expected 5 tokens, as the model has"),
        ({"tokenizer": "abcde"}, "tokenizer: expected a tokenizer"),
        ({"class_names": "ab"}, "class_names: expected a list of strings, got 'ab'"),
        ({"class_names": [1, 2]}, "class_names: expected a list of strings"),
        ({"class_names": ["a"]}, "class_names: expected 2 different names, one for each class"),
        ({"class_names": ["a", "a"]}, "class_names: expected 2 different names"),
    ],
)
def test_tokenizer_and_names_of_other_sizes_raise(options, message):
    with pytest.raises(ValueError, match=message):
        build_transformer(5, 2, 8, **options)


# Attention and importance.


@pytest.mark.parametrize("causal", [False, True])
def test_attention_maps_are_the_scores_of_every_layer(causal):
    letters = CharacterTokenizer("_abcd")
    model = build_transformer(
        5, 2, 8, 2, 8, 2, 12, causal=causal, pooling="mean", tokenizer=letters
    )
    add_random_noise(model)
    maps = model.attention_maps("abcad")
    assert maps["source"] == maps["target"] == list("abcad")
    assert maps["weights"].shape == (2, 2, 5, 5)
    np.testing.assert_allclose(maps["weights"].sum(axis=-1), 1, rtol=1e-5)
    embedding, *layers = [layer for layer in model.layers if layer.weights][:3]
    x = reference.positional_embedding(
        np.asarray(embedding.embedding.embeddings), letters.encode("abcad")[None]
    )
    mask = np.tril(np.ones((5, 5))) if causal else None
    for layer, weights in zip(layers, maps["weights"], strict=True):
        x, scores = reference.transformer_layer(layer, x, mask=mask)
        np.testing.assert_allclose(weights, scores[0], atol=1e-5)
    plot_attention(maps)


def test_encoder_layer_returns_its_scores_also_in_a_functional_model():
    x = keras.Input((5, 4))
    layer = TransformerEncoderLayer(2, 7)
    model = keras.Model(x, layer(x, return_attention_scores=True))
    assert [output.shape for output in model.outputs] == [(None, 5, 4), (None, 2, 5, 5)]
    inputs = np.random.default_rng(0).normal(size=(3, 5, 4)).astype("float32")
    output, scores = model(inputs)
    np.testing.assert_allclose(output, layer(inputs), atol=1e-6)
    np.testing.assert_allclose(scores, reference.transformer_layer(layer, inputs)[1], atol=1e-5)


def test_occlusion_equals_the_closed_form_of_a_bag_of_words():
    # The Transformer layer adds zeros, and all positions are equal: a mean of token vectors.
    model = SequentialTransformer(
        [
            keras.Input((None,), dtype="int32"),
            PositionalEmbedding(5, 8, 4, add_positions=False),
            TransformerEncoderLayer(2, 4, norm_first=True),
            MaskedGlobalAveragePooling1D(),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    model.tokenizer, model.class_names = CharacterTokenizer("_abcd"), ("x", "y")
    add_random_noise(model)
    embedding, layer, _, dense = model.layers
    attention = layer.self_attention
    for zero in (attention.output_dense, layer.feedforward_output_dense, attention.query):
        zero.set_weights([np.zeros_like(w) for w in zero.get_weights()])
    importance = model.token_importance("abbd")

    def log_probs(tokens):
        vectors = 2 * np.asarray(embedding.embedding.embeddings)[tokens]  # sqrt(d_model) = 2
        logits = vectors.mean(axis=0) @ np.asarray(dense.kernel) + np.asarray(dense.bias)
        return logits - np.log(np.exp(logits).sum())

    whole = log_probs([1, 2, 2, 4])
    likeliest = whole.argmax()
    others = [[2, 2, 4], [1, 2, 4], [1, 2, 4], [1, 2, 2]]
    expected = [whole[likeliest] - log_probs(tokens)[likeliest] for tokens in others]
    assert importance["tokens"] == list("abbd") and importance["class"] == "xy"[likeliest]
    np.testing.assert_allclose(importance["occlusion"], expected, atol=1e-5)
    np.testing.assert_allclose(importance["attention"], 0.25, atol=1e-6)  # all queries are equal


def test_attention_importance_is_the_mean_over_layers_heads_and_positions(toy_model):
    importance = toy_model.token_importance("red early red")
    weights = toy_model.attention_maps("red early red")["weights"]
    expected = [weights[..., key].mean() for key in range(3)]
    np.testing.assert_allclose(importance["attention"], expected, rtol=1e-5)
    assert importance["attention"].sum() == pytest.approx(1, rel=1e-5)


def test_only_the_word_of_the_class_is_important(toy_model):
    importance = toy_model.token_importance("early early red early")
    assert importance["tokens"] == [" early", " early", " red", " early"]
    assert importance["class"] == "red" and importance["occlusion"].argmax() == 2


# Files and the command line.


def test_tokenizer_and_class_names_are_saved(toy_model, tmp_path):
    toy_model.save(tmp_path / "model.keras")
    loaded = keras_genai.load_model(tmp_path / "model.keras")
    assert loaded.class_names == CLASSES
    names, probabilities = toy_model.classify(["Red, early", "blue"])
    assert loaded.classify(["Red, early", "blue"])[0] == names == ["red", "blue"]
    np.testing.assert_allclose(loaded.classify(["Red, early", "blue"])[1], probabilities, atol=1e-6)
    config = json.loads(json.dumps(toy_model.get_config()))
    copied = SequentialTransformer.from_config(config)
    assert json.loads(json.dumps(copied.get_config())) == config
    assert json.loads(json.dumps(toy_model.get_config())) == config  # Keras may empty it


def test_configuration_without_tokenizer_is_that_of_version_0_2():
    config = build_transformer(5, 2, 8, 1, 8, 2, 8, pooling="mean").get_config()
    assert set(config) == {"name", "trainable", "dtype", "layers", "build_input_shape"}
    model = SequentialTransformer.from_config(config)
    assert model.tokenizer is None and model.class_names is None and not model.is_classifier


@pytest.mark.slow
def test_saved_classifier_classifies_in_a_new_process(toy_model, tmp_path):
    toy_model.save(tmp_path / "model.keras")
    code = (
        "import sys, keras_genai\nprint(keras_genai.load_model(sys.argv[1]).classify('Red, early'))"
    )
    command = [sys.executable, "-c", code, tmp_path / "model.keras"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("('red', array([")


def test_generate_prints_the_classes_of_a_text(toy_model, tmp_path, capsys):
    path = str(tmp_path / "model.keras")
    toy_model.save(path)
    assert main(["generate", path, "--prompt", "Red, early"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("%  red") and len(lines) == 3
    shares = [float(line.split("%")[0]) for line in lines]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(100, abs=0.2)
    for options, message in {
        (): "--prompt: expected a text to classify",
        ("--prompt", "a", "--top-k", "3"): "--top-k: not for classification",
        ("--prompt", "?"): "text: expected at least one token, got none in '?'",
    }.items():
        assert main(["generate", path, *options]) == 2
        assert message in capsys.readouterr().err


def test_generate_refuses_a_transformer_without_tokenizer(tmp_path, capsys):
    path = str(tmp_path / "model.keras")
    build_transformer(5, 2, 8, 1, 8, 2, 8, pooling="mean").save(path)
    assert main(["generate", path, "--prompt", "a"]) == 2
    assert "expected a generative model, got a transformer" in capsys.readouterr().err
