"""Music in ABC notation: tunes by hand, against pretty_midi, and the task of the recipe."""

import io
import re
import sys
import types

import numpy as np
import pretty_midi
import pytest

from keras_genai import catalog, datasets, load_model, music, tasks
from keras_genai.__main__ import main
from keras_genai.audio import load_wav
from keras_genai.experiments import EXPERIMENTS
from keras_genai.rnn import build_language_model
from keras_genai.tasks.music import save_music, tune_prompt
from keras_genai.text import ABCTokenizer

HEADER = "M:2/4\nL:1/8\nK:D\n"
SCALE = HEADER + "T:A Scale\nD E F G|A B c d|]"
BROKEN = {
    "no text": "",
    "no music": "x",
    "no notes": HEADER,
    "only rests": HEADER + "z4|z4|",
    "only grace notes": HEADER + "{abc}|",
    "no meter": "L:1/8\nK:D\nABcd|",
    "no unit length": "M:2/4\nK:D\nABcd|",
    "no key": "M:2/4\nL:1/8\nABcd|",
    "an invalid meter": "M:x\nL:1/8\nK:D\nABcd|",
    "a meter of zeros": "M:0/0\nL:1/8\nK:D\nABcd|",
    "a unit length of 1/0": "M:2/4\nL:1/0\nK:D\nABcd|",
    "a length of 1/0": HEADER + "A/0|",
    "an endless note": HEADER + "A" + "9" * 5000 + "|",
    "a long note": HEADER + "A999|",
    "an endless bar": "M:1000000/8\nL:1/8\nK:D\nABcd|",
    "an endless bar within a line": HEADER + "A4|[M:1000000/8]A4|",
    "an endless bar within a bar": HEADER + "A4|AM:1000000/8\nA|",
    "a large tuplet": HEADER + "(999A4|",
    "too many notes": HEADER + "ABcd|" * 1000,
    "too long notes": "M:99/4\nL:1/4\nK:D\n" + "A99|" * 21,
}


def analyze(notes, header=HEADER):
    return music.analyze_tune(header + notes)


# Analysis.


@pytest.mark.parametrize(
    "notes, num_bars, num_complete_bars",
    [
        ("A2 B2|A2 B|z4|A2 B2 c2|]", 4, 2),  # music21's score divides the last one
        ("A|B3 c|d3:|", 3, 1),  # a pickup, and the bar that it completes
        ("(3ABc d>e|f<g a2|A/B/c d//e3/2z//|", 3, 3),  # triplets, dotted rhythms, fractions
        ("{gf}A4|[CEG]4|A2-A2|", 3, 3),  # grace notes, chords, ties
        ("|:A4||B4:|1c4|2d4|]", 4, 4),
        ("AB|cd", 2, 0),
        ("ABcd", 1, 1),
    ],
)
def test_bars_of_the_length_of_the_meter_are_complete(notes, num_bars, num_complete_bars):
    analysis = analyze(notes)
    assert analysis.parses
    assert (analysis.num_bars, analysis.num_complete_bars) == (num_bars, num_complete_bars)


@pytest.mark.parametrize(
    "meter, unit, num_units",
    [
        ("6/8", "1/8", 6),
        ("C|", "1/8", 8),
        ("C", "1/16", 16),
        ("3/4", "1/8", 6),
        ("9/8", "1/8", 9),
        ("12/8", "1/4", 6),
        ("3/8", "1/16", 6),
        ("6/4", "1/4", 6),
    ],
)
def test_length_of_a_bar_follows_meter_and_unit_length(meter, unit, num_units):
    header = f"M:{meter}\nL:{unit}\nK:C\n"
    analysis = analyze("A" * num_units + "|" + "A" * (num_units - 1) + "|", header)
    assert (analysis.num_bars, analysis.num_complete_bars) == (2, 1)


def test_changes_of_meter_and_key_count_from_their_bar_on():
    analysis = analyze("ABcf|\nM:3/4\nK:F\nA2B2c2|A2_B2^f2|ABcf|")
    assert (analysis.num_bars, analysis.num_complete_bars) == (4, 3)
    assert (analysis.num_notes, analysis.num_notes_in_key) == (14, 13)
    assert analyze("ABcd|", "M:none\nL:1/8\nK:D\n") == (True, 0, 0, 4, 4)


def test_notes_outside_the_key_are_counted():
    # F and c are sharp in D; an accidental holds to the end of its bar.
    assert analyze("F =F F ^F|F ^^G _A ^^E|") == (True, 2, 2, 8, 6 - 1)
    assert analyze("[DFA]2 [D=FA]2|") == (True, 1, 1, 6, 5)


SIGNATURES = {
    -3: "Eb Cm",
    -2: "Bb Gm Fmix Dphr",
    -1: "F Dm Gdor GDor Aphr",
    0: "C Am Gmix Ddor DDor",
    1: "G Em Dmix DMix Ador ADor Bphr",
    2: "D Bm Amix AMix Edor Glyd",
    3: "A F#m Dlyd",
    5: "Bn",
}
KEYS = {key: sharps for sharps, keys in SIGNATURES.items() for key in keys.split()}


def test_keys_and_modes_of_all_tunes_have_their_signature():
    keys = set(re.findall(r"^K:(.*)$", "\n".join(datasets.load_tunes()), re.MULTILINE))
    assert keys == set(KEYS)
    natural = {"C": 60, "D": 62, "E": 64, "F": 65, "G": 67, "A": 69, "B": 71}
    for key, sharps in KEYS.items():
        altered = dict(natural)
        for letter in "FCGDAEB"[:sharps] if sharps > 0 else "BEADGCF"[:-sharps]:
            altered[letter] += np.sign(sharps)
        tune = f"M:C\nL:1/8\nK:{key}\nCDEF|GAB2|"
        assert music.tune_notes(tune)[:, 2].tolist() == list(altered.values()), key
        assert music.analyze_tune(tune)[3:] == (7, 7)


@pytest.mark.parametrize("tune", BROKEN.values(), ids=BROKEN)
def test_broken_tunes_do_not_parse(tune):
    assert music.analyze_tune(tune) == (False, 0, 0, 0, 0)


def test_large_numbers_in_texts_and_remarks_do_not_matter():
    header = "%%MIDI program 110\nT:The Rising of 1798\nM:2/4\nL:1/8\nQ:1/4=120\nK:D\n"
    assert analyze("A4|B4|\n% bars 1000\n:1646", header) == (True, 2, 2, 2, 2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_any_text_is_analyzed_and_what_parses_can_be_played(seed):
    rng = np.random.default_rng(seed)
    tunes = datasets.load_tunes()
    characters = sorted({*"".join(tunes), *"é中\t\r%~$@&;"})
    for _ in range(20):
        tune = list(tunes[rng.integers(len(tunes))][:300])
        for position in rng.integers(len(tune), size=rng.integers(8)):
            tune[position] = characters[rng.integers(len(characters))]
        if music.analyze_tune("".join(tune)).parses:
            assert np.abs(music.synthesize("".join(tune), 8000)).max() == pytest.approx(0.95)


def test_statistics_are_shares_over_all_tunes():
    tunes = [HEADER + "A2B2|c2d|", HEADER + "=F4|", "x"]
    expected = {"parsed": 2 / 3, "complete_bars": 2 / 3, "notes_in_key": 4 / 5, "num_tunes": 3}
    assert music.tune_statistics(tunes) == expected
    nothing = music.tune_statistics([])
    assert nothing.pop("num_tunes") == 0 and all(np.isnan(list(nothing.values())))


@pytest.mark.slow
def test_real_tunes_parse_and_most_bars_are_complete():
    tunes = datasets.load_tunes()
    rows = np.random.default_rng(0).choice(len(tunes), 30, replace=False)
    statistics = music.tune_statistics([tunes[row] for row in rows])
    assert statistics["parsed"] == 1
    assert 0.7 < statistics["complete_bars"] < 0.95  # the others are pickups and their complements
    assert statistics["notes_in_key"] > 0.95


# Notes, MIDI and sound.


def test_notes_have_starts_durations_and_pitches():
    notes = music.tune_notes(HEADER + '{g}DF/A/ c2-|c2 z(3d=fa\'|[DA]2 "Am"B,2|')
    assert notes[:, 2].tolist() == [62, 66, 69, 73, 74, 77, 93, 62, 69, 59]
    third = 1 / 3
    np.testing.assert_allclose(
        notes[:, :2],
        [
            *((0, 0.5), (0.5, 0.25), (0.75, 0.25), (1, 2), (3.5, third)),
            *((3.5 + third, third), (3.5 + 2 * third, third), (4.5, 1), (4.5, 1), (5.5, 1)),
        ],
    )


def read_midi(path):
    """Return notes as `tune_notes`, read by pretty_midi, for a tempo of 60 quarters per minute."""
    midi = pretty_midi.PrettyMIDI(str(path))
    notes = [note for instrument in midi.instruments for note in instrument.notes]
    rows = [(note.start, note.end - note.start, note.pitch) for note in notes]
    return np.array(sorted(rows))


@pytest.mark.parametrize("tempo, quarters_per_second", [("", 160 / 60), ("Q:1/4=90\n", 1.5)])
def test_midi_file_has_the_notes_of_the_tune_at_its_tempo(tmp_path, tempo, quarters_per_second):
    *header, body = datasets.load_tunes()[0].split("\n", 4)
    tune = "\n".join([tempo + header[0], *header[1:], body])
    music.save_midi(tmp_path / "tune.mid", tune)
    notes = read_midi(tmp_path / "tune.mid")
    notes[:, :2] *= quarters_per_second
    expected = music.tune_notes(tune)
    assert len(expected) == len(re.findall("[A-Ga-g]", body))
    np.testing.assert_allclose(notes, expected, atol=2e-3)  # of whole ticks
    midi = pretty_midi.PrettyMIDI(str(tmp_path / "tune.mid"))
    assert [key.key_number for key in midi.key_signature_changes] == [7]  # G


def test_repeats_are_played_once():
    # The second repeat has no sign at its start, so that music21 would play ABACABAC or so.
    notes = music.tune_notes(HEADER + "A4|B4:|c4|d4:|")
    assert notes[:, 2].tolist() == [69, 71, 73, 74]
    midi = music._to_midi(HEADER + "A4|B4:|c4|d4:|")
    assert len(pretty_midi.PrettyMIDI(io.BytesIO(midi)).instruments[0].notes) == 4


@pytest.mark.parametrize("sample_rate", [8000, 22_050])
def test_sound_has_the_frequency_and_length_of_its_note(sample_rate):
    waveform = music.synthesize("M:C\nL:1/4\nK:C\nA4|]", sample_rate)
    assert waveform.dtype == np.float32
    assert len(waveform) == pytest.approx(1.5 * sample_rate, abs=0.01 * sample_rate)
    assert np.abs(waveform).max() == pytest.approx(0.95)
    spectrum = np.abs(np.fft.rfft(waveform))
    frequency = np.argmax(spectrum) * sample_rate / len(waveform)
    assert frequency == pytest.approx(440, abs=sample_rate / len(waveform))


def test_figure_has_a_panel_per_tune_with_bar_lines_and_note_names():
    figure = music.plot_piano_roll([SCALE, "M:3/4\nL:1/4\nK:F\n_B,^f2|G3|"])
    first, second = figure.axes
    assert first.get_title() == "A Scale" and second.get_title() == ""
    labels = [label.get_text() for label in first.get_yticklabels()]
    assert labels == ["D4", "E4", "F♯4", "G4", "A4", "B4", "C♯5", "D5"]
    assert [label.get_text() for label in second.get_yticklabels()] == ["B♭3", "G4", "F♯5"]
    bars = second.patches
    assert [bar.get_x() for bar in bars] == [0, 1, 3]
    assert [bar.get_y() + bar.get_height() / 2 for bar in bars] == [58, 78, 67]
    (lines,) = second.collections
    assert [line[0][0] for line in lines.get_segments()] == [0, 3]
    titles = [axes.get_title() for axes in music.plot_piano_roll([SCALE] * 2, ["a", "b"]).axes]
    assert titles == ["a", "b"]
    figure.savefig(io.BytesIO())


# Errors.


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: music.split_tunes(3), "text: expected a str, got 3"),
        (lambda: music.analyze_tune(None), "tune: expected a str, got None"),
        (lambda: music.read_tune(["A"]), "tune: expected a str, got"),
        (lambda: music.tune_statistics("A"), "tunes: expected a list of strings, got 'A'"),
        (lambda: music.to_abc_text([1]), "tunes: expected a list of strings"),
        (lambda: music.to_training_text(None), "tunes: expected a list of strings"),
        (lambda: music.read_tune("x"), "tune: expected a tune in ABC notation with notes, got 'x'"),
        (lambda: music.tune_notes(HEADER), "tune: expected a tune in ABC notation with notes"),
        (lambda: music.synthesize(SCALE, 100), "sample_rate: expected .*8000.*, got 100"),
        (lambda: music.plot_piano_roll([]), "tunes: expected 1 to 50 tunes, got 0"),
        (lambda: music.plot_piano_roll([SCALE] * 51), "tunes: expected 1 to 50 tunes, got 51"),
        (lambda: music.plot_piano_roll([SCALE], []), "titles: expected 1, got 0"),
        (lambda: save_music("a.mid", f"{SCALE}\n\n{SCALE}"), "a.mid: expected one tune .* got 2"),
        (lambda: save_music("a.mid", "x"), "tune: expected a tune in ABC notation"),
        (lambda: save_music("a.wav", "\n"), "a.wav: expected at least one tune, got none"),
    ],
)
def test_invalid_arguments_are_named(call, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        call()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["music21", "pretty_midi"])
def test_error_of_a_missing_library_has_the_command_that_installs_it(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    assert not music.is_installed()
    with pytest.raises(
        ImportError, match=r'music needs an extra: pip install "keras_genai\[music\]"'
    ):
        music.synthesize(SCALE)


# Texts of tunes.


def test_tunes_are_split_at_empty_lines():
    assert music.split_tunes("\n\nX:1\nA|\n\n \n\nX:2\nB|\nc|\n \nX:3\n") == [
        "X:1\nA|",
        "X:2\nB|\nc|",
        "X:3",
    ]
    assert music.split_tunes(" \n\n") == []
    tunes = datasets.load_tunes()
    assert music.split_tunes("\n\n".join(tunes)) == tunes


def test_training_text_begins_with_the_meter_and_an_abc_file_with_number_and_title():
    tune = "X:7\nT:Lark\nT:Other\nM:6/8\nL:1/8\nK:D\nA3|\nT:not a title of the header"
    text = "M:6/8\nL:1/8\nK:D\nT:Lark\nT:Other\nA3|\nT:not a title of the header"
    assert music.to_training_text([tune]) == text
    assert music.to_abc_text([text]) == tune.replace("X:7", "X:1") + "\n"
    assert music.to_training_text(["A|", "B|"]) == "A|\n\nB|"
    assert music.to_abc_text(["K:C\nA|", "K:C\nB|"]) == "X:1\nK:C\nA|\n\nX:2\nK:C\nB|\n"
    assert music.to_abc_text([]) == ""


def test_both_orders_of_the_fields_are_the_same_music():
    for tune in datasets.load_tunes()[:3]:
        (moved,) = music.split_tunes(music.to_training_text([tune]))
        assert moved != tune
        np.testing.assert_array_equal(music.tune_notes(moved), music.tune_notes(tune))
        assert music.analyze_tune(moved) == music.analyze_tune(tune)
        titles = [music.read_tune(text).metadata.title for text in (moved, tune)]
        assert titles[0] == titles[1] is not None


@pytest.mark.parametrize(
    "text, before, expected",
    [
        ("A|\nB|\n\nM:", "", "A|\nB|\n"),
        ("\nA", "K:C\n", ""),
        ("\nA", "K:C", "\nA"),
        ("A|", "\n", "A|"),
        ("", "", ""),
    ],
)
def test_first_tune_ends_before_an_empty_line(text, before, expected):
    assert "".join(music.first_tune(iter(text), before)) == expected


# The task and its recipe.


def test_last_tenth_of_the_tunes_is_held_out():
    task = tasks.MusicTask()
    data = task.load()
    tokenizer = ABCTokenizer(data.dataset_info["characters"])
    train, test = tokenizer.decode(data.train), tokenizer.decode(data.test[0])
    tunes = datasets.load_tunes()
    assert len(tunes) == 1841
    assert music.split_tunes(train) == [music.to_training_text([tune]) for tune in tunes[:1656]]
    assert music.split_tunes(test) == [music.to_training_text([tune]) for tune in tunes[1656:]]
    assert train.endswith("\n\n") and test.startswith("\nM:")
    assert train.startswith("M:") and train.count("\n\nM:") == 1655
    assert len(data.test) == 1 and data.num_examples == 3491
    assert task.load("tunes").sha256() == data.sha256()


def test_recipe_is_a_model_of_at_most_two_million_parameters():
    model = EXPERIMENTS["article3-music"].build(0, characters="abc")
    assert isinstance(model.tokenizer, ABCTokenizer)
    expected = {"cell": "lstm", "embed_dim": 64, "units": 384, "num_layers": 2, "dropout": 0.3}
    assert model.config == {"vocab_size": 3, **expected}
    num_characters = len(tasks.MusicTask().load().dataset_info["characters"])
    assert model.count_params() + (num_characters - 3) * (64 + 384 + 1) <= 2_000_000
    assert catalog.RECIPES["article3-music"].data == "Irish tunes"


@pytest.fixture
def tune_files(tmp_path):
    """Twelve tunes of 200 characters as one file, and as a folder of two."""
    body = "|".join(["ABcd"] * 40)
    tunes = [f"X:{i}\nT:Tune {i}\nM:2/4\nL:1/8\nK:D\n{body}|]" for i in range(12)]
    (tmp_path / "all.abc").write_text("\n\n".join(tunes), encoding="utf-8")
    (tmp_path / "folder").mkdir()
    for name, part in {"a.abc": tunes[:6], "b.abc": tunes[6:]}.items():
        (tmp_path / "folder" / name).write_text("\n\n".join(part), encoding="utf-8")
    return tmp_path


def test_tunes_of_the_user_are_read_from_a_file_or_a_folder(tune_files):
    task = tasks.MusicTask(window=16)
    data = task.load(tune_files / "all.abc")
    tokenizer = ABCTokenizer(data.dataset_info["characters"])
    text = tokenizer.decode(data.train)
    assert text.startswith("M:2/4\nL:1/8\nK:D\nT:Tune 0\nABcd|") and "X:" not in text
    assert text.count("K:") == 10 and tokenizer.decode(data.test[0]).count("K:") == 2
    assert task.load(tune_files / "folder").sha256() == data.sha256()


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("verse.abc", "Once upon a time\n" * 200, "verse.abc: expected tunes in ABC .* no line K:"),
        ("few.abc", "\n\n".join([SCALE] * 9), "few.abc: expected at least 10 tunes, found 9"),
        ("short.abc", "\n\n".join([SCALE] * 10), "short.abc: expected at least 1280 characters"),
        ("empty.abc", "", "empty.abc: expected a text, got an empty file"),
        ("folder/a.txt", SCALE, "folder: expected at least 1 ABC files, found 0, and a.txt"),
        (None, None, "missing.abc: cannot be read"),
    ],
)
def test_data_without_tunes_are_refused_by_name(tmp_path, name, text, message):
    path = tmp_path / (name or "missing.abc")
    if name:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    source = path.parent if path.suffix == ".txt" else path
    with pytest.raises(ValueError, match=message):
        tasks.MusicTask().load(source)


def test_tunes_have_no_cache(tune_files):
    with pytest.raises(ValueError, match="cache: expected None, as tunes are held in memory"):
        tasks.MusicTask().load(tune_files / "all.abc", tune_files / "cache")


def fake_model(*continuations):
    """A model whose texts are the prompts with given continuations."""

    def generate(prompts, max_new_tokens, *, sampler, seed):
        assert prompts == ["\n\nM:"] * 20 and max_new_tokens == 1000
        assert sampler.temperature == 0.8
        texts = (continuations * 20)[:20]
        return [prompt + text for prompt, text in zip(prompts, texts, strict=True)]

    return types.SimpleNamespace(generate=generate, tokenizer=ABCTokenizer("\nM:"))


def test_samples_are_an_abc_file_and_three_played_tunes(tmp_path):
    tune = SCALE.removeprefix("M:") + "\n\nM:6/8\n"  # followed by the start of another one
    tasks.MusicTask().save_samples(fake_model("x", tune), None, tmp_path)
    samples = (tmp_path / "samples.abc").read_text(encoding="utf-8")
    tunes = music.split_tunes(samples)
    assert len(tunes) == 20 and tunes[0] == "X:1\nM:x"
    assert tunes[1] == "X:2\nT:A Scale\nM:2/4\nL:1/8\nK:D\nD E F G|A B c d|]"
    names = {f"tune_{i}{suffix}" for i in (1, 2, 3) for suffix in (".mid", ".wav")}
    assert {path.name for path in (tmp_path / "samples").iterdir()} == names
    assert read_midi(tmp_path / "samples" / "tune_3.mid")[:, 2].tolist() == [
        *(62, 64, 66, 67),
        *(69, 71, 73, 74),
    ]
    waveform, sample_rate = load_wav(tmp_path / "samples" / "tune_1.wav")
    assert sample_rate == 22_050 and len(waveform) / sample_rate == pytest.approx(1.5, abs=0.01)
    assert (tmp_path / "piano_roll.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("is_installed", [True, False])
def test_samples_that_cannot_be_played_are_an_abc_file_only(tmp_path, monkeypatch, is_installed):
    if not is_installed:
        monkeypatch.setitem(sys.modules, "music21", None)
    model = fake_model("x" if is_installed else SCALE.removeprefix("M:"))
    tasks.MusicTask().save_samples(model, None, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["samples.abc"]


# The command line.


def save_tiny_model(path, text="M:2/4LK|D \nT", likeliest="\n"):
    """Save a model that generates one character only, if it is not None."""
    tokenizer = ABCTokenizer(sorted({*text, *SCALE}))
    model = build_language_model(tokenizer.vocab_size, "gru", 2, 2, tokenizer=tokenizer)
    *weights, bias = (0 * weight for weight in model.get_weights())
    bias[tokenizer.encode(likeliest)] = 100
    model.set_weights([*weights, bias])
    model.save(path)
    return str(path)


def test_model_of_tunes_is_saved_with_its_tokenizer(tmp_path):
    model = load_model(save_tiny_model(tmp_path / "model.keras"))
    assert type(model.tokenizer) is ABCTokenizer


@pytest.mark.slow
def test_generated_tune_ends_at_an_empty_line(tmp_path, capsys):
    path = save_tiny_model(tmp_path / "model.keras")
    assert main(["generate", path, "--prompt", SCALE, "--count", "2"]) == 0
    assert capsys.readouterr().out == f"{SCALE}\n\n\n{SCALE}\n\n"
    assert main(["generate", path]) == 0  # the default prompt is the start of a tune
    assert capsys.readouterr().out == "M:\n\n"


@pytest.mark.slow
def test_tune_without_an_end_has_a_thousand_characters(tmp_path, capsys):
    path = save_tiny_model(tmp_path / "model.keras", likeliest="A")
    assert main(["generate", path]) == 0
    assert capsys.readouterr().out == "M:" + "A" * 1000 + "\n"


@pytest.mark.parametrize("suffix", [".abc", ".mid", ".wav", ".png", ".txt"])
def test_output_has_the_format_of_its_name(tmp_path, capsys, suffix):
    path = save_tiny_model(tmp_path / "model.keras")
    output = tmp_path / f"tune{suffix}"
    assert main(["generate", path, "--prompt", SCALE, "--output", str(output)]) == 0
    assert capsys.readouterr().out == f"{output}\n"
    if suffix == ".abc":
        title_first = "X:1\nT:A Scale\nM:2/4\nL:1/8\nK:D\nD E F G|A B c d|]\n"
        assert output.read_text(encoding="utf-8") == title_first
    elif suffix == ".mid":
        assert len(read_midi(output)) == 8
    elif suffix == ".wav":
        assert len(load_wav(output)[0]) == len(music.synthesize(SCALE))
    elif suffix == ".png":
        assert output.read_bytes().startswith(b"\x89PNG")
    else:
        assert output.read_text(encoding="utf-8") == SCALE + "\n\n"


@pytest.mark.slow
def test_several_tunes_are_one_sound_but_no_midi_file(tmp_path, capsys):
    path = save_tiny_model(tmp_path / "model.keras")
    arguments = ["generate", path, "--prompt", SCALE, "--count", "2", "--output"]
    assert main([*arguments, str(tmp_path / "tunes.wav")]) == 0
    assert len(load_wav(tmp_path / "tunes.wav")[0]) == 2 * len(music.synthesize(SCALE))
    assert main([*arguments, str(tmp_path / "tunes.mid")]) == 2
    assert "tunes.mid: expected one tune for a MIDI file, got 2." in capsys.readouterr().err
    assert not (tmp_path / "tunes.mid").exists()


def test_tune_that_cannot_be_played_is_one_line_of_error(tmp_path, capsys):
    path = save_tiny_model(tmp_path / "model.keras")
    assert main(["generate", path, "--output", str(tmp_path / "tune.mid")]) == 2
    text, error = capsys.readouterr()
    assert text == "M:\n\n"  # which is not lost
    assert error.startswith("keras_genai: tune: expected a tune in ABC notation with notes, got")
    assert error.count("\n") == 1


@pytest.mark.parametrize("tempo", ["1", "5"])
def test_tempo_that_midi_files_cannot_have_raises(tempo):
    # MIDI counts microseconds per quarter in 24 bits, which a slower tempo would wrap around.
    with pytest.raises(ValueError, match="tune: .*a tempo outside 10 to 1000 quarter notes"):
        music.synthesize(f"M:4/4\nL:1/4\nQ:1/4={tempo}\nK:C\nCDEF|\n")


def test_sound_of_more_than_fifteen_minutes_raises():
    bars = "C4|" * 45  # 180 quarter notes at 10 a minute
    with pytest.raises(ValueError, match="tune: expected at most 900 seconds, got 10"):
        music.synthesize(f"M:4/4\nL:1/4\nQ:1/4=10\nK:C\n{bars}\n")


@pytest.mark.parametrize("name", ["tune.mp3", "tune.midi", "tune"])
def test_output_of_another_name_is_refused_before_a_tune_is_generated(tmp_path, capsys, name):
    path = save_tiny_model(tmp_path / "model.keras")
    assert main(["generate", path, "--output", str(tmp_path / name)]) == 2
    assert f"{name}: expected a name that ends in one of .abc" in capsys.readouterr().err
    assert not (tmp_path / name).exists()


def test_prompt_of_tunes_without_a_meter_is_an_empty_line():
    assert tune_prompt(ABCTokenizer("\n M:")) == "\n\nM:"
    assert tune_prompt(ABCTokenizer("\nabc")) == "\n\n"
