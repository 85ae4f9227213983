from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from startup_ray.report.collection import funnel
from startup_ray.storage import Folder
from tests.fakes import make_dataset, patterns


def test_what_was_forgotten_is_no_loss_of_fetching(tmp_path: Path) -> None:
    images, labels = patterns(4)
    dataset = make_dataset(Folder(str(tmp_path)), images, labels, ["train"] * 4)
    steps = {stage.name: stage.lost for stage in funnel(dataset)}
    assert "not forgotten" not in steps
    found = replace(dataset, items=9, counts={"ok": 4, "forgotten": 3, "http_404": 2})
    assert [(stage.name, stage.items, stage.lost) for stage in funnel(found)] == [
        ("in the manifest", 9, 0),
        ("not forgotten", 6, 3),
        ("fetched", 4, 2),
        ("valid images", 4, 0),
        ("unique images", 4, 0),
    ]
