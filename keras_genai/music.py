"""Music in ABC notation: analysis, MIDI files, sound and piano rolls of tunes.

Reading and MIDI files need music21, sound needs pretty_midi (extra `music`). A tune is a text of
header fields, the last of which is the key `K:`, and of notes in bars. A tune is played as written:
repeats are played once, since music21 expands only those that have a sign at their start, which
ABC lets a writer omit. Grace notes and chord symbols are not played. The tempo is that of a field
`Q:`, else 160 quarter notes per minute, between the tempo of a waltz and that of a reel.
"""

import contextlib
import copy
import importlib
import importlib.util
import io
import itertools
import re
import typing

import numpy as np
from matplotlib.figure import Figure

from keras_genai.files import replace_file
from keras_genai.plotting import COLORS
from keras_genai.validation import check_size, check_strings, check_type

ABC_VERSION = (2, 1, 0)  # since ABC 2, an accidental is valid up to the end of its bar
QUARTERS_PER_MINUTE = 160
SAMPLE_RATE = 22_050
PEAK = 0.95  # of a waveform
MAX_QUARTERS, MAX_SECONDS = 2000, 900  # of a tune; more is an error of the text
MIN_TEMPO, MAX_TEMPO = 10, 1000  # quarter notes per minute, of those that MIDI files can have
MAX_SAMPLE_RATE = 192_000
MAX_TUNE_LENGTH = 5000  # characters; the time of music21 grows with the square of the length
# Numbers above 99 in meter, unit length and notes, and tempos above 999: errors of the text, for
# which music21 may take hours.
LARGE_NUMBER = re.compile(
    r"^[KLM]:.*\d{3}|^Q:.*\d{4}|^(?![A-Za-z]:|%).*?([^:\d]|[A-Z]:)\d{3}", re.MULTILINE
)
EMPTY_LINE = re.compile(r"\n[ \t]*\n\s*")
SIGNATURES, TEMPO = ("TimeSignature", "KeySignature"), "MetronomeMark"  # classes of music21
REQUIRED_FIELDS = ("M:", "L:", "K:")
ROLL_WIDTH, SEMITONE_HEIGHT = 9, 0.11  # inches
MAX_PANELS = 50


class TuneAnalysis(typing.NamedTuple):
    """Result of `analyze_tune`.

    Attributes:
        parses: Bool. Whether `read_tune` reads the tune, and its meter, unit length and key are
            given. If not, all numbers are 0.
        num_bars: Int. Number of bars as written that have a note or a rest, if the meter is not
            `none`. Pickups and the bars before a repeat sign, which share a bar with them, count.
        num_complete_bars: Int. Number of bars whose notes and rests have the length of the meter.
        num_notes: Int. Number of notes, the grace notes and all notes of chords included.
        num_notes_in_key: Int. Number of notes among the seven pitch classes of the key signature.
    """

    parses: bool
    num_bars: int = 0
    num_complete_bars: int = 0
    num_notes: int = 0
    num_notes_in_key: int = 0


# Texts of tunes.


def split_tunes(text: str) -> list[str]:
    """Return the tunes of an ABC text, which are separated by empty lines.

    Args:
        text: String.

    Returns:
        A list of strings without line ends at their ends; empty for a blank text.

    Raises:
        ValueError: unless `text` is a string.
    """
    check_type("text", text, str)
    return [tune.strip("\n") for tune in EMPTY_LINE.split(text) if tune.strip()]


def to_training_text(tunes) -> str:
    """Return tunes as the text that a language model learns from, separated by empty lines.

    The title `T:` is moved behind the key `K:`, as ABC 2 allows it, and the reference number `X:`
    is left out: a prompt of meter, unit length and key is then the start of a tune.

    Args:
        tunes: List of strings.

    Raises:
        ValueError: unless `tunes` is a list of strings.
    """
    parts = map(_split_fields, _check_tunes(tunes))
    return "\n\n".join("\n".join([*header, *titles, *notes]) for header, titles, notes in parts)


def to_abc_text(tunes) -> str:
    """Return tunes as the text of an ABC file: each with a reference number, and the title first.

    Args:
        tunes: List of strings.

    Raises:
        ValueError: unless `tunes` is a list of strings.
    """
    texts = []
    for number, tune in enumerate(_check_tunes(tunes), start=1):
        header, titles, notes = _split_fields(tune)
        texts.append("\n".join([f"X:{number}", *titles, *header, *notes]) + "\n")
    return "\n".join(texts)


def first_tune(characters, before: str = ""):
    """Yield the characters of a text up to its first empty line.

    Args:
        characters: Iterable of strings of one character.
        before: String. Text before them. Defaults to `""`.
    """
    for character in characters:
        if character == "\n" and before.endswith("\n"):
            return
        yield character
        before = character


def _check_tunes(tunes) -> list[str]:
    if not isinstance(tunes, (list, tuple)) or not all(isinstance(tune, str) for tune in tunes):
        raise ValueError(f"tunes: expected a list of strings, got {tunes!r:.200}.")
    return list(tunes)


def _split_fields(tune: str) -> tuple[list[str], list[str], list[str]]:
    """Return the lines of the header without title and reference number, titles, and other lines.

    Titles are those of the header, and those that follow its last field, the key.
    """
    lines = tune.split("\n")
    key = next((i for i, line in enumerate(lines) if line.startswith("K:")), -1)
    end = key + 1
    while 0 < end < len(lines) and lines[end].startswith("T:"):
        end += 1
    titles = [line for line in lines[:end] if line.startswith("T:")]
    header = [line for line in lines[:end] if line[:2] not in ("T:", "X:")]
    return header, titles, lines[end:]


# Reading.


def is_installed() -> bool:
    """Return whether the extra `music` is installed."""
    return all(importlib.util.find_spec(name) for name in ("music21", "pretty_midi"))


def read_tune(tune: str):
    """Read a tune in ABC notation.

    Args:
        tune: String. One tune.

    Returns:
        A `music21.stream.Score`. music21 divides bars that are longer than the meter.

    Raises:
        ValueError: unless `tune` is a string that music21 reads, with a note, of at most 5,000
            characters and 2,000 quarter notes.
        ImportError: if music21 is not installed.
    """
    check_type("tune", tune, str)
    return _read(tune)[1]


def analyze_tune(tune: str) -> TuneAnalysis:
    """Count the bars and notes of a tune, and those that agree with its meter and key.

    Args:
        tune: String. Any text.

    Returns:
        A `TuneAnalysis`.

    Raises:
        ValueError: unless `tune` is a string.
        ImportError: if music21 is not installed.
    """
    check_type("tune", tune, str)
    _import("music21")
    lines = tune.split("\n")
    if not all(any(line.startswith(field) for line in lines) for field in REQUIRED_FIELDS):
        return TuneAnalysis(parses=False)
    try:
        bars, _ = _read(tune)
        return _analyze_bars(bars)
    except ValueError:
        return TuneAnalysis(parses=False)


def tune_statistics(tunes) -> dict:
    """Return shares of valid tunes, bars and notes among all tunes.

    Args:
        tunes: List of strings.

    Returns:
        A dict of floats in [0, 1]: `"parsed"`, share of the tunes that music21 reads;
        `"complete_bars"`, share of their bars of the right length; `"notes_in_key"`, share of
        their notes in the key; see `TuneAnalysis`. A share of nothing is NaN. `"num_tunes"` is the
        number of tunes.

    Raises:
        ValueError: unless `tunes` is a list of strings.
        ImportError: if music21 is not installed.
    """
    analyses = [analyze_tune(tune) for tune in _check_tunes(tunes)]
    sums = np.sum([TuneAnalysis(False), *analyses], axis=0, dtype="int64").tolist()
    total = TuneAnalysis(*sums)
    return {
        "parsed": _share(total.parses, len(analyses)),
        "complete_bars": _share(total.num_complete_bars, total.num_bars),
        "notes_in_key": _share(total.num_notes_in_key, total.num_notes),
        "num_tunes": len(analyses),
    }


def _share(count: int, total: int) -> float:
    return count / total if total else float("nan")


def _read(tune: str):
    """Return the bars of a tune as written, a list of `music21.stream.Measure`, and its score."""
    music21 = _import("music21")
    with _naming_errors(tune):
        if len(tune) > MAX_TUNE_LENGTH:
            raise ValueError(f"more than {MAX_TUNE_LENGTH} characters")
        if LARGE_NUMBER.search(tune):
            raise ValueError("a large number")
        abc = music21.abcFormat
        handler = abc.ABCFile(ABC_VERSION).readstr(tune)
        bars = []
        for part in abc.mergeLeadingMetaData(handler.splitByMeasure()):
            if not part.hasNotes():
                continue
            bars.append(music21.stream.Measure())
            abc.translate.parseTokens(part, bars[-1], music21.stream.Part(), True)
        # Reading changes the tokens, so that they are read again.
        score = abc.translate.abcToStreamScore(abc.ABCFile(ABC_VERSION).readstr(tune))
        if not any(map(_is_played, score.flatten().notes)):
            raise ValueError("no note")
        if score.highestTime > MAX_QUARTERS:
            raise ValueError(f"more than {MAX_QUARTERS} quarter notes")
        return bars, score


def _analyze_bars(bars) -> TuneAnalysis:
    """Return the numbers of `TuneAnalysis` of the bars of a tune."""
    num_bars = num_complete_bars = num_notes = num_notes_in_key = 0
    meter, scale = None, _pitch_classes(0)
    for bar in bars:
        if bar.keySignature is not None:
            scale = _pitch_classes(bar.keySignature.sharps)
        meter = bar.timeSignature or meter
        if meter is not None:
            num_bars += 1
            num_complete_bars += bar.highestTime == meter.barDuration.quarterLength
        for note in filter(_is_note, bar.notes):
            num_notes += len(note.pitches)
            num_notes_in_key += sum(pitch.pitchClass in scale for pitch in note.pitches)
    return TuneAnalysis(True, num_bars, num_complete_bars, num_notes, num_notes_in_key)


def _pitch_classes(sharps: int) -> set[int]:
    """Return the pitch classes of a key signature, a chain of fifths; flats count below 0."""
    return {(7 * (sharps + i)) % 12 for i in range(-1, 6)}


def _is_note(element) -> bool:
    """Return whether an element of music21 is a note or a chord, not the name of a chord."""
    return "ChordSymbol" not in element.classes and "NoChord" not in element.classes


# Notes, MIDI and sound.


def tune_notes(tune: str) -> np.ndarray:
    """Return the notes of a tune.

    Args:
        tune: String. One tune in ABC notation.

    Returns:
        A float64 array `(n, 3)` of starts and durations in quarter notes, and MIDI pitches (69 is
        the A of 440 Hz). Tied notes are one note.

    Raises:
        ValueError, ImportError: as `read_tune`.
    """
    return _to_array(_played_notes(read_tune(tune)))


def save_midi(path, tune: str) -> None:
    """Write a tune to a MIDI file.

    Args:
        path: String or path.
        tune: String. One tune in ABC notation.

    Raises:
        ValueError: as `read_tune`.
        ImportError: if music21 is not installed.
        OSError: if the file cannot be written.
    """
    content = _to_midi(tune)
    with replace_file(path) as unfinished:
        unfinished.write_bytes(content)


def synthesize(tune: str, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Return the sound of a tune: a decaying sine for each note.

    Args:
        tune: String. One tune in ABC notation.
        sample_rate: Int from 8,000 to 192,000. Samples per second. Defaults to `22050`.

    Returns:
        A float32 array `(n,)` with a peak of 0.95, for `audio.save_wav`.

    Raises:
        ValueError: as `read_tune`, for another sample rate, and for a tune of more than 15 minutes.
        ImportError: if the extra `music` is not installed.
    """
    sample_rate = check_size("sample_rate", sample_rate, 8000, MAX_SAMPLE_RATE)
    pretty_midi = _import("pretty_midi")
    midi = pretty_midi.PrettyMIDI(io.BytesIO(_to_midi(tune)))
    if (seconds := midi.get_end_time()) > MAX_SECONDS:
        raise ValueError(f"tune: expected at most {MAX_SECONDS} seconds, got {seconds:.0f}.")
    waveform = midi.synthesize(sample_rate)[: int(seconds * sample_rate)]
    return (PEAK * waveform).astype("float32")


def _played_notes(score) -> list:
    """Return the notes and chords of a score that last, with ties merged, in order."""
    return list(filter(_is_played, score.stripTies().flatten().notes))


def _is_played(element) -> bool:
    """Return whether an element is a note or a chord that lasts, not a grace note."""
    return _is_note(element) and element.quarterLength > 0


def _to_array(notes) -> np.ndarray:
    rows = [(n.offset, n.quarterLength, pitch.midi) for n in notes for pitch in n.pitches]
    return np.array(rows, "float64")


def _to_midi(tune: str) -> bytes:
    """Return the contents of a MIDI file of a tune."""
    music21 = _import("music21")
    score = read_tune(tune)
    with _naming_errors(tune):
        played = music21.stream.Part()  # without bars, of which music21 would expand the repeats
        elements = score.flatten()
        signatures = [elements.getElementsByClass(name)[:1] for name in SIGNATURES]
        for element in (*itertools.chain(*signatures), *elements.getElementsByClass(TEMPO)):
            played.insert(element.offset, copy.deepcopy(element))
        if not played.getElementsByClass(TEMPO):
            played.insert(0, music21.tempo.MetronomeMark(number=QUARTERS_PER_MINUTE))
        tempos = [mark.getQuarterBPM() for mark in played.getElementsByClass(TEMPO)]
        if any(tempo and not MIN_TEMPO <= tempo <= MAX_TEMPO for tempo in tempos):
            raise ValueError(f"a tempo outside {MIN_TEMPO} to {MAX_TEMPO} quarter notes a minute")
        for note in _played_notes(score):
            for pitch in note.pitches:
                played.insert(note.offset, music21.note.Note(pitch, duration=note.duration))
        return music21.midi.translate.streamToMidiFile(played).writestr()


@contextlib.contextmanager
def _naming_errors(tune: str):
    """Context in which every error of music21 names the argument, and nothing is printed."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    except Exception as error:  # of many types: music21 checks few texts itself
        raise ValueError(
            f"tune: expected a tune in ABC notation with notes, got {tune!r:.200} ({error!s:.200})."
        ) from error


def _import(name: str):
    """Return a library of the extra `music`."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError('music needs an extra: pip install "keras_genai[music]".') from error


# Figures.


def plot_piano_roll(tunes, titles=None) -> Figure:
    """Plot tunes as piano rolls: pitch over time, in quarter notes, with lines at the bars.

    Args:
        tunes: List of strings. Tunes in ABC notation, one for each panel.
        titles: List of strings above the panels, or `None` for the titles of the tunes. Defaults
            to `None`.

    Raises:
        ValueError: as `read_tune`, for no tune or more than 50, and for another number of titles.
        ImportError: if music21 is not installed.
    """
    tunes = _check_tunes(tunes)
    if not 0 < len(tunes) <= MAX_PANELS:
        raise ValueError(f"tunes: expected 1 to {MAX_PANELS} tunes, got {len(tunes)}.")
    scores = list(map(read_tune, tunes))
    if titles is None:
        titles = [score.metadata.title or "" for score in scores]
    titles = check_strings("titles", titles, len(tunes))
    notes = [_to_array(_played_notes(score)) for score in scores]
    heights = [SEMITONE_HEIGHT * (np.ptp(array[:, 2]) + 3) for array in notes]  # inches
    figure = Figure(figsize=(ROLL_WIDTH, sum(heights) + 0.6 * len(tunes)), layout="constrained")
    panels = figure.subplots(len(tunes), squeeze=False, height_ratios=heights)[:, 0]
    for axes, score, array, title in zip(panels, scores, notes, titles, strict=True):
        starts, durations, pitches = array.T
        axes.barh(pitches, 0.95 * durations, 0.8, starts, align="center", color=COLORS["LSTM"])
        bars = [bar.offset for bar in score.parts[0].getElementsByClass("Measure")]
        full_height = axes.get_xaxis_transform()
        axes.vlines(bars, 0, 1, "0.8", lw=0.8, transform=full_height, zorder=0)
        axes.set(xlim=(0, score.highestTime), ylim=(pitches.min() - 1.5, pitches.max() + 1.5))
        axes.set_title(title, parse_math=False)
        axes.set_yticks(*_pitch_labels(score), fontsize=7)
        axes.grid(axis="y", color="0.93", lw=0.5)
        axes.set_axisbelow(True)
    panels[-1].set_xlabel("quarter notes")
    return figure


def _pitch_labels(score) -> tuple[list[int], list[str]]:
    """Return the pitches of a score in ascending order, and their names, such as F♯4."""
    names = {}
    for note in _played_notes(score):
        for pitch in note.pitches:
            names[pitch.midi] = f"{pitch.name}{pitch.implicitOctave}".replace("#", "♯").replace(
                "-", "♭"
            )
    return sorted(names), [names[midi] for midi in sorted(names)]
