"""Bodies to images: uint8 [height, width, channels] in [0, 255].

    decoded = decode(body, options, max_pixels=50_000_000)
    decoded.pixels                # or decoded.status says why not

The format is told by the content, never by a name or a header. Size and pixel limit are judged from the image's
own header, before anything is decoded. Memory and time are bounded against images made to exhaust them: one large
image at a time, and limits on the scans of a JPEG and on the tiles of a TIFF. `docs/images.md` says what becomes of
each kind of image.

A JPEG goes through `jpeg.py`; what that refuses, and every other format, through Pillow.
"""

from __future__ import annotations

import io
import logging
import threading
import warnings
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import AvifImagePlugin, Image, UnidentifiedImageError

from startup_ray.errors import first_line
from startup_ray.ingest.blur import blur, turned_back
from startup_ray.ingest.encode import MAX_JPEG_SIDE
from startup_ray.ingest.formats import sniff as sniff
from startup_ray.ingest.geometry import Cut, cut_for
from startup_ray.ingest.jpeg import MAX_SCANS, Jpeg, has_too_many_scans, orientation, shrinks
from startup_ray.ingest.tiff import flaw
from startup_ray.job import ImageOptions
from startup_ray.regions import Box

# Pillow would warn at its own limit. Ours is judged before any pixel is decoded.
Image.MAX_IMAGE_PIXELS = None
# Several images are decoded at once already.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
# A tag that Pillow warns of is left out, and what it cannot read at all ends as a state: a line for each is noise.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)

LARGE_PIXELS = 4_000_000
ONE_LARGE = threading.BoundedSemaphore(1)
"""Held while an image above LARGE_PIXELS, or one that may be, is decoded: a small body may become gigabytes of pixels
in each thread."""

Mode = Literal["L", "RGB", "RGBA"]
_MODES: dict[int, Mode] = {1: "L", 3: "RGB", 4: "RGBA"}
_NOT_READ = {"I": "integers of unknown range", "F": "floats of unknown range", "LAB": "CIELAB colours"}
"""Modes of TIFFs; of the first two nobody says what is white."""

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
    def load(self, mode: Mode, shrink: int) -> Image.Image:
        """In this mode; RGB will do for RGBA if nothing is transparent."""
        ...


def decode(body: bytes, options: ImageOptions, max_pixels: int, boxes: Sequence[Box] = ()) -> Decoded:
    """Body -> uint8 [height, width, channels] as the options say.

    States: ok, not_image, corrupt, too_many_pixels, too_small.

    Args:
        boxes: regions of the upright image that are blurred, before any pixel is mixed with those outside.
    """
    kind = sniff(body)
    if kind is None:
        return Decoded(status="not_image", reason=f"begins with {body[:16]!r}")
    if kind == "JPEG" and has_too_many_scans(body):
        return Decoded(status="corrupt", reason=f"more than {MAX_SCANS} scans")
    if kind == "TIFF" and (reason := flaw(body)):
        return Decoded(status="corrupt", reason=reason)
    try:
        if kind == "JPEG":
            with suppress(ValueError):  # harmless or not: Pillow tells
                return _decode(Jpeg(body), options, max_pixels, boxes)
        with Image.open(io.BytesIO(body), formats=[kind]) as image:
            if kind == "TIFF" and image.mode in _NOT_READ:
                return Decoded(status="not_image", reason=f"TIFF of {_NOT_READ[image.mode]}")
            # An AVIF's header may say less than its film holds, and libavif knows no limit but one of its own.
            return _decode(_Opened(image, kind), options, max_pixels, boxes, is_large=kind == "AVIF")
    except UnidentifiedImageError:  # its words name a place in memory
        return Decoded(status="corrupt", reason=f"no {kind} that can be read")
    except Exception as error:  # noqa: BLE001 - decoders raise whatever hostile bytes lead them to
        return Decoded(status="corrupt", reason=first_line(error)[:200])


class _Opened:
    """A source that Pillow has opened."""

    def __init__(self, image: Image.Image, kind: str) -> None:
        self._image, self._kind = image, kind
        self.size = image.size
        self.shrinks = shrinks(image.size) if kind == "JPEG" else ()

    def orientation(self) -> int:
        if self._kind == "TIFF":  # Pillow turns these itself, by more tags than one
            self._image.load()
            self.size = self._image.size
            return 1
        return orientation(self._image)  # of a PNG it may stand behind the pixels

    def load(self, mode: Mode, shrink: int) -> Image.Image:
        width, height = self.size
        self._image.draft(mode, (max(width // shrink, 1), max(height // shrink, 1)))  # of a JPEG; others do nothing
        self._image.load()
        return _flat(self._image, mode)


def _decode(
    source: Source, options: ImageOptions, max_pixels: int, boxes: Sequence[Box], *, is_large: bool = False
) -> Decoded:
    width, height = source.size
    if width * height > max_pixels:
        return Decoded(status="too_many_pixels", reason=f"{width}x{height}, {max_pixels} pixels allowed")
    if min(width, height) < 1:
        return Decoded(status="too_small", reason=f"{width}x{height}")
    with ONE_LARGE if is_large or width * height > LARGE_PIXELS else nullcontext():
        turn = source.orientation()
        image = _render(source, turn, options, boxes)
        if options.store == "jpeg" and max(image.size) > MAX_JPEG_SIDE:
            return Decoded(status="too_many_pixels", reason=f"{width}x{height}, a JPEG has {MAX_JPEG_SIDE} a side")
        pixels = np.asarray(image, np.uint8).reshape(image.height, image.width, options.channels)
    width, height = source.size
    if turn > 4:  # lies on its side
        width, height = height, width
    return Decoded(status="ok", width=width, height=height, pixels=pixels)


def _render(source: Source, turn: int, options: ImageOptions, boxes: Sequence[Box]) -> Image.Image:
    """Decode, blur, resize, turn upright and pad, in this order: each step leaves less to the next."""
    height, width = options.size
    mode = _MODES[options.channels]
    cut = cut_for(source.size, (height, width) if turn > 4 else (width, height), options.resize)
    shrink = next((s for s in source.shrinks if cut.allows(s)), 1)
    image = source.load(mode, shrink)
    blur(image, turned_back(boxes, turn), (source.size[0] / shrink, source.size[1] / shrink))
    image = _resized(image, cut, shrink)
    if turn > 1:
        image = image.transpose(_TURNS[turn])
    if image.mode != mode:
        image = image.convert(mode)
    if image.size == (width, height) or not options.is_one_size:
        return image
    canvas = Image.new(mode, (width, height))
    canvas.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return canvas


def _resized(image: Image.Image, cut: Cut, shrink: int) -> Image.Image:
    """The part of an image that is `shrink` times smaller already.

    Pillow weighs colours by their opacity, so that what lies unseen in transparent parts does not shine through; but
    it does that too where no pixel is mixed with another, and would lose the colours of faint ones.
    """
    left, top, right, bottom = (edge / shrink for edge in cut.box)
    is_exact = right - left == cut.size[0] and bottom - top == cut.size[1] and left % 1 == top % 1 == 0
    if image.mode == "RGBA" and is_exact:
        return image.crop((int(left), int(top), int(right), int(bottom)))
    kernel = Image.Resampling.HAMMING if cut.ratio >= 1 else Image.Resampling.LANCZOS
    return image.resize(cut.size, kernel, box=(left, top, right, bottom), reducing_gap=2.0)


def _flat(image: Image.Image, mode: Mode) -> Image.Image:
    """Any mode of Pillow -> L or RGB, transparent parts over white; or RGBA, or RGB if nothing is transparent."""
    if image.mode == mode and (mode == "RGBA" or not image.has_transparency_data):
        return image
    if image.mode.startswith("I"):  # 16 bits of grey, which `convert` would clip instead of scale
        wide = np.asarray(image).clip(0, 65_535).astype(np.uint32)
        wide += 128  # in place, and whole numbers: as floats a large image would take eight bytes a pixel
        wide //= 257
        return Image.fromarray(wide.astype(np.uint8)).convert("RGB" if mode == "RGBA" else mode)
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        if mode == "RGBA":
            return clear
        white = Image.new("RGBA", clear.size, "white")
        return Image.alpha_composite(white, clear).convert(mode)
    return image.convert("RGB" if mode == "RGBA" else mode)
