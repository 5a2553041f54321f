"""GPT-2: model, LoRA and `generate_text`; against `transformers`, see test_gpt2_checkpoint.py."""

import math
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import largest_difference, set_random_weights

import keras_genai
from keras_genai.autoregressive import GREEDY, Sampler
from keras_genai.gpt2 import ACTIVATIONS, build_gpt2, enable_lora, generate_text
from keras_genai.text import GPT2Tokenizer


def small_gpt2(vocab_size=11, context_length=16, num_layers=2, num_heads=2, d_model=8, **kwargs):
    """A small GPT-2 with weights so large that logits differ clearly between tokens."""
    model = build_gpt2(vocab_size, context_length, num_layers, num_heads, d_model, **kwargs)
    return set_random_weights(model, scale=0.4)


@pytest.fixture(scope="module")
def model():
    return small_gpt2()


@pytest.fixture(scope="module")
def text_model():
    """A model and its tokenizer, compiled once for all tests of `generate_text`."""
    tokenizer = GPT2Tokenizer.train("once upon a time there was a time", 265)
    return small_gpt2(tokenizer.vocab_size, 32, tokenizer=tokenizer), tokenizer


def random_tokens(*shape, vocab_size=11):
    return np.random.default_rng(1).integers(vocab_size, size=shape)


def test_number_of_parameters_of_the_published_model(monkeypatch):
    # Sampling that many random numbers would take seconds.
    monkeypatch.setattr(
        keras.initializers, "RandomNormal", lambda stddev: keras.initializers.Zeros()
    )
    model = build_gpt2()
    assert model.count_params() == 124_439_808
    assert (model.vocab_size, model.context_length) == (50257, 1024)


def test_untied_embeddings_add_one_kernel():
    tied, untied = (build_gpt2(11, 8, 1, 1, 4, tie_embeddings=tied) for tied in (True, False))
    assert untied.count_params() == tied.count_params() + 11 * 4


def test_logits_are_independent_of_later_tokens(model):
    tokens = random_tokens(2, 10)
    before = np.asarray(model(tokens))
    tokens[:, 6] = (tokens[:, 6] + 1) % 11
    after = np.asarray(model(tokens))
    np.testing.assert_allclose(after[:, :6], before[:, :6], atol=1e-6)
    assert np.abs(after[:, 6:] - before[:, 6:]).max(axis=(0, 2)).min() > 1e-3


def test_logits_depend_on_the_position(model):
    logits = np.asarray(model(np.full((1, 16), 3)))[0]
    assert np.abs(logits[1:] - logits[:-1]).max(axis=-1).min() > 1e-3


def test_last_position_embedding_affects_the_last_logits_only(model):
    tokens = random_tokens(1, 16)
    before = np.asarray(model(tokens))
    embeddings = model.position_embedding.embeddings
    old = embeddings.numpy()
    embeddings.assign(np.concatenate([old[:-1], -old[-1:]]))
    after = np.asarray(model(tokens))
    embeddings.assign(old)
    np.testing.assert_allclose(after[:, :-1], before[:, :-1], atol=1e-6)
    assert np.abs(after[:, -1] - before[:, -1]).max() > 1e-2


def test_more_tokens_than_the_context_length_raise(model):
    with pytest.raises(ValueError, match="tokens: expected at most 16, as many as .* got 17"):
        model(random_tokens(1, 17))
    with pytest.raises(ValueError, match="expected at most 16 tokens, prompt included"):
        model.generate(random_tokens(1, 3), 14)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match="x: expected at most 16 tokens, as many as .* got 17"):
        model.fit(random_tokens(2, 17), random_tokens(2, 17), verbose=0)


def test_cached_steps_give_the_logits_of_the_whole_sequence(model):
    tokens = random_tokens(3, 12)
    logits, state = model.step(tokens[:, :5], model.initial_state(3, 16), tf.constant(0))
    all_logits = [logits]
    for position in range(5, 12):
        token = tokens[:, position : position + 1]
        logits, state = model.step(token, state, tf.constant(position))
        all_logits.append(logits)
    np.testing.assert_allclose(np.concatenate(all_logits, axis=1), model(tokens), atol=1e-5)


@pytest.mark.slow
def test_prompts_of_different_lengths_continue_independently(model):
    prompts = [row[:n] for row, n in zip(random_tokens(3, 6), (1, 6, 4), strict=True)]
    # The longest sequence ends at exactly context_length.
    sequences = model.generate(prompts, 10, sampler=GREEDY)
    for prompt, row in zip(prompts, sequences, strict=True):
        assert len(row) == len(prompt) + 10 and row[: len(prompt)].tolist() == prompt.tolist()
        likeliest = np.argmax(model(row[None, :-1])[0], axis=-1)
        np.testing.assert_array_equal(row[len(prompt) :], likeliest[len(prompt) - 1 :])


@pytest.mark.parametrize("location", ["embeddings", "attention scores", "sublayer outputs"])
def test_dropout_is_applied_in_training_only(location):
    model = small_gpt2(dropout=0.5)
    dropouts = {
        "embeddings": [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)],
        "attention scores": [layer.self_attention.dropout for layer in model.decoder_layers],
        "sublayer outputs": [layer.dropout for layer in model.decoder_layers],
    }
    for name, found in dropouts.items():
        assert [layer.rate for layer in found] == [0.5] * (1 if name == "embeddings" else 2)
        for layer in found:
            layer.rate = 0.5 if name == location else 0.0
    tokens = random_tokens(1, 16)
    inference = [np.asarray(model(tokens, training=False)) for _ in range(2)]
    np.testing.assert_array_equal(*inference)
    training = [np.asarray(model(tokens, training=True)) for _ in range(2)]
    assert largest_difference(training[:1], training[1:]) > 1e-2
    assert largest_difference(training[:1], inference[:1]) > 1e-2


def test_initial_kernels_are_scaled_by_the_number_of_layers():
    model = build_gpt2(50, 64, num_layers=8, num_heads=2, d_model=64)
    for layer in model.decoder_layers:
        for dense in (layer.self_attention.output_dense, layer.feedforward_output_dense):
            assert np.std(dense.kernel) == pytest.approx(0.02 / math.sqrt(16), rel=0.1)
        attention = layer.self_attention
        for dense in (attention.query, attention.value, layer.feedforward_intermediate_dense):
            assert np.std(dense.kernel) == pytest.approx(0.02, rel=0.1)
        assert not np.allclose(attention.query.kernel, attention.key.kernel)
    assert np.std(model.position_embedding.embeddings) == pytest.approx(0.02, rel=0.1)


def test_initial_loss_is_log_vocab_size():
    model = build_gpt2(50, 64, num_layers=8, num_heads=2, d_model=64)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    tokens = random_tokens(8, 33, vocab_size=50)
    initial_loss = float(loss(tokens[:, 1:], model(tokens[:, :-1])))
    assert initial_loss == pytest.approx(math.log(50), abs=0.1)


def activation_formula(name, x):
    """Return an activation of one number."""
    if name == "gelu":
        return x * (1 + math.erf(x / math.sqrt(2))) / 2
    if name in ("gelu_new", "gelu_pytorch_tanh"):
        return x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
    return {"relu": max(x, 0.0), "silu": x / (1 + math.exp(-x)), "tanh": math.tanh(x)}[name]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_against_their_formulas(name):
    x = np.linspace(-4, 4, 41, dtype="float32")
    expected = [activation_formula(name, float(value)) for value in x]
    np.testing.assert_allclose(ACTIVATIONS[name](x), expected, atol=2e-6)


def test_exact_and_approximate_gelu_differ():
    exact, approximate = (
        small_gpt2(activation=name)(random_tokens(1, 8)) for name in ("gelu", "gelu_new")
    )
    assert 1e-6 < largest_difference([exact], [approximate]) < 1e-1


def test_loaded_model_equals_the_saved_one(tmp_path):
    tokenizer = GPT2Tokenizer.train("once upon a time", 260)
    model = small_gpt2(
        260, activation="silu", dff=10, layer_norm_epsilon=0.01, tie_embeddings=False,
        dropout=0.2, tokenizer=tokenizer,
    )  # fmt: skip
    model.save(tmp_path / "model.keras")
    loaded = keras_genai.load_model(tmp_path / "model.keras")
    assert loaded.config == model.config
    assert loaded.tokenizer.tokenizer_json == tokenizer.tokenizer_json
    assert largest_difference(loaded.get_weights(), model.get_weights()) == 0
    tokens = random_tokens(2, 16, vocab_size=260)
    np.testing.assert_array_equal(loaded(tokens), model(tokens))


@pytest.mark.parametrize(
    "config, message",
    [
        ({"num_layers": 0}, "num_layers: expected a whole number of at least 1"),
        ({"num_heads": 3}, "d_model: expected a multiple of num_heads, 3, got 8"),
        ({"dff": 0}, "dff: expected a whole number of at least 1"),
        ({"activation": "mish"}, "activation: expected one of 'gelu_new'"),
        ({"dropout": 1.0}, "dropout: expected a fraction"),
        ({"tokenizer": GPT2Tokenizer.train("a", 257)}, "tokenizer: expected at most 11 tokens"),
    ],
)
def test_invalid_arguments_raise(config, message):
    with pytest.raises(ValueError, match=message):
        small_gpt2(**config)


@pytest.mark.slow
def test_training_learns_a_periodic_sequence():
    tokens = np.tile(np.arange(5), 60)[: 12 * 21].reshape(12, 21)
    model = build_gpt2(5, 32, 1, 2, 16, dropout=0.0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.02), loss, jit_compile=False)
    losses = model.fit(tokens[:, :-1], tokens[:, 1:], epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.05 < losses[0]


# generate_text.


def test_max_length_includes_the_prompt(text_model):
    model, tokenizer = text_model
    length = len(tokenizer.encode("once upon"))
    (text,) = generate_text(model, tokenizer, "once upon", max_length=length + 4)
    greedy = model.generate([tokenizer.encode("once upon")], 4, sampler=GREEDY)[0]
    assert tokenizer.end_token not in greedy
    assert text == tokenizer.decode(greedy) and text.startswith("once upon")
    for too_short in (length, 0):
        with pytest.raises(ValueError, match=f"max_length: expected .* at least {length + 1}"):
            generate_text(model, tokenizer, "once upon", max_length=too_short)


@pytest.mark.slow
def test_several_sequences_raise_under_greedy_search_and_differ_if_sampled(text_model):
    model, tokenizer = text_model
    with pytest.raises(ValueError, match="num_return_sequences: expected 1 under greedy search"):
        generate_text(model, tokenizer, "a time", 20, num_return_sequences=2)
    with pytest.raises(ValueError, match="num_return_sequences: expected a whole number"):
        generate_text(model, tokenizer, "a time", 20, num_return_sequences=0)
    texts, repeated, others = (
        generate_text(
            model, tokenizer, "a time", 20, num_return_sequences=3, sampler=Sampler(), seed=seed
        )
        for seed in (1, 1, 2)
    )
    assert len(set(texts)) == 3 and all(text.startswith("a time") for text in texts)
    assert texts == repeated != others


def test_text_ends_before_the_end_token(text_model):
    model, tokenizer = text_model
    variables = model.layer_norm.gamma, model.embedding.embeddings
    gamma, embeddings = (variable.numpy() for variable in variables)
    changed = embeddings.copy()
    changed[tokenizer.end_token] = 100 * model.layer_norm.beta.numpy()
    # With gamma 0, all outputs equal beta: the end token is the likeliest after any token.
    for variable, value in zip(variables, (0 * gamma, changed), strict=True):
        variable.assign(value)
    texts = generate_text(model, tokenizer, "a time", 20)
    for variable, value in zip(variables, (gamma, embeddings), strict=True):
        variable.assign(value)
    assert texts == ["a time"]


def test_tokenizer_of_another_size_raises(text_model):
    _, tokenizer = text_model
    other = build_gpt2(tokenizer.vocab_size + 1, 16, 1, 1, 4)
    with pytest.raises(ValueError, match=r"tokenizer: expected \d+ tokens, as the model has, got"):
        generate_text(other, tokenizer, "once")


def test_empty_prompt_raises(text_model):
    with pytest.raises(ValueError, match="text: expected a string of at least one character"):
        generate_text(*text_model, "")


def test_lora_trains_low_rank_updates_of_queries_and_values_only():
    model = build_gpt2(50, 20, 2, 2, 16)
    tokens = np.random.default_rng(0).integers(50, size=(32, 12))
    dense = model.decoder_layers[0].feedforward_intermediate_dense
    before, frozen = np.asarray(model(tokens)), dense.get_weights()
    enable_lora(model, 2)
    np.testing.assert_array_equal(model(tokens), before)  # B is initialized to 0
    shapes = sorted(tuple(variable.shape) for variable in model.trainable_variables)
    assert shapes == 4 * [(2, 16)] + 4 * [(16, 2)]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss, run_eagerly=True)
    model.fit(tokens[:, :-1], tokens[:, 1:], verbose=0)
    assert np.abs(model(tokens) - before).max() > 1e-3
    assert largest_difference(dense.get_weights(), frozen) == 0
    with pytest.raises(ValueError, match="rank: expected a whole number of at least 1, got 0"):
        enable_lora(model, 0)


@pytest.mark.slow
def test_file_has_the_merged_lora_updates_and_frozen_layers(tmp_path):
    model = build_gpt2(50, 20, 1, 2, 16)
    tokens = np.random.default_rng(0).integers(50, size=(32, 12))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    enable_lora(model, 2)
    model.compile(keras.optimizers.Adam(1e-2), loss, run_eagerly=True)
    model.fit(tokens[:, :-1], tokens[:, 1:], verbose=0)
    model.save(tmp_path / "model.keras")
    with pytest.warns(UserWarning, match="Skipping variable loading for optimizer"):
        # Keras's own, as in setup.cfg; `pytest.warns` would report it as this module's.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        loaded = keras_genai.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(tokens), model(tokens), atol=1e-5)
    assert loaded.trainable_variables == [] and len(model.trainable_variables) == 4
    assert model.decoder_layers[0].self_attention.query.lora_kernel_a.trainable
    before = np.asarray(loaded(tokens))
    enable_lora(loaded, 2)
    loaded.compile(keras.optimizers.Adam(1e-2), loss, run_eagerly=True)
    loaded.fit(tokens[:, :-1], tokens[:, 1:], verbose=0)
    assert len(loaded.trainable_variables) == 4
    assert np.abs(loaded(tokens) - before).max() > 1e-3
