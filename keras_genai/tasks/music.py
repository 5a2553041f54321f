"""Task on music in ABC notation, as a text for language models."""

import typing

import numpy as np

from keras_genai import datasets, music
from keras_genai.audio import save_wav
from keras_genai.autoregressive import Sampler
from keras_genai.callbacks import save_figure
from keras_genai.files import find_files, save_text, to_path
from keras_genai.tasks.base import Data, check_no_cache, split_train_test
from keras_genai.tasks.language import LanguageModelingTask
from keras_genai.text import ABCTokenizer

MIN_TUNES = 10
NUM_SAMPLES = 20
NUM_PLAYED = 3
TUNE_PROMPT = "\n\nM:"  # the start of a tune, its meter
MAX_NEW_CHARACTERS = 1000  # characters; the longest of the included tunes has 898
MUSIC_TEMPERATURE = 0.8
TEXT_SUFFIXES, PLAYED_SUFFIXES = (".abc", ".txt"), (".mid", ".wav", ".png")


class MusicTask(LanguageModelingTask):
    """Tunes in ABC notation, the last tenth of which is held out.

    An empty line separates the tunes. In each tune, the title follows the key, so that a prompt of
    the fields before it is the start of a tune:

        M:6/8
        L:1/8
        K:D
        T:The Lark in the Morning

    The metric is the NLL of the held-out tunes in nats per character. The user's own data is an ABC
    file, or a folder of `.abc` files.

    Args:
        window: Int. Number of tokens of a training example. Defaults to `128`.
    """

    named_sources: typing.ClassVar = {"tunes": "O'Neill's Irish tunes"}

    def __init__(self, window=128):
        super().__init__("tunes", window)

    def load(self, source=None, cache=None) -> Data:
        check_no_cache(cache, "tunes")
        return self._load_in_memory(source or self.name)

    def _load_parts(self, source):
        tunes = datasets.load_tunes() if source == "tunes" else _load_tunes(source)
        self._check_length(source, len(music.to_training_text(tunes)))
        train, test = map(music.to_training_text, split_train_test(tunes))
        return [(train + "\n\n", test)]

    def _make_tokenizer(self, train, test):
        tokenizer = ABCTokenizer.from_text(train + test)
        return tokenizer, {"characters": "".join(tokenizer.characters)}

    def save_samples(self, model, data, folder):
        """Write 20 tunes to an ABC file; with the extra `music`, also play and plot three."""
        texts = model.generate(
            [tune_prompt(model.tokenizer)] * NUM_SAMPLES,
            MAX_NEW_CHARACTERS,
            sampler=Sampler(MUSIC_TEMPERATURE),
            seed=0,
        )
        tunes = [music.split_tunes(text)[0] for text in texts]
        save_music(folder / "samples.abc", "\n\n".join(tunes))
        if not music.is_installed():
            return
        played = [tune for tune in tunes if music.analyze_tune(tune).parses][:NUM_PLAYED]
        if not played:
            return
        (folder / "samples").mkdir(exist_ok=True)
        for i, tune in enumerate(played, start=1):
            for suffix in (".mid", ".wav"):
                save_music(folder / "samples" / f"tune_{i}{suffix}", tune)
        save_music(folder / "piano_roll.png", "\n\n".join(played))


def tune_prompt(tokenizer) -> str:
    """Return the start of a tune, up to its meter if the data of a tokenizer have one.

    Args:
        tokenizer: `ABCTokenizer` of a model of tunes.
    """
    known = set(TUNE_PROMPT) <= set(tokenizer.characters)
    return TUNE_PROMPT if known else "\n\n"


def check_music_path(path, num_tunes: int = 1) -> None:
    """Raise an error unless `save_music` can write as many tunes to a file.

    Args:
        path: String or path.
        num_tunes: Int. Defaults to `1`.

    Raises:
        ValueError: for a name with another ending than `.abc`, `.txt`, `.mid`, `.wav` and `.png`,
            and for several tunes in a MIDI file.
        ImportError: if the extra `music` is needed, and not installed.
    """
    suffix = to_path(path).suffix.lower()
    if suffix not in (*TEXT_SUFFIXES, *PLAYED_SUFFIXES):
        endings = ", ".join((*TEXT_SUFFIXES, *PLAYED_SUFFIXES))
        raise ValueError(f"{path}: expected a name that ends in one of {endings}.")
    if suffix == ".mid" and num_tunes > 1:
        raise ValueError(f"{path}: expected one tune for a MIDI file, got {num_tunes}.")
    if suffix in PLAYED_SUFFIXES and not music.is_installed():
        raise ImportError(f'{path}: expected the extra: pip install "keras_genai[music]".')


def save_music(path, text: str) -> None:
    """Write the tunes of a text to a file in the format of its name.

    Args:
        path: String or path. `.abc` is written as an ABC file of numbered tunes, `.mid` as a MIDI
            file, `.wav` as the sound of one tune after another, `.png` as piano rolls, `.txt` as
            the unchanged text.
        text: String. Tunes in ABC notation, separated by empty lines.

    Raises:
        ValueError: for a tune that cannot be played, and as `check_music_path`.
        ImportError: if the extra `music` is needed, and not installed.
        OSError: if the file cannot be written.
    """
    path, tunes = to_path(path), music.split_tunes(text)
    suffix = path.suffix.lower()
    check_music_path(path, len(tunes))
    if not tunes and suffix in PLAYED_SUFFIXES:
        raise ValueError(f"{path}: expected at least one tune, got none.")
    if suffix == ".mid":
        music.save_midi(path, tunes[0])
    elif suffix == ".wav":
        save_wav(path, np.concatenate(list(map(music.synthesize, tunes))), music.SAMPLE_RATE)
    elif suffix == ".png":
        save_figure(music.plot_piano_roll(tunes), path)
    else:
        save_text(path, music.to_abc_text(tunes) if suffix == ".abc" else text)


def _load_tunes(source) -> list[str]:
    """Return the tunes of an ABC file, or of the `.abc` files of a folder."""
    paths = [to_path(source)]
    if paths[0].is_dir():
        paths, _ = find_files(source, (".abc",), "ABC files", min_files=1)
    tunes = []
    for path in paths:
        found = [t for t in music.split_tunes(datasets.load_text(path)) if "\nK:" in f"\n{t}"]
        if not found:
            raise ValueError(f"{path}: expected tunes in ABC notation, found no line K: of a key.")
        tunes += found
    if len(tunes) < MIN_TUNES:
        raise ValueError(f"{source}: expected at least {MIN_TUNES} tunes, found {len(tunes)}.")
    return tunes
