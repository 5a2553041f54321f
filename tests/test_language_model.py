"""Models of tokens: their data, precision and files; language models: text in, text out."""

import copy
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import frozen_heap, set_random_weights

import keras_genai
from keras_genai import language_model
from keras_genai.autoregressive import GREEDY, Sampler
from keras_genai.gpt2 import build_gpt2, generate_text
from keras_genai.language_model import MaskedCrossentropy, pad_texts
from keras_genai.rnn import build_language_model
from keras_genai.text import CharacterTokenizer, GPT2Tokenizer
from keras_genai.transformer import build_seq2seq_transformer, build_transformer
from keras_genai.wavenet import build_wavenet

DIVERSE_TEXT = (
    "naïve 四時 \N{PILE OF POO}\N{WOMAN}\N{ZERO WIDTH JOINER}\N{ROCKET}\t\0\r\n e\u0301 \ufffd"
)


def small_model(tokenizer):
    return build_language_model(tokenizer.vocab_size, "gru", 8, 16, tokenizer=tokenizer)


@pytest.mark.slow
@pytest.mark.parametrize(
    "create",
    [lambda: CharacterTokenizer.from_text(DIVERSE_TEXT), GPT2Tokenizer.gpt2],
    ids=["characters", "gpt2"],
)
def test_tokenizer_is_saved_with_the_model(tmp_path, create):
    model = small_model(create())
    model.save(tmp_path / "model.keras")
    loaded = keras_genai.load_model(tmp_path / "model.keras")
    assert loaded.tokenizer.decode(loaded.tokenizer.encode(DIVERSE_TEXT)) == DIVERSE_TEXT
    assert loaded.generate(DIVERSE_TEXT, 20, seed=1) == model.generate(DIVERSE_TEXT, 20, seed=1)


def test_mapping_of_unknown_characters_is_saved_with_the_model(tmp_path):
    model = small_model(CharacterTokenizer("abc", unknown="map"))
    model.save(tmp_path / "model.keras")
    tokenizer = keras_genai.load_model(tmp_path / "model.keras").tokenizer
    assert tokenizer.decode(tokenizer.encode("axb")) == "a\ufffdb"


@pytest.mark.slow
def test_generated_text_has_the_format_of_the_prompt():
    model = small_model(CharacterTokenizer("abcd\n"))
    text = model.generate("ab", 12, seed=1)
    assert isinstance(text, str) and text.startswith("ab") and len(text) == 14
    assert model.generate(["ab"], 12, seed=1) == [text]
    texts = model.generate(["ab", "c\nd"], 5, sampler=GREEDY)
    assert [len(row) for row in texts] == [7, 8] and texts[1].startswith("c\nd")
    ids = model.generate(model.tokenizer.encode("ab")[None], 12, seed=1)
    assert model.tokenizer.decode(ids[0]) == text
    assert "".join(model.stream("ab", 12, seed=1)) == text[2:]
    assert model.generate("ab", 200, seed=1, stop_token="\n").count("\n") == 1


@pytest.mark.slow
def test_beam_search_returns_texts_ranked_by_their_log_likelihood():
    model = small_model(CharacterTokenizer("abcd\n"))
    texts, scores = model.beam_search("ab", 4, beam_width=3)
    assert len(texts) == 3 and all(text.startswith("ab") for text in texts)
    both, both_scores = model.beam_search(["ab", "cd"], 4, beam_width=3)
    assert both[0] == texts and both_scores[0] == pytest.approx(scores, abs=1e-5)
    assert len(both[1]) == 3 and all(text.startswith("cd") for text in both[1])
    stopped, _ = model.beam_search("a\nb", 20, beam_width=3, stop_token="\n")
    assert any(text.endswith("\n") for text in stopped)
    assert all(text.startswith("a\nb") and text[3:-1].count("\n") == 0 for text in stopped)
    log_prob, token_log_probs = model.log_prob(texts[0])
    assert token_log_probs.shape == (5,)
    assert log_prob == pytest.approx(token_log_probs.sum(), abs=1e-5)
    assert scores[0] == pytest.approx(token_log_probs[1:].sum(), abs=1e-4)


def test_stream_yields_a_character_of_several_tokens_once_it_is_complete(monkeypatch):
    gpt2 = GPT2Tokenizer.gpt2()
    model = small_model(gpt2)
    text = "a四\N{ROCKET}\ufffdb"
    ids = gpt2.encode(text)
    assert len(ids) > len(text)
    tokens = lambda *args, **kwargs: iter(ids[:, None])  # noqa: E731
    monkeypatch.setattr(language_model.autoregressive, "stream", tokens)
    assert list(model.stream("x")) == ["a", "四", "\N{ROCKET}", "\ufffdb"]
    ids = ids[:2]  # ends within a character
    assert list(model.stream("x")) == ["a", "\ufffd"]


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda model: model.generate(""),
            "^prompt: expected a string of at least one character",
        ),
        (lambda model: model.generate("axb"), "got 'x' at position 1"),
        (lambda model: next(model.stream(["a"])), "prompt: expected a text, got list"),
        (
            lambda model: model.generate("a", stop_token="x"),
            "^stop_token: expected characters of the vocabulary, got 'x'",
        ),
        (
            lambda model: model.generate("a", stop_token="ab"),
            "stop_token: expected a text of one token, got 'ab', 2 tokens",
        ),
        (
            lambda model: model.generate([[0, 4]]),
            "prompt: expected token ids from 0 to 3",
        ),
        (
            lambda model: build_language_model(4, "gru", 8, 16).generate("a"),
            "prompt: expected token ids, since the model has no tok",
        ),
        (
            lambda model: build_language_model(9, tokenizer=model.tokenizer),
            "tokenizer: expected 9 tokens, as the model has, got 4",
        ),
    ],
)
def test_invalid_prompts_raise(call, message):
    with pytest.raises(ValueError, match=message):
        call(small_model(CharacterTokenizer("abcd")))


VALID = np.zeros((4, 5), "int32")


@pytest.mark.parametrize("invalid_id", [-1, 4])
@pytest.mark.parametrize(
    "call, message",
    [
        (lambda model, x: model.fit(x, VALID), "x: expected token ids from 0 to 3"),
        (lambda model, x: model.fit(VALID, x), "y: expected token ids from 0 to 3"),
        (
            lambda model, x: model.fit(VALID, VALID, validation_data=(VALID, x)),
            "y: expected token ids from 0 to 3",
        ),
        (lambda model, x: model.evaluate(x, VALID), "x: expected token ids from 0 to 3"),
    ],
    ids=["x", "y", "validation_data", "evaluate"],
)
def test_ids_outside_the_vocabulary_are_rejected_before_training(call, message, invalid_id):
    model = small_model(CharacterTokenizer("abcd"))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match=message):
        call(model, np.full((4, 5), invalid_id))


def test_generation_does_not_change_the_random_state_or_the_weights():
    generator = keras.random.SeedGenerator(0)
    model = small_model(CharacterTokenizer("abcd"))
    state, weights = np.asarray(generator.state).copy(), model.get_weights()
    model.generate("ab", 10, sampler=Sampler(0.5))
    np.testing.assert_array_equal(state, generator.state)
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


# Models of tokens of all families.

TOKENS = np.random.default_rng(0).integers(1, 9, (4, 6)).astype("int32")
LABELS = np.array([0, 2, 1, 2])
MODELS = {
    "gpt2": lambda: build_gpt2(9, 8, 1, 2, 8),
    "untied gpt2": lambda: build_gpt2(9, 8, 1, 2, 8, tie_embeddings=False),
    "simple_rnn": lambda: build_language_model(9, "simple_rnn", 6, 8),
    "lstm": lambda: build_language_model(9, "lstm", 6, 8, 2, 0.1),
    "gru": lambda: build_language_model(9, "gru", 6, 8),
    "causal": lambda: build_transformer(9, 9, 8, 1, 8, 2, 12, causal=True),
    "labeling": lambda: build_transformer(9, 3, 8, 1, 8, 2, 12),
    "pooling": lambda: build_transformer(9, 3, 8, 1, 8, 2, 12, pooling="mean"),
    "seq2seq": lambda: build_seq2seq_transformer(9, 9, 8, 1, 8, 2, 12),
    "wavenet": lambda: build_wavenet(9, 1, 2, 6, 6),
    "conditional wavenet": lambda: build_wavenet(9, 1, 2, 6, 6, num_classes=3),
}
SEQUENTIAL = ("causal", "labeling", "pooling")
UNLIMITED = ("simple_rnn", "lstm", "gru", "wavenet", "conditional wavenet")
each_model = pytest.mark.parametrize("name", MODELS)


def create(name, jit_compile=None):
    model = set_random_weights(MODELS[name]())
    options = {"run_eagerly": True} if jit_compile is None else {"jit_compile": jit_compile}
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=name not in SEQUENTIAL)
    model.compile("adam", None if name == "seq2seq" else loss, **options)
    return model


def training_data(name, tokens=TOKENS):
    """Return x, with labels for a conditional model, and y."""
    y = {"pooling": LABELS, "labeling": tokens % 3}.get(name, tokens)
    return ([tokens, LABELS] if name == "conditional wavenet" else tokens), y


def outputs(name, model, tokens=TOKENS):
    inputs = training_data(name, tokens)[0]
    return np.asarray(model([tokens, tokens] if name == "seq2seq" else inputs))


def generate(name, model):
    if name == "seq2seq":
        return model.translate(TOKENS, max_new_tokens=3)
    if name.endswith("wavenet"):
        labels = LABELS if name.startswith("conditional") else None
        return model.generate(4, labels, length=4, seed=1)
    return None if name in SEQUENTIAL else model.generate(TOKENS[:, :3], 4, seed=1)


def predict_inputs(name, x):
    return [x, x] if name == "seq2seq" else x


def dataset(x, y):
    return tf.data.Dataset.from_tensor_slices((tuple(x) if isinstance(x, list) else x, y)).batch(3)


METHODS = {
    "fit": lambda model, name, x, y: model.fit(x, y, verbose=0),
    "fit of a dataset": lambda model, name, x, y: model.fit(
        dataset(x, y), shuffle=False, verbose=0
    ),
    "evaluate": lambda model, name, x, y: model.evaluate(x, y, verbose=0),
    "evaluate of a dataset": lambda model, name, x, y: model.evaluate(dataset(x, y), verbose=0),
    "train_on_batch": lambda model, name, x, y: model.train_on_batch(x, y),
    "test_on_batch": lambda model, name, x, y: model.test_on_batch(x, y),
    "predict": lambda model, name, x, y: model.predict(predict_inputs(name, x), verbose=0),
    "predict_on_batch": lambda model, name, x, y: model.predict_on_batch(predict_inputs(name, x)),
}


@each_model
def test_invalid_tokens_raise_in_every_method(name):
    model = create(name)
    kind = "levels" if name.endswith("wavenet") else "token ids"
    cases = [
        (np.where(TOKENS == TOKENS[3, 5], invalid, TOKENS), f": expected {kind} from 0 to 8, got")
        for invalid in (9, -1)
    ]
    if name not in UNLIMITED:
        cases.append((np.tile(TOKENS, 2), ": expected at most 8 tokens, as many as .*, got 12"))
    for method, call in METHODS.items():
        for tokens, message in cases:
            with pytest.raises(ValueError, match=f"^(x|source){message}"):
                call(model, name, *training_data(name, tokens))
                pytest.fail(f"{method}: {message}")
    for tokens in (TOKENS / 2, TOKENS > 2):
        with pytest.raises(
            ValueError, match=f"^x: expected {kind}, got an array of (float64|bool)"
        ):
            model.fit(*training_data(name, tokens), verbose=0)


@each_model
def test_invalid_targets_raise(name):
    model = create(name)
    x, y = training_data(name)
    kind = {"labeling": "labels", "pooling": "labels", "causal": "labels"}.get(name, "token ids")
    kind = "levels" if name.endswith("wavenet") else kind
    for invalid in (9, -2):
        changed = y.copy()
        changed[-1] = invalid
        for method in ("fit", "evaluate of a dataset", "train_on_batch"):
            with pytest.raises(ValueError, match=f"^y: expected {kind} from 0 to [28], got"):
                METHODS[method](model, name, x, changed)
    with pytest.raises(ValueError, match="^y: expected"):
        model.fit(x, y[:2], verbose=0)
    if y.ndim == 2 and name != "seq2seq":
        with pytest.raises(ValueError, match="^y: expected"):
            model.fit(x, y[:, :3], verbose=0)
    with pytest.raises(ValueError, match=r"^sample_weight: expected shape \(4,\)"):
        model.fit(x, y, sample_weight=np.ones((4, 2)), verbose=0)
    if name != "pooling":
        with pytest.raises(ValueError, match="^class_weight: expected None"):
            model.fit(x, y, class_weight={0: 1.0, 1: 2.0}, verbose=0)


@each_model
def test_tokens_of_any_integer_dtype_are_valid(name):
    weights = []
    for dtype in ("int32", "int64", "uint8"):
        keras.utils.set_random_seed(0)
        model = create(name)
        x, y = training_data(name)
        x = [x[0].astype(dtype), x[1]] if isinstance(x, list) else x.astype(dtype)
        model.train_on_batch(x, y.astype(dtype))
        weights.append(np.concatenate([w.ravel() for w in model.get_weights()]))
    np.testing.assert_allclose(weights[1], weights[0], atol=1e-6)
    np.testing.assert_allclose(weights[2], weights[0], atol=1e-6)


@pytest.mark.parametrize("name", ["gpt2", "lstm", "causal", "labeling", "wavenet"])
def test_sample_weights_belong_to_sequences_or_tokens(name):
    model = create(name)
    # As many sequences as tokens: Keras alone would take weights (4,) to be those of positions.
    x, y = training_data(name, TOKENS[:, :4])
    logits = outputs(name, model, x).astype("float64")
    if name in SEQUENTIAL:
        logits = np.log(logits)
    logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    losses = -np.take_along_axis(logits, y[..., None], axis=-1)[..., 0]
    rows = np.array([0.5, 2.0, 0.0, 1.0])
    tokens = np.random.default_rng(1).random((4, 4))
    metric = keras.metrics.SparseCategoricalCrossentropy(
        from_logits=name not in SEQUENTIAL, name="cross_entropy"
    )
    model.compile("adam", model.loss, weighted_metrics=[metric], run_eagerly=True)
    for sample_weight in (rows, rows[:, None], tokens):
        weights = np.broadcast_to(sample_weight.reshape(4, -1), (4, 4))
        logs = model.evaluate(x, y, sample_weight=sample_weight, verbose=0, return_dict=True)
        assert logs["loss"] == pytest.approx((losses * weights).mean(), rel=1e-5)
        expected = np.average(losses, weights=weights)
        assert logs["cross_entropy"] == pytest.approx(expected, rel=1e-5)


def test_the_label_that_the_loss_ignores_is_valid():
    model = build_language_model(9, "gru", 6, 8)
    y = np.where(TOKENS > 4, -100, TOKENS)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-100)
    model.compile("adam", loss, run_eagerly=True)
    logits = np.asarray(model(TOKENS), "float64")
    losses = (
        np.log(np.exp(logits).sum(-1))
        - np.take_along_axis(logits, np.maximum(y, 0)[..., None], axis=-1)[..., 0]
    )
    assert model.evaluate(TOKENS, y, verbose=0) == pytest.approx(losses[y > 0].mean(), rel=1e-5)


@pytest.fixture
def restore_policy():
    yield
    keras.config.set_dtype_policy("float32")


@pytest.mark.slow
@pytest.mark.usefixtures("restore_policy")
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@each_model
def test_mixed_precision_is_close_to_float32_and_saved(name, policy, tmp_path):
    reference = create(name)
    keras.config.set_dtype_policy(policy)
    model = create(name)
    expected, actual = outputs(name, reference), outputs(name, model)
    assert actual.dtype == "float32"  # so that the loss is, too
    scale = 1 if policy == "mixed_float16" else 8
    np.testing.assert_allclose(actual, expected, atol=2e-2 * scale)
    losses = [m.evaluate(*training_data(name), verbose=0) for m in (model, reference)]
    losses = [loss[0] if isinstance(loss, list) else loss for loss in losses]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2 * scale)
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (policy == "mixed_float16")
    model.fit(*training_data(name), verbose=0)
    model.save(tmp_path / "model.keras")
    keras.config.set_dtype_policy("float32")  # as in a new process
    loaded = keras_genai.load_model(tmp_path / "model.keras")
    policies, loaded_policies = (
        [layer.dtype_policy.name for layer in m._flatten_layers()] for m in (model, loaded)
    )
    assert policies == loaded_policies and policies[0] == policy
    np.testing.assert_array_equal(outputs(name, loaded), outputs(name, model))
    assert int(loaded.optimizer.iterations) == int(model.optimizer.iterations)
    np.testing.assert_array_equal(generate(name, loaded), generate(name, model))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*does not have a `quantize` method:UserWarning")
@each_model
@frozen_heap()
def test_int8_model_is_saved_and_generates(name, tmp_path):
    model = set_random_weights(MODELS[name]())
    before = outputs(name, model)
    model.quantize("int8")
    after = outputs(name, model)
    assert 0 < np.abs(after - before).max() < 0.3
    model.save(tmp_path / "model.keras")
    loaded = keras_genai.load_model(tmp_path / "model.keras")
    assert any("int8" in str(variable.dtype) for variable in loaded.variables)
    np.testing.assert_array_equal(outputs(name, loaded), after)
    np.testing.assert_array_equal(generate(name, loaded), generate(name, model))


@pytest.mark.slow
@each_model
def test_frozen_layers_and_optimizer_are_saved(name, tmp_path):
    model = create(name)
    inner = [layer for layer in model._flatten_layers(include_self=False) if layer.weights]
    for layer in inner[::3]:
        layer.trainable = False
    model.compile("adam", model.loss, run_eagerly=True)
    model.fit(*training_data(name), epochs=2, batch_size=4, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras_genai.load_model(tmp_path / "model.keras")
    flags, loaded_flags = ([x.trainable for x in m._flatten_layers()] for m in (model, loaded))
    assert flags == loaded_flags and not all(flags)
    assert int(loaded.optimizer.iterations) == 2
    assert len(loaded.optimizer.variables) == len(model.optimizer.variables)
    for a, b in zip(loaded.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, b)


@each_model
def test_copies_and_uncompiled_files_equal_the_model(name, tmp_path):
    model = set_random_weights(MODELS[name]())
    model.save(tmp_path / "model.keras")  # before compiling
    for result in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        keras.models.load_model(tmp_path / "model.keras", compile=False),
    ):
        assert type(result) is type(model)
        np.testing.assert_array_equal(outputs(name, result), outputs(name, model))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "lstm", "causal", "wavenet"])
def test_compiled_with_xla_an_invalid_token_gives_nan(name):
    model = create(name)
    tokens = TOKENS.copy()
    tokens[1, 2], tokens[2, 3] = 9, -1  # a gather would take the last token
    compiled = np.asarray(tf.function(model, jit_compile=True)(tokens))
    np.testing.assert_allclose(compiled[[0, 3]], outputs(name, model)[[0, 3]], atol=1e-5)
    assert np.isnan(compiled[1, 2:]).all() and np.isnan(compiled[2, 3:]).all()


# Padding in fine-tuning.


def padded_texts():
    """Texts of different lengths, in which token 0 is text; also as padded data."""
    rng = np.random.default_rng(2)
    texts = [rng.integers(9, size=length) for length in (6, 2, 4)]
    texts[0][3] = 0
    return texts, *pad_texts(texts)


def tiny_gpt2():
    return set_random_weights(build_gpt2(9, 8, 1, 2, 8, dropout=0.0), scale=0.4)


def token_losses(model, tokens):
    """Cross-entropy of each token of a text from the second on, in NumPy."""
    logits = np.asarray(model(tokens[None, :-1]), "float64")[0]
    log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return -log_probs[np.arange(len(tokens) - 1), tokens[1:]]


def test_padded_texts_are_inputs_and_next_tokens():
    x, y = pad_texts([[5, 6, 7], [0, 8]])
    assert x.tolist() == [[5, 6], [0, 0]] and y.tolist() == [[6, 7], [8, -100]]
    assert pad_texts([[0, 8], [5, 6, 7]], 0)[1].tolist() == [[8, 0], [6, 7]]
    for invalid, message in (([[1]], "at least 2 token ids"), ([[1, -1]], "sequences: expected")):
        with pytest.raises(ValueError, match=message):
            pad_texts(invalid)
    with pytest.raises(ValueError, match="ignore_class: expected a whole number"):
        pad_texts([[1, 2]], 0.5)


@pytest.mark.parametrize(
    "loss",
    [
        MaskedCrossentropy(ignore_class=-100),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-100),
    ],
    ids=["masked", "stock"],
)
def test_padding_counts_neither_in_loss_nor_in_metrics_of_gpt2(loss):
    texts, x, y = padded_texts()
    model = tiny_gpt2()
    losses = np.concatenate([token_losses(model, text) for text in texts])
    correct = [np.asarray(model(text[None, :-1])).argmax(-1)[0] == text[1:] for text in texts]
    cross_entropy = keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="nats")
    model.compile("sgd", loss, weighted_metrics=["accuracy", cross_entropy], run_eagerly=True)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(losses.mean(), rel=1e-5)
    assert logs["nats"] == pytest.approx(losses.mean(), rel=1e-5)
    assert logs["accuracy"] == pytest.approx(np.concatenate(correct).mean())

    # Weights of texts; the loss of Keras is divided by the number of tokens, not by the weights.
    weights = np.array([1.0, 0.0, 3.0])
    weighted = np.repeat(weights, [5, 1, 3])
    divisor = weighted.sum() if isinstance(loss, MaskedCrossentropy) else 9
    assert model.evaluate(x, y, sample_weight=weights, verbose=0)[0] == pytest.approx(
        (losses * weighted).sum() / divisor, rel=1e-5
    )


def test_padded_texts_train_like_the_texts_alone():
    texts, x, y = padded_texts()
    model, other = tiny_gpt2(), tiny_gpt2()
    other.set_weights(model.get_weights())
    model.compile(keras.optimizers.SGD(1.0), MaskedCrossentropy(ignore_class=-100))
    model.train_on_batch(x, y)
    with tf.GradientTape() as tape:
        total = sum(
            tf.reduce_sum(
                keras.losses.sparse_categorical_crossentropy(
                    text[None, 1:], other(text[None, :-1]), from_logits=True
                )
            )
            for text in texts
        )
        mean = total / 9
    gradients = tape.gradient(mean, other.trainable_variables)
    for variable, old, gradient in zip(
        model.trainable_variables, other.trainable_variables, gradients, strict=True
    ):
        expected = old - tf.convert_to_tensor(gradient)
        np.testing.assert_allclose(variable, expected, atol=1e-5)


def test_a_batch_of_padding_has_the_loss_0_and_no_gradient():
    model = tiny_gpt2()
    model.compile(keras.optimizers.SGD(1.0), MaskedCrossentropy(0.1, ignore_class=-100))
    weights = model.get_weights()
    assert model.train_on_batch(np.ones((2, 3), int), np.full((2, 3), -100)) == 0
    assert all(map(np.array_equal, model.get_weights(), weights))


def test_ignored_labels_need_a_loss_that_ignores_them():
    model, (_, x, y) = tiny_gpt2(), padded_texts()
    for loss in (
        MaskedCrossentropy(),
        MaskedCrossentropy(ignore_class=None),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    ):
        model.compile("sgd", loss)
        with pytest.raises(ValueError, match="y: expected token ids from 0 to 8, got .* -100"):
            model.train_on_batch(x, y)
    with pytest.raises(ValueError, match="ignore_class: expected a whole number"):
        MaskedCrossentropy(ignore_class="x")
    with pytest.raises(ValueError, match="ignore_class: expected a whole number of at most"):
        MaskedCrossentropy(ignore_class=2**31)


def test_without_an_ignored_class_label_0_counts_and_the_config_keeps_it():
    labels, logits = np.array([[0, 2]]), np.array([[[0.0, 1, 2], [3, 0, 1]]], "float32")
    log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    for ignore_class, expected in (
        (0, -log_probs[0, 1, 2]),
        (2, -log_probs[0, 0, 0]),
        (None, -(log_probs[0, 1, 2] + log_probs[0, 0, 0]) / 2),
    ):
        loss = MaskedCrossentropy(ignore_class=ignore_class)
        loss = MaskedCrossentropy.from_config(loss.get_config())
        assert float(loss(labels, logits)) == pytest.approx(expected, rel=1e-5)


# GPT-2 beyond its tokenizer and its context.


def test_gpt2_with_a_padded_vocabulary_generates_text(tmp_path):
    tokenizer = CharacterTokenizer("abcd")
    model = set_random_weights(build_gpt2(9, 8, 1, 2, 8, tokenizer=tokenizer))
    model.embedding.embeddings.assign(
        np.vstack([model.embedding.embeddings[:4], 50 * np.ones((5, 8))])
    )
    model.layer_norm.beta.assign(np.ones(8))  # the logits of the padding are huge
    assert np.asarray(model(np.array([[0, 1]]))).argmax(-1).min() >= 4
    assert set(model.generate("ab", 6)) <= set("abcd")
    assert set(model.beam_search("ab", 3, beam_width=6)[0][0]) <= set("abcd")
    assert model.log_prob([[0, 8]])[0] > np.log(0.1)  # of the whole vocabulary
    with pytest.raises(ValueError, match="tokenizer: expected at most 3 tokens, as the model has"):
        build_gpt2(3, 8, 1, 2, 8, tokenizer=tokenizer)


def test_text_beyond_the_context_length_is_generated_and_streamed():
    model = set_random_weights(build_gpt2(4, 8, 1, 2, 8, tokenizer=CharacterTokenizer("abcd")))
    text = model.generate("abcdabcdab", 12, seed=0, sliding_window=True)
    assert len(text) == 22 and text.startswith("abcdabcdab")
    pieces = model.stream("abcdabcdab", 12, seed=0, sliding_window=True)
    assert "".join(pieces) == text[10:]
    tokens = model.tokenizer.encode("abcdabcdab")
    greedy = model.generate("abcdabcdab", 12, sampler=GREEDY, sliding_window=True)
    model.tokenizer.end_token = 0
    end = greedy.find("a", 10)
    expected = greedy if end < 0 else greedy[:end]
    texts = generate_text(model, model.tokenizer, "abcdabcdab", 22, sliding_window=True)
    assert texts == [expected] and len(tokens) == 10
    with pytest.raises(ValueError, match="max_new_tokens: expected at most 8 tokens"):
        generate_text(model, model.tokenizer, "abcdabcdab", 22)
