"""Stored images to pixels, for the memory-mapped feed and for the stream alike.

    decoder = Decoder(dataset.image_shape, dataset.image)
    decoder.into(images[i], encoded)            # uint8 [height, width, channels], however it is stored

Small images cost mostly Python: what `ingest/encode.py` writes is decoded by a short way, anything else by Pillow's
reader, and a body that was kept as it came by that of ingest. The pixels are the same.
"""

from __future__ import annotations

import io
import threading

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from startup_ray.job import ImageOptions
from startup_ray.stored import pixels_of_body

_JPEG = b"\xff\xd8\xff"
_HEADER_END, _LENGTH = 33, 8
"""Bytes before a PNG's second chunk; bytes of a chunk's length and type (PNG specification, sections 5.2, 5.3)."""
_MODES = {1: ("L", 0, "Gray"), 3: ("RGB", 2, "YCbCr"), 4: ("RGBA", 6, "")}
"""By channels: Pillow's mode, PNG's colour type, and how a JPEG stores them; none stores four."""


class Decoder(threading.local):
    """Decodes images of one shape; each thread that uses it has a canvas of its own.

    Args:
        shape: height, width, channels.
        image: how they are stored; by default as PNG or JPEG.
    """

    def __init__(self, shape: tuple[int, int, int], image: ImageOptions | None = None) -> None:
        height, width, channels = shape
        self._shape, self._image = shape, image or ImageOptions()
        self._mode, colour, self._colorspace = _MODES[channels]
        self._canvas = Image.new(self._mode, (width, height))
        # Eight bits a channel, no palette, not interlaced.
        size = width.to_bytes(4) + height.to_bytes(4)
        self._png = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR" + size + bytes([8, colour, 0, 0, 0])

    def into(self, target: NDArray[np.uint8], encoded: bytes) -> None:
        """Decode into uint8 [height, width, channels], contiguous.

        Raises:
            OSError, ValueError, SyntaxError: no image of this shape.
        """
        if self._image.store == "raw":
            target[:] = np.frombuffer(encoded, np.uint8).reshape(self._shape)
            return
        if self._image.store == "original":
            target[:] = pixels_of_body(encoded, self._image).reshape(self._shape)
            return
        if encoded.startswith(self._png) and (data := _only_data(encoded)):
            try:
                self._canvas.frombytes(data, "zip", (self._mode, 0))
            except ValueError:  # Pillow's reader says what is wrong with it
                pass
            else:
                target.reshape(-1)[:] = np.frombuffer(self._canvas.tobytes(), np.uint8)
                return
        elif encoded.startswith(_JPEG):
            try:
                self._jpeg(target, encoded)
            except ValueError:  # harmless or not: Pillow's reader tells
                pass
            else:
                return
        with Image.open(io.BytesIO(encoded)) as image:
            target[:] = np.asarray(image, np.uint8).reshape(self._shape)

    def _jpeg(self, target: NDArray[np.uint8], encoded: bytes) -> None:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(encoded)
        if (height, width, colorspace) != (*self._shape[:2], self._colorspace):
            raise ValueError(f"{width}x{height} {colorspace}")
        simplejpeg.decode_jpeg(encoded, "GRAY" if colorspace == "Gray" else "RGB", buffer=target)


def _only_data(png: bytes) -> bytes:
    """The compressed pixels of a PNG, joined; nothing if other chunks stand between header and pixels."""
    at, parts = _HEADER_END, []
    while png[at + 4 : at + _LENGTH] == b"IDAT":
        end = at + _LENGTH + int.from_bytes(png[at : at + 4])
        parts.append(png[at + _LENGTH : end])
        at = end + 4
    is_whole = png[at + 4 : at + _LENGTH] == b"IEND"
    return b"".join(parts) if is_whole else b""
