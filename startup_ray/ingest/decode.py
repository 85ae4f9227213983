"""Bodies to images of one size: uint8 [height, width, channels] in [0, 255].

    decoded = decode(body, options, max_pixels=50_000_000)
    decoded.pixels                # or decoded.status says why not

The format is told by the content, never by a name or a header. Size and pixel limit are judged from the image's
own header, before anything is decoded. Of a moving image the first frame counts. Transparent parts become white,
as on most pages that such images are drawn for. Colour profiles are not applied. Memory and time are bounded
against images made to exhaust them: one large image at a time, and a limit on the scans of a JPEG.
"""

from __future__ import annotations

import io
import re
import threading
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from startup_ray.job import ImageOptions

# Pillow would warn at its own limit. Ours is judged before any pixel is decoded.
Image.MAX_IMAGE_PIXELS = None

LARGE_PIXELS = 4_000_000
ONE_LARGE = threading.BoundedSemaphore(1)
"""Held while an image above LARGE_PIXELS is decoded: a small body may become gigabytes of pixels in each thread."""

MAX_SCANS = 100
"""Each scan of a progressive JPEG may pass over the whole image, and takes 36 bytes; encoders write about ten."""
# The marker, and a length that fits the number of components: neither occurs by chance in a film after the image.
_SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")  # ITU-T T.81, B.2.3

_ORIENTATION = 0x0112
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


def decode(body: bytes, options: ImageOptions, max_pixels: int) -> Decoded:
    """Body -> uint8 [height, width, channels] of the size that the options name.

    States: ok, not_image, corrupt, too_many_pixels, too_small.
    """
    kind = sniff(body)
    if kind is None:
        return Decoded(status="not_image", reason=f"begins with {body[:16]!r}")
    if kind == "JPEG" and len(_SCAN.findall(body)) > MAX_SCANS:
        return Decoded(status="corrupt", reason=f"more than {MAX_SCANS} scans")
    try:
        with Image.open(io.BytesIO(body), formats=[kind]) as image:
            width, height = image.size
            if width * height > max_pixels:
                return Decoded(status="too_many_pixels", reason=f"{width}x{height}, {max_pixels} pixels allowed")
            if min(width, height) < 1:
                return Decoded(status="too_small", reason=f"{width}x{height}")
            with ONE_LARGE if width * height > LARGE_PIXELS else nullcontext():
                orientation = _orientation(image)  # of a PNG it may stand behind the pixels
                pixels = _upright(image, orientation, options)
            if orientation > 4:  # lies on its side
                width, height = height, width
    except Exception as error:  # noqa: BLE001 - decoders raise whatever hostile bytes lead them to
        return Decoded(status="corrupt", reason=(str(error) or type(error).__name__).split("\n", 1)[0][:200])
    return Decoded(status="ok", width=width, height=height, pixels=pixels)


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


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """uint8 [height, width, 1 or 3] -> PNG, which loses nothing."""
    stream = io.BytesIO()
    flat = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    Image.fromarray(flat).save(stream, "PNG")
    return stream.getvalue()


def resize(image: Image.Image, size: tuple[int, int], mode: str) -> Image.Image:
    """To height and width: `center_crop` cuts to their aspect ratio, `border` keeps all and pads with black.

    Lanczos, because Pillow widens its kernel with the scale, so that shrinking does not alias; beyond a factor
    of three it halves by box first, which costs little and cannot be seen.
    """
    height, width = size
    if mode == "center_crop":
        scale = max(width / image.width, height / image.height)
        cut_x, cut_y = (image.width - width / scale) / 2, (image.height - height / scale) / 2
        box = (max(cut_x, 0.0), max(cut_y, 0.0), image.width - max(cut_x, 0.0), image.height - max(cut_y, 0.0))
        return image.resize((width, height), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)
    scale = min(width / image.width, height / image.height)
    inner = (min(max(round(image.width * scale), 1), width), min(max(round(image.height * scale), 1), height))
    canvas = Image.new(image.mode, (width, height))
    resized = image.resize(inner, Image.Resampling.LANCZOS, reducing_gap=3.0)
    canvas.paste(resized, ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return canvas


def _orientation(image: Image.Image) -> int:
    """1 (upright) to 8."""
    try:
        value = image.getexif().get(_ORIENTATION)
    except Exception:  # noqa: BLE001 - broken Exif data is no reason to refuse the image
        return 1
    return value if value in _TURNS else 1


def _upright(image: Image.Image, orientation: int, options: ImageOptions) -> NDArray[np.uint8]:
    if image.format == "JPEG":
        # Let the decoder shrink while it decodes, as long as twice the target is left for Lanczos.
        side = 2 * max(options.size)
        scale = min(image.size) / side
        if scale > 1:
            image.draft(None, (round(image.width / scale), round(image.height / scale)))
    image.load()
    plain = _flat(image, "L" if options.channels == 1 else "RGB")
    upright = plain if orientation == 1 else plain.transpose(_TURNS[orientation])
    pixels = np.asarray(resize(upright, options.size, options.resize), np.uint8)
    return pixels.reshape(*options.size, options.channels)


def _flat(image: Image.Image, mode: str) -> Image.Image:
    """Any mode of Pillow -> L or RGB, transparent parts over white."""
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
