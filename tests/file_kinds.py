"""Kinds of files of users: how each is written, and what becomes of it.

`tests/test_file_kinds.py` loads each file. Run `python tests/file_kinds.py` for the table in
`data/README.md`.
"""
# ruff: noqa: E501 -- one line for each kind

import io
import os
import struct
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from keras_genai import datasets
from keras_genai.audio import load_wav


class FileKind(NamedTuple):
    """A kind of file.

    Attributes:
        data: String. What the file holds.
        file: String. The kind, in words.
        write: Function of a new folder that writes the file and returns the path to load.
        load: Function of the path.
        result: String. How the file is read, or part of the error.
        value: The right value, or `None` if the file is refused.
        tolerance: Float. Largest deviation from the value.
    """

    data: str
    file: str
    write: Any
    load: Any
    result: str
    value: Any = None
    tolerance: float = 0.0


# Images: blocks of 8 x 8 pixels, which JPEG keeps.

BLOCKS = np.kron(np.array([[0, 60, 120], [180, 200, 250]]), np.ones((8, 8))).astype("uint8")
INK = BLOCKS == 60  # a square of ink on a transparent ground


def encode(image, image_format, **options) -> bytes:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def ten_files(suffix, data):
    """Return a function that writes ten equal files to a folder."""

    def write(folder):
        for i in range(10):
            (folder / f"{i}{suffix}").write_bytes(data)
        return folder

    return write


def ten_paths(create):
    """Return a function that makes ten paths by `create(path)`."""

    def write(folder):
        for i in range(10):
            create(folder / f"{i}.png")
        return folder

    return write


def load_first(size=BLOCKS.shape, **options):
    """Return a function that loads the first image of a folder."""
    return lambda folder: datasets.load_image_folder(folder, size, **options)[0][0][0]


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def transparent(mode, ink=0):
    """An image of black or white ink on a transparent ground."""
    image = np.full((*BLOCKS.shape, 4), ink, "uint8")
    image[..., 3] = 255 * INK
    image = Image.fromarray(image)
    return image.quantize(8) if mode == "P" else image.convert(mode)


def color_key():
    """An RGB image of black ink in which red is transparent."""
    image = np.where(INK[..., None], 0, [255, 0, 0]).astype("uint8")
    return encode(image, "PNG", transparency=(255, 0, 0))


def images(file, suffix, data, result, value=BLOCKS, tolerance=0, load=None):
    return FileKind(
        "image", file, ten_files(suffix, data), load or load_first(), result, value, tolerance
    )


def refused_image(file, suffix, data, message):
    return images(file, suffix, data, message, value=None)


RGB = np.repeat(BLOCKS[..., None], 3, axis=-1)
BLACK_ON_WHITE = np.where(INK, 0, 255)
PNG = encode(BLOCKS, "PNG")
JPEG = encode(BLOCKS, "JPEG", quality=95)

IMAGES = [
    images("PNG, 8 bits, grayscale", ".png", PNG, "as it is"),
    images("PNG with a palette", ".png", encode(Image.fromarray(RGB).quantize(8), "PNG"), "its colors"),
    images("PNG, 1 bit", ".png", encode(Image.fromarray(BLOCKS > 99), "PNG"), "0 and 255", 255 * (BLOCKS > 99)),
    images("JPEG, grayscale", ".jpg", JPEG, "as it is", tolerance=2),
    images("JPEG, CMYK", ".jpeg", encode(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=95), "RGB, then gray", tolerance=3),
    images("WebP", ".webp", encode(RGB, "WEBP", lossless=True), "as it is"),
    images("TIFF, LZW", ".tif", encode(BLOCKS, "TIFF", compression="tiff_lzw"), "as it is"),
    images("GIF", ".gif", encode(BLOCKS, "GIF"), "as it is"),
    images("BMP", ".bmp", encode(RGB, "BMP"), "as it is"),
    images("suffix in capitals", ".PNG", PNG, "as it is"),
    images("JPEG with the suffix of PNG", ".png", JPEG, "by its content", tolerance=2),
    images("color, `channels=3`", ".png", encode(RGB * np.array([1, 0, 0], "uint8"), "PNG"), "RGB", RGB * np.array([1, 0, 0]), load=load_first(channels=3)),
    images("EXIF orientation (JPEG)", ".jpg", encode(BLOCKS, "JPEG", quality=95, exif=exif(6)), "turned", np.rot90(BLOCKS, -1), 2, load_first((24, 16))),
    images("EXIF orientation (WebP)", ".webp", encode(RGB, "WEBP", lossless=True, exif=exif(3)), "turned", np.rot90(BLOCKS, 2)),
    images("transparency (RGBA)", ".png", encode(transparent("RGBA"), "PNG"), "on white", BLACK_ON_WHITE),
    images("transparency (LA)", ".png", encode(transparent("LA"), "PNG"), "on white", BLACK_ON_WHITE),
    images("transparency (palette)", ".png", encode(transparent("P"), "PNG"), "on white", BLACK_ON_WHITE),
    images("transparency (GIF)", ".gif", encode(Image.fromarray(BLACK_ON_WHITE.astype("uint8")).convert("P"), "GIF", transparency=255), "on white", BLACK_ON_WHITE),
    images("transparency (color key)", ".png", color_key(), "on white", BLACK_ON_WHITE),
    images("transparency, `background=0`", ".png", encode(transparent("RGBA", 255), "PNG"), "on black", 255 * INK, load=load_first(background=0)),
    refused_image("white ink, transparent ground", ".png", encode(transparent("RGBA", 255), "PNG"), "pass background=0"),
    images("checkerboard of single pixels, shrunk", ".png", encode(255 * (np.indices((64, 64)).sum(0) % 2 == 0).astype("uint8"), "PNG"), "the mean of the area", np.full((8, 8), 127.5), 0.5, load_first(8)),
    images("JPEG with a preview (MPO)", ".jpg", encode(RGB, "MPO", quality=95, subsampling=0, save_all=True, append_images=[Image.new("RGB", (24, 16))]), "without the preview", tolerance=2),
    refused_image("animated GIF", ".gif", encode(BLOCKS, "GIF", save_all=True, append_images=[Image.fromarray(255 - BLOCKS)]), "expected one image, got 2 frames"),
    refused_image("TIFF of several pages", ".tiff", encode(BLOCKS, "TIFF", save_all=True, append_images=[Image.fromarray(255 - BLOCKS)]), "expected one image, got 2 frames"),
    refused_image("16 bits, grayscale", ".png", encode(BLOCKS.astype("uint16"), "PNG"), "expected 8 bits per pixel"),
    refused_image("floating-point TIFF", ".tif", encode(BLOCKS.astype("float32"), "TIFF"), "expected 8 bits per pixel"),
    refused_image("more than 2^26 pixels, by the header", ".png", encode(Image.new("1", (9000, 9000)), "PNG"), "expected at most 67,108,864 pixels, got 9000 × 9000"),
    refused_image("decompression bomb", ".png", encode(Image.new("1", (20000, 20000)), "PNG"), "expected at most 67,108,864 pixels"),
    refused_image("cut short", ".png", PNG[:-60], "cannot be read as an image"),
    refused_image("empty file", ".png", b"", "an empty file"),
    refused_image("text with the suffix of an image", ".png", b"not an image", "not a PNG, JPEG, WEBP, TIFF, GIF, BMP file"),
    FileKind("image", "FIFO", ten_paths(os.mkfifo), load_first(), "expected a file, got a FIFO"),
    FileKind("image", "link to a device", ten_paths(lambda path: path.symlink_to("/dev/zero")), load_first(), "expected a file, got a device"),
    FileKind("image", "broken link", ten_paths(lambda path: path.symlink_to("nowhere.png")), load_first(), "cannot be read (No such file or directory)"),
]  # fmt: skip


# Sounds: 0, 1/2 and -1.

GUID = bytes.fromhex("0000 0000 1000 8000 00aa 0038 9b71")
SAMPLES = [0.0, 0.5, -1.0]
INT16 = np.array([0, 16384, -32768], "<i2").tobytes()
INT24 = b"\0\0\0\0\0\x40\0\0\x80"
INT32 = np.array([0, 2**30, -(2**31)], "<i4").tobytes()


def chunk(name, data, size=None):
    return name + struct.pack("<I", len(data) if size is None else size) + data


def wav(
    data, bits=16, tag=1, channels=1, rate=8000, frame=None, before=b"", after=b"", size=None,
    riff_size=None, extension=b"",
):  # fmt: skip
    """Return a WAV file; sizes are those of the data unless they are given."""
    frame = channels * bits // 8 if frame is None else frame
    form = struct.pack("<HHIIHH", tag, channels, rate, rate * frame, frame, bits) + extension
    body = b"WAVE" + chunk(b"fmt ", form) + before + chunk(b"data", data, size) + after
    return chunk(b"RIFF", body, riff_size)


def extensible(tag, valid_bits):
    return struct.pack("<HHIH", 22, valid_bits, 0, tag) + GUID


def soundfile_bytes(repeats=1, **options):
    """Return a function that writes a file of another encoding with soundfile."""

    def write(folder):
        import soundfile

        soundfile.write(folder / "a.wav", np.tile(SAMPLES, repeats), 8000, **options)
        return folder / "a.wav"

    return write


def cut_short_flac(folder):
    path = soundfile_bytes(format="FLAC", repeats=10_000)(folder)
    path.write_bytes(path.read_bytes()[:-200])
    return path


def one_file(name, data):
    def write(folder):
        (folder / name).write_bytes(data)
        return folder / name

    return write


def sounds(file, data, result="as it is", value=SAMPLES, tolerance=0):
    load = lambda path: load_wav(path)[0]  # noqa: E731
    return FileKind("sound", file, one_file("a.wav", data), load, result, value, tolerance)


def refused_sound(file, data, message):
    return sounds(file, data, message, value=None)


STREAM = 2**32 - 1
SOUNDS = [
    sounds("WAV, 8 bits", wav(b"\x80\xc0\0", 8)),
    sounds("WAV, 16 bits", wav(INT16)),
    sounds("WAV, 24 bits", wav(INT24, 24)),
    sounds("WAV, 32 bits", wav(INT32, 32)),
    sounds("WAV, 12 bits in 2 bytes", wav(INT16, 12, frame=2)),
    sounds("WAV, 32-bit floating point", wav(np.array(SAMPLES, "<f4").tobytes(), 32, 3)),
    sounds("WAV, 64-bit floating point", wav(np.array(SAMPLES, "<f8").tobytes(), 64, 3)),
    sounds("floating point above 1", wav(np.array([1.5], "<f4").tobytes(), 32, 3), "as it is: above 1", [1.5]),
    sounds("WAVE_FORMAT_EXTENSIBLE, 16 bits", wav(INT16, 16, 0xFFFE, extension=extensible(1, 16))),
    sounds("WAVE_FORMAT_EXTENSIBLE, 24 bits in 4 bytes", wav(INT32, 32, 0xFFFE, extension=extensible(1, 24))),
    sounds("WAVE_FORMAT_EXTENSIBLE, floating point", wav(np.array(SAMPLES, "<f4").tobytes(), 32, 0xFFFE, extension=extensible(3, 32))),
    sounds("two channels", wav(np.array([[0, 16384], [-16384, -16384]], "<i2").tobytes(), channels=2), "their mean", [0.25, -0.5]),
    sounds("other chunks before and after", wav(INT16, before=chunk(b"LIST", b"INFO"), after=chunk(b"LIST", b"INFO"))),
    sounds("chunk of odd size, padded", wav(INT16, before=chunk(b"LIST", b"INFO\0") + b"\0")),
    sounds("chunk of odd size, not padded", wav(INT16, before=chunk(b"LIST", b"INFO\0"))),
    sounds("stream, sizes 2^32 - 1", wav(INT16, size=STREAM, riff_size=STREAM), "to the end of the file"),
    sounds("stream, sizes 0", wav(INT16, size=0, riff_size=0), "to the end of the file"),
    sounds("stream, sizes of an empty file", wav(INT16, size=0, riff_size=36), "to the end of the file"),
    FileKind("sound", "WAV, mu-law", soundfile_bytes(subtype="ULAW"), lambda path: load_wav(path)[0], "by soundfile", SAMPLES, 0.03),
    FileKind("sound", "RF64", soundfile_bytes(format="RF64", subtype="PCM_16"), lambda path: load_wav(path)[0], "by soundfile", SAMPLES, 1e-4),
    FileKind("sound", "FLAC with the suffix of WAV", soundfile_bytes(format="FLAC"), lambda path: load_wav(path)[0], "by soundfile", SAMPLES, 1e-4),
    FileKind("sound", "FLAC, cut short", cut_short_flac, lambda path: load_wav(path)[0], "cannot be read as a WAV file"),
    refused_sound("sample rate of 0", wav(INT16, rate=0), "expected a sample rate of at least 1, got 0"),
    refused_sound("cut short", wav(INT16)[:-1], "the file was cut short"),
    refused_sound("stream, cut short", wav(INT16[:-1], size=STREAM), "expected a multiple of 2 bytes of samples, got 5"),
    refused_sound("data beyond the file", wav(INT16, size=10**9), "expected 1000000000 bytes, but the file was cut short"),
    refused_sound("chunk beyond the file", wav(INT16, before=chunk(b"LIST", b"", 10**9)), "the file was cut short"),
    refused_sound("no channels", wav(INT16, channels=0, frame=2), "0 channels of 16 bits in 2 bytes"),
    refused_sound("sizes that contradict each other", wav(INT16, frame=3), "1 channels of 16 bits in 3 bytes"),
    refused_sound("data before the format", b"RIFF\0\0\0\0WAVE" + chunk(b"data", INT16), "expected the format before the data"),
    refused_sound("NaN", wav(np.array([np.nan], "<f4").tobytes(), 32, 3), "expected finite samples, got NaN or infinity"),
    refused_sound("no samples", wav(b""), "expected a sound, got an empty file"),
    refused_sound("text with the suffix of WAV", b"not a sound", "cannot be read as a WAV file"),
]  # fmt: skip


# Texts and pairs of sentences.


def texts(file, data, result, value=None):
    return FileKind("text", file, one_file("a.txt", data), datasets.load_text, result, value)


def pairs(file, data, result, value=None):
    return FileKind("pairs", file, one_file("a.tsv", data), datasets.load_pairs, result, value)


TEXT = "é\u2028漢😀\n"
TEXTS = [
    texts("UTF-8", TEXT.encode(), "as it is", TEXT),
    texts("UTF-8 with a byte order mark", TEXT.encode("utf-8-sig"), "without the mark", TEXT),
    texts("UTF-16 with a byte order mark", TEXT.encode("utf-16"), "as it is", TEXT),
    texts("line ends of Windows or old Macs", b"a\r\nb\rc\n", "as line feeds", "a\nb\nc\n"),
    texts("UTF-16 without a mark", TEXT.encode("utf-16-le")[2:], "cannot be read as a text in UTF-8"),
    texts("UTF-32", TEXT.encode("utf-32"), "cannot be read as a text in UTF-8"),
    texts("Latin-1", "é".encode("latin-1"), "cannot be read as a text in UTF-8"),
    texts("surrogates", "a\ud800".encode("utf-8", "surrogatepass"), "cannot be read as a text in UTF-8"),
    texts("surrogate in UTF-16", "a\ud800".encode("utf-16", "surrogatepass"), "cannot be read as a text in UTF-8"),
    texts("NUL characters", b"a\nb\0c\n", "a NUL character in line 2"),
    texts("white space only", b" \n", "expected a text, got an empty file"),
    FileKind("text", "folder", lambda folder: folder, datasets.load_text, "expected a file, got a folder"),
    FileKind("text", "device", lambda folder: "/dev/zero", datasets.load_text, "expected a file, got a device"),
    FileKind("text", "FIFO", lambda folder: os.mkfifo(folder / "a") or folder / "a", datasets.load_text, "expected a file, got a FIFO"),
    pairs("a tab, line ends of Windows", b"a b\tc\r\n\r\nd\te\r\n", "as it is", [("a b", "c"), ("d", "e")]),
    pairs("UTF-16 with a byte order mark", "a\t漢\n".encode("utf-16"), "as it is", [("a", "漢")]),
    pairs("empty column", b"a\tb\nc\t\n", "expected two sentences and a tab in line 2"),
    pairs("third column", b"a\tb\n\nc\td\te\n", "expected two sentences and a tab in line 3"),
    pairs("no tab", b"a b\n", "expected two sentences and a tab in line 1"),
]  # fmt: skip


# Series.


def series(file, text, result, value=None, **options):
    data = text if isinstance(text, bytes) else text.encode()
    load = lambda path: datasets.load_series(path, **options)  # noqa: E731
    return FileKind("series", file, one_file("a.csv", data), load, result, value, 1e-6)


AS_IT_IS = "as it is"
SERIES = [
    series("commas, decimal points", "date,ppm\n2020-01-01,315.71\n2020-01-02,-3e1\n", AS_IT_IS, [315.71, -30]),
    series("semicolons, decimal commas", "date;ppm\n2020-01-01;315,71\n2020-01-02;316,4\n", AS_IT_IS, [315.71, 316.4]),
    series("tabs, UTF-16, line ends of Windows", "date\tppm\r\n1\t315,71\r\n2\t7\r\n".encode("utf-16"), AS_IT_IS, [315.71, 7]),
    series("byte order mark, one column", "ppm\n1\n2\n".encode("utf-8-sig"), AS_IT_IS, [1, 2]),
    series("thousands, quoted", 'd,v\n1,"1,234.5"\n2,"1,234"\n', AS_IT_IS, [1234.5, 1234]),
    series("thousands with points", "d;v\n1;1.234,5\n2;1.234\n", AS_IT_IS, [1234.5, 1234]),
    series("thousands with no-break spaces", "d;v\n1;1\u202f234,5\n2;7\n", AS_IT_IS, [1234.5, 7]),
    series("one column, thousands or decimals", "v\n1.234\n999\n", "line 2: '1.234' is 1.234 or 1234; pass decimal, or write 1234 or 1.2340"),
    series("one value, repeated", "v\n0.1\n0.1\n", AS_IT_IS, [0.1, 0.1]),
    series("thousands or decimals", 'd,v\n1,999\n2,"1,234"\n', "line 3: '1,234' is 1234 or 1.234; pass decimal, or write 1234 or 1,2340"),
    series("the same, points", "d;v\n1;999\n2;1.234\n", "line 3: '1.234' is 1.234 or 1234; pass decimal, or write 1234 or 1.2340"),
    series("the same, as the error says", "d;v\n1;999\n2;1.2340\n", AS_IT_IS, [999, 1.234]),
    series("the same, without the sign", "d;v\n1;999\n2;1234\n", AS_IT_IS, [999, 1234]),
    series('the same, `decimal="."`', 'd,v\n1,999\n2,"1,234"\n', "thousands", [999, 1234], decimal="."),
    series('the same, `decimal=","`', 'd,v\n1,999\n2,"1,234"\n', "decimals", [999, 1.234], decimal=","),
    series("thousands, not quoted", "date,sales\n2020,1,234\n", "line 2: number of fields: expected 2, as in line 1, got 3"),
    series("the same, no heading", "2020,1,234\n2021,1,456\n", "line 1: more than two columns without a heading"),
    series("decimal commas and points", "d;v\n1;1,5\n2;2.5\n", "line 3: expected a number, got '2.5'"),
    series("no heading, dates", "2020-01-01,3.5\n2020-01-02,4.5\n", AS_IT_IS, [3.5, 4.5]),
    series("no heading, one column", "3.5\n4.5\n", AS_IT_IS, [3.5, 4.5]),
    series("no heading, decimal commas or two columns", "315,71\n316,45\n", "line 1: two columns, or numbers with a comma?"),
    series("no heading, no digits in the first column", "Jan,5\nFeb,6\n", "line 1: a heading or values?"),
    series("no heading, no number in the first row", "2020-01-01,n/a\n2020-01-02,5\n", "line 1: expected a number, got 'n/a'"),
    series("heading that is a year", "month,2020\n1,5\n2,6\n", "as a heading", [5, 6]),
    series("empty fields", "year,v\n1,\n2,5\n3,\n4,7\n5,\n", "interpolated; dropped at both ends", [5, 6, 7]),
    series("empty rows above and below", "\n,\nyear,v\n1,5\n2,6\n,\n\n", "dropped", [5, 6]),
    series("empty row within the table", "year,v\n1,5\n\n3,6\n", "line 3: an empty row within the table"),
    series("row without its value", "year,v\n1999,5\n2000\n2001,6\n", "line 3: number of fields: expected 2, as in line 1, got 1"),
    series("row with a comma too many", "year,v\n1999,5\n2000,6,\n", "line 3: number of fields: expected 2, as in line 1, got 3"),
    series("dates that decrease", "date,v\n2020-01-02,5\n2020-01-01,6\n", "line 3: 2020-01-01 after 2020-01-02; sort the rows by date"),
    series("text or date in the last column", "v,date\n5,2020-01-01\n", "line 2: expected a number, got '2020-01-01'"),
    series("NaN", "d,v\n1,2\n2,nan\n", "line 3: expected a number, got 'nan'"),
    series("infinity", "d,v\n1,2\n2,-inf\n", "line 3: expected a number, got '-inf'"),
    series("beyond float32", "d,v\n1,2\n2,1e39\n", "line 3: expected a number within float32, got '1e39'"),
    series("below float32", "d,v\n1,2\n2,1e-60\n", "line 3: expected a number within float32, got '1e-60'"),
    series("finer than float32", "d,v\n1,1700000000\n2,1700000001\n", "float32 rounds values by 1, in a range of 1"),
    series("quote that is not closed", 'd,v\n1,"5\n2,6\n', "line 3: unexpected end of data"),
    series("field of 140 kB", "d,v\n1," + "1" * 140_000, "line 2: field larger than field limit"),
    series("no numbers", "d,v\n1,\n", "numbers in its last column (found none)"),
    series("empty file", "", "expected a CSV file with numbers"),
    series("NUL characters", b"d,v\n1,\0", "a NUL character in line 2"),
]  # fmt: skip

FILE_KINDS = [*IMAGES, *SOUNDS, *TEXTS, *SERIES]


def render() -> str:
    """Return the table as Markdown."""
    lines = ["| data | file | read as | refused with |", "|---|---|---|---|"]
    for kind in FILE_KINDS:
        read, refused = (kind.result, "") if kind.value is not None else ("", f"`{kind.result}`")
        lines.append(f"| {kind.data} | {kind.file} | {read} | {refused} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(render(), end="")
