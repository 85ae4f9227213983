"""JPEG files for a web server: crops of scikit-learn's two photographs, each body different from all others.

The photographs are 640x427. Crops of 256x256 are cut from them as they are, crops of 640x480 from a copy
enlarged by 1.2 (Lanczos). Each of CROPS crops, half of them mirrored, is encoded once at quality 90; the files
repeat them with a comment of their own behind the header, so that no two have the same sha256.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

CROPS = 400
QUALITY = 90
_ENLARGED = 1.2


def write(folder: Path, size: tuple[int, int], count: int) -> list[Path]:
    """Write `count` files of the given width and height, or find them as an earlier call has left them."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:06d}.jpg" for number in range(count)]
    missing = [number for number in range(count) if not paths[number].exists()]
    bodies = crops(size) if missing else []
    for number in missing:
        paths[number].write_bytes(_with_comment(bodies[number % CROPS], f"image {number}"))
    return paths


def crops(size: tuple[int, int]) -> list[bytes]:
    """CROPS different JPEG bodies of the given width and height; the same in every call."""
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    if size[0] > photos[0].width or size[1] > photos[0].height:
        enlarged = (round(photos[0].width * _ENLARGED), round(photos[0].height * _ENLARGED))
        photos = [photo.resize(enlarged, Image.Resampling.LANCZOS) for photo in photos]
    rng = np.random.default_rng(0)
    return [_crop(photos[number % len(photos)], size, rng) for number in range(CROPS)]


def _crop(photo: Image.Image, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    left, top = (int(rng.integers(0, side - part + 1)) for side, part in zip(photo.size, size, strict=True))
    crop = photo.crop((left, top, left + size[0], top + size[1]))
    if rng.integers(2):
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    stream = io.BytesIO()
    crop.save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()


def _with_comment(body: bytes, text: str) -> bytes:
    """A comment segment (ITU-T T.81, B.2.4.5) behind the JFIF header, which must stay the first."""
    end = 4 + int.from_bytes(body[4:6])  # start of image, marker, length with its own two bytes
    end -= 0 if body[2:4] == b"\xff\xe0" else end - 2
    comment = text.encode()
    return body[:end] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2) + comment + body[end:]
