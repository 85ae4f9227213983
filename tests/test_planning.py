from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from startup_ray.errors import UsageError
from startup_ray.job import Job
from startup_ray.planning import plan


def job_with(tmp_path: Path, image: dict[str, Any], kind: str = "cnn") -> Job:
    manifest = tmp_path / "list.jsonl"
    manifest.write_text('{"id": "a", "url": "http://example.com/a"}\n')
    ingest = {"manifest": str(manifest), "image": image}
    return Job.model_validate({"name": "a", "storage": str(tmp_path), "ingest": ingest, "model": {"kind": kind}})


@pytest.mark.parametrize("resize", ["fit", "no"])
def test_a_training_on_images_of_many_sizes_is_refused_before_they_are_fetched(tmp_path: Path, resize: str) -> None:
    job = job_with(tmp_path, {"resize": resize})
    with pytest.raises(UsageError, match="a size of its own") as raised:
        plan(job, ("ingest", "train"))
    assert raised.value.where == "ingest.image.resize"
    (step,) = plan(job, ("ingest",))
    assert (step.stage, step.state) == ("ingest", "new")


def test_a_gan_with_transparency_is_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="without transparency"):
        plan(job_with(tmp_path, {"size": (32, 32), "channels": 4}, "gan"), ("ingest", "train"))
    plan(job_with(tmp_path, {"size": (32, 32), "channels": 4}), ("ingest", "train"))
