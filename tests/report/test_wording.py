"""Numbers and names as people read them."""

from __future__ import annotations

from startup_ray.report.wording import (
    count,
    distance,
    key_names,
    listed,
    metric_name,
    number,
    percent,
    score,
    setting,
    shortened,
    wording,
)


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


def test_scores_of_any_scale_have_digits_and_what_is_no_number_a_dash() -> None:
    found = [score(value) for value in (0.98322, 43.2171, 0.000012345, 0, float("nan"), None)]
    assert found == ["0.9832", "43.22", "1.23e-05", "0.0000", "–", "–"]
    assert [metric_name(name) for name in ("val/f1_macro", "loss")] == ["val F1 macro", "loss"]


def test_values_are_as_in_a_job_file() -> None:
    assert [setting(value) for value in (0.010816063, 64, [32, 64], None, True, "adam")] == [
        "0.01082",
        "64",
        "[32, 64]",
        "null",
        "true",
        "adam",
    ]


def test_keys_are_as_short_as_they_can_be_told_apart() -> None:
    keys = ("training.learning_rate", "training.augment.shift", "model.augment.shift", "shift")
    assert list(key_names(keys).values()) == ["learning_rate", "training.augment.shift", "model.augment.shift", "shift"]


def test_lists_are_read_aloud_and_long_ones_cut() -> None:
    assert [listed([]), listed([1]), listed([1, 2]), listed([1, 2, 3])] == ["", "1", "1 and 2", "1, 2 and 3"]
    assert listed(range(12), 2) == "0, 1 and 10 more"
    assert shortened("abcdef", 4) == "abc…"
