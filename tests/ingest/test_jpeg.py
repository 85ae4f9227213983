from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from startup_ray.ingest.decode import decode
from startup_ray.ingest.jpeg import MAX_SCANS, Jpeg
from tests.ingest.pictures import area_average, options, photo, pixels, psnr, save


def harmless(body: bytes) -> bytes:
    """The same JPEG with two stray bytes, of which libjpeg warns: the fast path refuses it, Pillow reads it."""
    at = body.index(b"\xff\xdb")
    return body[:at] + b"\0\0" + body[at:]


FILES: list[dict[str, Any]] = [
    {"quality": 90},
    {"quality": 90, "progressive": True},
    {"quality": 75, "subsampling": 0},
    {"quality": 75, "subsampling": 1, "optimize": True},
    {"quality": 85, "restart_marker_blocks": 3},
    {"quality": 90, "keep_rgb": True},
]


@settings(max_examples=100, deadline=None)
@given(
    size=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    target=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    how=st.sampled_from(FILES),
    grey=st.booleans(),
    channels=st.sampled_from([1, 3]),
    resize=st.sampled_from(["center_crop", "border"]),
    orientation=st.integers(1, 8),
)
def test_the_fast_path_gives_what_pillow_gives(
    size: tuple[int, int],
    target: tuple[int, int],
    how: dict[str, Any],
    grey: bool,
    channels: int,
    resize: str,
    orientation: int,
) -> None:
    """Within 2 of 255, which leaves room for a Pillow that is built on another libjpeg; on the same one they agree."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = photo(*size)
    body = save(image.convert("L") if grey else image, "JPEG", exif=exif, **({} if grey else how))
    Jpeg(body).load("L", 1)
    with pytest.raises(ValueError, match="extraneous"):
        Jpeg(harmless(body))
    opts = options(target, channels, resize)
    fast, pillow = pixels(body, opts).astype(int), pixels(harmless(body), opts)
    assert np.abs(fast - pillow).max() <= 2


@pytest.mark.parametrize("size", [(64, 48), (67, 45), (1, 9), (8, 8), (7, 7)])
def test_sizes_are_rounded_up(size: tuple[int, int]) -> None:
    jpeg = Jpeg(save(photo(*size), "JPEG"))
    assert jpeg.size == size
    assert jpeg.shrinks == ((8, 4, 2) if size != (7, 7) else ())
    for shrink in (1, *jpeg.shrinks):
        assert jpeg.load("RGB", shrink).size == tuple(-(-side // shrink) for side in size)
        assert jpeg.load("L", shrink).mode == "L"


@pytest.mark.parametrize("width", range(1, 12))
@pytest.mark.parametrize("height", [1, 7, 12])
def test_tiny_images_are_shrunk_by_that_factor(width: int, height: int) -> None:
    """Pillow is told the factor, turbojpeg a size; several factors may give one size."""
    body = save(photo(width, height), "JPEG", quality=95)
    for target in ((1, 1), (1, 3), (2, 1)):
        opts = options(target)
        assert np.abs(pixels(body, opts).astype(int) - pixels(harmless(body), opts)).max() <= 2


@pytest.mark.parametrize(
    ("size", "target", "least_db"),
    [
        ((256, 256), (64, 64), 48),  # decoded to just that size
        ((260, 256), (64, 64), 47.5),  # not so, as the crop begins within a pixel of that size
        ((640, 480), (64, 64), 47),
        ((640, 480), (256, 256), 53),
        ((640, 480), (80, 80), 46),  # 1.5 pixels per pixel, the fewest
        ((640, 480), (100, 100), 50),
        ((500, 333), (32, 48), 47),
        ((333, 500), (224, 224), 51),
        ((640, 480), (14, 14), 43.5),  # 1/8, then halved by box
    ],
)
def test_shrinking_comes_near_exact_area_averages(
    size: tuple[int, int], target: tuple[int, int], least_db: float
) -> None:
    """A Lanczos or box filter, or fewer pixels left to the filter, fails at some of these."""
    body = save(photo(*size), "JPEG", quality=90)
    whole = np.asarray(Jpeg(body).load("RGB", 1))
    assert psnr(pixels(body, options(target)), area_average(whole, target)) > least_db


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("resize", ["center_crop", "border"])
def test_orientation_is_undone_after_resizing(orientation: int, resize: str) -> None:
    """The rows and columns of CIPA DC-008, 4.6.4, turned by hand."""
    stored = photo(99, 67)
    exif = Image.Exif()
    exif[0x0112] = orientation
    target = (20, 30)
    turned = pixels(save(stored, "JPEG", exif=exif), options(target, resize=resize))
    plain = pixels(save(stored, "JPEG"), options(target if orientation < 5 else target[::-1], resize=resize))
    across = plain.transpose(1, 0, 2)
    assert (
        turned
        == {
            1: plain,
            2: plain[:, ::-1],
            3: plain[::-1, ::-1],
            4: plain[::-1],
            5: across,
            6: across[:, ::-1],
            7: across[::-1, ::-1],
            8: across[::-1],
        }[orientation]
    ).all()


def test_orientation_is_found_behind_other_segments() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    body = save(photo(40, 30), "JPEG", exif=exif, comment=b"c" * 70, icc_profile=b"p" * 70_000)
    at = body.index(b"\xff\xe1")
    shifted = body[:2] + b"\xff\xec\0\x06\xff\xd8\xff\xda" + body[2:at] + b"\xff" + body[at:]  # and a fill byte
    assert [Jpeg(some).orientation() for some in (body, shifted, save(photo(40, 30), "JPEG"))] == [6, 6, 1]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
@pytest.mark.parametrize("exif", [b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0", b"Exif\0\0garbage" * 9])
def test_broken_exif_is_no_reason_to_refuse(exif: bytes) -> None:
    assert pixels(save(photo(40, 30), "JPEG", exif=exif)).shape == (8, 8, 3)


@pytest.mark.parametrize("shift", [9, 0])
def test_orientations_that_do_not_exist_are_upright(shift: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = shift
    assert Jpeg(save(photo(40, 30), "JPEG", exif=exif)).orientation() == 1


def test_four_components_are_left_to_pillow() -> None:
    cmyk = save(Image.new("CMYK", (40, 30), (255, 0, 0, 0)), "JPEG")
    with pytest.raises(ValueError, match="CMYK"):
        Jpeg(cmyk)
    assert np.abs(pixels(cmyk).astype(int) - (0, 255, 255)).max() < 6


def test_ycck_is_converted() -> None:
    """Marked as YCCK (Adobe's transform 2), stored values 100, 128, 128, 255 are a luma of 100, inverted, no black."""
    cmyk = save(Image.new("CMYK", (40, 30), (155, 127, 127, 0)), "JPEG", quality=100)
    at = cmyk.index(b"Adobe") + 11
    assert cmyk[at] == 0
    ycck = cmyk[:at] + b"\2" + cmyk[at + 1 :]
    assert np.abs(pixels(ycck).astype(int) - 155).max() < 4
    assert np.abs(pixels(cmyk).astype(int) - (100, 128, 128)).max() < 4


def test_the_first_of_several_pictures_counts() -> None:
    first = photo(40, 30)
    mpo = save(first, "MPO", save_all=True, append_images=[Image.new("RGB", (40, 30))])
    assert psnr(pixels(mpo), pixels(save(first, "JPEG"))) > 40
    assert psnr(pixels(harmless(mpo)), pixels(mpo)) > 45


def test_what_libjpeg_only_warns_of_is_no_reason_to_refuse() -> None:
    body = save(photo(40, 30), "JPEG")
    end = body.rindex(b"\xff\xd9")
    for odd in (harmless(body), body[:end] + b"\0\1\2" + body[end:], body + b"and more" * 99):
        assert (pixels(odd) == pixels(body)).all()


@pytest.mark.parametrize("progressive", [False, True])
def test_truncated_anywhere_is_corrupt(progressive: bool) -> None:
    body = save(photo(64, 64), "JPEG", progressive=progressive)
    for length in [*range(3, len(body) - 2, 97), len(body) - 2]:
        decoded = decode(body[:length], options(), 10_000)
        assert (decoded.status, decoded.pixels) == ("corrupt", None), length
        assert decoded.reason


@pytest.mark.parametrize(("height", "status"), [(0, "corrupt"), (1, "ok"), (65_500, "too_many_pixels")])
def test_the_header_is_judged_first(height: int, status: str) -> None:
    body = save(Image.new("L", (40, 8)), "JPEG")
    at = body.index(b"\xff\xc0") + 5
    assert decode(body[:at] + height.to_bytes(2) + body[at + 2 :], options(), 10_000).status == status


def with_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated until there are so many."""
    body = save(photo(16, 16).convert("L"), "JPEG", progressive=True)
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
