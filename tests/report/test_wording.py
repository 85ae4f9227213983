"""Numbers and names as people read them."""

from __future__ import annotations

from startup_ray.report.wording import count, distance, number, percent, wording


def test_less_than_all_is_never_a_hundred_percent() -> None:
    assert [percent(value) for value in (1, 0.99999, 0.9833, None)] == ["100.0%", "99.9%", "98.3%", "–"]


def test_distances_of_any_scale_have_digits_to_tell_them_apart() -> None:
    found = [distance(value) for value in (1_234.567, 4.0435, 0.012345, 0, None)]
    assert found == ["1,234.57", "4.04", "0.0123", "0", "–"]


def test_what_has_no_value_is_a_dash() -> None:
    assert [count(None), number(None)] == ["–", "–"]
    assert [count(12_345.6), number(0.5)] == ["12,346", "0.5000"]


def test_metrics_have_the_names_that_people_use() -> None:
    assert [wording(name) for name in ("f1_macro", "fid", "nearest_ratio_p5")] == [
        "F1 macro",
        "FID",
        "nearest ratio p5",
    ]
