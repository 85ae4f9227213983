"""An ingest killed with SIGKILL, run again, ends as if it never had been: the driver, a fetch actor, the whole tree.

Once each in `make test`, at ten random moments each in `make soak`.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from startup_ray.dataset import Dataset
from startup_ray.ingest.pipeline import ingest
from startup_ray.job import IngestOptions
from startup_ray.lease import hold
from startup_ray.ledger import SUCCESS
from startup_ray.storage import Folder
from tests.fakes import read_ledger
from tests.image_server import ImageServer

pytestmark = pytest.mark.usefixtures("ray_session")

ITEMS, CHUNK = 240, 10

DRIVER = f"""
import sys
import ray
from startup_ray.ingest.pipeline import ingest
from startup_ray.job import IngestOptions
from startup_ray.lease import hold
from startup_ray.storage import Folder
address, temporary, folder, options = sys.argv[1:]
if address:
    ray.init(address=address, log_to_driver=False)
else:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=temporary)
with hold(Folder(folder)) as lease:
    ingest(IngestOptions.model_validate_json(options), Folder(folder), lease.fence, chunk_items={CHUNK})
"""


@dataclass
class Scene:
    """A slow server, a manifest of its images, and drivers in processes of their own."""

    server: ImageServer
    options: IngestOptions
    folder: Folder
    temporary: str

    def start(self, address: str) -> subprocess.Popen[bytes]:
        """A driver on the Ray at an address, or with one of its own."""
        words = [sys.executable, "-c", DRIVER, address, self.temporary, self.folder.uri, self.options.model_dump_json()]
        return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

    def finish(self, folder: Folder) -> Dataset:
        with hold(folder) as lease:
            return ingest(self.options, folder, lease.fence, chunk_items=CHUNK)

    def is_idle(self) -> bool:
        return self.server.open_now == 0


@pytest.fixture
def scene(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with ImageServer() as server:
        items = [{"id": f"{i}", "url": server.url(f"/image/{i % (ITEMS - 5)}.png")} for i in range(ITEMS)]
        items += [{"id": "gone", "url": server.url("/status/gone?code=404")}, {"id": "bad"}]
        (tmp_path / "m.json").write_text(json.dumps(items))
        fetch = {"allow_private": ["127.0.0.1/32"], "retries": 0, "per_host": 6}
        plain = {"manifest": str(tmp_path / "m.json"), "image": {"size": [6, 6]}, "fetch": fetch}
        temporary = tmp_path_factory.mktemp("r")
        yield Scene(server, IngestOptions.model_validate(plain), Folder(str(tmp_path / "data")), str(temporary))


def test_the_whole_tree_is_killed(scene: Scene) -> None:
    scene.server.delay_s = 0.1
    driver = scene.start("")
    wait_until(lambda: driver.poll() is None and len(scene.folder.list("ledger")) >= 4)
    kill_tree(driver)
    check(scene)


def check(scene: Scene) -> None:
    """What was committed is not fetched again, and the end is that of an undisturbed ingest."""
    wait_until(scene.is_idle)
    was_finished = scene.folder.exists("dataset.json")
    committed = {row["id"] for row in read_ledger(scene.folder)}
    scene.server.hits.clear()
    scene.server.delay_s = 0.0
    dataset = scene.finish(scene.folder)
    fetched = {path.split("/")[2].removesuffix(".png") for path in scene.server.hits}
    assert scene.server.hits.total() <= ITEMS + 1 - len(committed - {"bad"})
    assert not (fetched - {str(i) for i in range(5)}) & committed  # five bodies belong to two items each
    assert was_finished <= (not fetched)
    undisturbed = scene.finish(Folder(f"{scene.folder.uri}-undisturbed"))
    assert (dataset.digest, dataset.counts) == (undisturbed.digest, undisturbed.counts)
    assert sum(dataset.counts[state] for state in SUCCESS) == ITEMS
    assert dataset.counts["duplicate"] == 5


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("moment", range(10))
@pytest.mark.parametrize("victim", ["driver", "actor", "tree"])
def test_killed_at_a_random_moment(scene: Scene, victim: str, moment: int) -> None:
    import ray

    scene.server.delay_s = 0.1
    driver = scene.start("" if victim == "tree" else ray.get_runtime_context().gcs_address)
    after_s = random.Random(f"{victim} {moment}").uniform(0.5, 9.0)
    if victim != "tree":
        wait_until(lambda: scene.folder.exists("lease"))
        after_s *= 0.8
    time.sleep(after_s)
    if victim == "tree":
        kill_tree(driver)
    elif victim == "driver":
        driver.kill()
    else:
        for actor in fetch_actors(os.getpid())[:1]:
            actor.kill()
        assert driver.wait(120) == 0
    driver.wait(60)
    print(f"{victim} killed after {after_s:.1f} s: {len(read_ledger(scene.folder))} items were committed")  # noqa: T201
    check(scene)


def kill_tree(driver: subprocess.Popen[bytes]) -> None:
    """SIGKILL for a process and all its descendants, daemons of Ray included."""
    tree = [psutil.Process(driver.pid), *psutil.Process(driver.pid).children(recursive=True)]
    for process in tree:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    driver.wait(30)
    psutil.wait_procs(tree, timeout=30)


def fetch_actors(root: int) -> list[psutil.Process]:
    """Processes of fetch actors that descend from a process."""
    found = []
    for process in psutil.Process(root).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.name().startswith("ray::MapWorker"):
                found.append(process)
    return found


def wait_until(condition: Callable[[], Any], limit_s: float = 90.0) -> None:
    until = time.monotonic() + limit_s
    steady = 0
    while steady < 3:
        assert time.monotonic() < until
        steady = steady + 1 if condition() else 0
        time.sleep(0.1)
