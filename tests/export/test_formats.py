"""Names of formats, and the comparison. The formats themselves are in tests/ray/test_export.py."""

from __future__ import annotations

import numpy as np
import pytest

from startup_ray.errors import UsageError
from startup_ray.export.compare import MEASURED_S, MIN_CALLS, compare, latency_ms
from startup_ray.export.formats import find_formats
from tests.fakes import Clock

IMAGES = np.zeros((600, 2, 2, 1), np.float32)
LOGITS = np.tile(np.array([4.0, -8.0], np.float32), (600, 1))


def test_formats_by_name_each_once() -> None:
    assert [form.name for form in find_formats(["onnx", "keras", "onnx"])] == ["onnx", "keras"]


@pytest.mark.parametrize(("name", "told"), [("onxx", "did you mean 'onnx'?"), ("tflite3", "keras, savedmodel, onnx")])
def test_an_unknown_format_is_told(name: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_formats(["keras", name])
    assert told in caught.value.hint


def test_what_is_not_installed_is_told_with_the_way_out() -> None:
    with pytest.raises(UsageError, match="onnx needs packages that are not installed: tf2onnx") as caught:
        find_formats(["keras", "onnx"], find=lambda name: None if name == "tf2onnx" else name)
    assert "pip install 'startup_ray[export]'" in caught.value.hint
    assert find_formats(["keras", "savedmodel"], find=lambda _: None)


def test_the_difference_is_the_largest_in_any_batch() -> None:
    sizes = []

    def call(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        return LOGITS[: len(images)] + (len(images) == 88) * np.float32(0.5)

    found = compare(call, [IMAGES], LOGITS)
    assert sizes == [256, 256, 88]
    assert (found.absolute, found.relative, found.same_classes) == (0.5, 0.0625, True)


def test_another_class_is_told_however_small_the_difference() -> None:
    even = np.tile(np.array([1.0, 1.0 - 1e-6], np.float32), (600, 1))
    found = compare(lambda images: even[: len(images), ::-1], [IMAGES], even)
    assert not found.same_classes
    assert found.relative < 1e-5


@pytest.mark.parametrize("wrong", [np.full((600, 2), np.nan, np.float32), np.zeros((600, 3), np.float32)])
def test_what_is_no_number_or_of_another_shape_differs(wrong: np.ndarray) -> None:
    assert compare(lambda images: wrong[: len(images)], [IMAGES], LOGITS).relative == float("inf")


def test_latency_is_the_median_of_enough_calls_after_some_that_do_not_count() -> None:
    clock, calls = Clock(), []

    def call(images: np.ndarray) -> np.ndarray:
        calls.append(len(images))
        clock.now += 9.0 if len(calls) <= 3 or len(calls) % 5 == 0 else 0.010
        return images

    assert latency_ms(call, [IMAGES[:3]], 32, clock=clock) == pytest.approx(10.0, abs=1e-3)
    assert set(calls) == {32}
    assert len(calls) >= 3 + MIN_CALLS
    calls.clear()
    assert latency_ms(lambda images: calls.append(1) or _wait(clock, images), [IMAGES], 1, clock=clock) == 4.0  # type: ignore[func-returns-value]
    assert (len(calls) - 3) * 0.004 >= MEASURED_S


def _wait(clock: Clock, images: np.ndarray) -> np.ndarray:
    clock.now += 0.004
    return images
