"""All stages on an S3-like store that has faults end as on a local disk, bit for bit."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import startup_ray as sr
from startup_ray import inventory
from startup_ray.job import Job
from startup_ray.runs import Run
from startup_ray.storage import Folder
from startup_ray.trainers.messages import TrainProgress
from tests.fakes import patterns, png
from tests.image_server import ImageServer
from tests.ray.training import LONG, MARKS, Killer, dataset_in, fit, results
from tests.s3 import s3_server
from tests.s3_faults import RESET, FaultProxy, Plan, healthy, sometimes

pytestmark = MARKS

ROWS = 150
PLACES = ("evaluation", "predictions", "model", "dataset")
"""Of the evaluation's document."""


@pytest.fixture
def manifest(tmp_path: Path) -> Iterator[Path]:
    images, labels = patterns(ROWS)
    with ImageServer() as server:
        server.bodies = {str(number): png(image) for number, image in enumerate(images)}
        items = [
            {"id": f"{number}", "url": server.url(f"/body/{number}"), "label": label}
            for number, label in enumerate(labels)
        ]
        path = tmp_path / "m.json"
        path.write_text(json.dumps([*items, {"id": "gone", "url": server.url("/status/gone?code=404")}]))
        yield path


def job_of(manifest: Path, storage: str, **sections: Any) -> Job:
    ingest = {
        "manifest": str(manifest),
        "image": {"size": [8, 8], "channels": 1},
        "split": {"val": 0.2, "test": 0.2},
        "fetch": {"allow_private": ["127.0.0.1/32"], "retries": 0},
    }
    plain = {
        "name": "bands",
        "seed": 7,
        "storage": storage,
        "ingest": ingest,
        "model": {"filters": [4], "dense": 8, "dropout": 0.3},
        "training": {"epochs": 2, "global_batch": 20, "learning_rate": 0.02, "checkpoint_every_steps": 3},
        "scaling": {"workers": 1},
    }
    return Job.model_validate(plain | sections)


def story(job: Job) -> tuple[Run, dict[str, Any]]:
    """From the manifest to the report; the run, and what must not depend on the place."""
    dataset = sr.ingest_images(job)
    run = sr.train_model(dataset, job)
    scores = sr.evaluate_model(run, dataset, job)
    sr.write_report([run], run.folder.path("report.html"))
    assert b"</html>" in run.folder.read("report.html")[-99:]
    return run, {
        "dataset": (dataset.digest, dataset.counts, dataset.splits),
        "weights": run.document["weights_digest"],
        "metrics": run.document["metrics"],
        "scores": {key: value for key, value in scores.items() if key not in PLACES},
    }


def test_from_the_manifest_to_the_report_and_away(manifest: Path, tmp_path: Path) -> None:
    _, undisturbed = story(job_of(manifest, str(tmp_path / "runs")))
    with s3_server() as server, FaultProxy(server.port, sometimes(0.04, seed=3)) as proxy:
        storage = proxy.folder("all").uri
        found = story(job_of(manifest, storage))[1]
        assert found == undisturbed
        assert proxy.faults.total() >= 5
        there = inventory.entries(storage)
        assert [(entry.kind, entry.state) for entry in there] == [("dataset", "finished"), ("run", "finished")]
        assert len(list(inventory.delete(there, there))) == 2
        assert inventory.entries(storage) == []


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_with_many_faults_and_a_kill(undisturbed: tuple[dict[str, Any], Folder]) -> None:
    with s3_server() as server, FaultProxy(server.port, sometimes(0.15, seed=4)) as proxy:
        folder = proxy.folder("runs") / "one"
        killer = Killer([(0, signal.SIGKILL)], after=9)
        document = fit(dataset_in(proxy.folder("dataset")), folder, training=LONG, max_failures=1, on_progress=killer)
        assert not killer.blows
        assert document["weights_digest"] == undisturbed[0]["weights_digest"]
        assert results(folder) == results(undisturbed[1])
        told(proxy)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_an_outage_of_fifteen_seconds_while_it_trains(undisturbed: tuple[dict[str, Any], Folder]) -> None:
    with s3_server() as server, FaultProxy(server.port) as proxy:
        folder = proxy.folder("runs") / "one"
        dataset = dataset_in(proxy.folder("dataset"))

        def strike(progress: TrainProgress) -> None:
            if progress.step >= 9 and proxy.plan is healthy:
                proxy.plan = outage(15.0)

        document = fit(dataset, folder, training=LONG, on_progress=strike)
        assert document["weights_digest"] == undisturbed[0]["weights_digest"]
        assert results(folder) == results(undisturbed[1])
        told(proxy)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_sweep_an_export_and_a_prediction(manifest: Path, tmp_path: Path) -> None:
    sweep = {
        "trials": 4,
        "confirm": 1,
        "seeds": 1,
        "slots": 1,
        "space": {"training.learning_rate": "loguniform(1e-3, 1e-1)"},
    }
    (tmp_path / "photo.png").write_bytes(png(patterns(1)[0][0]))
    found: list[Any] = []
    with s3_server() as server, FaultProxy(server.port, sometimes(0.15, seed=6)) as proxy:
        for storage in (str(tmp_path / "runs"), proxy.folder("all").uri):
            job = job_of(manifest, storage, sweep=sweep)
            winner = sr.search(sr.ingest_images(job), job)
            run, same = story(winner)
            exported = sr.export_model(run, to=["keras", "onnx"])["exports"]
            labels = run.folder.path("labels.csv")
            assert sr.predict_images(run, [str(tmp_path / "photo.png")], out=labels)["rows"] == {"ok": 1}
            found.append((same, [row["max_abs_diff"] for row in exported], run.folder.read("labels.csv")))
        assert found[0] == found[1]
        told(proxy)


def outage(seconds: float) -> Plan:
    """No request gets through for so long."""
    end = time.monotonic() + seconds
    return lambda method, target: RESET if time.monotonic() < end else ""


def told(proxy: FaultProxy) -> None:
    assert proxy.faults.total() >= 5
    print(f"{proxy.requests.total()} requests, faults: {dict(proxy.faults)}")  # noqa: T201
