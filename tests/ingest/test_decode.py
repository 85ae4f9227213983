from __future__ import annotations

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillBusy
from typing import Any

import numpy as np
import pytest
from PIL import Image

from startup_ray.ingest.decode import LARGE_PIXELS, MAX_SCANS, ONE_LARGE, decode, encode_png, sniff
from startup_ray.job import ImageOptions

RED, WHITE = (255, 0, 0), (255, 255, 255)


def options(size: tuple[int, int] = (8, 8), channels: int = 3, resize: str = "center_crop") -> ImageOptions:
    return ImageOptions.model_validate({"size": size, "channels": channels, "resize": resize})


def save(image: Image.Image, kind: str, **more: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **more)
    return stream.getvalue()


def plain(kind: str = "RGB", color: Any = RED, size: tuple[int, int] = (40, 30)) -> Image.Image:
    return Image.new(kind, size, color)


def pixels(body: bytes, opts: ImageOptions | None = None) -> np.ndarray:
    decoded = decode(body, opts or options(), 10_000)
    assert decoded.status == "ok", decoded.reason
    assert decoded.pixels is not None
    assert decoded.pixels.dtype == np.uint8
    return decoded.pixels


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
def test_formats_are_told_by_content(kind: str) -> None:
    body = save(plain(), kind)
    assert sniff(body) == kind
    decoded = decode(body, options(), 10_000)
    assert (decoded.status, decoded.width, decoded.height) == ("ok", 40, 30)
    assert decoded.pixels is not None
    assert decoded.pixels.shape == (8, 8, 3)
    assert np.abs(decoded.pixels.astype(int) - RED).max() < 6


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (plain("L", 100), (100, 100, 100)),
        (plain("1", 1), WHITE),
        (plain("LA", (0, 0)), WHITE),
        (plain("RGBA", (255, 0, 0, 0)), WHITE),
        (plain("RGBA", (0, 0, 0, 127)), (128, 128, 128)),
        (plain("P", 0), (0, 0, 0)),
        (plain("I;16", 65_535), WHITE),
        (plain("I;16", 257 * 40), (40, 40, 40)),
        (plain("I;16", 257 * 40 + 128), (40, 40, 40)),
        (plain("I;16", 257 * 40 + 129), (41, 41, 41)),
        (plain("I;16", 32_768), (128, 128, 128)),
        (plain("I;16", 0), (0, 0, 0)),
    ],
)
def test_modes_of_png(image: Image.Image, expected: tuple[int, ...]) -> None:
    assert (pixels(save(image, "PNG")) == expected).all()


def test_cmyk_and_transparent_palettes() -> None:
    cyan = pixels(save(plain("CMYK", (255, 0, 0, 0)), "JPEG"))
    assert np.abs(cyan.astype(int) - (0, 255, 255)).max() < 6
    assert (pixels(save(plain("P", 0), "GIF", transparency=0)) == 255).all()
    assert (pixels(save(plain("P", 0), "PNG", transparency=bytes([0, 128]))) == 255).all()


def test_one_channel_is_luma() -> None:
    grey = pixels(save(plain(), "PNG"), options(channels=1))
    assert grey.shape == (8, 8, 1)
    assert (grey == 76).all()  # 0.299 * 255, ITU-R BT.601


def test_only_the_first_frame_counts() -> None:
    body = save(plain(), "GIF", save_all=True, append_images=[plain(color=WHITE)])
    assert (pixels(body) == RED).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation: int) -> None:
    """Tables of EXIF 2.32: the row and the column that the stored first row and first column are shown as."""
    upright = np.zeros((16, 8), np.uint8)
    upright[:8, :4] = 255  # top left is bright
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: upright.T[::-1],
        7: upright.T[::-1, ::-1],
        8: upright.T[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(save(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif), options((16, 8), 1), 10_000)
    assert decoded.pixels is not None
    assert (decoded.width, decoded.height) == (8, 16)
    assert (decoded.pixels[:, :, 0] == upright).all()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_broken_exif_is_no_reason_to_refuse() -> None:
    assert pixels(save(plain(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")).shape == (8, 8, 3)


def test_center_crop_cuts_and_border_pads() -> None:
    wide = np.full((10, 30, 3), 255, np.uint8)
    wide[:, :10], wide[:, 20:] = RED, RED
    body = encode_png(wide)
    assert (pixels(body, options((10, 10))) == 255).all()
    padded = pixels(body, options((30, 30), resize="border"))
    assert (padded[:10] == 0).all()
    assert (padded[20:] == 0).all()
    assert (padded[10:20] == wide).all()
    thin = encode_png(np.full((1, 200, 3), 255, np.uint8))
    assert pixels(thin, options((8, 8), resize="border")).max() == 255


@pytest.mark.parametrize("resize", ["center_crop", "border"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_shrinking_does_not_alias(resize: str, kind: str) -> None:
    """Stripes too fine for the target become their mean; picking pixels would leave black and white."""
    stripes = np.zeros((96, 96, 3), np.uint8)
    stripes[:, ::2] = 255
    shrunk = pixels(save(Image.fromarray(stripes), kind, **({"quality": 95} if kind == "JPEG" else {})))
    assert np.abs(shrunk.astype(int) - 127).max() < 12


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_stored_is_what_was_decoded(channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 7, channels), np.uint8)
    assert (pixels(encode_png(image), options((9, 7), channels)) == image).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_truncated_images_are_corrupt(kind: str, part: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    body = save(Image.fromarray(noise), kind)
    decoded = decode(body[: int(len(body) * part)], options(), 10_000)
    assert decoded.status == "corrupt"
    assert decoded.reason
    assert decoded.pixels is None


@pytest.mark.parametrize(
    "body", [b"", b"<html></html>", b"%PDF-1.7", b"\x00\x00\x00\x20ftypavif", b"<svg xmlns='x'/>", b"P5 1 1 255 x"]
)
def test_no_image_that_we_read(body: bytes) -> None:
    assert decode(body, options(), 10_000).status == "not_image"


def header_of_png(width: int, height: int) -> bytes:
    """A PNG that announces a size and brings nothing."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data, b"IEND")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_pixels_are_limited_by_the_header() -> None:
    """A bomb of 10 billion pixels is refused without a warning and without being decoded."""
    decoded = decode(header_of_png(100_000, 100_000), options(), 50_000_000)
    assert (decoded.status, decoded.reason) == ("too_many_pixels", "100000x100000, 50000000 pixels allowed")
    assert decode(save(plain(size=(100, 100)), "PNG"), options(), 10_000).status == "ok"
    assert decode(save(plain(size=(101, 100)), "PNG"), options(), 10_000).status == "too_many_pixels"


def test_no_pixels() -> None:
    assert decode(header_of_png(0, 5), options(), 10_000).status in ("too_small", "corrupt")


def with_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated until there are so many."""
    body = save(
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)), "JPEG", progressive=True
    )
    end = body.rindex(b"\xff\xd9")
    last = body[body.rindex(b"\xff\xda") : end]
    return body[:end] + last * (count - body.count(b"\xff\xda")) + body[end:]


def test_scans_are_limited() -> None:
    """Each repeated scan takes a few bytes, and time for the whole image."""
    assert decode(with_scans(MAX_SCANS), options(), 10_000).status == "ok"
    bomb = decode(with_scans(MAX_SCANS + 1), options(), 10_000)
    assert (bomb.status, bomb.reason) == ("corrupt", "more than 100 scans")
    film = np.random.default_rng(0).bytes(1 << 20) + b"\xff\xda" * 500  # phones put one after the image
    assert decode(with_scans(10) + film, options(), 10_000).status == "ok"


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_one_large_image_at_a_time(kind: str) -> None:
    side = int(LARGE_PIXELS**0.5)
    at_limit, large = (save(plain("L", 7, (side, height)), kind) for height in (side, side + 1))
    with ThreadPoolExecutor(1) as threads:
        with ONE_LARGE:
            assert decode(at_limit, options(), 10_000_000).status == "ok"
            other = threads.submit(decode, large, options(), 10_000_000)
            with pytest.raises(StillBusy):
                other.result(0.3)
        assert other.result(30).status == "ok"
