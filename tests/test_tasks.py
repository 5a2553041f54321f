"""Tasks: what is measured is what a recipe's figure says."""

import types

import numpy as np
import pytest
import sacrebleu

from keras_genai import datasets, pretrained, tasks
from keras_genai.audio import save_wav
from keras_genai.gpt2 import build_gpt2
from keras_genai.rnn import build_language_model
from keras_genai.text import CharacterTokenizer, GPT2Tokenizer, TranslationTokenizer
from keras_genai.wavenet import build_wavenet


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
    model = types.SimpleNamespace(
        log_prob=lambda rows: (np.array([-len(row) for row in rows]), None),
        tokenizer=tokenizer,
        context_length=None,
    )
    figures = task.measure(model, data)
    count = sum(len(text) - 1 for text in data.held_out)
    assert figures["characters"] == count
    assert figures["measured"] == pytest.approx(1 + len(data.held_out) / count)


def test_a_model_that_knows_nothing_has_the_logarithm_of_the_vocabulary():
    task = tasks.Text("books")
    data = task.load()
    data.held_out = [text[:300] for text in data.held_out]
    tokenizer = CharacterTokenizer(data.facts["characters"])
    model = build_language_model(82, "gru", 4, 4, tokenizer=tokenizer)
    model.set_weights([0 * w for w in model.get_weights()])
    assert task.measure(model, data)["measured"] == pytest.approx(np.log(82), rel=1e-5)
    x, y = task.validation(data)["validation_data"]
    assert x.shape == (7, 128) and np.array_equal(x[:, 1:], y[:, :-1])


@pytest.mark.parametrize("lengths", [(40, 7), (16, 17), (2, 24)])
def test_a_text_longer_than_the_context_has_half_of_it_before_each_token(lengths):
    tokenizer = CharacterTokenizer("abcde")
    model = build_gpt2(5, 16, 1, 2, 8, tokenizer=tokenizer)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    texts = [rng.integers(5, size=length) for length in lengths]
    nats = 0.0
    for text in texts:
        for i in range(1, len(text)):
            start = 0 if i < 16 else i // 8 * 8 - 8  # a window every 8 tokens
            logits = np.asarray(model(text[None, start:i]))[0, -1].astype("float64")
            nats += np.log(np.exp(logits).sum()) - logits[text[i]]
    figures = tasks.Text("books").measure(model, types.SimpleNamespace(held_out=texts))
    assert figures["characters"] == sum(lengths) - 2
    assert figures["measured"] == pytest.approx(nats / (sum(lengths) - 2), rel=1e-5)


def test_translations_hold_the_last_thousand_out():
    data = tasks.Translation(vocab_size=300).load()
    whole = datasets.load_translations()
    assert data.count == 14318 and data.held_out[0] == whole[-1000:]
    tokenizers = [TranslationTokenizer(data.facts[f"{x}_tokenizer"]) for x in ("input", "target")]
    longest = 0
    for part, pairs in ((data.train, whole[:-1000]), (data.held_out[1], whole[-1000:])):
        sources, targets = part
        assert len(sources) == len(targets) == len(pairs)
        for i in (0, 7, -1):
            source, target = (row[i][row[i] != 0] for row in (sources, targets))
            assert tokenizers[0].decode(source) == pairs[i][0]
            assert (target[0], target[-1]) == (1, 2)
            assert tokenizers[1].decode(target[1:-1]) == pairs[i][1]
        longest = max(longest, sources.shape[1], targets.shape[1])
    assert longest <= data.facts["max_seq_length"] < longest + 16
    assert data.facts["max_seq_length"] % 16 == 0


def test_tokenizers_learn_nothing_of_what_is_held_out(tmp_path):
    train = [(f"good morning {i}", f"\u65e9\u5b89 {i}") for i in range(27)]
    held_out = [("zzqqzzqq " * 20, "qqzzqqzz " * 20)] * 3
    path = tmp_path / "own.tsv"
    path.write_text("\n".join(map("\t".join, train + held_out)), encoding="utf-8")
    data = tasks.Translation(vocab_size=300).load(path)
    assert data.count == 27 and data.held_out[0] == held_out
    for name, texts in zip(("input_tokenizer", "target_tokenizer"), zip(*train)):
        expected = TranslationTokenizer.train("\n".join(texts), 300).definition
        assert data.facts[name] == expected
    batches = list(tasks.Translation().validation(data)["validation_data"])
    assert [len(source) for source, _ in batches] == [3]
    path.write_text("\n".join(map("\t".join, train[:9])), encoding="utf-8")
    with pytest.raises(ValueError, match="own.tsv: expected at least 10 pairs, got 9"):
        tasks.Translation().load(path)


def test_translations_are_scored_as_sacrebleu_scores_them(tmp_path):
    references = ["\u6253\u5f00\u4e00\u4e2a\u65b0\u6587\u4ef6\u3002", "\u4fdd\u5b58\u6587\u4ef6"]
    translations = ["\u6253\u5f00\u65b0\u6587\u4ef6\u3002", "\u4fdd\u5b58\u6b64\u6587\u4ef6"]
    scores = tasks.score_translations(translations, references)
    bleu, chrf = sacrebleu.BLEU(tokenize="zh"), sacrebleu.CHRF()
    assert scores == {
        "BLEU": bleu.corpus_score(translations, [references]).score,
        "chrF": chrf.corpus_score(translations, [references]).score,
    }
    assert 0 < scores["BLEU"] < 100 and scores["chrF"] < 100
    # Measured is what greedy search finds; drawn, what a beam of 4 does.
    sources = ["Open a new file.", "Save file"]
    data = types.SimpleNamespace(held_out=(list(zip(sources, references)), None))

    def translate(texts, beam_width=1):
        assert list(texts) == sources
        return {1: translations, 4: references}[beam_width]

    figures = tasks.Translation().measure(types.SimpleNamespace(translate=translate), data)
    assert figures == {"measured": scores["BLEU"], **scores}
    tasks.Translation().draw(types.SimpleNamespace(translate=translate), data, tmp_path)
    written = (tmp_path / "translations.txt").read_text(encoding="utf-8")
    assert written.startswith(f"Open a new file.\n  {references[0]}\n  ({references[0]})\n")


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


def test_a_fine_tuned_model_is_measured_beside_the_one_that_it_began_with(monkeypatch):
    tokenizer = GPT2Tokenizer.train(datasets.load_books()[0][:5000], 300)
    base, tuned = (build_gpt2(tokenizer.vocab_size, 64, 1, 1, 4, tokenizer=tokenizer) for _ in "ab")
    base.set_weights([0 * w for w in base.get_weights()])
    rng = np.random.default_rng(0)
    tuned.set_weights([rng.normal(size=w.shape) for w in tuned.get_weights()])
    asked = []
    monkeypatch.setattr(pretrained, "load", lambda name: asked.append(name) or base)
    facts = {"tokenizer": tokenizer.definition}
    monkeypatch.setattr(pretrained, "record", lambda name: asked.append(name) or {"facts": facts})
    task = tasks.FineTuning("alice", base="the-base", window=64)
    data = task.load()
    assert data.facts == facts and asked == ["the-base"]
    alice = datasets.load_books()[0]
    assert tokenizer.decode(data.train) == alice[: int(0.9 * len(alice))]
    data.held_out = [text[:60] for text in data.held_out]
    figures = task.measure(tuned, data)
    assert asked == ["the-base"] * 2
    characters = len(tokenizer.decode(data.held_out[0][1:]))
    knows_nothing = 59 * np.log(tokenizer.vocab_size) / characters
    assert figures["before"] == pytest.approx(knows_nothing, rel=1e-4)
    assert figures["measured"] == pytest.approx(
        -tuned.log_prob(data.held_out)[0].sum() / characters, rel=1e-5
    )
    assert abs(figures["measured"] - figures["before"]) > 0.1


def test_two_sounds_of_each_kind_are_held_out():
    task = tasks.Sounds()
    data = task.load()
    waveforms, labels, kinds = datasets.load_drums()
    assert data.facts == {"kinds": kinds, "sample_rate": 8000} and data.count == 98 - 12
    held_out = [np.flatnonzero(labels == kind)[-2:] for kind in range(6)]
    for sound, expected in zip(data.held_out[0], np.concatenate(held_out)):
        np.testing.assert_array_equal(sound, waveforms[expected])
    assert data.held_out[1].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert np.bincount(data.train[1]).tolist() == [18, 23, 11, 8, 2, 24]
    # Measured are nats of every sample of theirs: those of a model that knows nothing, ln 256.
    model = build_wavenet(256, 1, 1, 2, 2, num_classes=6)
    model.set_weights([0 * w for w in model.get_weights()])
    figures = task.measure(model, data)
    assert figures["samples"] == sum(map(len, data.held_out[0]))
    assert figures["measured"] == pytest.approx(np.log(256), rel=1e-5)
    batches = list(task.validation(data)["validation_data"])
    assert sum(np.sum(y != -1) for _, y in batches) == figures["samples"]


def test_ones_own_sounds_are_held_out_with_all_their_seconds(tmp_path):
    for i in range(10):
        seconds = 3 if i in (4, 9) else 1
        path = tmp_path / ("low" if i < 5 else "high") / f"{i}.wav"
        path.parent.mkdir(exist_ok=True)
        save_wav(path, np.full(100 * seconds, (i + 1) / 20), 100)
    data = tasks.Sounds().load(tmp_path)
    # Of either kind the last two files, the last of which is three seconds long.
    assert data.held_out[1].tolist() == [0] * 4 + [1] * 4 and data.count == 2 * 3


def test_images_of_a_pixelcnn_are_drawn_black_or_white_once():
    task = tasks.Likelihood()
    pixels = np.full((3, 4, 5), 128, "uint8")
    x, y = task.arrange(pixels, [1, 2, 3])
    assert x.shape == (3, 4, 5, 1) and y is None
    np.testing.assert_array_equal(x, datasets.binarize(pixels[..., None] / np.float32(255)))
    assert tasks.Likelihood(labelled=True).arrange(pixels, [1, 2, 3])[1].tolist() == [1, 2, 3]


@pytest.mark.parametrize("labelled", [True, False])
def test_samples_of_a_diffusion_model_are_measured_by_what_is_read_in_them(labelled):
    task = tasks.Denoising(labelled)
    asked = np.arange(1000) % 10 if labelled else None
    read = np.where(np.arange(1000) < 300, 7, np.arange(1000) % 10)

    def generate(count, labels, sampler, seed):
        assert (count, sampler) == (1000, "ddpm")
        assert labels is None or np.array_equal(labels, asked)
        return np.zeros((count, 28, 28, 1))

    model = types.SimpleNamespace(
        num_classes=10 if labelled else None,
        generate=generate,
        evaluate=lambda *held_out, **options: {"loss": 0.25},
    )
    judge = types.SimpleNamespace(predict=lambda images, **options: np.eye(10)[read])
    data = tasks.Data(None, (None, asked), 1000, {}, judge)
    figures = task.measure(model, data)
    assert figures["loss"] == 0.25
    if labelled:
        assert figures["measured"] == pytest.approx(100 * (0.7 + 0.3 / 10))
    else:
        assert figures["measured"] == 10
        assert figures["digit_shares"][7] == pytest.approx(0.3 + 0.07)
