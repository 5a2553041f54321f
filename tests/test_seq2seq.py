"""Encoder–decoder: against NumPy, effects of padding and order, loss, training, translation."""

import functools
import itertools

import helpers as reference
import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import add_random_noise, largest_difference

import keras_genai
from keras_genai import translation_model
from keras_genai.attention import TransformerEncoderLayer
from keras_genai.beam_search import beam_search
from keras_genai.embeddings import PositionalEmbedding
from keras_genai.language_model import MaskedCrossentropy
from keras_genai.seq2seq import (
    Seq2SeqTransformer,
    TransformerSchedule,
    build_seq2seq_transformer,
)
from keras_genai.text import TranslationTokenizer

pad = functools.partial(keras.utils.pad_sequences, padding="post")

# Sources and targets of other lengths, the longest source (7) longer than the longest target (5).
SOURCE = pad([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3], [10]])
TARGET = pad([[1, 7, 8, 2], [1, 12, 2], [1, 3, 9, 11, 2]])


def small_seq2seq(**config):
    config = dict(num_layers=2, d_model=8, num_heads=2, dff=12) | config
    return build_seq2seq_transformer(11, 13, 20, **config)


@pytest.fixture(scope="module")
def model():
    """A translation model with random weights, which no test changes."""
    keras.utils.set_random_seed(0)
    model = small_seq2seq(dropout=0.5)
    add_random_noise(model)
    bias = model.lm_head.bias
    bias.assign(bias - np.eye(13)[2] / 2)  # so that some translations end, and some do not
    return model


@pytest.fixture
def eager_functions():
    """Run compiled functions eagerly, which is faster than compiling them for a few tokens."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def reference_model(model, source, target):
    """Return logits `(batch, n, vocab_size)`, and the scores of cross-attention of each layer."""
    tables = [x.embedding for x in model.layers if isinstance(x, PositionalEmbedding)]
    tables = [np.asarray(table.embeddings) for table in tables]
    assert [len(table) for table in tables] == [model.input_vocab_size, model.vocab_size]
    source_mask, all_scores = source[:, None, :] != 0, []
    context, x = map(reference.positional_embedding, tables, (source, target))
    for layer in model.layers:
        if isinstance(layer, TransformerEncoderLayer):
            context, _ = reference.transformer_layer(layer, context, mask=source_mask)
    norm_first = model.config["norm_first"]
    if norm_first:
        context = reference.layer_norm(model.get_layer("encoder_layer_norm"), context)
    causal = np.tril(np.ones((target.shape[1], target.shape[1])))
    for layer in model.decoder_layers:
        x, scores = reference.transformer_layer(layer, x, context, causal, source_mask)
        all_scores.append(scores)
    x = reference.layer_norm(model.decoder_layer_norm, x) if norm_first else x
    return reference.dense(model.lm_head, x), all_scores


@pytest.mark.parametrize("norm_first", [False, True])
def test_model_against_numpy(norm_first):
    model = small_seq2seq(norm_first=norm_first)
    add_random_noise(model)
    expected, scores = reference_model(model, SOURCE, TARGET)
    assert expected.shape == (3, 5, 13) and len(scores) == 2
    np.testing.assert_allclose(model([SOURCE, TARGET]), expected, atol=1e-4)


# Padding, order.


@pytest.mark.slow
def test_padding_of_source_and_target_does_not_change_the_logits(model):
    logits, context = model([SOURCE, TARGET]), model.encoder(SOURCE)
    wider = np.pad(SOURCE, [[0, 0], [0, 9]])
    np.testing.assert_allclose(model([wider, TARGET]), logits, atol=1e-5)
    np.testing.assert_allclose(model.encoder(wider)[:, :7], context, atol=1e-5)
    longer = model([SOURCE, np.pad(TARGET, [[0, 0], [0, 9]])])
    np.testing.assert_allclose(longer[:, :5], logits, atol=1e-5)
    for row, (m, n) in enumerate([(7, 4), (3, 3), (1, 5)]):
        alone = model([SOURCE[row : row + 1, :m], TARGET[row : row + 1, :n]])
        np.testing.assert_allclose(alone[0], logits[row, :n], atol=1e-5)


def test_row_of_padding_gives_finite_logits_and_changes_no_other_row(model):
    source = np.concatenate([SOURCE, 0 * SOURCE[:1]])
    target = np.concatenate([TARGET, 0 * TARGET[:1]])
    logits = np.asarray(model([source, target]))
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(logits[:3], model([SOURCE, TARGET]), atol=1e-5)


def test_logits_are_independent_of_later_target_tokens(model):
    target = np.array([[1, 7, 8, 4, 9, 3]])
    logits = np.asarray(model([SOURCE[:1], target]))
    for i in (0, 3, 5):
        changed = target.copy()
        changed[:, i] = 5
        difference = np.abs(model([SOURCE[:1], changed]) - logits).max(axis=-1)
        assert np.all(difference[:, :i] < 1e-6) and np.all(difference[:, i:] > 1e-5)


# The loss.

LABELS = pad([[3, 1, 4, 1], [2, 5], [1]])
LOGITS = np.random.default_rng(3).normal(size=(3, 4, 6)).astype("float32")


def keras_cross_entropy(labels, logits, label_smoothing=0.0):
    """Return the cross-entropy of each token `(batch, n)`, padding included."""
    loss = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=label_smoothing, reduction="none"
    )
    return np.asarray(loss(np.eye(logits.shape[-1], dtype="float32")[labels], logits))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.5])
def test_loss_is_the_weighted_mean_of_keras_cross_entropy_without_padding(label_smoothing):
    cross_entropy = keras_cross_entropy(LABELS, LOGITS, label_smoothing)
    loss = MaskedCrossentropy(label_smoothing)
    assert float(loss(LABELS, LOGITS)) == pytest.approx(cross_entropy[LABELS != 0].mean(), rel=1e-5)
    row_weights = np.array([1.0, 0.0, 3.0])  # float64, NumPy's default
    expected = np.average(cross_entropy, weights=row_weights[:, None] * (LABELS != 0))
    assert float(loss(LABELS, LOGITS, row_weights)) == pytest.approx(expected, rel=1e-5)
    token_weights = np.random.default_rng(0).random((3, 4)).astype("float32")
    expected = np.average(cross_entropy, weights=token_weights * (LABELS != 0))
    assert float(loss(LABELS, LOGITS, token_weights)) == pytest.approx(expected, rel=1e-5)


def test_padding_has_no_weight_in_the_loss():
    loss, changed = MaskedCrossentropy(0.1), LOGITS.copy()
    changed[LABELS == 0] = 100 * np.random.default_rng(0).normal(size=(5, 6))
    assert float(loss(LABELS, changed)) == float(loss(LABELS, LOGITS))
    labels, logits = np.pad(LABELS, [[0, 0], [0, 3]]), np.pad(LOGITS, [[0, 0], [0, 3], [0, 0]])
    assert float(loss(labels, logits)) == pytest.approx(float(loss(LABELS, LOGITS)), rel=1e-6)
    assert float(loss(0 * LABELS, LOGITS)) == 0
    restored = keras.losses.deserialize(keras.losses.serialize(loss))
    assert float(restored(LABELS, LOGITS)) == float(loss(LABELS, LOGITS))


@pytest.mark.parametrize("invalid", [-1, -100, 6, 99])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_label_outside_the_vocabulary_gives_nan(invalid, jit_compile):
    loss = tf.function(MaskedCrossentropy(0.1), jit_compile=jit_compile)
    assert np.isfinite(loss(tf.constant(LABELS), LOGITS))
    labels = LABELS.copy()
    labels[1, 1] = invalid
    assert np.isnan(loss(tf.constant(labels), LOGITS))


def test_loss_of_float16_logits_is_computed_in_float32():
    labels, logits = np.tile(LABELS, (1000, 1)), np.tile(LOGITS, (1000, 1, 1))
    half = logits.astype("float16")
    weights = np.where(np.arange(3000) % 3 == 1, 1 / 3, 1.0)  # 1 / 3 is 0.33325 in float16
    loss = MaskedCrossentropy()(labels, tf.constant(half), weights)
    assert loss.dtype == "float32"
    cross_entropy = keras_cross_entropy(labels, half.astype("float32"))
    expected = np.average(cross_entropy, weights=weights[:, None] * (labels != 0))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


# Training.

# Older versions of Keras ignore the mask in metrics without weights.
MASKS_COUNT_IN_METRICS = not keras.__version__.startswith("3.8.")

PAIRS = np.random.default_rng(0).integers(3, 11, size=(2, 16, 6)).astype("int32")
PAIRS[1, :, 0] = 1
PAIRS[:, ::2, 4:] = 0  # every other pair is shorter


@pytest.mark.slow
@pytest.mark.parametrize("dropout, label_smoothing", [(0.0, 0.0), (0.3, 0.1)])
def test_custom_train_step_gives_the_weights_of_stock_fit(
    double_precision, dropout, label_smoothing
):
    source, target = PAIRS
    fit = dict(batch_size=10, shuffle=False, verbose=0)
    keras.utils.set_random_seed(1)
    model = small_seq2seq(num_layers=1, dropout=dropout)
    stock = keras.Model(model.inputs, model.outputs)
    stock.compile("adam", MaskedCrossentropy(label_smoothing), run_eagerly=True)
    before = model.get_weights()
    stock.fit([source, target[:, :-1]], target[:, 1:], **fit)
    keras.utils.set_random_seed(1)
    custom = small_seq2seq(num_layers=1, dropout=dropout)
    custom.compile("adam", MaskedCrossentropy(label_smoothing), run_eagerly=True)
    custom.fit(source, target, **fit)
    assert largest_difference(custom.get_weights(), before) > 1e-3
    assert largest_difference(model.get_weights(), custom.get_weights()) < 1e-9


def test_metrics_are_means_over_all_tokens_of_batches_of_any_length(model):
    model = Seq2SeqTransformer.from_config(model.get_config())
    add_random_noise(model)
    model.compile(run_eagerly=True)
    weights = np.array([1.0, 2.0, 0.5], "float32")
    batches = [(SOURCE, TARGET), (SOURCE[:, :3], np.pad(TARGET[:, :3], [[0, 0], [0, 4]]))]
    shape = tf.TensorSpec((None, None), tf.int32)
    data = tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=(shape, shape))
    data = data.apply(tf.data.experimental.assert_cardinality(len(batches)))
    logs = model.evaluate(data, verbose=0, return_dict=True)
    sums = {0.0: 0.0, 0.1: 0.0}
    for source, target in batches:
        logits, labels = np.asarray(model([source, target[:, :-1]])), target[:, 1:]
        for smoothing in sums:
            cross_entropy = keras_cross_entropy(labels, logits, smoothing)
            sums[smoothing] += np.sum(cross_entropy * (labels != 0))
    num_tokens = sum(np.sum(target[:, 1:] != 0) for _, target in batches)
    assert sorted(logs) == ["cross_entropy", "loss"]
    assert logs["loss"] == pytest.approx(sums[0.1] / num_tokens, rel=1e-5)
    assert logs["cross_entropy"] == pytest.approx(sums[0.0] / num_tokens, rel=1e-5)
    # Sample weights apply to the loss.
    loss = model.evaluate(SOURCE, TARGET, sample_weight=weights, verbose=0, return_dict=True)
    logits = model([SOURCE, TARGET[:, :-1]])
    expected = MaskedCrossentropy(0.1)(TARGET[:, 1:], logits, weights)
    assert loss["loss"] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("kind", ["sequences", "sequences (batch, 1)", "tokens", "zero"])
@pytest.mark.parametrize("source", ["arrays", "dataset"])
def test_sample_weights_are_in_numerator_and_denominator(model, kind, source):
    model = Seq2SeqTransformer.from_config(model.get_config())
    add_random_noise(model)
    model.compile(weighted_metrics=["accuracy"], run_eagerly=True)
    rng = np.random.default_rng(0)
    weights = {
        "sequences": rng.random(3),
        "sequences (batch, 1)": rng.random((3, 1)),
        "tokens": rng.random(TARGET.shape),
        "zero": np.zeros(3),
    }[kind]
    if source == "arrays":
        logs = model.evaluate(
            SOURCE, TARGET, sample_weight=weights, verbose=0, return_dict=True, batch_size=2
        )
    else:
        data = tf.data.Dataset.from_tensor_slices((SOURCE, TARGET, weights)).batch(2)
        logs = model.evaluate(data, verbose=0, return_dict=True)
    assert sorted(logs) == ["accuracy", "cross_entropy", "loss"]
    labels, logits = TARGET[:, 1:], np.asarray(model([SOURCE, TARGET[:, :-1]]))
    token_weights = (weights[:, 1:] if kind == "tokens" else weights.reshape(3, 1)) * (labels != 0)
    if kind == "zero":
        assert logs["loss"] == logs["cross_entropy"] == logs["accuracy"] == 0
        model.train_on_batch(SOURCE, TARGET, weights)
        assert all(np.isfinite(w).all() for w in model.get_weights())
        return
    for name, smoothing in (("loss", 0.1), ("cross_entropy", 0.0)):
        losses = keras_cross_entropy(labels, logits, smoothing)
        assert logs[name] == pytest.approx(np.average(losses, weights=token_weights), rel=1e-4)
    correct = logits.argmax(axis=-1) == labels
    assert logs["accuracy"] == pytest.approx(np.average(correct, weights=token_weights), rel=1e-4)


def test_metrics_loss_weights_and_regularizers_of_compile_count():
    model = small_seq2seq(num_layers=1)
    add_random_noise(model)
    model.compile(loss_weights=[3.0], metrics=["accuracy"], run_eagerly=True)
    logits, labels = np.asarray(model([SOURCE, TARGET[:, :-1]])), TARGET[:, 1:]
    loss = keras_cross_entropy(labels, logits, 0.1)[labels != 0].mean()
    logs = model.evaluate(SOURCE, TARGET, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(3 * loss, rel=1e-4)
    assert set(logs) == {"loss", "cross_entropy", "accuracy"}
    mask = labels != 0
    if MASKS_COUNT_IN_METRICS:
        assert logs["accuracy"] == pytest.approx((logits.argmax(-1) == labels)[mask].mean())
    model.lm_head.kernel.regularizer = keras.regularizers.L2(0.1)
    logs = model.evaluate(SOURCE, TARGET, verbose=0, return_dict=True)
    penalty = 0.1 * np.sum(np.asarray(model.lm_head.kernel) ** 2)
    assert logs["loss"] == pytest.approx(3 * loss + penalty, rel=1e-4)
    # A loss that is no MaskedCrossentropy excludes padding, too.
    model = Seq2SeqTransformer.from_config(model.get_config())
    add_random_noise(model)
    stock = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", stock, run_eagerly=True)
    losses = keras_cross_entropy(labels, np.asarray(model([SOURCE, TARGET[:, :-1]])))
    logs = model.evaluate(SOURCE, TARGET, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(losses[mask].mean(), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_weighted_and_regularized_training_gives_the_weights_of_stock_fit(policy):
    source, target = PAIRS
    weights = np.random.default_rng(0).random(target.shape).astype("float32")
    results, losses = [], []
    keras.config.set_dtype_policy(policy)
    for custom in (False, True):
        keras.utils.set_random_seed(1)
        model = small_seq2seq(num_layers=1, dropout=0.0)
        model.lm_head.kernel.regularizer = keras.regularizers.L2(0.01)
        trained = model if custom else keras.Model(model.inputs, model.outputs)
        loss = MaskedCrossentropy(0.1)
        trained.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True)
        if custom:
            logs = trained.train_on_batch(source, target, weights, return_dict=True)
        else:
            x, y = [source, target[:, :-1]], target[:, 1:]
            logs = trained.train_on_batch(x, y, weights[:, 1:], return_dict=True)
        losses.append(logs["loss"])
        results.append(trained.get_weights())
        assert isinstance(trained.optimizer, keras.optimizers.LossScaleOptimizer) == (
            policy == "mixed_float16"
        )
    keras.config.set_dtype_policy("float32")
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert largest_difference(*results) < 1e-6


def test_schedule_peaks_at_the_end_of_the_warmup():
    schedule = TransformerSchedule(128, warmup_steps=400)
    rates = np.asarray(schedule(np.arange(4000)))
    assert np.argmax(rates) == 399  # the 400th step: Keras counts from 0
    assert rates[399] == pytest.approx(1 / np.sqrt(128 * 400), rel=1e-5)
    assert np.all(np.diff(rates[:400]) > 0) and np.all(np.diff(rates[399:]) < 0)
    assert rates[0] == pytest.approx(rates[399] / 400, rel=1e-5)
    assert rates[1599] == pytest.approx(rates[399] / 2, rel=1e-5)
    decaying = TransformerSchedule(128, 400, decay_steps=1000)
    factors = 1 - np.arange(1, 1001) / 1000
    np.testing.assert_allclose(decaying(np.arange(1000)), rates[:1000] * factors, atol=1e-9)
    assert float(decaying(999)) == float(decaying(1500)) == 0


def test_schedule_is_restored_from_its_config_also_within_an_optimizer():
    schedule = TransformerSchedule(64, 30, decay_steps=70)
    config = keras.optimizers.schedules.serialize(schedule)
    restored = keras.optimizers.schedules.deserialize(config)
    assert isinstance(restored, TransformerSchedule)
    assert restored.get_config() == schedule.get_config()
    optimizer = keras.optimizers.Adam(schedule)
    restored = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert restored._learning_rate.get_config() == schedule.get_config()


# Translation.


def greedy_decoding(model, source, max_new_tokens):
    """Generate token by token without a cache; the end token remains."""
    tokens, finished = np.ones((len(source), 1), "int32"), np.zeros(len(source), bool)
    for _ in range(max_new_tokens):
        token = np.asarray(model([source, tokens]))[:, -1].argmax(axis=-1)
        token = np.where(finished, 2, token)
        finished = finished | (token == 2)
        tokens = np.concatenate([tokens, token[:, None]], axis=1).astype("int32")
    return tokens[:, 1:]


def test_cached_steps_give_the_logits_of_the_whole_sequence(model):
    tokens = np.array([[1, 7, 8, 4, 9, 3], [1, 12, 5, 0, 6, 7], [1, 3, 9, 11, 3, 4]], "int32")
    expected = np.asarray(model([SOURCE, tokens]))
    # A block of three, padded to four, then one token per step.
    state = model.initial_state(3, 8, SOURCE)
    block, start = np.pad(tokens[:, :3], [[0, 0], [0, 1]]), tf.constant(0)
    logits, state = model.step(block, state, start, length=3)
    all_logits = [logits[:, :3]]
    for position in range(3, 6):
        token = tokens[:, position : position + 1]
        logits, state = model.step(token, state, tf.constant(position))
        all_logits.append(logits)
    np.testing.assert_allclose(np.concatenate(all_logits, axis=1), expected, atol=1e-5)


@pytest.mark.slow
def test_greedy_translation_equals_decoding_without_a_cache(model):
    # One source has the maximum length, which is no multiple of 32.
    rng = np.random.default_rng(5)
    source = pad([rng.integers(3, 11, size=n) for n in (18, 3, 9, 1, 20, 5)])
    tokens = model.translate(source)
    assert tokens.shape == (6, 19) and tokens.dtype == "int32"  # 20 with the start token
    np.testing.assert_array_equal(tokens, greedy_decoding(model, source, 19))
    ends = np.argmax(tokens == 2, axis=1)[np.any(tokens == 2, axis=1)]
    assert 0 < len(ends) < 6 and len(set(tokens[:, 0])) > 1  # the rows are different cases


@pytest.mark.usefixtures("eager_functions")
def test_beam_search_of_width_1_is_greedy_search(model):
    source = np.pad(SOURCE, [[0, 0], [0, 9]])  # as translate pads it
    tokens, _ = beam_search(
        model,
        np.ones((3, 1), "int32"),
        8,
        beam_width=1,
        length_penalty=0.6,
        conditioning=source,
        stop_token=2,
    )
    np.testing.assert_array_equal(tokens[:, 0, 1:], model.translate(SOURCE, max_new_tokens=8))


@pytest.mark.usefixtures("eager_functions")
@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_beam_search_over_all_prefixes_finds_the_likeliest_translation(alpha):
    model = build_seq2seq_transformer(11, 4, 8, num_layers=1, d_model=8, num_heads=2, dff=12)
    add_random_noise(model, 1.0)
    sequences = np.array(list(itertools.product(range(4), repeat=3)), "int32")
    decoder_inputs = np.concatenate([np.ones((64, 1), "int32"), sequences[:, :-1]], axis=1)
    tokens = model.translate(SOURCE, beam_width=16, length_penalty=alpha, max_new_tokens=3)
    assert tokens.shape == (3, 3)
    for row, source in enumerate(SOURCE):
        logits = np.asarray(model([np.repeat(source[None], 64, axis=0), decoder_inputs]))
        scores = {}
        for sequence, log_probs in zip(
            sequences.tolist(), -keras_cross_entropy(sequences, logits), strict=True
        ):
            length = sequence.index(2) + 1 if 2 in sequence else 3
            ended = (*sequence[:length], *[2] * (3 - length))
            scores[ended] = log_probs[:length].sum() / ((5 + length) / 6) ** alpha
        assert tuple(tokens[row].tolist()) == max(scores, key=scores.get)


WORDS = ["".join(c) for n in (1, 2, 3) for c in itertools.product("abc", repeat=n)]


@pytest.fixture(scope="module")
def translator():
    """A model trained to reverse words of the letters a, b, c."""
    keras.utils.set_random_seed(0)
    tokenizer = TranslationTokenizer.train("abc", 259)
    model = build_seq2seq_transformer(
        259, 259, 9, 1, 16, 2, 32, 0.0, input_tokenizer=tokenizer, target_tokenizer=tokenizer
    )
    source = pad([tokenizer.encode(word) for word in WORDS])
    target = pad([[1, *tokenizer.encode(word[::-1]), 2] for word in WORDS])
    rate = TransformerSchedule(16, warmup_steps=100)
    model.compile(keras.optimizers.Adam(rate, beta_2=0.98, epsilon=1e-9), jit_compile=False)
    model.fit(
        np.tile(source, (300, 1)), np.tile(target, (300, 1)), len(WORDS), verbose=0, shuffle=False
    )
    return model


@pytest.mark.slow
@pytest.mark.usefixtures("eager_functions")
def test_trained_model_translates_exactly_before_and_after_loading(translator, tmp_path):
    reversed_words = [word[::-1] for word in WORDS]
    assert translator.translate(WORDS) == reversed_words
    assert translator.translate(WORDS[-3:], beam_width=3) == reversed_words[-3:]
    translator.save(tmp_path / "model.keras")
    loaded = keras_genai.load_model(tmp_path / "model.keras")
    assert loaded.translate(WORDS) == reversed_words and loaded.translate("abc") == "cba"
    assert loaded.optimizer._learning_rate.get_config() == {
        "d_model": 16,
        "warmup_steps": 100,
        "decay_steps": None,
    }
    assert int(loaded.optimizer.iterations) == 300
    assert loaded.loss.label_smoothing == 0.1


@pytest.mark.usefixtures("eager_functions")
def test_texts_are_translated_like_their_ids_and_in_order(translator, monkeypatch):
    # Several batches, sorted by length: the translations return in the order of the sources.
    monkeypatch.setattr(translation_model, "TRANSLATION_BATCH_SIZE", 4)
    words = ["abc", "a", "cba", "bb", "c", "aab", "ca", "bbc", "b"]
    assert translator.translate(words) == [word[::-1] for word in words]
    assert translator.translate(tuple(words[:2])) == ["cba", "a"]
    assert translator.translate("abc") == "cba" and translator.translate([]) == []
    ids = translator.translate(pad([translator.input_tokenizer.encode(word) for word in words]))
    assert ids.shape == (9, 8) and np.all(ids[:, 3:] == 2)
    texts = [translator.target_tokenizer.decode(row[row != 2]) for row in ids]
    assert texts == [word[::-1] for word in words]


@pytest.mark.usefixtures("eager_functions")
def test_max_new_tokens_limits_translations(translator):
    assert translator.translate("abc", max_new_tokens=2) == "cb"
    assert translator.translate(["abc", "a"], beam_width=2, max_new_tokens=2) == ["cb", "a"]
    assert translator.translate("abc", max_new_tokens=100) == "cba"  # limited to 8 by the model


def test_attention_maps_are_the_scores_of_cross_attention(translator):
    maps = translator.attention_maps("abca", "acb")
    assert maps["source"] == list("abca") and maps["target"] == ["a", "c", "b", "<end>"]
    assert maps["weights"].shape == (1, 2, 4, 4)
    np.testing.assert_allclose(maps["weights"].sum(axis=-1), 1, rtol=1e-5)
    source = translator.input_tokenizer.encode("abca")[None]
    decoder_input = np.array([[1, *translator.target_tokenizer.encode("acb")]])
    expected = np.concatenate(reference_model(translator, source, decoder_input)[1])
    np.testing.assert_allclose(maps["weights"], expected, atol=1e-5)


@pytest.mark.usefixtures("eager_functions")
def test_translation_changes_no_variable(model):
    before = [np.asarray(variable).copy() for variable in model.variables]
    model.translate(SOURCE, max_new_tokens=2)
    assert largest_difference(model.variables, before) == 0


# Invalid input.


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: small_seq2seq(num_layers=0), "num_layers: expected a whole number .* got 0"),
        (lambda: small_seq2seq(d_model=0), "d_model: expected a whole number of at least 1, got 0"),
        (lambda: small_seq2seq(d_model=7, num_heads=1), "d_model: expected an even number, got 7"),
        (lambda: small_seq2seq(num_heads=3), "d_model: expected a multiple of num_heads, 3, got 8"),
        (lambda: small_seq2seq(num_heads=0), "num_heads: expected a whole number of at least 1"),
        (lambda: small_seq2seq(dff=0), "dff: expected a whole number of at least 1, got 0"),
        (lambda: small_seq2seq(dropout=1.0), "dropout: expected a fraction .* than 1, got 1.0"),
        (lambda: build_seq2seq_transformer(0, 5, 9), "input_vocab_size: expected a whole number"),
        (lambda: build_seq2seq_transformer(5, 0, 9), "target_vocab_size: expected a whole number"),
        (lambda: build_seq2seq_transformer(5, 5, 0), "max_seq_length: expected a whole number"),
        (lambda: MaskedCrossentropy(1.0), "label_smoothing: expected a fraction from 0"),
        (lambda: TransformerSchedule(0), "d_model: expected a whole number"),
        (lambda: TransformerSchedule(8, 0), "warmup_steps: expected a whole number"),
        (lambda: TransformerSchedule(8, 9, 0), "decay_steps: expected a whole number"),
    ],
)
def test_invalid_arguments_raise(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("name, size", [("input_tokenizer", 11), ("target_tokenizer", 13)])
def test_tokenizer_of_another_size_raises(name, size):
    tokenizer = TranslationTokenizer.train("abc", 259)
    message = f"{name}: expected {size} tokens, as the model has, got 259"
    with pytest.raises(ValueError, match=message):
        small_seq2seq(**{name: tokenizer})


def test_invalid_pairs_raise_before_training():
    model = small_seq2seq(num_layers=1)
    model.compile()
    for x, y, message in (
        (SOURCE + 1, TARGET, "x: expected token ids from 0 to 10, got values from .* to 11"),
        (SOURCE, TARGET + 1, "y: expected token ids from 0 to 12, got values from .* to 13"),
        (-SOURCE, TARGET, "x: expected token ids from 0 to 10, got values from -10"),
        (SOURCE, TARGET[:, :1], "y: expected sequences of at least 2 token ids"),
        (SOURCE[:, :0], TARGET, "x: expected sequences of at least 1 token ids"),
        (SOURCE, None, r"y: expected token ids \(batch, n\), got shape \(\)"),
        (np.full((3, 21), 3), TARGET, "x: expected at most 20 tokens, as many as .*, got 21"),
        (SOURCE, np.full((3, 21), 3), "y: expected at most 20 tokens, as many as .*, got 21"),
        (SOURCE / 2, TARGET, "x: expected token ids, got an array of float64"),
        (SOURCE, TARGET[:2], "y: expected 3 targets, as many as sources, got 2"),
        (np.pad(SOURCE, [[0, 0], [0, 14]]), TARGET, "x: expected at most 20 tokens"),
        (SOURCE, np.pad(TARGET, [[0, 0], [0, 17]]), "y: expected at most 21 tokens"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(x, y, verbose=0)


def test_predict_takes_a_source_and_a_decoder_input(model):
    np.testing.assert_allclose(
        model.predict([SOURCE, TARGET], verbose=0), model([SOURCE, TARGET]), atol=1e-5
    )
    for x in (SOURCE, [SOURCE]):
        with pytest.raises(ValueError, match=r"x: expected \[source, target\]"):
            model.predict(x, verbose=0)


@pytest.mark.parametrize(
    "source, message",
    [
        (SOURCE + 1, "source: expected token ids from 0 to 10, got values from .* to 11"),
        (SOURCE[0], "source: expected an array"),
        (SOURCE[:, :0], "source: expected sequences of at least 1 token ids"),
        (SOURCE[:0], "source: expected at least one sequence"),
        (SOURCE * [[1], [0], [1]], "source: expected at least one token, .* padding in row 1"),
        (np.full((1, 21), 3), "source: expected at most 20 tokens, .* got 21"),
        ("abc", "source: expected token ids, since the model has no tokenizers"),
        (["abc"], "source: expected token ids, since the model has no tokenizers"),
    ],
)
def test_invalid_source_tokens_raise(model, source, message):
    with pytest.raises(ValueError, match=message):
        model.translate(source)


@pytest.mark.parametrize(
    "source, message",
    [
        ("", "text: expected a string of at least one character"),
        (["abc", ""], "text: expected a string of at least one character"),
        ("a" * 10, "source: expected at most 9 tokens, .* got 10"),
        (["ab", "a" * 10], "source: expected at most 9 tokens, .* got 10"),
    ],
)
def test_invalid_source_texts_raise(translator, source, message):
    with pytest.raises(ValueError, match=message):
        translator.translate(source)


@pytest.mark.parametrize("argument", ["beam_width", "max_new_tokens"])
def test_invalid_search_options_raise(translator, argument):
    with pytest.raises(ValueError, match=f"{argument}: expected a whole number of at least 1"):
        translator.translate("abc", **{argument: 0})


def test_attention_maps_require_tokenizers(model):
    with pytest.raises(ValueError, match="since the model has no tokenizers"):
        model.attention_maps("abc", "abc")
