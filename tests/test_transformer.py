"""Transformer: against NumPy by hand, what padding and order may change, what training learns."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import largest_difference

import keras_genai
from keras_genai import autoregressive
from keras_genai.text import TranslationTokenizer
from keras_genai.transformer import (
    MaskedCrossentropy,
    MultiHeadAttention,
    PositionalEmbedding,
    Seq2SeqTransformer,
    TransformerDecoderLayer,
    TransformerEncoderLayer,
    WarmupSchedule,
    build_seq2seq_transformer,
    build_transformer,
    pad,
    positional_encoding,
)

# Sources and targets of other lengths, the longest source (7) longer than the longest target (5).
SOURCE = pad([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3], [10]])
TARGET = pad([[1, 7, 8, 2], [1, 12, 2], [1, 3, 9, 11, 2]])


def randomize(layer, scale=0.4):
    rng = np.random.default_rng(0)
    layer.set_weights([w + rng.normal(scale=scale, size=w.shape) for w in layer.get_weights()])


def small(**settings):
    settings = dict(num_layers=2, d_model=8, num_heads=2, dff=12) | settings
    return build_seq2seq_transformer(11, 13, 20, **settings)


@pytest.fixture(scope="module")
def model():
    """A translation model of random weights, which no test changes."""
    keras.utils.set_random_seed(0)
    model = small(dropout=0.5)
    randomize(model)
    model.head.bias.assign(model.head.bias - np.eye(13)[2] / 2)  # some end, some do not
    return model


def sequential(**settings):
    model = build_transformer(11, 6, 20, num_layers=2, d_model=8, num_heads=2, dff=12, **settings)
    randomize(model)
    return model


@pytest.fixture
def eagerly():
    """Run compiled functions op by op: for a few tokens that is faster than to compile them."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


# By hand, one head after the other.


def dense_by_hand(layer, x):
    return x @ np.asarray(layer.kernel) + np.asarray(layer.bias)


def norm_by_hand(layer, x):
    x = x - x.mean(axis=-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + layer.epsilon)
    return x * np.asarray(layer.gamma) + np.asarray(layer.beta)


def attention_by_hand(layer, x, context, allowed=None):
    """Return (batch, n, d_model), and the weights (batch, num_heads, n, m)."""
    size, heads, all_weights = x.shape[-1] // layer.num_heads, [], []
    for head in range(layer.num_heads):
        columns = slice(head * size, (head + 1) * size)
        query = dense_by_hand(layer.query, x)[..., columns]
        key = dense_by_hand(layer.key, context)[..., columns]
        value = dense_by_hand(layer.value, context)[..., columns]
        weights = np.exp(query @ key.transpose(0, 2, 1) / np.sqrt(size))
        if allowed is not None:
            weights = weights * allowed
        weights = weights / weights.sum(axis=-1, keepdims=True)
        heads.append(weights @ value)
        all_weights.append(weights)
    heads = np.concatenate(heads, axis=-1)
    return dense_by_hand(layer.projection, heads), np.stack(all_weights, axis=1)


def layer_by_hand(layer, x, context=None, allowed=None, context_allowed=None):
    """An encoder layer, or a decoder layer: what comes out, and the weights of cross-attention."""
    weights = None

    def add(x, norm, sublayer):
        return (
            x + sublayer(norm_by_hand(norm, x))
            if layer.norm_first
            else (norm_by_hand(norm, x + sublayer(x)))
        )

    def cross(h):
        nonlocal weights
        h, weights = attention_by_hand(layer.cross_attention, h, context, context_allowed)
        return h

    def feed_forward(h):
        return dense_by_hand(layer.outer, np.maximum(dense_by_hand(layer.inner, h), 0))

    x = add(x, layer.attention_norm, lambda h: attention_by_hand(layer.attention, h, h, allowed)[0])
    if context is not None:
        x = add(x, layer.cross_attention_norm, cross)
    return add(x, layer.feed_forward_norm, feed_forward), weights


def embedding_by_hand(table, tokens):
    d_model = table.shape[1]
    x = table[tokens] * np.sqrt(d_model)
    for position, i in itertools.product(range(tokens.shape[1]), range(d_model // 2)):
        angle = position / 10000 ** (2 * i / d_model)
        x[:, position, 2 * i] += np.sin(angle)
        x[:, position, 2 * i + 1] += np.cos(angle)
    return x


def model_by_hand(model, source, target):
    """Logits (batch, n, vocab_size), and weights of cross-attention, one array a layer."""
    tables = [x.embedding for x in model.layers if isinstance(x, PositionalEmbedding)]
    tables = [np.asarray(table.embeddings) for table in tables]
    assert [len(table) for table in tables] == [model.input_vocab_size, model.vocab_size]
    seen, all_weights = source[:, None, :] != 0, []
    context, x = (embedding_by_hand(*pair) for pair in zip(tables, (source, target)))
    for layer in model.layers:
        if isinstance(layer, TransformerEncoderLayer):
            context, _ = layer_by_hand(layer, context, allowed=seen)
    norm_first = model.settings["norm_first"]
    if norm_first:
        context = norm_by_hand(model.get_layer("encoder_norm"), context)
    causal = np.tril(np.ones((target.shape[1], target.shape[1])))
    for layer in model.decoder_layers:
        x, weights = layer_by_hand(layer, x, context, causal, seen)
        all_weights.append(weights)
    x = norm_by_hand(model.decoder_norm, x) if norm_first else x
    return dense_by_hand(model.head, x), all_weights


@pytest.mark.parametrize("num_heads, cross", [(1, False), (3, False), (3, True)])
def test_attention_against_numpy(num_heads, cross):
    rng = np.random.default_rng(1)
    x, context = (rng.normal(size=(2, n, 6)).astype("float32") for n in (4, 5))
    context = context if cross else x
    layer = MultiHeadAttention(num_heads)
    layer.build(x.shape)
    randomize(layer)
    allowed = rng.random((2, 4, context.shape[1])) < 0.5
    allowed[..., 0] = True
    for mask in (None, allowed):
        expected, weights = attention_by_hand(layer, x, context, mask)
        mask = None if mask is None else mask[:, None]
        out = layer(x, context, mask) if cross else layer(x, allowed=mask)
        np.testing.assert_allclose(out, expected, atol=1e-5)
        found = layer.attend(x, layer.keys_values(context), mask)[1]
        np.testing.assert_allclose(found, weights, atol=1e-6)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("kind", ["encoder", "decoder", "decoder alone"])
def test_layers_against_numpy(kind, norm_first):
    rng = np.random.default_rng(1)
    x, context = (rng.normal(size=(2, n, 6)).astype("float32") for n in (4, 5))
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], bool)
    context_mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool)
    causal = np.tril(np.ones((4, 4), bool))
    settings = dict(dropout=0.5, norm_first=norm_first, layer_norm_epsilon=0.1)
    if kind == "encoder":
        layer = TransformerEncoderLayer(2, 7, **settings)
        layer.build(x.shape)
        randomize(layer)
        expected, _ = layer_by_hand(layer, x, allowed=mask[:, None])
        np.testing.assert_allclose(layer(x, mask=mask), expected, atol=1e-5)
        np.testing.assert_allclose(layer(x), layer_by_hand(layer, x)[0], atol=1e-5)
        return
    layer = TransformerDecoderLayer(2, 7, cross_attention=kind == "decoder", **settings)
    layer.build(x.shape)
    randomize(layer)
    if kind == "decoder":
        allowed, seen = causal & mask[:, None], context_mask[:, None]
        expected, weights = layer_by_hand(layer, x, context, allowed, seen)
        found = layer.call_with_weights(x, context, mask, context_mask)
        np.testing.assert_allclose(found[0], expected, atol=1e-5)
        np.testing.assert_allclose(found[1], weights, atol=1e-6)
        np.testing.assert_allclose(layer(x, context, mask, context_mask), expected, atol=1e-5)
    else:
        np.testing.assert_allclose(layer(x), layer_by_hand(layer, x, None, causal)[0], atol=1e-5)


@pytest.mark.parametrize("norm_first", [False, True])
def test_model_against_numpy(norm_first):
    model = small(norm_first=norm_first)
    randomize(model)
    expected, weights = model_by_hand(model, SOURCE, TARGET)
    assert expected.shape == (3, 5, 13) and len(weights) == 2
    np.testing.assert_allclose(model([SOURCE, TARGET]), expected, atol=1e-4)


def test_embedding_is_scaled_and_its_positions_added():
    layer = PositionalEmbedding(11, 9, 6)
    layer.build(SOURCE.shape)
    table = np.asarray(layer.embedding.embeddings)
    expected = embedding_by_hand(table, SOURCE)
    np.testing.assert_allclose(layer(SOURCE), expected, atol=1e-5)
    # The same tokens, read from the third on.
    np.testing.assert_allclose(layer(SOURCE[:, 3:], position=3), expected[:, 3:], atol=1e-5)
    np.testing.assert_array_equal(layer.compute_mask(SOURCE), SOURCE != 0)
    scaled = PositionalEmbedding(11, 9, 6, positions=False)
    scaled.build(SOURCE.shape)
    scaled.set_weights(layer.get_weights())
    np.testing.assert_allclose(scaled(SOURCE), 6**0.5 * table[SOURCE], atol=1e-5)
    # So scaled, a vector is about as long as its position's, and not lost in it.
    wide = PositionalEmbedding(100, 9, 64, positions=False)
    assert np.std(wide(np.arange(100)[None])) == pytest.approx(1, rel=0.05)


def test_positions_beyond_the_end_are_refused():
    layer = PositionalEmbedding(11, 4, 6)
    layer(np.full((1, 4), 3))
    with pytest.raises(ValueError, match="tokens: expected at most 4, as many as .*, got 5"):
        layer(np.full((1, 3), 3), position=2)


def test_positional_encoding_against_its_formula():
    encoding = positional_encoding(50, 8)
    for position, i in itertools.product(range(50), range(4)):
        angle = position / 10000 ** (2 * i / 8)
        assert encoding[position, 2 * i] == pytest.approx(np.sin(angle), abs=1e-12)
        assert encoding[position, 2 * i + 1] == pytest.approx(np.cos(angle), abs=1e-12)


# Padding, order.


def test_padding_of_source_and_target_changes_no_output(model):
    logits, context = model([SOURCE, TARGET]), model.encoder(SOURCE)
    wider = np.pad(SOURCE, [[0, 0], [0, 9]])
    np.testing.assert_allclose(model([wider, TARGET]), logits, atol=1e-5)
    np.testing.assert_allclose(model.encoder(wider)[:, :7], context, atol=1e-5)
    longer = model([SOURCE, np.pad(TARGET, [[0, 0], [0, 9]])])
    np.testing.assert_allclose(longer[:, :5], logits, atol=1e-5)
    for row, (m, n) in enumerate([(7, 4), (3, 3), (1, 5)]):
        alone = model([SOURCE[row : row + 1, :m], TARGET[row : row + 1, :n]])
        np.testing.assert_allclose(alone[0], logits[row, :n], atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("pooling", [None, "mean"])
def test_padding_changes_no_output_of_the_sequential_model(causal, pooling):
    model = sequential(causal=causal, pooling=pooling)
    out, wider = np.asarray(model(SOURCE)), np.asarray(model(np.pad(SOURCE, [[0, 0], [0, 9]])))
    assert out.shape == ((3, 6) if pooling else (3, 7, 6))
    np.testing.assert_allclose(out.sum(axis=-1), 1, rtol=1e-5)
    for row, length in enumerate([7, 3, 1]):
        alone = np.asarray(model(SOURCE[row : row + 1, :length]))[0]
        kept = ... if pooling else slice(length)
        np.testing.assert_allclose(out[row][kept], alone, atol=1e-5)
        np.testing.assert_allclose(wider[row][kept], alone, atol=1e-5)


def test_a_row_of_padding_is_no_nan_and_changes_no_other(model):
    source = np.concatenate([SOURCE, 0 * SOURCE[:1]])
    target = np.concatenate([TARGET, 0 * TARGET[:1]])
    logits = np.asarray(model([source, target]))
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(logits[:3], model([SOURCE, TARGET]), atol=1e-5)
    for causal, pooling in itertools.product([False, True], [None, "mean"]):
        labelling = sequential(causal=causal, pooling=pooling)
        with tf.GradientTape() as tape:
            out = labelling(source)
            total = tf.reduce_sum(out**2)
        assert np.isfinite(out).all()
        for gradient in tape.gradient(total, labelling.trainable_variables):
            assert np.isfinite(tf.convert_to_tensor(gradient)).all()


def test_no_output_looks_ahead(model):
    target = np.array([[1, 7, 8, 4, 9, 3]])
    causal, whole = sequential(causal=True), sequential()
    for i in (0, 3, 5):
        other = target.copy()
        other[:, i] = 5
        for ask in (lambda t: model([SOURCE[:1], t]), causal):
            out, changed = np.asarray(ask(target)), np.asarray(ask(other))
            np.testing.assert_allclose(changed[:, :i], out[:, :i], atol=1e-6)
            assert np.all(np.abs(changed - out)[:, i:].max(axis=-1) > 1e-5)
        # Without a causal mask, each output sees all tokens.
        assert np.all(np.abs(whole(other) - whole(target)).max(axis=-1) > 1e-5)


def test_without_positions_the_encoder_does_not_know_order():
    tokens = np.array([[3, 1, 4, 1, 5, 9, 2]])
    order = np.random.default_rng(0).permutation(7)
    for positions in (False, True):
        embedding = PositionalEmbedding(11, 9, 8, positions=positions)
        encoder = keras.Sequential([embedding, TransformerEncoderLayer(2, 12)])
        encoder(tokens)
        randomize(encoder)
        difference = np.abs(encoder(tokens[:, order]) - encoder(tokens).numpy()[:, order])
        assert np.all(difference < 1e-5) if not positions else np.all(difference.max(-1) > 1e-3)


# The loss.

LABELS = pad([[3, 1, 4, 1], [2, 5], [1]])
LOGITS = np.random.default_rng(3).normal(size=(3, 4, 6)).astype("float32")


def nats_by_keras(label_smoothing=0.0):
    loss = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=label_smoothing, reduction="none"
    )
    return np.asarray(loss(np.eye(6, dtype="float32")[LABELS], LOGITS))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.5])
def test_loss_is_keras_own_over_all_tokens_but_padding(label_smoothing):
    nats = nats_by_keras(label_smoothing)
    loss = MaskedCrossentropy(label_smoothing)
    assert float(loss(LABELS, LOGITS)) == pytest.approx(nats[LABELS != 0].mean(), rel=1e-5)
    rows = np.array([1.0, 0.0, 3.0])  # float64, as NumPy makes it
    expected = np.average(nats, weights=rows[:, None] * (LABELS != 0))
    assert float(loss(LABELS, LOGITS, rows)) == pytest.approx(expected, rel=1e-5)
    tokens = np.random.default_rng(0).random((3, 4)).astype("float32")
    expected = np.average(nats, weights=tokens * (LABELS != 0))
    assert float(loss(LABELS, LOGITS, tokens)) == pytest.approx(expected, rel=1e-5)


def test_padding_weighs_nothing_in_the_loss():
    loss, other = MaskedCrossentropy(0.1), LOGITS.copy()
    other[LABELS == 0] = 100 * np.random.default_rng(0).normal(size=(5, 6))
    assert float(loss(LABELS, other)) == float(loss(LABELS, LOGITS))
    labels, logits = np.pad(LABELS, [[0, 0], [0, 3]]), np.pad(LOGITS, [[0, 0], [0, 3], [0, 0]])
    assert float(loss(labels, logits)) == pytest.approx(float(loss(LABELS, LOGITS)), rel=1e-6)
    assert float(loss(0 * LABELS, LOGITS)) == 0
    restored = keras.losses.deserialize(keras.losses.serialize(loss))
    assert float(restored(LABELS, LOGITS)) == float(loss(LABELS, LOGITS))


def test_stock_loss_of_the_sequential_model_ignores_padding():
    model = sequential()
    model.compile(loss="sparse_categorical_crossentropy", run_eagerly=True)
    labels = np.where(SOURCE == 0, 0, SOURCE % 6)
    expected = -np.log(np.take_along_axis(np.asarray(model(SOURCE)), labels[..., None], -1)[..., 0])
    loss = model.evaluate(SOURCE, labels, verbose=0)
    assert loss == pytest.approx(expected[SOURCE != 0].mean(), rel=1e-5)


# Training.

PAIRS = np.random.default_rng(0).integers(3, 11, size=(2, 16, 6)).astype("int32")
PAIRS[1, :, 0] = 1
PAIRS[:, ::2, 4:] = 0  # every other pair is shorter


@pytest.mark.parametrize("dropout, label_smoothing", [(0.0, 0.0), (0.3, 0.1)])
def test_both_ways_of_training_give_the_same_weights(double_precision, dropout, label_smoothing):
    source, target = PAIRS
    fit = dict(batch_size=10, shuffle=False, verbose=0)
    keras.utils.set_random_seed(1)
    model = small(num_layers=1, dropout=dropout)
    stock = keras.Model(model.inputs, model.outputs)
    stock.compile("adam", MaskedCrossentropy(label_smoothing), run_eagerly=True)
    before = model.get_weights()
    stock.fit([source, target[:, :-1]], target[:, 1:], **fit)
    keras.utils.set_random_seed(1)
    custom = small(num_layers=1, dropout=dropout)
    custom.compile("adam", MaskedCrossentropy(label_smoothing), run_eagerly=True)
    custom.fit(source, target, **fit)
    assert largest_difference(custom.get_weights(), before) > 1e-3
    assert largest_difference(model.get_weights(), custom.get_weights()) < 1e-9


def test_reported_loss_is_the_mean_of_all_tokens_of_batches_of_any_length(model):
    model = Seq2SeqTransformer.from_config(model.get_config())
    randomize(model)
    model.compile(run_eagerly=True)
    weights = np.array([1.0, 2.0, 0.5], "float32")
    batches = [(SOURCE, TARGET), (SOURCE[:, :3], np.pad(TARGET[:, :3], [[0, 0], [0, 4]]))]
    shape = tf.TensorSpec((None, None), tf.int32)
    data = tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=(shape, shape))
    logs = model.evaluate(data, verbose=0, return_dict=True)
    sums = {0.0: 0.0, 0.1: 0.0}
    for source, target in batches:
        logits, labels = model([source, target[:, :-1]]), target[:, 1:]
        for smoothing in sums:
            loss = keras.losses.CategoricalCrossentropy(
                from_logits=True, label_smoothing=smoothing, reduction="none"
            )
            sums[smoothing] += np.sum(loss(np.eye(13)[labels], logits) * (labels != 0))
    count = sum(np.sum(target[:, 1:] != 0) for _, target in batches)
    assert list(logs) == ["loss", "nats"]
    assert logs["loss"] == pytest.approx(sums[0.1] / count, rel=1e-5)
    assert logs["nats"] == pytest.approx(sums[0.0] / count, rel=1e-5)
    # Weights of rows weigh in the loss.
    loss = model.evaluate(SOURCE, TARGET, sample_weight=weights, verbose=0, return_dict=True)
    logits = model([SOURCE, TARGET[:, :-1]])
    expected = MaskedCrossentropy(0.1)(TARGET[:, 1:], logits, weights)
    assert loss["loss"] == pytest.approx(float(expected), rel=1e-5)


def test_schedule_peaks_at_the_end_of_the_warm_up():
    schedule = WarmupSchedule(128, warmup_steps=400)
    rates = np.asarray(schedule(np.arange(4000)))
    assert np.argmax(rates) == 399  # the 400th step: Keras counts from 0
    assert rates[399] == pytest.approx(1 / np.sqrt(128 * 400), rel=1e-5)
    assert np.all(np.diff(rates[:400]) > 0) and np.all(np.diff(rates[399:]) < 0)
    assert rates[0] == pytest.approx(rates[399] / 400, rel=1e-5)
    assert rates[1599] == pytest.approx(rates[399] / 2, rel=1e-5)
    decaying = WarmupSchedule(128, 400, decay_steps=1000)
    falls = 1 - np.arange(1, 1001) / 1000
    np.testing.assert_allclose(decaying(np.arange(1000)), rates[:1000] * falls, atol=1e-9)
    assert float(decaying(999)) == float(decaying(1500)) == 0


def test_schedule_goes_through_keras_files():
    schedule = WarmupSchedule(64, 30, decay_steps=70)
    config = keras.optimizers.schedules.serialize(schedule)
    restored = keras.optimizers.schedules.deserialize(config)
    assert isinstance(restored, WarmupSchedule) and restored.get_config() == schedule.get_config()
    optimizer = keras.optimizers.Adam(schedule)
    restored = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert restored._learning_rate.get_config() == schedule.get_config()


# Translation.


def greedy_by_hand(model, source, num_steps):
    """Write token by token, each time with the whole model; the end token stays."""
    written, ended = np.ones((len(source), 1), "int32"), np.zeros(len(source), bool)
    for _ in range(num_steps):
        token = np.asarray(model([source, written]))[:, -1].argmax(axis=-1)
        token = np.where(ended, 2, token)
        ended = ended | (token == 2)
        written = np.concatenate([written, token[:, None]], axis=1).astype("int32")
    return written[:, 1:]


def test_steps_give_the_logits_of_the_whole(model):
    tokens = np.array([[1, 7, 8, 4, 9, 3], [1, 12, 5, 0, 6, 7], [1, 3, 9, 11, 3, 4]], "int32")
    expected = np.asarray(model([SOURCE, tokens]))
    # A block of three, read from a padded one of four, then one by one.
    state = model.initial_state(3, 8, SOURCE)
    block, start = np.pad(tokens[:, :3], [[0, 0], [0, 1]]), tf.constant(0)
    logits, state = model.step(block, state, start, length=3)
    found = [logits[:, :3]]
    for position in range(3, 6):
        token = tokens[:, position : position + 1]
        logits, state = model.step(token, state, tf.constant(position))
        found.append(logits)
    np.testing.assert_allclose(np.concatenate(found, axis=1), expected, atol=1e-5)


def test_translation_is_what_naive_decoding_writes(model):
    # One source is as long as the model can take, which is no multiple of 32.
    rng = np.random.default_rng(5)
    source = pad([rng.integers(3, 11, size=n) for n in (18, 3, 9, 1, 20, 5)])
    found = model.translate(source)
    assert found.shape == (6, 19) and found.dtype == "int32"  # and the start: 20
    np.testing.assert_array_equal(found, greedy_by_hand(model, source, 19))
    ends = np.argmax(found == 2, axis=1)[np.any(found == 2, axis=1)]
    assert 0 < len(ends) < 6 and len(set(found[:, 0])) > 1  # what is tested is more than one thing


@pytest.mark.usefixtures("eagerly")
def test_a_beam_of_one_is_greedy(model):
    source = np.pad(SOURCE, [[0, 0], [0, 9]])  # as translate pads it
    tokens, _ = autoregressive.beam_search(
        model, np.ones((3, 1), "int32"), 8, 1, 0.6, conditioning=source, end_token=2
    )
    np.testing.assert_array_equal(tokens[:, 0, 1:], model.translate(SOURCE, max_length=8))


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_a_beam_of_all_beginnings_finds_the_likeliest_translation(alpha):
    model = build_seq2seq_transformer(11, 4, 8, num_layers=1, d_model=8, num_heads=2, dff=12)
    randomize(model, 1.0)
    sequences = np.array(list(itertools.product(range(4), repeat=3)), "int32")
    written = np.concatenate([np.ones((64, 1), "int32"), sequences[:, :-1]], axis=1)
    found = model.translate(SOURCE, beam_width=16, length_penalty=alpha, max_length=3)
    assert found.shape == (3, 3)
    for row, source in enumerate(SOURCE):
        logits = model([np.repeat(source[None], 64, axis=0), written])
        nats = keras.losses.sparse_categorical_crossentropy(sequences, logits, from_logits=True)
        scores = {}
        for sequence, log_probs in zip(sequences.tolist(), -np.asarray(nats)):
            length = sequence.index(2) + 1 if 2 in sequence else 3
            ended = (*sequence[:length], *[2] * (3 - length))
            scores[ended] = log_probs[:length].sum() / ((5 + length) / 6) ** alpha
        assert tuple(found[row].tolist()) == max(scores, key=scores.get)


LETTERS = ["".join(c) for n in (1, 2, 3) for c in itertools.product("abc", repeat=n)]


@pytest.fixture(scope="module")
def translator():
    """A model that has learned to write words of a, b, c backwards."""
    keras.utils.set_random_seed(0)
    tokenizer = TranslationTokenizer.train("abc", 259)
    model = build_seq2seq_transformer(
        259, 259, 9, 1, 16, 2, 32, 0.0, input_tokenizer=tokenizer, target_tokenizer=tokenizer
    )
    source = pad([tokenizer.encode(word) for word in LETTERS])
    target = pad([[1, *tokenizer.encode(word[::-1]), 2] for word in LETTERS])
    rate = WarmupSchedule(16, warmup_steps=100)
    model.compile(keras.optimizers.Adam(rate, beta_2=0.98, epsilon=1e-9), jit_compile=False)
    model.fit(
        np.tile(source, (300, 1)), np.tile(target, (300, 1)), len(LETTERS), verbose=0, shuffle=False
    )
    return model


@pytest.mark.usefixtures("eagerly")
def test_a_trained_model_translates_exactly_also_when_it_is_loaded(translator, tmp_path):
    backwards = [word[::-1] for word in LETTERS]
    assert translator.translate(LETTERS) == backwards
    assert translator.translate(LETTERS[-3:], beam_width=3) == backwards[-3:]
    translator.save(tmp_path / "model.keras")
    loaded = keras_genai.load_model(tmp_path / "model.keras")
    assert loaded.translate(LETTERS) == backwards and loaded.translate("abc") == "cba"
    assert loaded.optimizer._learning_rate.get_config() == {
        "d_model": 16,
        "warmup_steps": 100,
        "decay_steps": None,
    }
    assert int(loaded.optimizer.iterations) == 300
    assert loaded.loss.label_smoothing == 0.1


@pytest.mark.usefixtures("eagerly")
def test_texts_are_translated_as_their_ids_are_in_the_order_they_come(translator, monkeypatch):
    # In batches of words of like length: the shortest come first, and not back in this order.
    monkeypatch.setattr(keras_genai.transformer, "TRANSLATION_BATCH", 4)
    words = ["abc", "a", "cba", "bb", "c", "aab", "ca", "bbc", "b"]
    assert translator.translate(words) == [word[::-1] for word in words]
    assert translator.translate(tuple(words[:2])) == ["cba", "a"]
    assert translator.translate("abc") == "cba" and translator.translate([]) == []
    ids = translator.translate(pad([translator.input_tokenizer.encode(word) for word in words]))
    assert ids.shape == (9, 8) and np.all(ids[:, 3:] == 2)
    texts = [translator.target_tokenizer.decode(row[row != 2]) for row in ids]
    assert texts == [word[::-1] for word in words]


@pytest.mark.usefixtures("eagerly")
def test_at_most_max_length_tokens_are_written(translator):
    assert translator.translate("abc", max_length=2) == "cb"
    assert translator.translate(["abc", "a"], beam_width=2, max_length=2) == ["cb", "a"]
    assert translator.translate("abc", max_length=100) == "cba"  # never more than the model's 8


def test_attention_maps_are_the_models_weights(translator):
    maps = translator.attention_maps("abca", "acb")
    assert maps["source"] == list("abca") and maps["target"] == ["a", "c", "b", "<end>"]
    assert maps["weights"].shape == (1, 2, 4, 4)
    np.testing.assert_allclose(maps["weights"].sum(axis=-1), 1, rtol=1e-5)
    source = translator.input_tokenizer.encode("abca")[None]
    written = np.array([[1, *translator.target_tokenizer.encode("acb")]])
    expected = np.concatenate(model_by_hand(translator, source, written)[1])
    np.testing.assert_allclose(maps["weights"], expected, atol=1e-5)


@pytest.mark.usefixtures("eagerly")
def test_translating_does_not_touch_training(model):
    before = [np.asarray(variable).copy() for variable in model.variables]
    model.translate(SOURCE, max_length=2)
    assert largest_difference(model.variables, before) == 0


# Bad input.


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: small(num_layers=0), "num_layers: expected a whole number of at least 1, got 0"),
        (lambda: small(d_model=0), "d_model: expected a whole number of at least 1, got 0"),
        (lambda: small(d_model=7, num_heads=1), "d_model: expected an even number, got 7"),
        (lambda: small(num_heads=3), "d_model: expected a multiple of num_heads, 3, got 8"),
        (lambda: small(num_heads=0), "num_heads: expected a whole number of at least 1"),
        (lambda: small(dff=0), "dff: expected a whole number of at least 1, got 0"),
        (lambda: small(dropout=1.0), "dropout: expected a share from 0 to less than 1, got 1.0"),
        (lambda: build_seq2seq_transformer(0, 5, 9), "vocab_size: expected a whole number"),
        (lambda: build_seq2seq_transformer(5, 0, 9), "vocab_size: expected a whole number"),
        (lambda: build_seq2seq_transformer(5, 5, 0), "max_seq_length: expected a whole number"),
        (lambda: build_transformer(0, 5, 9), "vocab_size: expected a whole number"),
        (lambda: build_transformer(5, 0, 9), "output_vocab_size: expected a whole number"),
        (lambda: build_transformer(5, 5, 0), "max_seq_length: expected a whole number"),
        (lambda: build_transformer(5, 5, 9, 0), "num_layers: expected a whole number"),
        (lambda: build_transformer(5, 5, 9, 1, 7, 1), "d_model: expected an even number, got 7"),
        (lambda: build_transformer(5, 5, 9, 1, 8, 3), "d_model: expected a multiple of num_heads"),
        (lambda: build_transformer(5, 5, 9, 1, 8, 0), "num_heads: expected a whole number"),
        (lambda: build_transformer(5, 5, 9, 1, 8, 2, 0), "dff: expected a whole number"),
        (lambda: build_transformer(5, 5, 9, dropout=-0.1), "dropout: expected a share from 0"),
        (lambda: build_transformer(5, 5, 9, pooling="max"), "pooling: expected one of None, 'me"),
        (lambda: MaskedCrossentropy(1.0), "label_smoothing: expected a share from 0"),
        (lambda: WarmupSchedule(0), "d_model: expected a whole number"),
        (lambda: WarmupSchedule(8, 0), "warmup_steps: expected a whole number"),
        (lambda: WarmupSchedule(8, 9, 0), "decay_steps: expected a whole number"),
    ],
)
def test_bad_settings(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_tokenizer_of_another_size_is_refused():
    tokenizer = TranslationTokenizer.train("abc", 259)
    for name in ("input_tokenizer", "target_tokenizer"):
        with pytest.raises(ValueError, match=f"{name}: expected 1. tokens, as the model has, got"):
            small(**{name: tokenizer})


def test_bad_pairs_are_refused_before_training(model):
    model = small(num_layers=1)
    model.compile()
    for x, y, message in (
        (SOURCE + 1, TARGET, "x: expected token ids from 0 to 10, got values from .* to 11"),
        (SOURCE, TARGET + 1, "y: expected token ids from 0 to 12, got values from .* to 13"),
        (-SOURCE, TARGET, "x: expected token ids from 0 to 10, got values from -10"),
        (SOURCE, TARGET[:, :1], "y: expected sequences of at least 2 token ids"),
        (SOURCE[:, :0], TARGET, "x: expected sequences of at least 1 token ids"),
        (SOURCE, None, "y: expected an array"),
        (np.full((3, 21), 3), TARGET, "x: expected at most 20 tokens, as many as .*, got 21"),
        (SOURCE, np.full((3, 21), 3), "y: expected at most 20 tokens, as many as .*, got 21"),
        (SOURCE / 2, TARGET, "x: expected token ids, got an array of float64"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(x, y, verbose=0)


def test_bad_sources(model, translator):
    for source, message in (
        (SOURCE + 1, "source: expected token ids from 0 to 10, got values from .* to 11"),
        (SOURCE[0], "source: expected an array"),
        (SOURCE[:, :0], "source: expected sequences of at least 1 token ids"),
        (SOURCE[:0], "source: expected at least one sequence"),
        (SOURCE * [[1], [0], [1]], "source: expected at least one token, .* padding in row 1"),
        (np.full((1, 21), 3), "source: expected at most 20 tokens, .* got 21"),
        ("abc", "source: expected token ids, since the model has no tokenizers"),
        (["abc"], "source: expected token ids, since the model has no tokenizers"),
    ):
        with pytest.raises(ValueError, match=message):
            model.translate(source)
    with pytest.raises(ValueError, match="since the model has no tokenizers"):
        model.attention_maps("abc", "abc")
    for source, message in (
        ("", "text: expected a string of at least one character"),
        (["abc", ""], "text: expected a string of at least one character"),
        ("a" * 10, "source: expected at most 9 tokens, .* got 10"),
        (["ab", "a" * 10], "source: expected at most 9 tokens, .* got 10"),
    ):
        with pytest.raises(ValueError, match=message):
            translator.translate(source)
    for argument in ("beam_width", "max_length"):
        with pytest.raises(ValueError, match=f"{argument}: expected a whole number of at least 1"):
            translator.translate("abc", **{argument: 0})
