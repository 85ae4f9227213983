"""Pictures of a page, small enough to stand in it as `data:` URIs.

thumbnails = read_thumbnails(dataset, places)     # {17: 'data:image/png;base64,...'}
sheets = read_sheets(dataset, survey, labels)
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from startup_ray.audit.labels import Label
from startup_ray.audit.survey import Survey, pixels_at
from startup_ray.dataset import Dataset
from startup_ray.likeness import over_white, picture_of

THUMBNAIL = 80
"""Pixels of a side, at most."""
CELL = 48
"""Pixels of a side in a contact sheet."""
COLUMNS = 12
MAX_SHEETS = 60
CELLS = 1_440
"""Of all sheets together; some two megabytes of photographs."""
MAX_CELLS = 36
"""Of one sheet."""
_BEHIND = (200, 204, 210)


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """Images of one class in one picture."""

    label: str
    image: str
    """`data:` URI."""
    width: int
    """Pixels of the picture."""
    cells: int
    total: int
    """Images of the class."""


def read_thumbnails(dataset: Dataset, places: Iterable[int]) -> dict[int, str]:
    """`data:` URIs by place; what is damaged is left out."""
    return {place: data_uri(_thumbnail(pixels)) for place, pixels in pixels_at(dataset, sorted(set(places)))}


def read_sheets(dataset: Dataset, survey: Survey, labels: list[Label], *, seed: int = 0) -> list[Sheet]:
    """A contact sheet of each class, the largest first, with a seeded choice of its images."""
    shown = labels[:MAX_SHEETS]
    each = min(MAX_CELLS, max(COLUMNS // 2, CELLS // max(len(shown), 1)))
    order = np.random.default_rng(seed).permutation(len(survey))
    by_class = np.argsort(survey.labels[order], kind="stable")
    bounds = np.searchsorted(survey.labels[order][by_class], np.arange(len(dataset.classes) + 1))
    chosen = {
        name: order[by_class[bounds[i] : bounds[i + 1]][:each]].tolist() for i, name in enumerate(dataset.classes)
    }
    wanted = [place for label in shown for place in chosen[label.name]]
    inner = (CELL - 2, CELL - 2)
    cells = {
        place: ImageOps.contain(over_white(picture_of(pixels)), inner) for place, pixels in pixels_at(dataset, wanted)
    }
    sheets = [(label, [cells[place] for place in chosen[label.name] if place in cells]) for label in shown]
    return [_sheet(label, pictures) for label, pictures in sheets if pictures]


def data_uri(picture: Image.Image) -> str:
    """As PNG or JPEG, whichever is smaller."""
    streams = {"png": io.BytesIO(), "jpeg": io.BytesIO()}
    picture.save(streams["png"], "PNG", optimize=True)
    picture.save(streams["jpeg"], "JPEG", quality=85)
    kind, stream = min(streams.items(), key=lambda pair: len(pair[1].getvalue()))
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def _sheet(label: Label, pictures: list[Image.Image]) -> Sheet:
    columns = min(COLUMNS, len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * CELL, rows * CELL), _BEHIND)
    for i, picture in enumerate(pictures):
        left, top = (i % columns) * CELL, i // columns * CELL
        sheet.paste(picture, (left + (CELL - picture.width) // 2, top + (CELL - picture.height) // 2))
    return Sheet(label=label.name, image=data_uri(sheet), width=sheet.width, cells=len(pictures), total=label.total)


def _thumbnail(pixels: NDArray[np.uint8]) -> Image.Image:
    """At most THUMBNAIL pixels a side; smaller images as they are."""
    picture = over_white(picture_of(pixels))
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    return picture
