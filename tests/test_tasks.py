"""Tasks: the split of the data, and the metrics of the test part."""

import types

import numpy as np
import pytest
from helpers import set_random_weights

from keras_genai import datasets, metrics, pretrained, tasks
from keras_genai.audio import save_wav
from keras_genai.gpt2 import build_gpt2
from keras_genai.rnn import build_language_model
from keras_genai.text import CharacterTokenizer, GPT2Tokenizer, TranslationTokenizer
from keras_genai.wavenet import build_wavenet


@pytest.mark.parametrize("length, cut", [(0, 0), (1, 0), (9, 8), (10, 9), (19, 17), (20, 18)])
def test_split_train_test_holds_out_the_last_tenth(length, cut):
    train, test = tasks.split_train_test(list(range(length)))
    assert (train, test) == (list(range(cut)), list(range(cut, length)))


def test_cycle_labels_repeats_all_classes_in_turn():
    assert tasks.cycle_labels(types.SimpleNamespace(num_classes=3), 7) == [0, 1, 2, 0, 1, 2, 0]
    assert tasks.cycle_labels(types.SimpleNamespace(num_classes=None), 7) is None


def test_task_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        tasks.Task()


# Series.


def test_persistence_forecast_error_of_the_co2_test_values():
    task = tasks.ForecastingTask()
    data = task.load()
    series, start = data.test
    assert start == 2055 and data.train[0].shape == (2055 - 260 - 52 + 1, 260)
    assert np.shares_memory(data.train[0], series)
    assert data.train[1].max() <= series[:start].max()  # no test value
    past, future = task.validation_data(data)["validation_data"]
    assert future.min() >= series[start:].min()
    assert len(past) == len(future) == len(series) - start - 52 + 1
    # The last known value as the forecast of every week.
    persistence = types.SimpleNamespace(
        predict=lambda past, **options: np.repeat(past[:, -1:], 52, axis=1)
    )
    results = task.evaluate(persistence, data)
    weeks = np.arange(start, len(series))
    for key, steps_ahead in (("value", 1), ("52 steps ahead", 52)):
        expected = np.abs(series[weeks] - series[weeks - steps_ahead]).mean()
        assert results[key] == pytest.approx(expected, rel=1e-5)
    assert results["value"] == pytest.approx(0.410, abs=5e-4)
    assert results["52 steps ahead"] == pytest.approx(1.744, abs=5e-4)


@pytest.mark.parametrize("length, counts", [(300, "270 and 30"), (400, "360 and 40")])
def test_series_shorter_than_a_window_raises(tmp_path, length, counts):
    path = tmp_path / "series.csv"
    path.write_text("t,x\n" + "\n".join(f"{t},{t}" for t in range(length)))
    message = (
        f"series.csv: expected at least 312 values to train on and 52 held out, .* got {counts}"
    )
    with pytest.raises(ValueError, match=message):
        tasks.ForecastingTask().load(path)


# Text.


@pytest.mark.parametrize("name", ["books", "tang"])
def test_every_character_of_the_last_tenth_of_a_text_is_scored(name):
    task = tasks.LanguageModelingTask("books")
    data = task.load(name)  # the name of a dataset in place of a path
    if name == "books":
        texts = datasets.load_books()
        assert [len(tokens) - 1 for tokens in data.test] == [
            len(text) - int(0.9 * len(text)) for text in texts
        ]
    else:
        texts = ["\n".join(datasets.load_quatrains())]
        test_text = "\n".join(datasets.load_quatrains()[int(0.9 * 9347) :])
        assert len(data.test[0]) == 1 + len(test_text)
    tokenizer = CharacterTokenizer(data.dataset_info["characters"])
    assert tokenizer.vocab_size == len(set("".join(texts)))
    text = tokenizer.decode(data.train) + tokenizer.decode(data.test[-1])[1:]
    assert text.endswith(texts[-1][-100:]) and len(text) <= len("".join(texts))
    # A log-likelihood of minus the number of tokens, the first one included.
    model = types.SimpleNamespace(
        log_prob=lambda sequences: (np.array([-len(tokens) for tokens in sequences]), None),
        tokenizer=tokenizer,
        context_length=None,
    )
    results = task.evaluate(model, data)
    num_characters = sum(len(tokens) - 1 for tokens in data.test)
    assert results["num_characters"] == num_characters
    assert results["value"] == pytest.approx(1 + len(data.test) / num_characters)
    if name == "books":
        names, lengths = ("as_you_like_it", "king_james", "paradise_lost"), map(len, data.test)
        assert results["text_values"] == {
            book: pytest.approx(length / (length - 1))
            for book, length in zip(names, lengths, strict=True)
        }


def test_uniform_model_nll_is_log_vocab_size():
    task = tasks.LanguageModelingTask("books")
    data = task.load()
    data.test = [tokens[:300] for tokens in data.test]
    tokenizer = CharacterTokenizer(data.dataset_info["characters"])
    model = build_language_model(80, "gru", 4, 4, tokenizer=tokenizer)
    model.set_weights([0 * w for w in model.get_weights()])
    assert task.evaluate(model, data)["value"] == pytest.approx(np.log(80), rel=1e-5)
    x, y = task.validation_data(data)["validation_data"]
    assert x.shape == (7, 128) and np.array_equal(x[:, 1:], y[:, :-1])


@pytest.mark.slow
@pytest.mark.parametrize("lengths", [(40, 7), (16, 17), (2, 24)])
def test_tokens_beyond_the_context_length_are_scored_after_half_a_context(lengths):
    tokenizer = CharacterTokenizer("abcde")
    model = build_gpt2(5, 16, 1, 2, 8, tokenizer=tokenizer)
    set_random_weights(model, scale=1)
    rng = np.random.default_rng(1)
    sequences = [rng.integers(5, size=length) for length in lengths]
    nll = 0.0
    for tokens in sequences:
        for i in range(1, len(tokens)):
            start = 0 if i < 16 else i // 8 * 8 - 8  # a window every 8 tokens
            logits = np.asarray(model(tokens[None, start:i]))[0, -1].astype("float64")
            nll += np.log(np.exp(logits).sum()) - logits[tokens[i]]
    data = tasks.base.Data(None, sequences, 0, {})
    results = tasks.LanguageModelingTask("books").evaluate(model, data)
    assert results["num_characters"] == sum(lengths) - 2
    assert results["value"] == pytest.approx(nll / (sum(lengths) - 2), rel=1e-5)


def test_last_tenth_of_a_users_text_is_held_out(tmp_path):
    path = tmp_path / "text.txt"
    task = tasks.LanguageModelingTask("tang")
    path.write_text("abcd " * 256, encoding="utf-8")
    data = task.load(path)
    assert data.dataset_info == {"characters": " abcd"}
    assert len(data.train) == 1152 and len(data.test[0]) == 129
    assert data.num_examples == (1152 - 128) // 128
    assert len(task.validation_data(data)["validation_data"][0]) == 1


@pytest.mark.parametrize("length", [1, 285, 1270])
def test_text_with_too_few_characters_raises(tmp_path, length):
    path = tmp_path / "text.txt"
    path.write_text("a" * length)
    message = f"text.txt: expected at least 1280 characters, .* is held out, got {length}"
    with pytest.raises(ValueError, match=message):
        tasks.LanguageModelingTask().load(path)


def test_text_with_too_few_tokens_raises(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("abcd " * 400)
    message = "text.txt: expected more than 128 tokens in the last tenth"
    with pytest.raises(ValueError, match=message):
        tasks.LanguageModelingTask(vocab_size=300).load(path)


@pytest.mark.slow
def test_fine_tuning_also_evaluates_the_pretrained_model(monkeypatch):
    tokenizer = GPT2Tokenizer.train(datasets.load_book("alice_in_wonderland")[:5000], 300)
    base, tuned = (build_gpt2(tokenizer.vocab_size, 64, 1, 1, 4, tokenizer=tokenizer) for _ in "ab")
    base.set_weights([0 * w for w in base.get_weights()])
    set_random_weights(tuned, scale=1)
    loaded_names = []
    monkeypatch.setattr(pretrained, "load", lambda name: loaded_names.append(name) or base)
    task = tasks.FineTuningTask("alice", base="the-base", window=64)
    data = task.load()
    assert data.dataset_info == {"tokenizer": tokenizer.tokenizer_json}
    assert loaded_names == ["the-base"]
    alice = datasets.load_book("alice_in_wonderland")
    assert tokenizer.decode(data.train) == alice[: int(0.9 * len(alice))]
    data.test = [tokens[:60] for tokens in data.test]
    results = task.evaluate(tuned, data)
    assert loaded_names == ["the-base"] * 2
    num_characters = len(tokenizer.decode(data.test[0][1:]))
    uniform_nll = 59 * np.log(tokenizer.vocab_size) / num_characters
    assert results["before"] == pytest.approx(uniform_nll, rel=1e-4)
    assert results["value"] == pytest.approx(
        -tuned.log_prob(data.test)[0].sum() / num_characters, rel=1e-5
    )
    assert abs(results["value"] - results["before"]) > 0.1


# Translation.


@pytest.mark.slow
def test_last_thousand_translations_are_held_out():
    data = tasks.TranslationTask(vocab_size=300).load()
    pairs = datasets.load_translations()
    assert data.num_examples == 14318 and data.test.pairs == pairs[-1000:]
    info = data.dataset_info
    tokenizers = [TranslationTokenizer(info[f"{side}_tokenizer"]) for side in ("input", "target")]
    longest = 0
    for tokens, texts in ((data.train, pairs[:-1000]), (data.test.tokens, pairs[-1000:])):
        sources, targets = tokens
        assert len(sources) == len(targets) == len(texts)
        for i in (0, 7, -1):
            source, target = (row[i][row[i] != 0] for row in tokens)
            assert tokenizers[0].decode(source) == texts[i][0]
            assert (target[0], target[-1]) == (1, 2)
            assert tokenizers[1].decode(target[1:-1]) == texts[i][1]
        longest = max(longest, sources.shape[1], targets.shape[1])
    assert longest <= info["max_seq_length"] < longest + 16
    assert info["max_seq_length"] % 16 == 0


@pytest.fixture
def pairs_file(tmp_path):
    """A file of 30 pairs, of which the last three have characters of their own."""
    train = [(f"good morning {i}", f"\u65e9\u5b89 {i}") for i in range(27)]
    test = [("zzqqzzqq " * 20, "qqzzqqzz " * 20)] * 3
    path = tmp_path / "pairs.tsv"
    path.write_text("\n".join(map("\t".join, train + test)), encoding="utf-8")
    return path, train, test


def test_tokenizers_are_trained_without_the_test_sentences(pairs_file):
    path, train, test = pairs_file
    data = tasks.TranslationTask(vocab_size=300).load(path)
    assert data.num_examples == 27 and data.test.pairs == test
    for name, texts in zip(
        ("input_tokenizer", "target_tokenizer"), zip(*train, strict=True), strict=True
    ):
        expected = TranslationTokenizer.train("\n".join(texts), 300).tokenizer_json
        assert data.dataset_info[name] == expected
    batches = list(tasks.TranslationTask().validation_data(data)["validation_data"])
    assert [len(source) for source, _ in batches] == [3]


def test_fewer_than_ten_pairs_raise(pairs_file):
    path, train, _ = pairs_file
    path.write_text("\n".join(map("\t".join, train[:9])), encoding="utf-8")
    with pytest.raises(ValueError, match="pairs.tsv: expected at least 10 pairs, got 9"):
        tasks.TranslationTask().load(path)


def test_translations_are_evaluated_greedily_and_saved_with_beam_search(tmp_path):
    references = ["\u6253\u5f00\u4e00\u4e2a\u65b0\u6587\u4ef6\u3002", "\u4fdd\u5b58\u6587\u4ef6"]
    translations = ["\u6253\u5f00\u65b0\u6587\u4ef6\u3002", "\u4fdd\u5b58\u6b64\u6587\u4ef6"]
    sources = ["Open a new file.", "Save file"]
    data = types.SimpleNamespace(
        test=tasks.EncodedPairs(list(zip(sources, references, strict=True)), tokens=None)
    )

    def translate(texts, beam_width=1):
        assert list(texts) == sources
        return {1: translations, 4: references}[beam_width]

    model = types.SimpleNamespace(translate=translate)
    scores = metrics.translation_scores(translations, references)
    assert tasks.TranslationTask().evaluate(model, data) == {"value": scores["BLEU"], **scores}
    tasks.TranslationTask().save_samples(model, data, tmp_path)
    text = (tmp_path / "translations.txt").read_text(encoding="utf-8")
    assert text.startswith(f"Open a new file.\n  {references[0]}\n  ({references[0]})\n")


# Sounds.


def test_two_sounds_of_each_class_are_held_out():
    task = tasks.AudioTask()
    data = task.load()
    waveforms, labels, class_names = datasets.load_drums()
    assert data.dataset_info == {"class_names": class_names, "sample_rate": 8000}
    assert data.num_examples == 98 - 12
    test_indices = [np.flatnonzero(labels == label)[-2:] for label in range(6)]
    for waveform, index in zip(data.test[0], np.concatenate(test_indices), strict=True):
        np.testing.assert_array_equal(waveform, waveforms[index])
    assert data.test[1].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert np.bincount(data.train[1]).tolist() == [18, 23, 11, 8, 2, 24]
    # The NLL per sample of a uniform model is ln 256.
    model = build_wavenet(256, 1, 1, 2, 2, num_classes=6)
    model.set_weights([0 * w for w in model.get_weights()])
    results = task.evaluate(model, data)
    assert results["num_audio_samples"] == sum(map(len, data.test[0]))
    assert results["value"] == pytest.approx(np.log(256), rel=1e-5)
    batches = list(task.validation_data(data)["validation_data"])
    assert sum(np.sum(y != -1) for _, y in batches) == results["num_audio_samples"]


def test_whole_files_of_a_users_sounds_are_held_out(tmp_path):
    for i in range(10):
        seconds = 3 if i in (4, 9) else 1
        path = tmp_path / ("low" if i < 5 else "high") / f"{i}.wav"
        path.parent.mkdir(exist_ok=True)
        save_wav(path, np.full(100 * seconds, (i + 1) / 20), 100)
    data = tasks.AudioTask().load(tmp_path)
    # The last two files of each class, the last of which has three sounds of one second.
    assert data.test[1].tolist() == [0] * 4 + [1] * 4 and data.num_examples == 2 * 3


def test_one_sound_per_class_raises(tmp_path):
    for i in range(10):
        path = tmp_path / f"class-{i}" / "sound.wav"
        path.parent.mkdir()
        save_wav(path, np.full(100, 0.5), 100)
    with pytest.raises(ValueError, match="expected at least two sounds of a class"):
        tasks.AudioTask().load(tmp_path)


# Images.


def test_images_of_a_pixelcnn_are_binarized_once():
    pixels = np.full((3, 4, 5), 128, "uint8")
    x, y = tasks.PixelCNNTask().preprocess(pixels, [1, 2, 3])
    assert x.shape == (3, 4, 5, 1) and y is None
    np.testing.assert_array_equal(x, datasets.binarize(pixels[..., None] / np.float32(255)))
    _, y = tasks.PixelCNNTask(class_conditional=True).preprocess(pixels, [1, 2, 3])
    assert y.tolist() == [1, 2, 3]


def classifier_of(digits):
    """Return a classifier that predicts the given digits for any images."""
    return types.SimpleNamespace(predict=lambda images, **options: np.eye(10)[digits])


def test_gan_covers_digits_that_are_one_in_a_hundred_of_its_samples():
    digits = np.repeat(np.arange(10), [9000, 500, 299, 100, 99, 1, 1, 0, 0, 0])
    model = types.SimpleNamespace(generate=lambda num_samples, seed: np.zeros((num_samples, 784)))
    data = types.SimpleNamespace(classifier=classifier_of(digits))
    results = tasks.GANTask().evaluate(model, data)
    assert results["value"] == 4
    assert results["digit_fractions"][:5] == [0.9, 0.05, 0.0299, 0.01, 0.0099]


@pytest.mark.parametrize("class_conditional", [True, False])
def test_samples_of_a_diffusion_model_are_evaluated_by_a_classifier(class_conditional):
    requested = np.arange(1000) % 10 if class_conditional else None
    predicted = np.where(np.arange(1000) < 300, 7, np.arange(1000) % 10)

    def generate(num_samples, labels, method, seed):
        assert (num_samples, method) == (1000, "ddpm")
        assert (labels is None) == (requested is None)
        assert labels is None or np.array_equal(labels, requested)
        return np.zeros((num_samples, 28, 28, 1))

    model = types.SimpleNamespace(
        num_classes=10 if class_conditional else None,
        generate=generate,
        evaluate=lambda *test, **options: {"loss": 0.25},
    )
    data = tasks.Data(None, (None, requested), 1000, {}, classifier_of(predicted))
    results = tasks.DiffusionTask(class_conditional).evaluate(model, data)
    assert results["loss"] == 0.25
    if class_conditional:
        assert results["value"] == pytest.approx(100 * (0.7 + 0.3 / 10))
    else:
        assert results["value"] == 10
        assert results["digit_fractions"][7] == pytest.approx(0.3 + 0.07)


def test_samples_of_a_conditional_vae_are_compared_with_the_requested_digits():
    predicted = np.where(np.arange(10_000) < 3000, 7, np.arange(10_000) % 10)

    def generate(num_samples, labels, seed):
        assert num_samples == 10_000 and np.array_equal(labels, np.arange(10_000) % 10)
        return np.zeros((num_samples, 784))

    model = types.SimpleNamespace(
        generate=generate, evaluate=lambda *test, **options: {"loss": 120.0, "kl_loss": 9.0}
    )
    data = tasks.Data(None, (None, None), 1, {}, classifier_of(predicted))
    results = tasks.VAETask(class_conditional=True).evaluate(model, data)
    assert results == {"loss": 120.0, "kl_loss": 9.0, "value": pytest.approx(73)}
    assert tasks.VAETask().evaluate(model, data)["value"] == 120.0
