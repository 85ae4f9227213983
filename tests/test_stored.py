"""However a dataset stores an image, its pixels are those that ingest decoded."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from startup_ray.dataset import Dataset, read_dataset, write_dataset
from startup_ray.errors import UsageError
from startup_ray.ingest.chunks import IMAGES, commit, names_in
from startup_ray.ingest.decode import decode
from startup_ray.ingest.exchange import Fetched
from startup_ray.ingest.finish import finish
from startup_ray.items import Item
from startup_ray.job import IngestOptions
from startup_ray.storage import Folder
from startup_ray.stored import pixels_of
from startup_ray.trainers.cache import open_split
from startup_ray.trainers.shards import find_groups, read
from startup_ray.trainers.windows import Order
from tests.ingest.pictures import photo, save

MAX_PIXELS = 100_000


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def clear() -> Image.Image:
    image = photo(33, 27, 3).convert("RGBA")
    image.putalpha(Image.fromarray((np.arange(27 * 33) % 256).reshape(27, 33).astype(np.uint8)))
    return image


BODIES = [
    save(photo(40, 30), "JPEG", quality=90),
    save(photo(300, 200), "JPEG", quality=90, progressive=True),
    save(photo(37, 41, 1).convert("L"), "JPEG", exif=turned()),
    save(photo(40, 30).convert("CMYK"), "JPEG"),
    save(photo(24, 50, 2), "PNG"),
    save(clear(), "PNG", exif=turned()),
    save(clear(), "WEBP"),
    save(photo(20, 20), "WEBP", save_all=True, append_images=[photo(20, 20, 1)], duration=50),
    save(photo(31, 17), "GIF"),
    save(clear(), "TIFF", compression="tiff_lzw"),
    save(clear(), "AVIF", speed=10),
]


def made(folder: Folder, **image: Any) -> Dataset:
    """A dataset of BODIES, each labelled by its place, as an ingest commits them."""
    options = IngestOptions.model_validate({"manifest": "m", "image": image, "fetch": {"max_pixels": MAX_PIXELS}})
    ended = []
    for i, body in enumerate(BODIES):
        item = Item(position=i, id=f"{i:03d}", url="http://e.com/", label=f"{i:02d}", split="train")
        ended.append(finish(item, Fetched(status="ok", body=body), options))
    commit(folder, "000000-a", [outcome for outcome, _ in ended], [row for _, row in ended if row is not None])
    dataset = Dataset(
        folder=folder,
        digest="sha256:0",
        items=len(BODIES),
        counts={"ok": len(BODIES)},
        splits={"train": len(BODIES), "val": 0, "test": 0},
        classes=tuple(f"{i:02d}" for i in range(len(BODIES))),
        image_shape=options.image.shape,
        shards=tuple(f"{name}.parquet" for name in names_in(folder, IMAGES)),
        manifest="m",
        manifest_digest="m",
        image=options.image,
    )
    write_dataset(dataset)
    return read_dataset(folder)


def decoded(dataset: Dataset) -> list[np.ndarray]:
    """What ingest made of BODIES."""
    found = [decode(body, dataset.image, MAX_PIXELS).pixels for body in BODIES]
    return [pixels for pixels in found if pixels is not None]


def column(dataset: Dataset) -> list[bytes]:
    import pyarrow.parquet as pq

    (shard,) = dataset.shards
    values: list[bytes] = pq.read_table(dataset.folder.path(f"images/{shard}"))["image"].to_pylist()
    return values


@pytest.mark.parametrize(
    ("store", "channels", "resize"),
    [
        row
        for row in product(["png", "original", "raw"], [1, 3, 4], ["center_crop", "border", "fit", "no"])
        if row[0] != "raw" or row[2] in ("center_crop", "border")
    ],
)
def test_pixels_are_those_that_ingest_decoded(tmp_path: Path, store: str, channels: int, resize: str) -> None:
    dataset = made(Folder(str(tmp_path)), size=(16, 12), store=store, channels=channels, resize=resize)
    expected = decoded(dataset)
    assert len(expected) == len(BODIES)
    for encoded, pixels in zip(column(dataset), expected, strict=True):
        np.testing.assert_array_equal(pixels_of(encoded, dataset.image), pixels)


@pytest.mark.parametrize("resize", ["center_crop", "border"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("store", ["png", "original", "raw"])
def test_training_sees_them_from_memory_and_from_the_stream(
    tmp_path: Path, store: str, channels: int, resize: str
) -> None:
    dataset = made(Folder(str(tmp_path / "d")), size=(16, 12), store=store, channels=channels, resize=resize)
    expected = np.stack(decoded(dataset))
    rows = open_split(dataset, "train", root=tmp_path / "cache")
    np.testing.assert_array_equal(rows.images, expected)
    order = Order(groups=find_groups(dataset, "train"), global_batch=len(BODIES), seed=0, window_rows=100)
    (window,) = order.windows(0)
    held = read(dataset, "train", order.cut(window, np.arange(len(BODIES))), rows=len(BODIES), threads=2)
    images, labels = held.decode(0, 1)
    np.testing.assert_array_equal(images[0], expected[labels[0]])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resize", ["center_crop", "fit"])
def test_a_jpeg_keeps_size_and_channels(tmp_path: Path, channels: int, resize: str) -> None:
    dataset = made(Folder(str(tmp_path)), size=(16, 12), store="jpeg", channels=channels, resize=resize)
    for encoded, pixels in zip(column(dataset), decoded(dataset), strict=True):
        assert pixels_of(encoded, dataset.image).shape == pixels.shape


def test_original_is_the_body_untouched(tmp_path: Path) -> None:
    assert column(made(Folder(str(tmp_path)), size=(16, 12), store="original")) == BODIES


def test_raw_is_the_pixels_row_by_row(tmp_path: Path) -> None:
    dataset = made(Folder(str(tmp_path)), size=(16, 12), channels=4, store="raw")
    assert column(dataset)[0] == decoded(dataset)[0].tobytes()


@pytest.mark.parametrize("store", ["png", "original", "raw"])
def test_a_damaged_image_is_an_error(tmp_path: Path, store: str) -> None:
    dataset = made(Folder(str(tmp_path)), size=(16, 12), store=store)
    for encoded in (b"", b"no image", column(dataset)[0][:-40]):
        with pytest.raises((OSError, ValueError, SyntaxError)):
            pixels_of(encoded, dataset.image)


@pytest.mark.parametrize("resize", ["fit", "no"])
def test_images_of_many_sizes_are_not_trained_on(tmp_path: Path, resize: str) -> None:
    dataset = made(Folder(str(tmp_path)), size=(16, 12), store="original", resize=resize)
    assert dataset.image_shape == (0, 0, 3)
    with pytest.raises(UsageError, match="a size of its own") as raised:
        open_split(dataset, "train", root=tmp_path / "cache")
    assert "ingest.image.resize" in raised.value.hint
