"""Blurs regions of a decoded image, most often faces.

    blur(image, turned_back(boxes, turn=6), size=(640.0, 480.0))     # in place

As strong as in "A Study of Face Obfuscation in ImageNet" (Yang et al., 2022), which img2dataset follows: a Gaussian of
a tenth of a face's diagonal. Unlike there, each box is covered whole however small it is beside others: the soft edge
lies outside of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from PIL import Image, ImageFilter

from startup_ray.regions import Box

SHARE = 0.1
"""Of a box's diagonal: what is covered around it, as wide again the soft edge at most, and the Gaussian's deviation."""

_BACK: dict[int, Callable[[float, float, float, float], Box]] = {
    1: lambda left, top, right, bottom: (left, top, right, bottom),
    2: lambda left, top, right, bottom: (1 - right, top, 1 - left, bottom),
    3: lambda left, top, right, bottom: (1 - right, 1 - bottom, 1 - left, 1 - top),
    4: lambda left, top, right, bottom: (left, 1 - bottom, right, 1 - top),
    5: lambda left, top, right, bottom: (top, left, bottom, right),
    6: lambda left, top, right, bottom: (top, 1 - right, bottom, 1 - left),
    7: lambda left, top, right, bottom: (1 - bottom, 1 - right, 1 - top, 1 - left),
    8: lambda left, top, right, bottom: (1 - bottom, left, 1 - top, right),
}
"""Where a box of the upright image lies in the stored one, by the Exif tag Orientation (CIPA DC-008, 4.6.4)."""


def turned_back(boxes: Sequence[Box], turn: int) -> list[Box]:
    """Boxes of the upright image -> of the image as it is stored; `turn` is Exif's orientation, 1 to 8."""
    return [_BACK[turn](*box) for box in boxes]


def blur(image: Image.Image, boxes: Sequence[Box], size: tuple[float, float]) -> None:
    """Blur the boxes of an L, RGB or RGBA image in place, all as strongly as the largest needs it.

    Time and memory are those of one Gaussian over the image, whatever the number of boxes.

    Args:
        size: width and height of all of the image in pixels, whose last column and row may be parts of one.
    """
    if not boxes:
        return
    margins = [SHARE * math.hypot((box[2] - box[0]) * size[0], (box[3] - box[1]) * size[1]) for box in boxes]
    # Of whole pixels, and no wider than any margin: so the mask is full on each box.
    edge = int(min(margins))
    rects = [_rect(box, size, image.size, margin) for box, margin in zip(boxes, margins, strict=True)]
    lefts, tops, rights, bottoms = zip(*rects, strict=True)
    x, y = max(min(lefts) - edge, 0), max(min(tops) - edge, 0)
    part = image.crop((x, y, min(max(rights) + edge, image.width), min(max(bottoms) + edge, image.height)))
    mask = Image.new("L", part.size, 0)
    for left, top, right, bottom in rects:
        mask.paste(255, (left - x, top - y, right - x, bottom - y))
    image.paste(_soft(part, max(margins)), (x, y), mask.filter(ImageFilter.BoxBlur(edge)))


def _rect(box: Box, size: tuple[float, float], whole: tuple[int, int], margin: float) -> tuple[int, int, int, int]:
    """Pixels of a box and what lies around it, within the image."""
    left, top, right, bottom = box
    return (
        max(math.floor(left * size[0] - margin), 0),
        max(math.floor(top * size[1] - margin), 0),
        min(math.ceil(right * size[0] + margin), whole[0]),
        min(math.ceil(bottom * size[1] + margin), whole[1]),
    )


def _soft(image: Image.Image, deviation: float) -> Image.Image:
    """Colours count by their opacity, so that unseen ones do not come to light."""
    gaussian = ImageFilter.GaussianBlur(max(deviation, 1.0))
    if image.mode == "RGBA":
        return image.convert("RGBa").filter(gaussian).convert("RGBA")
    return image.filter(gaussian)
