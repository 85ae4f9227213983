from __future__ import annotations

import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillBusy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from startup_ray.ingest.decode import LARGE_PIXELS, ONE_LARGE, decode, sniff
from tests.ingest.pictures import area_average, options, photo, pixels, psnr, save

RED, WHITE = (255, 0, 0), (255, 255, 255)
KINDS = ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"]


LOSSLESS: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}


def plain(kind: str = "RGB", color: Any = RED, size: tuple[int, int] = (40, 30)) -> Image.Image:
    return Image.new(kind, size, color)


def png(*chunks: bytes) -> bytes:
    """A PNG of chunks, each its type and data."""
    framed = [struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def header_of_png(width: int, height: int, depth: int = 8, color: int = 2) -> bytes:
    return b"IHDR" + struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)


def wide_png(color: int, *samples: int) -> bytes:
    """4x4 pixels of 16-bit samples; colour type 0 is grey, 2 RGB, 4 grey and alpha, 6 RGBA."""
    row = b"\0" + struct.pack(f">{len(samples)}H", *samples) * 4
    return png(header_of_png(4, 4, 16, color), b"IDAT" + zlib.compress(row * 4), b"IEND")


@pytest.mark.parametrize("kind", KINDS)
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
        (plain("LA", (0, 255)), (0, 0, 0)),
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


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (wide_png(0, 257 * 40), (40, 40, 40)),
        (wide_png(2, 257 * 40, 65_535, 0), (40, 255, 0)),
        (wide_png(4, 257 * 40, 0), WHITE),
        (wide_png(4, 257 * 40, 65_535), (40, 40, 40)),
        (wide_png(6, 257 * 40, 65_535, 0, 65_535), (40, 255, 0)),
        (wide_png(6, 257 * 40, 65_535, 0, 0), WHITE),
    ],
)
def test_16_bits_a_sample_become_8(body: bytes, expected: tuple[int, ...]) -> None:
    assert (pixels(body) == expected).all()


@pytest.mark.parametrize(
    "body",
    [
        save(plain("P", 0), "GIF", transparency=0),
        save(plain("P", 0), "PNG", transparency=bytes([0, 128])),
        save(plain("L", 0), "PNG", transparency=0),
        save(plain("RGB", RED), "PNG", transparency=RED),
        save(plain("RGBA", (255, 0, 0, 0)), "WEBP", lossless=True),
    ],
)
def test_transparent_parts_become_white(body: bytes) -> None:
    assert (pixels(body) == 255).all()
    assert (pixels(body, options(channels=1)) == 255).all()


@pytest.mark.parametrize("kind", KINDS)
def test_one_channel_is_luma(kind: str) -> None:
    grey = pixels(save(plain(), kind), options(channels=1))
    assert grey.shape == (8, 8, 1)
    assert np.abs(grey.astype(int) - 76).max() <= (0 if kind in ("PNG", "BMP", "GIF") else 2)  # 0.299 * 255, BT.601


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_only_the_first_frame_counts(kind: str) -> None:
    body = save(plain(), kind, save_all=True, append_images=[plain(color=WHITE)], duration=100)
    assert np.abs(pixels(body).astype(int) - RED).max() < 6


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "AVIF", "WEBP"])
@pytest.mark.parametrize("resize", ["center_crop", "fit", "no"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_undone(orientation: int, resize: str, kind: str) -> None:
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
    body = save(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, **LOSSLESS.get(kind, {}))
    decoded = decode(body, options((16, 8), 1, resize), 10_000)
    assert decoded.pixels is not None
    assert (decoded.width, decoded.height) == (8, 16)
    assert (np.abs(decoded.pixels[:, :, 0].astype(int) - upright) <= (1 if kind == "WEBP" else 0)).all()


@pytest.mark.parametrize(
    ("size", "expected"),
    [((40, 30), (40, 30)), ((64, 48), (64, 48)), ((65, 48), (64, 47)), ((640, 480), (64, 48)), ((96, 960), (6, 64))],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_fit_keeps_all_and_never_enlarges(kind: str, size: tuple[int, int], expected: tuple[int, int]) -> None:
    body = save(photo(*size), kind)
    found = pixels(body, options((64, 64), resize="fit"))
    assert found.shape == (expected[1], expected[0], 3)
    if size == expected:
        assert (found == pixels(body, options(resize="no"))).all()


def test_no_keeps_every_pixel() -> None:
    image = photo(61, 43)
    assert (pixels(save(image, "PNG"), options(resize="no")) == np.asarray(image)).all()
    assert pixels(save(image, "JPEG"), options(resize="no")).shape == (43, 61, 3)


@pytest.mark.parametrize("resize", ["center_crop", "border", "fit", "no"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_four_channels_keep_transparency(kind: str, resize: str) -> None:
    """Colours of transparent parts too, where no pixel is mixed with another."""
    image = photo(32, 32).convert("RGBA")
    image.putalpha(Image.fromarray(np.arange(32 * 32).reshape(32, 32).astype(np.uint8)))
    more = {"exact": True} if kind == "WEBP" else {}
    found = pixels(save(image, kind, **LOSSLESS.get(kind, {}), **more), options((32, 32), 4, resize))
    assert np.abs(found.astype(int) - np.asarray(image)).max() <= (1 if kind == "AVIF" else 0)
    assert (pixels(save(image, "PNG"), options((32, 16), 4)) == np.asarray(image)[:, 8:24]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_four_channels_of_an_opaque_image_are_opaque(kind: str) -> None:
    body = save(photo(40, 30), kind)
    found = pixels(body, options(channels=4))
    assert (found[..., 3] == 255).all()
    assert (found[..., :3] == pixels(body)).all()


@pytest.mark.parametrize("kind", ["LA", "RGBA", "P"])
def test_whatever_is_transparent_has_four_channels(kind: str) -> None:
    clear = plain("LA", (90, 0)) if kind == "LA" else plain("RGBA", (90, 90, 90, 0))
    body = save(plain("P", 0), "GIF", transparency=0) if kind == "P" else save(clear, "PNG")
    assert (pixels(body, options(channels=4))[..., 3] == 0).all()


@pytest.mark.parametrize("size", [(13, 13), (160, 160)])
def test_colours_of_transparent_parts_do_not_shine_through(size: tuple[int, int]) -> None:
    """A red disc whose transparent surroundings are green: no pixel that is seen has green in it."""
    y, x = np.mgrid[-1:1:80j, -1:1:80j]
    image = np.zeros((80, 80, 4), np.uint8)
    image[:] = (0, 255, 0, 0)
    image[x * x + y * y < 0.5] = (255, 0, 0, 255)
    found = pixels(save(Image.fromarray(image), "PNG"), options(size, 4))
    seen = found[found[..., 3] > 8]
    assert (seen[:, 3] < 255).any()
    assert seen[:, 1].max() == 0
    assert seen[:, 0].min() >= 240


def test_border_pads_with_what_is_not_there() -> None:
    found = pixels(save(plain(size=(30, 10)), "PNG"), options((30, 30), 4, "border"))
    assert (found[:10] == 0).all()
    assert (found[10:20] == (*RED, 255)).all()


def test_what_is_too_long_for_a_jpeg() -> None:
    body = save(plain("L", 9, (65_501, 1)), "PNG")
    assert decode(body, options(resize="no", store="jpeg"), 100_000).status == "too_many_pixels"
    assert decode(body, options(resize="no"), 100_000).status == "ok"


def test_center_crop_cuts_and_border_pads() -> None:
    wide = np.full((10, 30, 3), 255, np.uint8)
    wide[:, :10], wide[:, 20:] = RED, RED
    body = save(Image.fromarray(wide), "PNG")
    assert (pixels(body, options((10, 10))) == 255).all()
    padded = pixels(body, options((30, 30), resize="border"))
    assert (padded[:10] == 0).all()
    assert (padded[20:] == 0).all()
    assert (padded[10:20] == wide).all()
    thin = save(Image.new("RGB", (200, 1), WHITE), "PNG")
    assert pixels(thin, options((8, 8), resize="border")).max() == 255


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_borders_of_the_crop_may_lie_within_a_pixel(kind: str) -> None:
    """A ramp keeps its mean under any centred crop, and its slope tells where the crop's border is."""
    ramp = np.tile(np.linspace(0, 252, 127).astype(np.uint8), (64, 1))
    row = pixels(save(Image.fromarray(ramp), kind, **({"quality": 100} if kind == "JPEG" else {})), options((7, 7), 1))
    exact = area_average(ramp[:, :, None], (7, 7))
    assert np.abs(row - exact)[:, 1:-1].max() < 1.6


@pytest.mark.parametrize("resize", ["center_crop", "border"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_shrinking_does_not_alias(resize: str, kind: str) -> None:
    """Stripes too fine for the target become their mean; picking pixels would leave black and white."""
    stripes = np.zeros((96, 96, 3), np.uint8)
    stripes[:, ::2] = 255
    body = save(Image.fromarray(stripes), kind, **({"quality": 95} if kind == "JPEG" else {}))
    shrunk = pixels(body, options(resize=resize))
    assert np.abs(shrunk.astype(int) - 127).max() < 12


@pytest.mark.parametrize("size", [(256, 256), (640, 480), (500, 333)])
def test_png_too_comes_near_exact_area_averages(size: tuple[int, int]) -> None:
    image = photo(*size)
    body = save(image, "PNG", compress_level=0)
    assert psnr(pixels(body, options((64, 64))), area_average(np.asarray(image), (64, 64))) > 44


@pytest.mark.parametrize("resize", ["center_crop", "border"])
def test_the_size_wanted_is_left_as_it_is(resize: str) -> None:
    image = photo(48, 32)
    assert (pixels(save(image, "PNG"), options((32, 48), resize=resize)) == np.asarray(image)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_images_are_corrupt(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    body = save(Image.fromarray(noise), kind)
    for part in np.linspace(0.01, 0.95, 24):
        length = max(int(len(body) * part), 16)
        decoded = decode(body[:length], options(), 10_000)
        assert (decoded.status, decoded.pixels) == ("corrupt", None), length
        assert decoded.reason


@pytest.mark.parametrize("kind", KINDS)
def test_what_follows_the_image_does_not_count(kind: str) -> None:
    body = save(photo(40, 30), kind)
    assert (pixels(body + b"<!-- served by -->\xff\xd9" * 50) == pixels(body)).all()


@pytest.mark.parametrize(
    "body", [b"", b"<html></html>", b"%PDF-1.7", b"\x00\x00\x00\x20ftypheic", b"<svg xmlns='x'/>", b"P5 1 1 255 x"]
)
def test_no_image_that_we_read(body: bytes) -> None:
    assert decode(body, options(), 10_000).status == "not_image"


NOTHING = png(header_of_png(100_000, 100_000), b"IDAT" + zlib.compress(b""), b"IEND")
"""A PNG that announces 10 billion pixels and brings none."""


def test_pixels_are_limited_by_the_header() -> None:
    """A bomb is refused without a warning and without being decoded."""
    decoded = decode(NOTHING, options(), 50_000_000)
    assert (decoded.status, decoded.reason) == ("too_many_pixels", "100000x100000, 50000000 pixels allowed")
    assert decode(save(plain(size=(100, 100)), "PNG"), options(), 10_000).status == "ok"
    assert decode(save(plain(size=(101, 100)), "PNG"), options(), 10_000).status == "too_many_pixels"


@pytest.mark.parametrize("kind", KINDS)
def test_each_format_has_the_limit(kind: str) -> None:
    assert decode(save(plain(size=(101, 100)), kind), options(), 10_100).status == "ok"
    assert decode(save(plain(size=(101, 100)), kind), options(), 10_099).status == "too_many_pixels"


@pytest.mark.parametrize(
    "body",
    [
        b"GIF89a"
        + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0)
        + b","
        + struct.pack("<HHHHB", 0, 0, 1, 1, 0)
        + b"\2",
        b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0),
        b"\xff\xd8\xff\xc0\0\x0b\x08" + struct.pack(">HH", 65_500, 65_500) + b"\1\1\x11\0\xff\xda\0\x08\1\1\0\0\x3f\0",
    ],
)
def test_headers_of_bombs(body: bytes) -> None:
    assert decode(body, options(), 50_000_000).status == "too_many_pixels"


def test_no_pixels() -> None:
    empty = png(header_of_png(0, 5), b"IDAT" + zlib.compress(b""), b"IEND")
    assert decode(empty, options(), 10_000).status in ("too_small", "corrupt")
    gif = b"GIF89a" + struct.pack("<HHBBB", 0, 0, 0, 0, 0) + b";"
    assert decode(gif, options(), 10_000).status in ("too_small", "corrupt")


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


def test_one_avif_at_a_time_whatever_its_header_says() -> None:
    """What it says is a property of the box around the film; libavif decodes the film and shrinks it."""
    body = save(plain(size=(600, 400)), "AVIF", speed=10)
    at = body.index(b"ispe") + 8
    lies = body[:at] + struct.pack(">II", 12, 8) + body[at + 8 :]
    with ThreadPoolExecutor(1) as threads:
        with ONE_LARGE:
            other = threads.submit(decode, lies, options(), 100)
            with pytest.raises(StillBusy):
                other.result(0.3)
        assert (other.result(30).width, other.result().height) == (12, 8)


def test_reasons_name_no_place_in_memory() -> None:
    """A ledger is the same each time."""
    for kind in KINDS:
        body = save(plain(), kind)[:13]
        assert "0x" not in decode(body, options(), 10_000).reason


def test_avif_by_its_compatible_brands() -> None:
    body = save(photo(24, 20), "AVIF")
    assert body[8:12] == b"avif"
    other = body[:8] + b"mif1" + body[12:]
    assert b"avif" in other[16:32]
    assert sniff(other) == "AVIF"
    assert (pixels(other) == pixels(body)).all()
    assert sniff(body[:8] + b"heic" + body[12:16] + b"mif1heic" + body[24:]) is None


STATES = {"ok", "not_image", "corrupt", "too_many_pixels", "too_small"}
STARTS = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\0\0\0\0WEBP", b"BM"]
STARTS += [b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0", b"\0\0\0\x18ftypavif"]
WHOLE = [save(photo(24, 20), kind) for kind in KINDS] + [
    save(photo(24, 20), "JPEG", progressive=True),
    save(photo(24, 20).convert("CMYK"), "JPEG"),
    save(photo(24, 20).convert("RGBA"), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"),
    save(photo(24, 20), "GIF", save_all=True, append_images=[photo(24, 20, 1)]),
]


def judge(body: bytes) -> None:
    decoded = decode(body, options(), 10_000)
    assert decoded.status in STATES
    assert (decoded.pixels is not None) == (decoded.status == "ok")
    if decoded.pixels is None:
        assert decoded.reason
    else:
        assert decoded.pixels.shape == (8, 8, 3)


@settings(max_examples=200, deadline=None)
@given(start=st.sampled_from(STARTS), rest=st.binary(max_size=200))
def test_random_bytes_end_in_a_known_state(start: bytes, rest: bytes) -> None:
    judge(start + rest)


@settings(max_examples=250, deadline=None)
@given(body=st.sampled_from(WHOLE), data=st.data())
def test_damaged_images_end_in_a_known_state(body: bytes, data: st.DataObject) -> None:
    """Bytes replaced, left out and put in, most often where the header is."""
    damaged = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        last = data.draw(st.sampled_from([64, len(damaged)]))
        at = data.draw(st.integers(0, min(last, len(damaged))))
        damaged[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    judge(bytes(damaged))
