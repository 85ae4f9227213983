"""Pictures of samples: which are shown, how large, and that no page grows by them."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from startup_ray.report import write_report
from startup_ray.report.samples import Grid, grid_of, read_samples, spread
from startup_ray.storage import Folder
from tests.fakes import png
from tests.report.made import dataset_in
from tests.report.made_gan import gan_in, judged_gan, picture


@pytest.fixture
def storage(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


def noise(height: int, width: int) -> bytes:
    return png(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def body_of(grid: Grid) -> bytes:
    return base64.b64decode(grid.image.partition(",")[2])


def test_a_small_picture_is_embedded_as_it_is_in_whole_pixels() -> None:
    body = picture()
    grid = grid_of(body, most_bytes=60_000, width=300, epoch=3)
    assert grid is not None
    assert body_of(grid) == body
    assert grid.image.startswith("data:image/png;")
    assert (grid.width, grid.is_reduced, grid.epoch) == (7 * 38, False, 3)


def test_a_large_picture_becomes_a_small_file() -> None:
    grid = grid_of(noise(650, 658), most_bytes=60_000, width=300)
    assert grid is not None
    assert grid.image.startswith("data:image/jpeg;")
    assert len(body_of(grid)) <= 60_000
    assert (grid.width, grid.is_reduced) == (300, True)
    assert Image.open(io.BytesIO(body_of(grid))).width in (329, 165)


def test_a_picture_that_is_none_is_left_out() -> None:
    stream = io.BytesIO()
    Image.new("L", (4, 4)).save(stream, "GIF")
    for body in (b"", b"torn", picture()[:100], stream.getvalue()):
        assert grid_of(body, most_bytes=60_000, width=300) is None


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [(0, 6, []), (2, 6, [0, 1]), (6, 6, [0, 1, 2, 3, 4, 5]), (11, 6, [0, 2, 4, 6, 8, 10]), (9, 1, [0])],
)
def test_what_is_shown_goes_from_the_first_to_the_last(count: int, most: int, expected: list[int]) -> None:
    found = [(epoch, f"{epoch:06d}.png") for epoch in range(count)]
    assert [epoch for epoch, _ in spread(found, most)] == expected


@pytest.mark.parametrize(("looks", "expected"), [(2, [1, 2]), (5, [1, 3, 5]), (6, [1, 2, 3, 4, 5, 6])])
def test_whole_rows_are_shown(storage: Folder, looks: int, expected: list[int]) -> None:
    run = gan_in(storage / "run", looks=range(1, looks + 1))
    run.put_whole("samples/notes.txt", b"")
    samples = read_samples(run, None)
    assert [grid.epoch for grid in samples.over_time] == expected
    assert samples.judged is None


def test_the_page_of_large_colour_images_stays_small(storage: Folder) -> None:
    run = gan_in(storage / "run", looks=())
    judged_gan(run, dataset_in(storage / "dataset"))
    for epoch in range(1, 7):
        run.put_whole(f"samples/{epoch:06d}.png", noise(526, 658))
    place = run / "evaluations" / "0a1b2c3d"
    place.put_whole("samples.png", noise(658, 658))
    place.put_whole("nearest.png", noise(130, 658))
    assert Path(write_report([run], storage.path("report.html"))).stat().st_size < 1_000_000
