"""LSTM encoder–decoder: against NumPy, padding and order, training, translation, errors."""

import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import add_random_noise, largest_difference

import keras_genai
from keras_genai.language_model import MaskedCrossentropy
from keras_genai.seq2seq_lstm import AttentionLSTM, Seq2SeqLSTM, build_seq2seq_lstm
from keras_genai.text import TranslationTokenizer

pad = functools.partial(keras.utils.pad_sequences, padding="post")

SOURCE = pad([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3], [10]])
TARGET = pad([[1, 7, 8, 2], [1, 12, 2], [1, 3, 9, 11, 2]])
both_kinds = pytest.mark.parametrize("attention", [False, True])


def small_model(attention, **config):
    config = dict(embed_dim=4, units=6, dropout=0.5) | config
    model = build_seq2seq_lstm(11, 13, 20, attention, **config)
    add_random_noise(model)
    return model


# Against NumPy.


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_step(weights, x, h, c):
    kernel, recurrent_kernel, bias = weights
    i, f, g, o = np.split(x @ kernel + h @ recurrent_kernel + bias, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def numpy_logits(model, source, target):
    """Return the logits of a source without padding, and the attention scores of each step."""
    embeddings = [
        np.asarray(model.get_layer(name).embeddings)
        for name in ("source_embedding", "target_embedding")
    ]
    encoder = model.get_layer("encoder_lstm").get_weights()
    units = len(encoder[1])
    directions, states = [], []
    for weights, order in ((encoder[:3], 1), (encoder[3:], -1)):
        h = c = np.zeros(units)
        outputs = []
        for token in source[::order]:
            h, c = lstm_step(weights, embeddings[0][token], h, c)
            outputs.append(h)
        directions.append(outputs[::order])
        states.append((h, c))
    context = np.concatenate(directions, axis=-1)  # (m, 2 * units)
    h, c = (np.concatenate(pair) for pair in zip(*states, strict=True))
    kernel, bias = model.get_layer("initial_h").get_weights()
    h = np.tanh(h @ kernel + bias)
    kernel, bias = model.get_layer("initial_c").get_weights()
    c = c @ kernel + bias
    decoder = model.decoder_lstm
    logits, all_scores = [], []
    for token in target:
        x = y = embeddings[1][token]
        if model.config["attention"]:
            w, u, v = (
                np.asarray(layer.kernel) for layer in (decoder.query, decoder.key, decoder.score)
            )
            energies = np.array([(np.tanh(h @ w + row @ u) @ v)[0] for row in context])
            scores = np.exp(energies) / np.exp(energies).sum()
            context_vector = scores @ context
            h, c = lstm_step(decoder.cell.get_weights(), np.append(x, context_vector), h, c)
            output = np.append(h, context_vector)
            all_scores.append(scores)
        else:
            h, c = lstm_step(decoder.get_weights(), x, h, c)
            output = h
        kernel, bias = model.hidden.get_weights()
        hidden = np.tanh(np.append(output, y) @ kernel + bias)
        kernel, bias = model.lm_head.get_weights()
        logits.append(hidden @ kernel + bias)
    return np.array(logits), np.array(all_scores)


@both_kinds
def test_logits_match_numpy(attention):
    model = small_model(attention)
    logits = np.asarray(model([SOURCE, TARGET]))
    for row, (m, n) in enumerate([(7, 4), (3, 3), (1, 5)]):  # without padding
        expected, _ = numpy_logits(model, SOURCE[row, :m], TARGET[row, :n])
        np.testing.assert_allclose(logits[row, :n], expected, atol=1e-5)


def test_attention_scores_match_numpy_and_padding_has_none():
    model = small_model(True)
    _, expected = numpy_logits(model, SOURCE[1, :3], TARGET[1])
    scores = model.cross_attention(SOURCE[1:2, :3], TARGET[1:2])
    assert scores.shape == (1, 1, 5, 3)
    np.testing.assert_allclose(scores[0, 0], expected, atol=1e-6)
    context, h, c = model.encoder(SOURCE)
    x = model.target_embedding(TARGET)
    _, scores, _ = model.decoder_lstm(x, context, [h, c], mask=SOURCE != 0)
    np.testing.assert_allclose(np.sum(scores, axis=-1), 1, rtol=1e-5)
    assert np.all(np.asarray(scores)[np.broadcast_to(SOURCE[:, None] == 0, scores.shape)] == 0)


# Padding and order.


@both_kinds
def test_padding_of_the_source_changes_no_logits(attention):
    model = small_model(attention)
    logits = np.asarray(model([SOURCE, TARGET]))
    wider = np.pad(SOURCE, [[0, 1], [0, 9]])  # and a row of padding
    padded = np.asarray(model([wider, np.pad(TARGET, [[0, 1], [0, 0]])]))
    np.testing.assert_allclose(padded[:3], logits, atol=1e-6)
    assert np.isfinite(padded).all()


@both_kinds
def test_logits_are_independent_of_later_target_tokens(attention):
    model = small_model(attention)
    target = np.array([[1, 7, 8, 4, 9, 3]])
    logits = np.asarray(model([SOURCE[:1], target]))
    for i in (0, 3, 5):
        changed = target.copy()
        changed[:, i] = 5
        difference = np.abs(model([SOURCE[:1], changed]) - logits).max(axis=-1)
        assert np.all(difference[:, :i] == 0) and np.all(difference[:, i:] > 1e-6)


def test_only_attention_passes_more_than_one_vector_of_the_source():
    # Without attention, the source enters by h and c, whose size does not grow with it.
    for attention, names in ((False, {"lstm"}), (True, {"lstm", "context", "keys", "mask"})):
        state = small_model(attention).initial_state(3, 8, SOURCE)
        assert set(state) == names and [x.shape for x in state["lstm"]] == [(3, 6)] * 2


@both_kinds
def test_cached_steps_give_the_logits_of_the_whole_sequence(attention):
    model = small_model(attention)
    tokens = np.array([[1, 7, 8, 4, 9, 3], [1, 12, 5, 0, 6, 7], [1, 3, 9, 11, 3, 4]], "int32")
    expected = np.asarray(model([SOURCE, tokens]))
    state = model.initial_state(3, 8, SOURCE)
    block = tf.constant(np.pad(tokens[:, :3], [[0, 0], [0, 1]]))  # a block of three, padded
    logits, state = model.step(block, state, 0, length=tf.constant(3))
    all_logits = [logits[:, :3]]
    for position in range(3, 6):
        token = tf.constant(tokens[:, position : position + 1])
        logits, state = model.step(token, state, position)
        all_logits.append(logits)
    np.testing.assert_allclose(np.concatenate(all_logits, axis=1), expected, atol=1e-5)


# Training and translation.


@both_kinds
def test_custom_train_step_gives_the_weights_of_stock_fit(attention):
    rng = np.random.default_rng(0)
    source, target = rng.integers(3, 11, size=(2, 16, 6)).astype("int32")
    target[:, 0], source[::2, 4:], target[::2, 4:] = 1, 0, 0
    fit = dict(batch_size=8, shuffle=False, verbose=0)
    results = []
    for custom in (False, True):
        keras.utils.set_random_seed(1)
        model = build_seq2seq_lstm(11, 13, 20, attention, embed_dim=4, units=6, dropout=0.3)
        trained = model if custom else keras.Model(model.inputs, model.outputs)
        trained.compile(keras.optimizers.SGD(0.1), MaskedCrossentropy(0.1))
        keras.utils.set_random_seed(2)
        if custom:
            trained.fit(source, target, **fit)
        else:
            trained.fit([source, target[:, :-1]], target[:, 1:], **fit)
        results.append(model.get_weights())
    assert largest_difference(*results) < 1e-6


WORDS = ["".join(word) for n in (1, 2, 3) for word in itertools.product("abc", repeat=n)]


@pytest.fixture(scope="module")
def translator():
    """A model with attention that was trained to reverse words, from reversed pairs of text."""
    keras.utils.set_random_seed(0)
    tokenizer = TranslationTokenizer.train("abc", 259)
    model = build_seq2seq_lstm(
        tokenizer.vocab_size,
        tokenizer.vocab_size,
        8,
        embed_dim=16,
        units=32,
        dropout=0.0,
        input_tokenizer=tokenizer,
        target_tokenizer=tokenizer,
    )
    source = np.tile(pad([tokenizer.encode(word) for word in WORDS]), (300, 1))
    target = pad([[1, *tokenizer.encode(word[::-1]), 2] for word in WORDS])
    model.compile(keras.optimizers.Adam(5e-3, global_clipnorm=1.0), jit_compile=False)
    model.fit(source, np.tile(target, (300, 1)), len(WORDS), verbose=0, shuffle=False)
    return model


@pytest.mark.slow
def test_trained_model_reverses_words_also_after_loading(translator, tmp_path):
    reversed_words = [word[::-1] for word in WORDS]
    assert translator.translate(WORDS) == reversed_words
    assert translator.translate(WORDS[-3:], beam_width=3) == reversed_words[-3:]
    translator.save(tmp_path / "model.keras")
    loaded = keras_genai.load_model(tmp_path / "model.keras")
    assert type(loaded) is Seq2SeqLSTM and loaded.translate("abc") == "cba"
    maps = loaded.attention_maps("abc", "cba")
    assert maps["weights"].shape == (1, 1, len(maps["target"]), len(maps["source"]))


@both_kinds
@pytest.mark.slow
def test_greedy_translation_equals_decoding_without_a_cache(attention):
    model = small_model(attention)
    source = pad([np.random.default_rng(n).integers(3, 11, size=n) for n in (18, 3, 9, 1, 20, 5)])
    tokens = np.ones((6, 1), "int32")
    for _ in range(8):
        new = np.asarray(model([source, tokens]))[:, -1].argmax(axis=-1)
        new = np.where(np.any(tokens == 2, axis=1), 2, new)
        tokens = np.concatenate([tokens, new[:, None].astype("int32")], axis=1)
    translated = model.translate(source, max_new_tokens=8)
    np.testing.assert_array_equal(translated, tokens[:, 1:])


# Invalid input.


@pytest.mark.parametrize(
    "config, message",
    [
        ({"units": 0}, "units: expected a whole number of at least 1, got 0"),
        ({"embed_dim": 1.5}, "embed_dim: expected a whole number"),
        ({"dropout": 1.0}, "dropout: expected a fraction"),
        ({"attention": "yes"}, "attention: expected True or False, got 'yes'"),
        ({"max_seq_length": 0}, "max_seq_length: expected a whole number of at least 1"),
        (
            {"target_tokenizer": TranslationTokenizer.train("abc", 259)},
            "target_tokenizer: expected 13 tokens, .* got 259",
        ),
    ],
)
def test_invalid_arguments_raise(config, message):
    config = {"input_vocab_size": 11, "target_vocab_size": 13, "max_seq_length": 20} | config
    with pytest.raises(ValueError, match=message):
        Seq2SeqLSTM(**config)


@pytest.mark.parametrize("sizes", [(0, 4), (4, 0)])
def test_invalid_sizes_of_the_layer_raise(sizes):
    with pytest.raises(ValueError, match="units: expected a whole number of at least 1, got 0"):
        AttentionLSTM(*sizes)


def test_attention_maps_of_a_model_without_attention_raise(translator):
    config = {**translator.get_config(), "attention": False}
    model = Seq2SeqLSTM.from_config(config)
    with pytest.raises(ValueError, match="model: expected one with attention"):
        model.attention_maps("abc", "cba")
