"""Bodies to images of one size: uint8 [height, width, channels] in [0, 255].

    decoded = decode(body, options, max_pixels=50_000_000)
    decoded.pixels                # or decoded.status says why not

The format is told by the content, never by a name or a header. Size and pixel limit are judged from the image's
own header, before anything is decoded. Memory and time are bounded against images made to exhaust them: one large
image at a time, and a limit on the scans of a JPEG. `docs/images.md` says what becomes of each kind of image.

A JPEG goes through `jpeg.py`; what that refuses, and every other format, through Pillow.
"""

from __future__ import annotations

import io
import threading
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from startup_ray.errors import first_line
from startup_ray.ingest.jpeg import MAX_SCANS, Jpeg, has_too_many_scans, orientation, shrinks
from startup_ray.job import ImageOptions

# Pillow would warn at its own limit. Ours is judged before any pixel is decoded.
Image.MAX_IMAGE_PIXELS = None

LARGE_PIXELS = 4_000_000
ONE_LARGE = threading.BoundedSemaphore(1)
"""Held while an image above LARGE_PIXELS is decoded: a small body may become gigabytes of pixels in each thread."""

MIN_RATIO = 1.5
"""Pixels that shrinking decoders leave per pixel of the target, along each side, for the filter to work on.

With less the filter blurs: a PSNR of 31 to 38 dB against exact area averages at 1.0 to 1.2, of 37 to 46 at 1.5 to 3.
"""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each value of the Exif tag Orientation (CIPA DC-008, 4.6.4)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """An image, or why there is none; `pixels` is there exactly when `status` is ok."""

    status: str
    reason: str = ""
    width: int = 0
    """Of the original, in pixels, after turning it upright."""
    height: int = 0
    pixels: NDArray[np.uint8] | None = None


class Source(Protocol):
    """A body whose header is read; `orientation` and `load` may decode it."""

    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def shrinks(self) -> tuple[int, ...]: ...
    def orientation(self) -> int: ...
    def load(self, mode: Literal["L", "RGB"], shrink: int) -> Image.Image: ...


def decode(body: bytes, options: ImageOptions, max_pixels: int) -> Decoded:
    """Body -> uint8 [height, width, channels] of the size that the options name.

    States: ok, not_image, corrupt, too_many_pixels, too_small.
    """
    kind = sniff(body)
    if kind is None:
        return Decoded(status="not_image", reason=f"begins with {body[:16]!r}")
    if kind == "JPEG" and has_too_many_scans(body):
        return Decoded(status="corrupt", reason=f"more than {MAX_SCANS} scans")
    try:
        if kind == "JPEG":
            with suppress(ValueError):  # harmless or not: Pillow tells
                return _decode(Jpeg(body), options, max_pixels)
        with Image.open(io.BytesIO(body), formats=[kind]) as image:
            return _decode(_Opened(image, shrinks(image.size) if kind == "JPEG" else ()), options, max_pixels)
    except Exception as error:  # noqa: BLE001 - decoders raise whatever hostile bytes lead them to
        return Decoded(status="corrupt", reason=first_line(error)[:200])


def sniff(body: bytes) -> str | None:
    """Pillow's name of the format, by its first bytes (WHATWG MIME Sniffing, section 6.1)."""
    if body.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if body.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if body.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if body.startswith(b"RIFF") and body[8:12] == b"WEBP":
        return "WEBP"
    return "BMP" if body.startswith(b"BM") else None


class _Opened:
    """A source that Pillow has opened."""

    def __init__(self, image: Image.Image, shrinks: tuple[int, ...]) -> None:
        self._image = image
        self.size, self.shrinks = image.size, shrinks

    def orientation(self) -> int:
        return orientation(self._image)  # of a PNG it may stand behind the pixels

    def load(self, mode: Literal["L", "RGB"], shrink: int) -> Image.Image:
        width, height = self.size
        self._image.draft(mode, (max(width // shrink, 1), max(height // shrink, 1)))  # of a JPEG; others do nothing
        self._image.load()
        return _flat(self._image, mode)


def _decode(source: Source, options: ImageOptions, max_pixels: int) -> Decoded:
    width, height = source.size
    if width * height > max_pixels:
        return Decoded(status="too_many_pixels", reason=f"{width}x{height}, {max_pixels} pixels allowed")
    if min(width, height) < 1:
        return Decoded(status="too_small", reason=f"{width}x{height}")
    with ONE_LARGE if width * height > LARGE_PIXELS else nullcontext():
        turn = source.orientation()
        pixels = np.asarray(_render(source, turn, options), np.uint8).reshape(*options.size, options.channels)
    if turn > 4:  # lies on its side
        width, height = height, width
    return Decoded(status="ok", width=width, height=height, pixels=pixels)


def _render(source: Source, turn: int, options: ImageOptions) -> Image.Image:
    """Decode, resize, turn upright and pad, in this order: each step leaves less to the next."""
    height, width = options.size
    fit = _fit(source.size, (height, width) if turn > 4 else (width, height), options.resize)
    shrink = next((s for s in source.shrinks if fit.allows(s)), 1)
    decoded = source.load("L" if options.channels == 1 else "RGB", shrink)
    left, top, right, bottom = (edge / shrink for edge in fit.box)
    kernel = Image.Resampling.HAMMING if fit.ratio >= 1 else Image.Resampling.LANCZOS
    image = decoded.resize(fit.size, kernel, box=(left, top, right, bottom), reducing_gap=2.0)
    if turn > 1:
        image = image.transpose(_TURNS[turn])
    if image.size == (width, height):
        return image
    canvas = Image.new(image.mode, (width, height))
    canvas.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return canvas


@dataclass(frozen=True, kw_only=True, slots=True)
class _Fit:
    """Which part of an image becomes which size."""

    box: tuple[float, float, float, float]
    """Left, top, right and bottom, in pixels of the original and parts of them."""
    size: tuple[int, int]
    """Width and height of the result, in pixels."""

    @property
    def ratio(self) -> float:
        """Pixels of the original per pixel of the result, along the side where they are fewer."""
        left, top, right, bottom = self.box
        return min((right - left) / self.size[0], (bottom - top) / self.size[1])

    def allows(self, shrink: int) -> bool:
        """Whether an image shrunk while it is decoded has pixels enough, or just those that are wanted."""
        left, top, right, bottom = self.box
        exact = (right - left, bottom - top) == (self.size[0] * shrink, self.size[1] * shrink)
        return self.ratio >= MIN_RATIO * shrink or (exact and left % shrink == 0 and top % shrink == 0)


def _fit(size: tuple[int, int], target: tuple[int, int], mode: str) -> _Fit:
    """Widths and heights: `center_crop` cuts to the target's aspect ratio, `border` keeps all within the target."""
    ratios = size[0] / target[0], size[1] / target[1]
    if mode == "center_crop":
        ratio = min(ratios)
        cut = [max(side - ratio * wanted, 0.0) / 2 for side, wanted in zip(size, target, strict=True)]
        return _Fit(box=(cut[0], cut[1], size[0] - cut[0], size[1] - cut[1]), size=target)
    ratio = max(ratios)
    width, height = (min(max(round(side / ratio), 1), most) for side, most in zip(size, target, strict=True))
    return _Fit(box=(0.0, 0.0, float(size[0]), float(size[1])), size=(width, height))


def _flat(image: Image.Image, mode: str) -> Image.Image:
    """Any mode of Pillow -> L or RGB, transparent parts over white."""
    if image.mode == mode and not image.has_transparency_data:
        return image
    if image.mode.startswith("I"):  # 16 bits of grey, which `convert` would clip instead of scale
        wide = np.asarray(image).clip(0, 65_535).astype(np.uint32)
        wide += 128  # in place, and whole numbers: as floats a large image would take eight bytes a pixel
        wide //= 257
        return Image.fromarray(wide.astype(np.uint8)).convert(mode)
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        white = Image.new("RGBA", clear.size, "white")
        return Image.alpha_composite(white, clear).convert(mode)
    return image.convert(mode)
