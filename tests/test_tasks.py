"""Tasks: what is measured is what a recipe's figure says."""

import types

import numpy as np
import pytest

from keras_genai import datasets, tasks
from keras_genai.rnn import build_language_model
from keras_genai.text import CharacterTokenizer


def forecaster(forecast):
    return types.SimpleNamespace(predict=lambda past, **options: forecast(past))


def test_forecasts_are_measured_on_the_values_that_they_are_for():
    task = tasks.Series()
    data = task.load()
    series, first = data.held_out
    assert first == 2055 and data.train[0].shape == (2055 - 260 - 52 + 1, 260)
    assert np.shares_memory(data.train[0], series)
    assert data.train[1].max() <= series[:first].max()  # nothing that is held out
    assert task.validation(data)["validation_data"][1].min() >= series[first:].min()
    assert len(task.validation(data)["validation_data"][1]) == len(series) - first - 52 + 1
    # What was seen last, taken for every week to come: the error is that of persistence.
    last = forecaster(lambda past: np.repeat(past[:, -1:], 52, axis=1))
    figures = task.measure(last, data)
    weeks = np.arange(first, len(series))
    for key, ahead in (("measured", 1), ("52 ahead", 52)):
        expected = np.abs(series[weeks] - series[weeks - ahead]).mean()
        assert figures[key] == pytest.approx(expected, rel=1e-5)
    assert figures["measured"] == pytest.approx(0.410, abs=5e-4)
    assert figures["52 ahead"] == pytest.approx(1.744, abs=5e-4)


@pytest.mark.parametrize("name", ["books", "tang"])
def test_texts_are_measured_on_every_character_of_their_last_tenth(name):
    task = tasks.Text("books")
    data = task.load(name)  # as the user may name it, too
    if name == "books":
        whole = datasets.load_books()
        assert [len(text) - 1 for text in data.held_out] == [
            len(b) - int(0.9 * len(b)) for b in whole
        ]
    else:
        whole = ["\n".join(datasets.load_quatrains())]
        held_out = "\n".join(datasets.load_quatrains()[int(0.9 * 9347) :])
        assert len(data.held_out[0]) == 1 + len(held_out)
    tokenizer = CharacterTokenizer(data.facts["characters"])
    assert tokenizer.vocab_size == len(set("".join(whole)))
    text = tokenizer.decode(data.train) + tokenizer.decode(data.held_out[-1])[1:]
    assert text.endswith(whole[-1][-100:]) and len(text) <= len("".join(whole))
    model = types.SimpleNamespace(log_prob=lambda rows: (np.array([-len(r) for r in rows]), None))
    figures = task.measure(model, data)
    count = sum(len(text) - 1 for text in data.held_out)
    assert figures["characters"] == count
    assert figures["measured"] == pytest.approx(1 + len(data.held_out) / count)


def test_a_model_that_knows_nothing_has_the_logarithm_of_the_vocabulary():
    task = tasks.Text("books")
    data = task.load()
    data.held_out = [text[:300] for text in data.held_out]
    model = build_language_model(82, "gru", 4, 4)
    model.set_weights([0 * w for w in model.get_weights()])
    assert task.measure(model, data)["measured"] == pytest.approx(np.log(82), rel=1e-5)
    x, y = task.validation(data)["validation_data"]
    assert x.shape == (7, 128) and np.array_equal(x[:, 1:], y[:, :-1])


def test_a_users_own_text_and_series(tmp_path):
    path = tmp_path / "own.txt"
    task = tasks.Text("tang")
    path.write_text("abcd " * 256, encoding="utf-8")
    data = task.load(path)
    assert data.facts == {"characters": " abcd"}
    assert len(data.train) == 1152 and len(data.held_out[0]) == 129
    assert data.count == (1152 - 128) // 128
    assert len(task.validation(data)["validation_data"][0]) == 1


@pytest.mark.parametrize("length", [1, 285, 1270])
def test_a_text_too_short_to_hold_a_window_out_is_refused_by_name(tmp_path, length):
    path = tmp_path / "own.txt"
    path.write_text("a" * length)
    message = f"own.txt: expected at least 1280 characters, .* is held out, got {length}"
    with pytest.raises(ValueError, match=message):
        tasks.Text().load(path)


def test_a_text_of_too_few_byte_pairs_to_hold_a_window_out_is_refused_by_name(tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("abcd " * 400)
    with pytest.raises(ValueError, match="own.txt: expected more than 128 tokens in the last ten"):
        tasks.Text(vocab_size=300).load(path)


@pytest.mark.parametrize("length, counts", [(300, "270 and 30"), (400, "360 and 40")])
def test_a_series_too_short_for_a_window_is_refused_by_name(tmp_path, length, counts):
    path = tmp_path / "own.csv"
    path.write_text("t,x\n" + "\n".join(f"{t},{t}" for t in range(length)))
    message = f"own.csv: expected at least 312 values to train on and 52 held out, .* got {counts}"
    with pytest.raises(ValueError, match=message):
        tasks.Series().load(path)
