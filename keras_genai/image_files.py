"""Image files: orientation, transparency, conversion and resizing, by Pillow."""

import contextlib
import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from keras_genai.files import file_status, read_bytes
from keras_genai.validation import check_size

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".tif", ".tiff", ".gif", ".bmp")
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")  # 8 bits or fewer
MAX_PIXELS = 2**26


def to_image_size(image_size) -> tuple[int, int]:
    """Return an image size as `(height, width)`; an int is both.

    Raises:
        ValueError: for anything but one or two whole numbers of at least 1, or more than 2^26
            pixels.
    """
    pair = image_size if isinstance(image_size, (list, tuple)) else (image_size, image_size)
    if len(pair) != 2:
        raise ValueError(f"image_size: expected an int or (height, width), got {image_size!r}.")
    height, width = (check_size("image_size", size) for size in pair)
    if height * width > MAX_PIXELS:
        raise ValueError(f"image_size: expected at most {MAX_PIXELS:,} pixels, got {image_size!r}.")
    return height, width


def read_image(path, image_size: tuple[int, int], channels: int, background: int) -> np.ndarray:
    """Read an image file as viewers show it, and resize it.

    Args:
        path: String or path. A PNG, JPEG, WebP, TIFF, GIF or BMP file, whatever its suffix.
        image_size: Tuple of ints, `(height, width)`.
        channels: Int, 1 for grayscale or 3 for RGB.
        background: Int from 0 to 255. Gray level behind transparent pixels.

    Returns:
        A uint8 array `(height, width, channels)`.

    Raises:
        ValueError: for a file of another kind, damaged, of several frames, of more than 8 bits per
            channel, or of more than 2^26 pixels. The number of pixels is that of the header: such
            an image is not decoded.
    """
    data = read_bytes(path)
    with _naming(path):
        image = _open_image(io.BytesIO(data))
        image = _flatten(ImageOps.exif_transpose(image), background)
        # CMYK and YCbCr have no direct conversion to grayscale; L and 1 need no color.
        image = image if image.mode in ("1", "L") else image.convert("RGB")
        image = _resize(image.convert("L" if channels == 1 else "RGB"), *image_size)
    return np.asarray(image, "uint8").reshape(*image_size, channels)


def check_image_header(path) -> None:
    """Raise ValueError for a file that `read_image` would refuse by its header."""
    file_status(path)
    with _naming(path), open(path, "rb") as file:
        _open_image(file)


def _open_image(file) -> Image.Image:
    """Return an image that is not decoded yet, after checking its header."""
    if not file.read(1):
        raise ValueError("an empty file")
    file.seek(0)
    with warnings.catch_warnings():  # `_check_header` has the lower limit
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(file, formats=FORMATS)
    _check_header(image)
    return image


@contextlib.contextmanager
def _naming(path):
    """Context in which every error of Pillow names the file."""
    try:
        yield
    except UnidentifiedImageError as error:
        raise ValueError(
            f"{path}: cannot be read as an image (not a {', '.join(FORMATS)} file)."
        ) from error
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{path}: cannot be read as an image (expected at most {MAX_PIXELS:,} pixels)."
        ) from error
    except Exception as error:  # decoders raise errors of many types for damaged files
        raise ValueError(f"{path}: cannot be read as an image ({error}).") from error


def _check_header(image) -> None:
    """Raise ValueError for an image that is too large, of several frames, or of another depth."""
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(
            f"expected at most {MAX_PIXELS:,} pixels, got {image.width} × {image.height}"
        )
    if image.mode not in MODES:
        raise ValueError(f"expected 8 bits per pixel, got Pillow's mode {image.mode}")
    # Phones store a preview as the second frame of a JPEG file (MPO).
    num_frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if num_frames > 1:
        raise ValueError(f"expected one image, got {num_frames} frames")


def _flatten(image, background: int):
    """Return an image without transparency, on a gray background."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image
    image = image.convert("RGBA")
    ground = Image.new("RGBA", image.size, (background, background, background, 255))
    flat = Image.alpha_composite(ground, image).convert("RGB")
    if np.ptp(np.asarray(image.getchannel("A"))) > 0 and np.ptp(np.asarray(flat)) == 0:
        raise ValueError(
            f"its visible and its transparent pixels are both {background}; "
            f"pass background={255 - background}"
        )
    return flat


def _resize(image, height: int, width: int):
    """Resize by the mean over the area of each new pixel, or linearly if the image is enlarged."""
    if (width, height) == image.size:
        return image
    smaller = height <= image.height and width <= image.width
    method = Image.Resampling.BOX if smaller else Image.Resampling.BILINEAR
    return image.resize((width, height), method)
