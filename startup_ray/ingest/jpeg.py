"""JPEG by libjpeg-turbo, without the copies and Python code of Pillow's reader; most of the web's images pass here.

    jpeg = Jpeg(body)                       # ValueError: not for us, Pillow may judge it
    jpeg.size, jpeg.orientation()           # from the header alone
    image = jpeg.load("RGB", shrink=4)      # a sixteenth of the pixels, shrunk while they are decoded

Strict: whatever libjpeg would only warn of is refused here. Pixels are those that Pillow's reader would give.
"""

from __future__ import annotations

import io
import re
from typing import Literal

import simplejpeg
from PIL import Image

MAX_SCANS = 100
"""Each scan of a progressive JPEG may pass over the whole image, and takes 36 bytes; encoders write about ten."""
# The marker, and a length that fits the number of components: neither occurs by chance in a film after the image.
_SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")  # ITU-T T.81, B.2.3
_START_OF_SCAN, _APP1 = 0xDA, 0xE1

_ORIENTATION = 0x0112
_COLORSPACES = {"L": "GRAY", "RGB": "RGB", "RGBA": "RGB"}


class Jpeg:
    """A body, its header read.

    Raises:
        ValueError: neither grey nor of three components, or a header that libjpeg complains of.
    """

    def __init__(self, body: bytes) -> None:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(body)
        if colorspace not in ("YCbCr", "Gray", "RGB"):
            raise ValueError(f"{colorspace} is left to Pillow")
        self._body = body
        self.size: tuple[int, int] = (width, height)
        self.shrinks = shrinks(self.size)

    def orientation(self) -> int:
        """Exif's, 1 (upright) to 8."""
        if not _has_app1(self._body):
            return 1
        with Image.open(io.BytesIO(self._body), formats=["JPEG"]) as image:
            return orientation(image)

    def load(self, mode: Literal["L", "RGB", "RGBA"], shrink: int) -> Image.Image:
        """L or RGB, `shrink` (1, 2, 4 or 8) times smaller, its last row and column perhaps part of a pixel.

        Raises:
            ValueError: libjpeg complains of the data, be it harmless.
        """
        width, height = (-(-side // shrink) for side in self.size)  # libjpeg-turbo: TJSCALED
        pixels = simplejpeg.decode_jpeg(self._body, _COLORSPACES[mode], min_height=height, min_width=width)
        return Image.fromarray(pixels[:, :, 0] if mode == "L" else pixels)


def has_too_many_scans(body: bytes) -> bool:
    """More than MAX_SCANS, anywhere in the body."""
    return len(_SCAN.findall(body)) > MAX_SCANS


def shrinks(size: tuple[int, int]) -> tuple[int, ...]:
    """What decoding may divide the sides of a JPEG by; the other factors, 8/7 to 8/3, mostly cost more than none."""
    return (8, 4, 2) if max(size) >= 8 else ()  # turbojpeg is told a size, which several factors give below 8 pixels


def orientation(image: Image.Image) -> int:
    """Exif's, 1 (upright) to 8, of any image that Pillow has opened."""
    try:
        value = image.getexif().get(_ORIENTATION)
    except Exception:  # noqa: BLE001 - broken Exif data is no reason to refuse the image
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _has_app1(body: bytes) -> bool:
    """Whether a segment that may hold Exif data or XMP stands before the pixels (ITU-T T.81, B.1.1)."""
    at = 2
    while at + 4 <= len(body) and body[at] == 0xFF and body[at + 1] != _START_OF_SCAN:
        if body[at + 1] == _APP1:
            return True
        fill = body[at + 1] == 0xFF
        at += 1 if fill else 2 + int.from_bytes(body[at + 2 : at + 4])
    return False
