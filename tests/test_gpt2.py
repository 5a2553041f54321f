"""GPT-2: what each of its parts promises; against `transformers`, see test_checkpoints.py."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import largest_difference

import keras_genai
from keras_genai import gpt2
from keras_genai.autoregressive import GREEDY, Sampler
from keras_genai.gpt2 import ACTIVATIONS, build_gpt2, enable_lora, generate_text
from keras_genai.text import GPT2Tokenizer


def small(vocab_size=11, context_length=16, num_layers=2, num_heads=2, d_model=8, **kwargs):
    """A small one whose weights are large enough to tell one token from another."""
    model = build_gpt2(vocab_size, context_length, num_layers, num_heads, d_model, **kwargs)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(scale=0.4, size=w.shape) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def model():
    return small()


@pytest.fixture(scope="module")
def writer():
    """A model and its tokenizer, compiled once for all tests of `generate_text`."""
    tokenizer = GPT2Tokenizer.train("once upon a time there was a time", 265)
    return small(tokenizer.vocab_size, 32, tokenizer=tokenizer), tokenizer


def rows(*shape, vocab_size=11):
    return np.random.default_rng(1).integers(vocab_size, size=shape)


def test_number_of_parameters_of_the_published_model(monkeypatch):
    # Drawing as many random numbers would take seconds.
    monkeypatch.setattr(gpt2, "_normal", keras.initializers.Zeros)
    model = build_gpt2()
    assert model.count_params() == 124_439_808
    assert (model.vocab_size, model.context_length) == (50257, 1024)


def test_an_untied_head_is_a_matrix_more():
    tied, untied = (build_gpt2(11, 8, 1, 1, 4, tie_embeddings=tie) for tie in (True, False))
    assert untied.count_params() == tied.count_params() + 11 * 4


def test_what_comes_after_a_position_never_changes_its_logits(model):
    tokens = rows(2, 10)
    before = np.asarray(model(tokens))
    tokens[:, 6] = (tokens[:, 6] + 1) % 11
    after = np.asarray(model(tokens))
    np.testing.assert_allclose(after[:, :6], before[:, :6], atol=1e-6)
    assert np.abs(after[:, 6:] - before[:, 6:]).max(axis=(0, 2)).min() > 1e-3


def test_the_same_token_is_another_one_elsewhere(model):
    logits = np.asarray(model(np.full((1, 16), 3)))[0]
    assert np.abs(logits[1:] - logits[:-1]).max(axis=-1).min() > 1e-3


def test_every_position_is_used_up_to_exactly_context_length(model):
    tokens = rows(1, 16)
    before = np.asarray(model(tokens))
    embeddings = model.positions.embeddings
    old = embeddings.numpy()
    embeddings.assign(np.concatenate([old[:-1], -old[-1:]]))
    after = np.asarray(model(tokens))
    embeddings.assign(old)
    np.testing.assert_allclose(after[:, :-1], before[:, :-1], atol=1e-6)
    assert np.abs(after[:, -1] - before[:, -1]).max() > 1e-2


def test_more_tokens_than_there_are_positions_raise(model):
    with pytest.raises(ValueError, match="tokens: expected at most 16, as many as .* got 17"):
        model(rows(1, 17))
    with pytest.raises(ValueError, match="expected at most 16 tokens, prompt included"):
        model.generate(rows(1, 3), 14)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match="tokens: expected at most 16, as many as .* got 17"):
        model.fit(rows(2, 17), rows(2, 17), verbose=0)


def test_cached_decoding_computes_what_the_whole_model_does(model):
    tokens = rows(3, 12)
    logits, state = model.step(tokens[:, :5], model.initial_state(3, 16), tf.constant(0))
    blocks = [logits]
    for position in range(5, 12):
        token = tokens[:, position : position + 1]
        logits, state = model.step(token, state, tf.constant(position))
        blocks.append(logits)
    np.testing.assert_allclose(np.concatenate(blocks, axis=1), model(tokens), atol=1e-5)


def test_prompts_of_different_lengths_go_on_as_each_would_alone(model):
    prompts = [row[:n] for row, n in zip(rows(3, 6), (1, 6, 4))]
    written = model.generate(prompts, 10, GREEDY)  # the longest ends at exactly context_length
    for prompt, row in zip(prompts, written):
        assert len(row) == len(prompt) + 10 and row[: len(prompt)].tolist() == prompt.tolist()
        likeliest = np.argmax(model(row[None, :-1])[0], axis=-1)
        np.testing.assert_array_equal(row[len(prompt) :], likeliest[len(prompt) - 1 :])


@pytest.mark.parametrize("place", ["embeddings", "attention weights", "what a sublayer adds"])
def test_dropout_is_applied_in_training_and_only_there(place):
    model = small(dropout=0.5)
    dropouts = {
        "embeddings": [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)],
        "attention weights": [layer.attention.dropout for layer in model.decoder_layers],
        "what a sublayer adds": [layer.dropout for layer in model.decoder_layers],
    }
    for name, found in dropouts.items():
        assert [layer.rate for layer in found] == [0.5] * (1 if name == "embeddings" else 2)
        for layer in found:
            layer.rate = 0.5 if name == place else 0.0
    tokens = rows(1, 16)
    still = [np.asarray(model(tokens, training=False)) for _ in range(2)]
    np.testing.assert_array_equal(*still)
    drawn = [np.asarray(model(tokens, training=True)) for _ in range(2)]
    assert largest_difference(drawn[:1], drawn[1:]) > 1e-2
    assert largest_difference(drawn[:1], still[:1]) > 1e-2


def test_what_layers_add_is_scaled_by_their_number():
    model = build_gpt2(50, 64, num_layers=8, num_heads=2, d_model=64)
    for layer in model.decoder_layers:
        for dense in (layer.attention.projection, layer.outer):
            assert np.std(dense.kernel) == pytest.approx(0.02 / math.sqrt(16), rel=0.1)
        for dense in (layer.attention.query, layer.attention.value, layer.inner):
            assert np.std(dense.kernel) == pytest.approx(0.02, rel=0.1)
        assert not np.allclose(layer.attention.query.kernel, layer.attention.key.kernel)
    assert np.std(model.positions.embeddings) == pytest.approx(0.02, rel=0.1)
    # A new model knows nothing: all tokens are about as likely.
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    tokens = rows(8, 33, vocab_size=50)
    nats = float(loss(tokens[:, 1:], model(tokens[:, :-1])))
    assert nats == pytest.approx(math.log(50), abs=0.1)


def by_definition(name, x):
    """Activations by their formulas, for one number."""
    if name == "gelu":
        return x * (1 + math.erf(x / math.sqrt(2))) / 2
    if name in ("gelu_new", "gelu_pytorch_tanh"):
        return x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
    return {"relu": max(x, 0.0), "silu": x / (1 + math.exp(-x)), "tanh": math.tanh(x)}[name]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_is_the_one_that_its_name_says(name):
    x = np.linspace(-4, 4, 41, dtype="float32")
    expected = [by_definition(name, float(value)) for value in x]
    np.testing.assert_allclose(ACTIVATIONS[name](x), expected, atol=2e-6)


def test_both_forms_of_gelu_differ_in_the_model():
    exact, cubic = (small(activation=name)(rows(1, 8)) for name in ("gelu", "gelu_new"))
    assert 1e-6 < largest_difference([exact], [cubic]) < 1e-1


def test_saved_and_loaded_it_is_the_same_model(tmp_path):
    tokenizer = GPT2Tokenizer.train("once upon a time", 260)
    model = small(
        260, activation="silu", dff=10, layer_norm_epsilon=0.01, tie_embeddings=False,
        dropout=0.2, tokenizer=tokenizer,
    )  # fmt: skip
    model.save(tmp_path / "model.keras")
    loaded = keras_genai.load_model(tmp_path / "model.keras")
    assert loaded.settings == model.settings
    assert loaded.tokenizer.definition == tokenizer.definition
    assert largest_difference(loaded.get_weights(), model.get_weights()) == 0
    tokens = rows(2, 16, vocab_size=260)
    np.testing.assert_array_equal(loaded(tokens), model(tokens))


@pytest.mark.parametrize(
    "setting, message",
    [
        ({"num_layers": 0}, "num_layers: expected a whole number of at least 1"),
        ({"num_heads": 3}, "d_model: expected a multiple of num_heads, 3, got 8"),
        ({"dff": 0}, "dff: expected a whole number of at least 1"),
        ({"activation": "mish"}, "activation: expected one of 'gelu_new'"),
        ({"dropout": 1.0}, "dropout: expected a share"),
        ({"tokenizer": GPT2Tokenizer.train("a", 257)}, "tokenizer: expected 11 tokens"),
    ],
)
def test_settings_that_make_no_model_raise(setting, message):
    with pytest.raises(ValueError, match=message):
        small(**setting)


def test_a_small_one_learns_what_follows():
    tokens = np.tile(np.arange(5), 60)[: 12 * 21].reshape(12, 21)
    model = build_gpt2(5, 32, 1, 2, 16, dropout=0.0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.02), loss, jit_compile=False)
    losses = model.fit(tokens[:, :-1], tokens[:, 1:], epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.05 < losses[0]


# generate_text.


def test_max_length_counts_the_prompt(writer):
    model, tokenizer = writer
    length = len(tokenizer.encode("once upon"))
    (text,) = generate_text(model, tokenizer, "once upon", max_length=length + 4)
    greedy = model.generate([tokenizer.encode("once upon")], 4, GREEDY)[0]
    assert tokenizer.end_token not in greedy
    assert text == tokenizer.decode(greedy) and text.startswith("once upon")
    for short in (length, 0):
        with pytest.raises(ValueError, match=f"max_length: expected .* at least {length + 1}"):
            generate_text(model, tokenizer, "once upon", max_length=short)


def test_several_greedy_sequences_raise_and_drawn_ones_differ(writer):
    model, tokenizer = writer
    with pytest.raises(ValueError, match="num_return_sequences: expected 1 under greedy search"):
        generate_text(model, tokenizer, "a time", 20, num_return_sequences=2)
    with pytest.raises(ValueError, match="num_return_sequences: expected a whole number"):
        generate_text(model, tokenizer, "a time", 20, num_return_sequences=0)
    texts, again, others = (
        generate_text(model, tokenizer, "a time", 20, 3, Sampler(), seed) for seed in (1, 1, 2)
    )
    assert len(set(texts)) == 3 and all(text.startswith("a time") for text in texts)
    assert texts == again != others


def test_text_ends_at_the_end_token_which_is_not_shown(writer):
    model, tokenizer = writer
    variables = model.norm.gamma, model.embedding.embeddings
    gamma, embeddings = (variable.numpy() for variable in variables)
    changed = embeddings.copy()
    changed[tokenizer.end_token] = 100 * model.norm.beta.numpy()
    for variable, value in zip(variables, (0 * gamma, changed)):  # whatever stood before
        variable.assign(value)
    texts = generate_text(model, tokenizer, "a time", 20)
    for variable, value in zip(variables, (gamma, embeddings)):
        variable.assign(value)
    assert texts == ["a time"]


def test_an_empty_prompt_raises(writer):
    with pytest.raises(ValueError, match="text: expected a string of at least one character"):
        generate_text(*writer, "")


def test_lora_trains_two_small_matrices_for_queries_and_values_alone():
    model = build_gpt2(50, 20, 2, 2, 16)
    tokens = np.random.default_rng(0).integers(50, size=(32, 12))
    before, kept = np.asarray(model(tokens)), model.decoder_layers[0].inner.get_weights()
    enable_lora(model, 2)
    np.testing.assert_array_equal(model(tokens), before)  # B begins at 0
    assert sorted(tuple(v.shape) for v in model.trainable_variables) == 4 * [(2, 16)] + 4 * [
        (16, 2)
    ]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss, run_eagerly=True)
    model.fit(tokens[:, :-1], tokens[:, 1:], verbose=0)
    assert np.abs(model(tokens) - before).max() > 1e-3
    assert largest_difference(model.decoder_layers[0].inner.get_weights(), kept) == 0
    with pytest.raises(ValueError, match="rank: expected a whole number of at least 1, got 0"):
        enable_lora(model, 0)
