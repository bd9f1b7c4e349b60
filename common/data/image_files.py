"""Reading one image from a file that may be anything."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")

# Decoders of these formats only: Pillow would also hand PostScript to an interpreter.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
_MAX_PIXELS = 89_478_485  # Pillow's own limit for an image that is not an attack
_GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")
_ORIENTATION_TAG = 0x0112
# What Pillow's decoders raise on damaged files.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class UnreadableImageError(Exception):
    """The file is missing, damaged, or no image of a known format; the message says which."""


@dataclass(frozen=True)
class ImageHeader:
    """``size`` is (H, W), as seen upright."""

    is_grey: bool
    size: tuple[int, int]


def read_header(path: str | Path) -> ImageHeader:
    """What an image says of itself, without decoding it.

    Raises:
        UnreadableImageError: it says nothing intelligible, or is too large to decode.
    """
    with _open(path) as image:
        width, height = image.size
        if image.getexif().get(_ORIENTATION_TAG, 1) in (5, 6, 7, 8):  # lies on its side
            width, height = height, width
        return ImageHeader(image.mode in _GREY_MODES, (height, width))


def decode_image(path: str | Path, shape: tuple[int, int, int], *, resize: bool) -> np.ndarray:
    """The pixels of an image, upright: uint8 (C, H, W) of the given ``shape``, with C 1 (grey) or 3 (RGB).

    Args:
        resize: bring it to ``shape`` (bilinear, antialiased); otherwise it must have that size.

    Raises:
        UnreadableImageError: the file is missing, damaged, of another size, or no image.
    """
    channels, height, width = shape
    with _open(path) as opened:
        image = _to_channels(ImageOps.exif_transpose(opened), channels)
        if resize:
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        if image.size != (width, height):
            raise UnreadableImageError(f"is {_size(image.size)}, not {_size((width, height))} pixels")
        return _planes(image)


def resize_images(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 (N, C, H, W) with C 1 or 3, resized to ``size`` (H, W) exactly as ``decode_image`` does it."""
    resized = np.empty((*images.shape[:2], *size), dtype=np.uint8)
    for index, planes in enumerate(images):
        image = Image.fromarray(planes[0] if len(planes) == 1 else np.ascontiguousarray(planes.transpose(1, 2, 0)))
        resized[index] = _planes(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return resized


@contextmanager
def _open(path: str | Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise UnreadableImageError(f"has {_size(image.size)} pixels, more than {_MAX_PIXELS:,}")
            yield image
    except _DECODER_ERRORS as error:
        raise UnreadableImageError(_reason(error)) from error


def _reason(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "is missing"
    if isinstance(error, Image.UnidentifiedImageError):
        return "is no image of a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


def _to_channels(image: Image.Image, channels: int) -> Image.Image:
    if image.mode == "F":
        raise UnreadableImageError("holds floating-point pixels")
    if image.mode.startswith("I"):
        # Sixteen bits a pixel. Pillow would clip everything above 255 to white.
        image = Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8))
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _planes(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _size(width_height: tuple[int, int]) -> str:
    return f"{width_height[0]}x{width_height[1]}"
