"""The whole ingest on Ray, against real servers on the loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from startup_ray.dataset import Dataset, read_dataset, read_split, require_success
from startup_ray.errors import ClusterError, DataError, ManifestError, RunHeldError, UsageError
from startup_ray.ingest.chunks import CHUNKS, IMAGES, LEDGER, names_in
from startup_ray.ingest.pipeline import Progress, ingest
from startup_ray.ingest.pool import ACTOR_CPUS, pool_size
from startup_ray.ingest.work import MAX_TRIES
from startup_ray.job import IngestOptions
from startup_ray.lease import hold
from startup_ray.ledger import NOTHING, STATES, Again, check_law, failures
from startup_ray.manifest import manifest_digest
from startup_ray.storage import Folder
from tests.fakes import read_ledger
from tests.image_server import ImageServer, image
from tests.ray.test_kills import fetch_actors, wait_until

pytestmark = pytest.mark.usefixtures("ray_session")

SAMPLE = IngestOptions.model_validate({"manifest": "sample:digits", "image": {"channels": 1}})


@pytest.fixture
def server() -> Iterator[ImageServer]:
    with ImageServer() as running:
        yield running


def options_for(path: Path, items: list[dict[str, Any]]) -> IngestOptions:
    path.write_text(json.dumps({"items": items}))
    fetch = {"allow_private": ["127.0.0.1/32"], "retries": 0, "timeout_s": 10}
    return IngestOptions.model_validate({"manifest": str(path), "image": {"size": [6, 6]}, "fetch": fetch})


def run(options: IngestOptions, folder: Folder, chunk_items: int = 4, again: Again = NOTHING) -> Dataset:
    with hold(folder) as lease:
        return ingest(options, folder, lease.fence, again=again, chunk_items=chunk_items)


def test_the_sample_from_end_to_end(tmp_path: Path) -> None:
    folder, told = Folder(str(tmp_path / "data")), list[Progress]()
    with hold(folder) as lease:
        dataset = ingest(SAMPLE, folder, lease.fence, on_progress=told.append)
    rows = {row["id"]: row for row in read_ledger(folder)}
    assert {name: row["status"] for name, row in rows.items() if name.startswith("fault")} == {
        "fault-404": "http_404",
        "fault-truncated": "truncated",
        "fault-html": "not_image",
        "fault-oversized": "too_large",
        "fault-duplicate": "duplicate",
        "fault-redirect": "blocked_address",
        "fault-file": "blocked_scheme",
    }
    assert all(row["status"] == "ok" for name, row in rows.items() if name.startswith("digit"))
    assert rows["fault-duplicate"]["reason"] == "digit-0000"
    assert [name for name, row in rows.items() if row["status"] == "ok" and row["attempts"] == 2] == ["digit-0007"]
    assert dataset.counts == dict(Counter(row["status"] for row in rows.values()))
    check_law(dataset.counts, 1_804)
    assert sum(dataset.splits.values()) == 1_797
    assert dataset.classes == tuple("0123456789")
    assert dataset.image_shape == (28, 28, 1)
    train = read_split(dataset, "train", ["id", "label", "image"])
    assert train.num_rows == dataset.splits["train"] > 1_200
    assert (told[-1].total, told[-1].done, told[-1].failed) == (1_804, 1_804, 6)
    assert [progress.done for progress in told] == sorted(progress.done for progress in told)
    assert len(told) > 4
    assert not folder.exists(CHUNKS)
    require_success(dataset, SAMPLE.min_success)

    assert read_dataset(folder) == dataset
    assert dataset.manifest_digest == manifest_digest(SAMPLE.manifest)
    assert run(SAMPLE, folder, chunk_items=512) == dataset  # another port, nothing to fetch


def test_repeated_ids_and_bodies_across_chunks(tmp_path: Path, server: ImageServer) -> None:
    items: list[Any] = [{"id": f"{i}", "url": server.url(f"/image/{i}.png"), "label": i % 3} for i in range(10)]
    items[8] = {"id": "8", "url": server.url("/image/1.png"), "split": "test"}  # the body of 1
    items[9] = {"id": "0", "url": server.url("/image/9.png")}  # the id of 0
    items += [{"id": "10", "url": server.url("/image/9.png")}, "no object", {"id": "11", "url": "nowhere"}]
    folder = Folder(str(tmp_path / "data"))
    options = options_for(tmp_path / "m.json", items)
    dataset = run(options, folder)
    rows = read_ledger(folder)
    assert [(rows[i]["status"], rows[i]["reason"]) for i in (8, 9, 10)] == [
        ("duplicate", "1"),
        ("bad_item", "repeats the id of row 0"),
        ("ok", ""),
    ]
    assert dataset.counts == {"ok": 9, "bad_item": 2, "blocked_scheme": 1, "duplicate": 1}
    assert sum(dataset.splits.values()) == 9
    assert dataset.classes == ("0", "1", "2")
    assert {f"{name}.parquet" for name in names_in(folder, IMAGES)} == set(dataset.shards)
    assert run(options, Folder(str(tmp_path / "other")), chunk_items=100).digest == dataset.digest
    assert max(server.hits.values()) <= 4  # two ingests, and a body that two items share


def test_interrupted_after_some_commits(tmp_path: Path, server: ImageServer) -> None:
    """What was committed is not fetched again, and a shard without a commit is no image."""
    items = [{"id": f"{i}", "url": server.url(f"/image/{i % 10}.png")} for i in range(12)]
    folder = Folder(str(tmp_path / "data"))
    options = options_for(tmp_path / "m.json", items)
    dataset = run(options, folder)
    folder.delete("dataset.json")
    folder.delete(f"{LEDGER}/{names_in(folder, LEDGER)[1]}.parquet")
    folder.put_whole("images/000009-aaaa-bbbb.parquet", b"left by a kill")
    server.hits.clear()
    again = run(options, folder)
    assert again.digest == dataset.digest
    assert again.counts == dataset.counts
    assert sorted(server.hits) == [f"/image/{i}.png" for i in (4, 5, 6, 7)]
    assert {f"{name}.parquet" for name in names_in(folder, IMAGES)} == set(again.shards)


def test_a_manifest_that_grows_fetches_only_what_is_new(tmp_path: Path, server: ImageServer) -> None:
    """Rows are added in front, between and behind; the owner of a body goes, and its duplicate comes back."""
    items = [{"id": f"{i}", "url": server.url(f"/image/{i % 9}.png")} for i in range(10)]
    folder, path = Folder(str(tmp_path / "data")), tmp_path / "m.json"
    first = run(options_for(path, items), folder)
    assert first.counts == {"ok": 9, "duplicate": 1}
    added = [{"id": f"new-{i}", "url": server.url(f"/image/{50 + i}.png")} for i in range(3)]
    options = options_for(path, [added[0], *items[1:5], added[1], *items[5:], added[2]])
    server.hits.clear()
    second = run(options, folder)
    assert sorted(server.hits) == [f"/image/{i}.png" for i in (0, 50, 51, 52)]
    assert second.counts == {"ok": 12}
    assert second.digest == run(options, Folder(str(tmp_path / "fresh"))).digest
    assert {f"{name}.parquet" for name in names_in(folder, IMAGES)} == set(second.shards)


def test_failures_are_fetched_again_when_asked_for(tmp_path: Path, server: ImageServer) -> None:
    """And nothing else, attempts adding up; the dataset is then that of a server that never failed."""
    items = [{"id": f"{i}", "url": server.url(f"/image/{i}.png"), "label": i % 2} for i in range(6)]
    items += [{"id": f"f{i}", "url": server.url(f"/flaky/{i}?times=1&code=503")} for i in range(2)]
    items += [{"id": "gone", "url": server.url("/status/gone?code=404")}, {"id": "bad"}]
    folder, options = Folder(str(tmp_path / "data")), options_for(tmp_path / "m.json", items)
    first = run(options, folder)
    assert first.counts == {"ok": 6, "http_503": 2, "bad_url": 1, "http_404": 1}
    before = server.hits.copy()
    second = run(options, folder, again=failures(["http_5xx"]))
    assert server.hits - before == {"/flaky/0": 1, "/flaky/1": 1}
    assert second.counts == {"ok": 6, "duplicate": 2, "bad_url": 1, "http_404": 1}
    assert [row["attempts"] for row in read_ledger(folder)] == [1] * 6 + [2, 2, 1, 0]
    before = server.hits.copy()
    assert run(options, folder, again=failures()).digest == second.digest
    assert server.hits - before == {"/status/gone": 1}
    assert second.digest == run(options, Folder(str(tmp_path / "fresh"))).digest


def test_killed_in_the_middle(tmp_path: Path, server: ImageServer) -> None:
    """SIGKILL of the driver against a slow server; the next run fetches only what was not committed."""
    import ray

    count, per_chunk = 40, 4
    items = [{"id": f"{i}", "url": server.url(f"/image/{i}.png")} for i in range(count)]
    folder = Folder(str(tmp_path / "data"))
    options = options_for(tmp_path / "m.json", items)
    options = options.model_copy(update={"fetch": options.fetch.model_copy(update={"per_host": 1})})
    server.delay_s = 0.3
    script = (
        "import ray, sys\n"
        "from startup_ray.ingest.pipeline import ingest\n"
        "from startup_ray.job import IngestOptions\n"
        "from startup_ray.lease import hold\n"
        "from startup_ray.storage import Folder\n"
        "ray.init(address=sys.argv[1], log_to_driver=False)\n"
        "folder = Folder(sys.argv[2])\n"
        "options = IngestOptions.model_validate_json(sys.argv[3])\n"
        "with hold(folder) as lease:\n"
        f"    ingest(options, folder, lease.fence, chunk_items={per_chunk})\n"
    )
    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, "-c", script, address, folder.uri, options.model_dump_json()]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        wait_for(lambda: len(names_in(folder, LEDGER)) >= 2, driver)
        os.kill(driver.pid, signal.SIGKILL)
    wait_for(lambda: server.open_now == 0, None)  # Ray ends the actors of a driver that has gone
    committed = {row["id"] for row in read_ledger(folder)}
    assert 2 * per_chunk <= len(committed) < count
    assert not folder.exists("dataset.json")
    server.hits.clear()
    server.delay_s = 0.0
    dataset = run(options, folder)
    assert {int(path.split("/")[2][:-4]) for path in server.hits} == set(range(count)) - set(map(int, committed))
    assert dataset.counts == {"ok": count}
    assert dataset.digest == run(options, Folder(str(tmp_path / "undisturbed"))).digest


def test_a_killed_fetch_actor_is_replaced(tmp_path: Path, server: ImageServer) -> None:
    """SIGKILL of a worker process in mid-chunk: Ray hands its chunks to another, and nothing counts twice."""
    items = [{"id": f"{i}", "url": server.url(f"/image/{i}.png")} for i in range(16)]
    options = options_for(tmp_path / "m.json", items)
    folder, killed, told = Folder(str(tmp_path / "data")), list[int](), list[Progress]()
    server.delay_s = 0.7

    def kill_once(progress: Progress) -> None:
        told.append(progress)
        if progress.done and not killed:
            killed.extend(actor.pid for actor in fetch_actors(os.getpid()))
            os.kill(killed[0], signal.SIGKILL)

    with hold(folder) as lease:
        dataset = ingest(options, folder, lease.fence, on_progress=kill_once, chunk_items=4)
    assert killed
    assert dataset.counts == {"ok": 16}
    assert (told[-1].done, told[-1].ok, told[-1].total) == (16, 16, 16)
    assert {f"{name}.parquet" for name in names_in(folder, IMAGES)} == set(dataset.shards)


def test_what_kills_every_actor_ends_the_ingest(tmp_path: Path, server: ImageServer) -> None:
    """An image that kills the process that decodes it would otherwise be tried for ever."""
    options = options_for(tmp_path / "m.json", [{"id": "a", "url": server.url("/slow?s=60")}])
    folder, over, killed = Folder(str(tmp_path / "data")), threading.Event(), set[int]()

    def kill() -> None:
        while not over.wait(0.05):
            if server.hits.total() > len(killed):  # one has begun with the image
                (pid,) = {actor.pid for actor in fetch_actors(os.getpid())} - killed
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(ClusterError, match="died 4 times at rows 0 to 0"):
            run(options, folder)
    finally:
        over.set()
        killer.join()
    assert len(killed) == MAX_TRIES
    wait_until(lambda: not fetch_actors(os.getpid()))  # whoever holds the error
    assert not folder.exists(CHUNKS)


def test_the_spool_does_not_outlive_a_failure(tmp_path: Path, server: ImageServer) -> None:
    """It holds URLs with their secrets."""
    options = options_for(tmp_path / "m.json", [{"id": "a", "url": server.url("/image/1.png?token=hunter2")}])
    folder = Folder(str(tmp_path / "data"))

    def interrupt(_: Progress) -> None:
        assert folder.exists(CHUNKS)
        raise KeyboardInterrupt

    with hold(folder) as lease, pytest.raises(KeyboardInterrupt):
        ingest(options, folder, lease.fence, on_progress=interrupt)
    assert not folder.exists(CHUNKS)


class Overtaken(Folder):
    """A folder that somebody takes over while the manifest is read into it."""

    def put_whole(self, name: str, data: bytes) -> None:
        super().put_whole(name, data)
        super().put_whole("lease/9.json", b'{"user": "ann", "host": "h", "pid": 1, "nonce": "other"}')


def test_what_the_next_owner_has_made_stays(tmp_path: Path, server: ImageServer) -> None:
    options = options_for(tmp_path / "m.json", [{"id": "a", "url": server.url("/image/1.png")}])
    folder = Folder(str(tmp_path / "data"))
    with hold(folder) as lease:
        folder.put_whole("dataset.json", b"of the next owner")
        with pytest.raises(RunHeldError):
            ingest(options, Overtaken(folder.uri), lease.fence)
    assert folder.exists("dataset.json")
    assert folder.exists(CHUNKS)  # by now the next owner's


def test_the_pool_is_as_large_as_what_is_there() -> None:
    def node(name: str, cpus: float, alive: bool = True) -> dict[str, Any]:
        return {"NodeID": name, "Alive": alive, "Resources": {"CPU": cpus} if cpus else {}}

    nodes = [node("head", 0), node("a", 4), node("b", 2.5), node("gone", 64, alive=False)]
    assert [pool_size(nodes, name) for name in ("", "a", "b")] == [6, 4, 2]
    assert pool_size([node("a", ACTOR_CPUS)], "") == 1
    for places, name in ((nodes, "head"), (nodes[:1], ""), ([node("a", 0.25)] * 8, ""), (nodes, "gone")):
        with pytest.raises(ClusterError, match=r"needs 0\.5 CPUs"):
            pool_size(places, name)


def wait_for(condition: Any, driver: subprocess.Popen[bytes] | None, limit_s: float = 90.0) -> None:
    until = time.monotonic() + limit_s
    steady = 0
    while steady < (1 if driver else 5):
        assert time.monotonic() < until
        assert driver is None or driver.poll() is None, "the driver ended by itself"
        steady = steady + 1 if condition() else 0
        time.sleep(0.1)


def test_nothing_succeeds(tmp_path: Path, server: ImageServer) -> None:
    items = [{"id": f"{i}", "url": server.url(f"/status/{i}?code=404")} for i in range(3)] + [{"id": "x"}]
    options = options_for(tmp_path / "m.json", items)
    dataset = run(options, Folder(str(tmp_path / "data")))
    assert set(dataset.counts) <= set(STATES) | {"http_404"}
    assert dataset.shards == ()
    for share in (0.95, 0.0):
        with pytest.raises(DataError, match=r"0 of 4 items.*http_404 3, bad_url 1") as caught:
            require_success(dataset, share)
        assert caught.value.result == dataset.document()
        assert caught.value.exit_code == 3


def test_errors_come_as_they_were_raised(tmp_path: Path, server: ImageServer) -> None:
    """An error of a worker process reaches the user as ours, not as Ray's."""
    server.bodies["a"] = image(1)
    options = options_for(tmp_path / "m.json", [{"id": "a", "url": server.url("/body/a")}])
    folder = Folder(str(tmp_path / "data"))
    with hold(folder) as lease:

        def take_over(_: Progress) -> None:
            folder.put_whole("lease/9.json", b'{"user": "ann", "host": "h", "pid": 1, "nonce": "other"}')

        with pytest.raises(RunHeldError, match="process 1 of ann"):
            ingest(options, folder, lease.fence, on_progress=take_over)
    with pytest.raises(UsageError):
        read_dataset(folder)
    with pytest.raises(ManifestError):
        run(options_for(tmp_path / "m.json", []), Folder(str(tmp_path / "none")))
