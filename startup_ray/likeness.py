"""Which images are near duplicates: the same picture resized, encoded anew, brighter or darker.

    with Sketchbook() as book:
        book.add(smalls)                # uint8 [N, 32, 32] of `small`, in the order that decides
        first = book.firsts()           # int64 [N]: the image that each resembles, or its own place

An image joins the first image before it that leads a group and that it resembles, or leads one itself. So every
member resembles its leader (no chains), and what comes later changes nothing of what stands before. Two images are
alike if their perceptual hashes differ in at most MAX_DISTANCE bits and their thumbnails correlate. Colours do not
count. What is nearly flat resembles everything, and is compared with nothing. Thumbnails lie on disk.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_DISTANCE = 6
"""Bits of 64. At 8, different digits of one class begin to pass as one; docs/audit.md says what copies are found."""
MIN_CORRELATION = 0.985
"""Of the thumbnails. Different digits of one class reach 0.98, copies stay above 0.99."""
MIN_CONTRAST = 8.0
"""Standard deviation of an image's grey values in [0, 255] from which it is compared."""

_SIDE = 32
_THUMB = 16
_PIECES, _PIECE_BITS = 4, 16
_MASKS = (0, *(1 << bit for bit in range(_PIECE_BITS)))
_BLOCK = 1 << 21
"""Pairs looked at together; some 100 MB."""
_COSINES = np.cos(np.pi / (2 * _SIDE) * (2 * np.arange(_SIDE) + 1) * np.arange(1, 9)[:, None]).astype(np.float32)

NOTHING = np.zeros((_SIDE, _SIDE), np.uint8)
"""Stands for an image that cannot be read: it is flat, so it resembles nothing."""


def picture_of(pixels: NDArray[np.uint8]) -> Image.Image:
    """uint8 [height, width, channels], 1 for grey, 3 for RGB or 4 with alpha -> an image."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def over_white(picture: Image.Image) -> Image.Image:
    """An image of any mode; of an RGBA one RGB, as it looks on white paper."""
    if picture.mode != "RGBA":
        return picture
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def small(picture: Image.Image) -> NDArray[np.uint8]:
    """An image of any size and mode -> uint8 [32, 32] grey, what is transparent over white."""
    return np.asarray(over_white(picture).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR), np.uint8)


def hashes(smalls: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """uint8 [N, 32, 32] -> uint64 [N]: pHash, the signs of 8x8 low frequencies about their median.

    Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010), 3.2.1: the frequencies
    (1..8, 1..8) of the discrete cosine transform, so that neither brightness nor contrast counts.
    """
    waves = (_COSINES @ smalls.astype(np.float32) @ _COSINES.T).reshape(len(smalls), 64)
    is_above = waves > np.median(waves, axis=1, keepdims=True)
    return np.packbits(is_above, axis=1).view(np.uint64).ravel()


class Sketchbook:
    """What is needed of images to tell which are alike: 9 bytes each in memory, 256 on disk."""

    def __init__(self) -> None:
        self._hashes: list[NDArray[np.uint64]] = []
        self._is_flat: list[NDArray[np.bool_]] = []
        self._file = tempfile.TemporaryFile(prefix="startup-ray-")  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Sketchbook:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, smalls: NDArray[np.uint8]) -> None:
        """uint8 [N, 32, 32] of `small`, which follow those added before."""
        if not len(smalls):
            return
        self._hashes.append(hashes(smalls))
        self._is_flat.append(smalls.reshape(len(smalls), -1).std(axis=1) < MIN_CONTRAST)
        step = _SIDE // _THUMB
        blocks = smalls.reshape(len(smalls), _THUMB, step, _THUMB, step)
        self._file.write(np.round(blocks.mean(axis=(2, 4))).astype(np.uint8).tobytes())

    def firsts(self) -> NDArray[np.int64]:
        """int64 [N]: the place of the image that leads each image's group."""
        if not self._hashes:
            return np.zeros(0, np.int64)
        self._file.flush()
        thumbs = np.memmap(self._file, np.uint8, "r").reshape(-1, _THUMB * _THUMB)
        return _firsts(np.concatenate(self._hashes), thumbs, np.concatenate(self._is_flat))


def _firsts(
    found_hashes: NDArray[np.uint64], thumbs: NDArray[np.uint8], is_flat: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Images of one hash first, of which there may be very many; then those that are left, pair by pair."""
    first = np.arange(len(found_hashes))
    judged = np.flatnonzero(~is_flat)
    _join_equal(first, judged[np.argsort(found_hashes[judged], kind="stable")], found_hashes, thumbs)
    leaders = judged[first[judged] == judged]
    pairs = [leaders[pair] for pair in _near(found_hashes[leaders])]
    pairs = [pair[_are_alike(thumbs, pair[:, 0], pair[:, 1])] for pair in pairs]
    edges = np.unique(np.concatenate([np.zeros((0, 2), np.int64), *pairs])[:, ::-1], axis=0)
    for later, earlier in edges.tolist():  # in the order of the later: what is earlier is settled
        if first[later] == later and first[earlier] == earlier:
            first[later] = earlier
    return first[first]


def _join_equal(
    first: NDArray[np.int64], ordered: NDArray[np.int64], found_hashes: NDArray[np.uint64], thumbs: NDArray[np.uint8]
) -> None:
    """Let images of one hash follow the first of them that they resemble; `ordered` by hash, then place."""
    bounds = np.flatnonzero(np.diff(found_hashes[ordered])) + 1
    starts, ends = np.concatenate([[0], bounds]), np.concatenate([bounds, [len(ordered)]])
    for i in np.flatnonzero(ends - starts > 1).tolist():
        members = ordered[starts[i] : ends[i]]
        while len(members) > 1:
            leader, others = members[0], members[1:]
            is_alike = _are_alike(thumbs, np.full(len(others), leader), others)
            first[others[is_alike]] = leader
            members = others[~is_alike]


def _near(found: NDArray[np.uint64]) -> Iterator[NDArray[np.int64]]:
    """Pairs [n, 2] of places, the lower first, whose hashes differ in at most MAX_DISTANCE bits; some twice.

    Norouzi, Punjani and Fleet, "Fast Search in Hamming Space with Multi-Index Hashing" (2012): of four pieces one
    differs in at most one bit if all differ in at most seven.
    """
    for piece in range(_PIECES):
        keys = (found >> np.uint64(piece * _PIECE_BITS)).astype(np.uint16).astype(np.int64)
        order = np.argsort(keys, kind="stable")
        starts = np.searchsorted(keys[order], np.arange((1 << _PIECE_BITS) + 1))
        for mask in _MASKS:
            ones = np.flatnonzero(keys & mask == 0)  # of two pieces that differ in this bit, one has it
            wanted = keys[ones] ^ mask
            for one, other in _pairs(ones, starts[wanted], starts[wanted + 1], order):
                is_near = np.bitwise_count(found[one] ^ found[other]) <= MAX_DISTANCE
                is_near &= (one < other) if mask == 0 else True
                if is_near.any():
                    yield np.sort(np.stack([one[is_near], other[is_near]], axis=1), axis=1)


def _pairs(
    ones: NDArray[np.int64], lows: NDArray[np.int64], highs: NDArray[np.int64], order: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Each of `ones` with each of its `order[low:high]`, about _BLOCK pairs at a time."""
    sizes = highs - lows
    ends = np.cumsum(sizes)
    cuts = np.searchsorted(ends, np.arange(_BLOCK, int(ends[-1]) if len(ends) else 0, _BLOCK)).tolist()
    for start, stop in zip([0, *cuts], [*cuts, len(ones)], strict=True):
        counts = sizes[start:stop]
        if total := int(counts.sum()):
            within = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
            yield np.repeat(ones[start:stop], counts), order[np.repeat(lows[start:stop], counts) + within]


def _are_alike(
    thumbs: NDArray[np.uint8], one: NDArray[np.int64], other: NDArray[np.int64], block: int = 1 << 14
) -> NDArray[np.bool_]:
    """bool [n]: whether two thumbnails correlate (Pearson) by MIN_CORRELATION."""
    found = np.zeros(len(one), bool)
    for i in range(0, len(one), block):
        left, right = _unit(thumbs[one[i : i + block]]), _unit(thumbs[other[i : i + block]])
        found[i : i + block] = (left * right).sum(axis=1) >= MIN_CORRELATION
    return found


def _unit(thumbs: NDArray[np.uint8]) -> NDArray[np.float32]:
    centred = thumbs.astype(np.float32)
    centred -= centred.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True).astype(np.float32)
    unit: NDArray[np.float32] = centred / np.maximum(lengths, np.float32(1e-6))
    return unit
