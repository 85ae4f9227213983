"""Pictures that a GAN has left of its samples, small enough for a page."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass
from typing import Any

from startup_ray.runs import SAMPLES
from startup_ray.storage import Folder

MAX_GRIDS, IN_A_ROW = 6, 3
"""Of those made while training, and of these in a row of the page: it is whole rows that are shown."""
OVER_TIME_BYTES, JUDGED_BYTES, NEAREST_BYTES = 60_000, 150_000, 60_000
"""Largest files that are embedded as they are. Large colour images would make a page of many megabytes."""
OVER_TIME_WIDTH, JUDGED_WIDTH, NEAREST_WIDTH = 298, 298, 600
"""Pixels that a picture takes on the page at most; three of the first stand in a row."""
_EPOCH = re.compile(r"(\d+)\.png")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A picture made of samples."""

    image: str
    """`data:` URI."""
    width: int
    """Pixels on the page."""
    is_reduced: bool
    """Shown smaller than it is."""
    epoch: int = 0
    """After which it was made; 0: of the evaluation."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Of one run; what is not there, or is damaged, is left out."""

    over_time: tuple[Grid, ...] = ()
    judged: Grid | None = None
    nearest: Grid | None = None
    """Above samples, below each the training image that it is nearest to."""


def read_samples(run: Folder, evaluation: Folder | None, *, most: int = MAX_GRIDS) -> Samples:
    """Pictures of a run and of its evaluation; of those made while training `most`, the first and the last among them.

    Raises:
        StorageError: storage cannot be read.
    """
    epochs = sorted((int(found[1]), name) for name in run.list(SAMPLES) if (found := _EPOCH.fullmatch(name)))
    chosen = spread(epochs, most if len(epochs) >= most else min(most, IN_A_ROW))
    grids = [_read(run, f"{SAMPLES}/{name}", OVER_TIME_BYTES, OVER_TIME_WIDTH, epoch) for epoch, name in chosen]
    over_time = tuple(grid for grid in grids if grid)
    if evaluation is None:
        return Samples(over_time=over_time)
    return Samples(
        over_time=over_time,
        judged=_read(evaluation, "samples.png", JUDGED_BYTES, JUDGED_WIDTH),
        nearest=_read(evaluation, "nearest.png", NEAREST_BYTES, NEAREST_WIDTH),
    )


def spread(found: list[tuple[int, str]], most: int) -> list[tuple[int, str]]:
    """At most so many, at even distances, from the first to the last."""
    if len(found) <= most:
        return found
    return [found[round(i * (len(found) - 1) / max(most - 1, 1))] for i in range(most)]


def _read(folder: Folder, name: str, most_bytes: int, width: int, epoch: int = 0) -> Grid | None:
    try:
        return grid_of(folder.read(name), most_bytes=most_bytes, width=width, epoch=epoch)
    except FileNotFoundError:
        return None


def grid_of(body: bytes, *, most_bytes: int, width: int, epoch: int = 0) -> Grid | None:
    """A PNG as it is or, if it is too large, as a JPEG that is halved until it fits; None if it is damaged.

    Args:
        body: the file.
        most_bytes: of the picture that is embedded, at least 2,000.
        width: pixels that it takes on the page at most.
        epoch: after which it was made.
    """
    from PIL import Image

    try:
        image: Any = Image.open(io.BytesIO(body), formats=["PNG"])
        image.load()
    except (OSError, ValueError, SyntaxError):  # Pillow raises each of them for broken files
        return None
    kind, columns = "png", image.width
    while len(body) > most_bytes:
        image = image.reduce(2) if kind == "jpeg" else image.convert("L" if image.mode == "L" else "RGB")
        body, kind = _jpeg(image), "jpeg"
    shown = _shown(columns, width)
    uri = f"data:image/{kind};base64,{base64.b64encode(body).decode()}"
    return Grid(image=uri, width=shown, is_reduced=shown < columns, epoch=epoch)


def _shown(columns: int, width: int) -> int:
    """At most `width`; a whole multiple of what is smaller, so that its pixels are drawn as equal squares."""
    return columns * (width // columns) if columns <= width else width


def _jpeg(image: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85, optimize=True)
    return stream.getvalue()
