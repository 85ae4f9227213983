"""A cluster of three hosts, as the scripts of `cluster/local` make it, loses one: killed, or cut off from the others.

Whatever was on it is done again on the host that is left, and the end is that of a run from which nothing was taken.
One of these runs in `make test`, all in `make soak`, where each prints how long it took.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from startup_ray.jobfile import load_job
from startup_ray.planning import dataset_folder
from startup_ray.storage import Folder
from tests.fakes import make_dataset, patterns, read_ledger
from tests.hosts.cluster import Cluster, Command, await_that, living_nodes
from tests.hosts.net import Host, Net
from tests.image_server import ImageServer

EPOCHS = 30
LIMIT_S = 120
"""Not what is hoped for: the machine may be busy."""
TRAINING = f"""
name: hosts
storage: {{folder}}/runs
ingest: {{{{manifest: "{{folder}}/none.json", image: {{{{size: [12, 12], channels: 1}}}}}}}}
model: {{{{kind: cnn, filters: [16], dense: 64}}}}
training: {{{{epochs: {EPOCHS}, global_batch: 64, steps_per_call: 5, checkpoint_every_steps: 10}}}}
scaling: {{{{workers: 2, max_failures: 3}}}}
"""
INGEST = """
name: hosts
storage: {folder}/runs
ingest:
  manifest: "{folder}/manifest.json"
  image: {{size: [6, 6], channels: 1}}
  fetch: {{allow_private: [{server}/32], per_host: 16, retries: 1}}
model: {{kind: cnn}}
training: {{epochs: 1}}
"""
ITEMS, REPEATED = 6_200, 5
"""Enough for several chunks, and bodies that belong to two items."""


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_host_is_killed_while_it_trains(cluster: Cluster) -> None:
    began = time.monotonic()
    lost_while_training(cluster, Host.kill, "a kill")
    print(f"the test took {time.monotonic() - began:.0f} s and the start of the cluster")  # noqa: T201
    nothing_in_homes(cluster)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_host_is_cut_off_while_it_trains_and_comes_back(cluster: Cluster) -> None:
    cut = cluster.workers[0]
    lost_while_training(cluster, cluster.net.cut, "a cut")
    cluster.net.mend(cut)
    mended = time.monotonic()
    await_that(lambda: cut.address in cluster.alive(), "the host that was cut off")
    print(f"joined again {time.monotonic() - mended:.1f} s after the cut was mended")  # noqa: T201
    nothing_in_homes(cluster)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("end", ["killed", "cut off"])
def test_a_host_is_lost_while_it_fetches(cluster: Cluster, end: str) -> None:
    with served(cluster.net) as server:
        job = write_ingest(cluster, server)
        server.delay_s = 0.05
        ingest = cluster.start("ingest", str(job))
        await_that(lambda: server.hits.total() > ITEMS // 3, "items")
        victim, before = max(cluster.workers, key=fetchers), server.hits.total()
        had = fetchers(victim)
        assert had
        began = time.monotonic()
        (Host.kill if end == "killed" else cluster.net.cut)(victim)
        await_that(lambda: victim.address not in cluster.alive(), "the end of a host")
        noticed_s = time.monotonic() - began
        disturbed = ingest.wait(LIMIT_S)
        done_s, twice = time.monotonic() - began, server.hits.total() - ITEMS - 1
        print(f"{end}, with {had} of the processes that fetch: noticed in {noticed_s:.1f} s")  # noqa: T201
        print(f"done after {done_s:.1f} s; of {before} items {twice} were fetched twice")  # noqa: T201
        assert server.hits.total() > before
        server.delay_s = 0.0
        calm = cluster.start("ingest", str(job), "--fresh").wait()
    assert disturbed["dataset"] != calm["dataset"]
    assert (disturbed["digest"], disturbed["counts"]) == (calm["digest"], calm["counts"])
    assert calm["counts"] == {"ok": ITEMS - REPEATED, "duplicate": REPEATED, "http_404": 1, "bad_url": 1}
    ids = [row["id"] for row in read_ledger(Folder(disturbed["dataset"]))]
    assert sorted(ids) == sorted(item["id"] for item in json.loads((cluster.folder / "manifest.json").read_text()))


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_cluster_whose_head_has_failed_comes_back(cluster: Cluster) -> None:
    """With nothing of what ran on it: drivers are to be started again, and go on where they were."""
    before = set(living_nodes(cluster.head))
    gcs = next(pid for pid, text in cluster.head.processes().items() if text.split()[0].endswith("/gcs_server"))
    began = time.monotonic()
    os.kill(gcs, signal.SIGKILL)
    await_that(lambda: len(new_nodes(cluster.head, before)) == 3, "all hosts", 2 * LIMIT_S)
    print(f"all hosts are back {time.monotonic() - began:.0f} s after the death of the GCS")  # noqa: T201


def new_nodes(head: Host, before: set[str]) -> set[str]:
    try:
        return set(living_nodes(head)) - before
    except OSError:  # the head is not up yet
        return set()


def lost_while_training(cluster: Cluster, lose: Any, what: str) -> None:
    """Train on both workers, lose one of them after some epochs, and compare with a run that lost none."""
    job = write_training(cluster)
    storage = [cluster.folder / name for name in ("calm", "disturbed")]
    for place in storage:
        images, labels = patterns(2_600, size=12)
        folder = dataset_folder(load_job(str(job), set=[f"storage={place}"]))
        make_dataset(folder, images, labels, ["train"] * 2_000 + ["val"] * 600)
    calm = cluster.start("train", str(job), "--set", f"storage={storage[0]}").wait()
    with cluster.other_work() as end_other_work:
        training = cluster.start("train", str(job), "--set", f"storage={storage[1]}")
        before = await_that(lambda: begun(storage[1], training), "epochs")
        assert all(trains(worker) for worker in cluster.workers)
        began = time.monotonic()
        lose(cluster.workers[0])
        end_other_work()
    lost = cluster.workers[0].address
    await_that(lambda: lost not in cluster.alive(), "the end of a host")
    noticed_s = time.monotonic() - began
    await_that(lambda: parts(storage[1]) - before, "an epoch of the second attempt", LIMIT_S)
    print(f"after {what}: noticed in {noticed_s:.1f} s, first new epoch {time.monotonic() - began:.1f} s")  # noqa: T201
    disturbed = training.wait()
    assert disturbed["weights_digest"] == calm["weights_digest"]
    assert disturbed["metrics"] == calm["metrics"]
    assert disturbed["epochs"] == EPOCHS
    told = training.told()
    assert told.count("going on from the last checkpoint") >= 1, told
    first = min(json.loads(path.read_text().splitlines()[0])["epoch"] for path in parts(storage[1]) - before)
    assert first > 1, "it began anew"


def write_training(cluster: Cluster) -> Path:
    (cluster.folder / "none.json").write_text("[]")
    job = cluster.folder / "training.yaml"
    job.write_text(TRAINING.format(folder=cluster.folder))
    return job


def write_ingest(cluster: Cluster, server: ImageServer) -> Path:
    place = cluster.net.switch.address
    items: list[dict[str, Any]] = [
        {"id": f"{i}", "url": server.url(f"/image/{i % (ITEMS - REPEATED)}.png", place), "label": str(i % 3)}
        for i in range(ITEMS)
    ]
    items += [{"id": "gone", "url": server.url("/status/gone?code=404", place)}, {"id": "bad"}]
    (cluster.folder / "manifest.json").write_text(json.dumps(items))
    job = cluster.folder / "ingest.yaml"
    job.write_text(INGEST.format(folder=cluster.folder, server=place))
    return job


@contextmanager
def served(net: Net) -> Iterator[ImageServer]:
    """The image server of this process, at the bridge too, where the hosts reach it."""
    with ImageServer() as server:
        with net.switch.network():
            listening = socket.create_server((net.switch.address, server.port))
        site = web.SockSite(server._runner, listening)
        asyncio.run_coroutine_threadsafe(site.start(), server._loop).result()
        yield server


def parts(storage: Path) -> set[Path]:
    """Files with the metrics of an attempt each, which appear with its first epoch."""
    return {path for path in storage.glob("runs/*/metrics/*.jsonl") if not path.name.startswith(".")}


def begun(storage: Path, training: Command) -> set[Path]:
    """`parts`, once there are some epochs and a checkpoint."""
    assert training.process.poll() is None, training.told()
    found = parts(storage)
    epochs = sum(len(path.read_text().splitlines()) for path in found)
    return found if epochs >= 3 and any(storage.glob("runs/*/LATEST")) else set()


def trains(host: Host) -> bool:
    return any("RayTrainWorker" in text for text in host.processes().values())


def fetchers(host: Host) -> int:
    return sum("MapWorker" in text for text in host.processes().values())


def nothing_in_homes(cluster: Cluster) -> None:
    """Where Ray would keep a token of its own, readable for others."""
    assert [host.name for host in cluster.net.hosts if (host.home / ".ray").exists()] == []
