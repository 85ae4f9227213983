from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from startup_ray.ingest.bodies import THREADS, Bodies, failure_of
from startup_ray.ingest.chunks import read_part, read_shard, spool
from startup_ray.ingest.exchange import Fetched
from startup_ray.ingest.seal import seal
from startup_ray.ingest.work import Task, Worker
from startup_ray.items import Item
from startup_ray.job import FetchOptions, ImageOptions, IngestOptions
from startup_ray.lease import hold
from startup_ray.sources import Root, Sources
from startup_ray.storage import Folder
from tests.image_server import ImageServer, image
from tests.s3 import KEYS, Server, s3_server
from tests.s3_faults import CUT, INTERNAL, RESET, SHORT, SLOW_DOWN, FaultProxy, sometimes

SECRET = b"the secret"
BODIES = [image(number) for number in range(6)]


@pytest.fixture(scope="module")
def store() -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch, s3_server() as server:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        yield server


def opened(*roots: str | Root, own: str = "") -> Sources:
    named = tuple(root if isinstance(root, Root) else Root(root) for root in roots)
    return Sources(roots=named, own=Root(own) if own else None)


def read(sources: Sources, *urls: str, room: int = 64, **options: float) -> list[Fetched]:
    """Read all at once, and give back their room as they come."""

    async def run() -> list[Fetched]:
        space, pauses = asyncio.Semaphore(room), list[float]()

        async def sleep(pause_s: float) -> None:
            pauses.append(pause_s)

        fetch = FetchOptions.model_validate({"retries": 0} | options)
        bodies = Bodies(fetch, sources, space, sleep=sleep, uniform=lambda low, high: high)

        async def one(url: str) -> Fetched:
            fetched = await bodies.read(url)
            if fetched.body is not None:
                space.release()
            return fetched

        found = await asyncio.gather(*map(one, urls))
        bodies.close()
        assert space._value == room
        assert pauses == [0.5 * 2**n for n in range(len(pauses))] or len(urls) > 1
        return found

    return asyncio.run(run())


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "é #1.png").write_bytes(BODIES[0])
    (fetched,) = read(opened(str(tmp_path)), (tmp_path / "é #1.png").as_uri())
    assert (fetched.status, fetched.body, fetched.size) == ("ok", BODIES[0], len(BODIES[0]))
    assert (fetched.attempts, fetched.http_status) == (1, None)


def test_many_files_in_little_room(tmp_path: Path) -> None:
    for number in range(3 * THREADS):
        (tmp_path / f"{number}").write_bytes(bytes([number]))
    urls = [(tmp_path / f"{number}").as_uri() for number in range(3 * THREADS)]
    assert [fetched.body for fetched in read(opened(str(tmp_path)), *urls, room=2)] == [
        bytes([number]) for number in range(3 * THREADS)
    ]


@pytest.mark.parametrize("size", [0, 100, 101])
def test_files_are_read_within_their_bound(tmp_path: Path, size: int) -> None:
    (tmp_path / "a").write_bytes(b"x" * size)
    (fetched,) = read(opened(str(tmp_path)), (tmp_path / "a").as_uri(), max_bytes=100)
    assert (fetched.status, fetched.body) == (("ok", b"x" * size) if size <= 100 else ("too_large", None))


def test_what_cannot_be_read_is_a_value(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "loop").symlink_to("loop")
    names = ("none", "open", "pipe", "open/loop", "open/x" * 2000, "../outside")
    found = read(
        opened(str(tmp_path)), *(f"file://{tmp_path}/{name}" for name in names), "file:///dev/zero", "file://h/a"
    )
    assert [fetched.status for fetched in found] == ["unreadable"] * 7 + ["bad_url"]
    assert all(fetched.reason for fetched in found)
    assert found[0].reason == "no such file or object"
    assert found[2].reason == "not a regular file"
    assert {fetched.attempts for fetched in found[:-1]} == {1}


def test_folders_that_are_named_leave_nothing_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    found = read(opened(str(tmp_path)), *[tmp_path.as_uri()] * 20)
    assert {fetched.reason for fetched in found} == {"not a regular file"}
    assert len(os.listdir("/proc/self/fd")) <= before


def test_no_link_leads_out(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    root = tmp_path / "open"
    root.mkdir()
    (root / "direct").symlink_to(tmp_path / "secret")
    (root / "folder").symlink_to(tmp_path)
    (root / "x.parquet").symlink_to(embed(tmp_path / "x.parquet", [SECRET]))
    (root / "good").write_bytes(b"good")
    (root / "inside").symlink_to("good")
    urls = [f"file://{root}/{name}" for name in ("inside", "direct", "folder/secret", "x.parquet#group=0&row=0")]
    found = read(opened(str(root)), *urls)
    assert [fetched.status for fetched in found] == ["ok", "unreadable", "unreadable", "unreadable"]


def embed(path: Path, bodies: list[bytes], rows_per_group: int = 2, *, as_struct: bool = True) -> Path:
    column = pa.array([{"bytes": body, "path": f"{i}.png"} for i, body in enumerate(bodies)] if as_struct else bodies)
    pq.write_table(pa.table({"image": column}), path, row_group_size=rows_per_group)
    return path


def rows_of(url: str, count: int, rows_per_group: int = 2) -> list[str]:
    return [f"{url}#group={i // rows_per_group}&row={i % rows_per_group}" for i in range(count)]


def test_embedded_images(tmp_path: Path) -> None:
    path = embed(tmp_path / "x.parquet", BODIES)
    urls = rows_of(path.as_uri(), 6)
    found = read(opened(own=str(path)), *urls, f"{path.as_uri()}#group=0&row=2", f"{path.as_uri()}#group=9&row=0")
    assert [fetched.body for fetched in found[:6]] == BODIES
    assert [(fetched.status, fetched.reason) for fetched in found[6:]] == [
        ("unreadable", "no such row"),
        ("unreadable", "no such row group"),
    ]
    (fetched,) = read(opened(own=str(path)), urls[0], max_bytes=10)
    assert (fetched.status, fetched.body) == ("too_large", None)
    path.write_bytes(b"PAR1 and no more")
    assert [fetched.status for fetched in read(opened(own=str(path)), *urls)] == ["unreadable"] * 6


def test_what_takes_too_long_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (fetched,) = read(opened(str(tmp_path)), (tmp_path / "a").as_uri(), timeout_s=1e-9, retries=3)
    assert (fetched.status, fetched.attempts, fetched.body) == ("timeout", 4, None)


@pytest.mark.parametrize(
    ("text", "reason", "is_transient"),
    [
        # as pyarrow 26 says them
        ("AWS Error SERVICE_UNAVAILABLE during GetObject operation: ", "SERVICE_UNAVAILABLE", True),
        ("AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 56", "NETWORK_CONNECTION", True),
        ("AWS Error UNKNOWN (HTTP status 503) during HeadObject operation", "UNKNOWN, HTTP status 503", True),
        ("AWS Error UNKNOWN (HTTP status 301) during HeadObject operation", "UNKNOWN, HTTP status 301", False),
        ("for key 'k': AWS Error ACCESS_DENIED during HeadObject operation: No response", "ACCESS_DENIED", False),
        ("google::cloud::Status(UNAVAILABLE: Permanent error in GetObjectMetadata", "UNAVAILABLE", True),
        ("google::cloud::Status(PERMISSION_DENIED: no", "PERMISSION_DENIED", False),
        ("something else\nand more", "something else", False),
    ],
)
def test_what_a_store_says(text: str, reason: str, is_transient: bool) -> None:
    assert failure_of(OSError(text)) == Fetched(status="unreadable", reason=reason, is_transient=is_transient)


def place(server: Server | FaultProxy) -> Root:
    return Root("s3://bucket/photos", "?" + server.folder("").uri.partition("?")[2])


@pytest.mark.ray  # the server takes seconds to start
def test_objects(store: Server) -> None:
    folder = store.folder("photos")
    for name, body in {"a b%2e#é.png": BODIES[0], "empty": b"", "large": b"x" * 1000}.items():
        folder.put_whole(name, body)
    store.folder("").put_whole("secret", SECRET)
    store.folder("photos-too").put_whole("secret", SECRET)
    names = ("a b%2e#é.png", "empty", "large", "none", "%2e%2e/secret", "..%2fsecret", "../secret", "x/../../secret")
    urls = [*(f"s3://bucket/photos/{name}" for name in names), "s3://bucket/secret", "s3://bucket/photos-too/secret"]
    found = read(opened(place(store)), *urls, max_bytes=999)
    assert [fetched.body for fetched in found] == [BODIES[0], b"", *[None] * 8]
    assert [fetched.status for fetched in found[2:]] == [
        *("too_large", "unreadable", "unreadable", "unreadable"),
        *("bad_url", "bad_url", "unreadable", "unreadable"),
    ]
    assert found[2].reason == "1000 bytes, 999 allowed"


def test_rows_of_a_file_that_has_changed_since_it_was_listed_are_others(tmp_path: Path) -> None:
    path = embed(tmp_path / "x.parquet", BODIES)
    urls = [f"{url}&changed={path.stat().st_mtime_ns}" for url in rows_of(path.as_uri(), 6)]
    assert [fetched.body for fetched in read(opened(own=str(path)), *urls)] == BODIES
    os.utime(embed(path, BODIES[::-1]), ns=(0, path.stat().st_mtime_ns + 1))
    found = read(opened(own=str(path)), *urls)
    assert {(fetched.body, fetched.status) for fetched in found} == {(None, "unreadable")}
    assert found[0].reason == "the Parquet file has changed since it was listed; run again"


@pytest.mark.ray
def test_faults_of_a_store_that_pass_lose_nothing(store: Server) -> None:
    folder = store.folder("photos")
    folder.put_whole("x.parquet", embed_in_memory(BODIES))
    for number, body in enumerate(BODIES):
        folder.put_whole(f"{number}", body)
    with FaultProxy(store.port, sometimes(0.3, seed=1, faults=(SLOW_DOWN, INTERNAL, RESET, CUT, SHORT))) as proxy:
        urls = [f"s3://bucket/photos/{number}" for number in range(6)]
        found = read(opened(place(proxy)), *urls, *rows_of("s3://bucket/photos/x.parquet", 6), retries=2)
    assert [fetched.body for fetched in found] == 2 * BODIES
    assert len(proxy.faults) > 2


def embed_in_memory(bodies: list[bytes]) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table({"image": bodies}), stream, row_group_size=2)
    return stream.getvalue()


@pytest.fixture
def task(tmp_path: Path) -> Iterator[Task]:
    """Whose folder is another one than the files'."""
    fetch = FetchOptions(allow_private=(IPv4Network("127.0.0.1/32"),), retries=0)
    options = IngestOptions(manifest="m.csv", image=ImageOptions(size=(4, 5), channels=1), fetch=fetch)
    folder = Folder(str(tmp_path / "dataset"))
    with hold(folder) as lease:
        yield Task(options=options, folder=folder, fence=lease.fence)


def process(task: Task, sources: Sources, urls: Sequence[str], folder: Folder) -> list[str]:
    """The names of the chunks that have come of items with these URLs."""
    rows = [Item(position=i, id=f"{i}", url=url, label="l") for i, url in enumerate(urls)]
    names = list(spool(rows, folder, 512, ()))
    worker = Worker(replace(task, sources=sources, folder=folder))
    for name in names:
        list(worker.process(name))
    worker.close()
    return names


@pytest.mark.parametrize("kind", ["file", "embedded", pytest.param("s3", marks=pytest.mark.ray)])
def test_law_a_dataset_does_not_depend_on_where_its_images_came_from(
    kind: str, task: Task, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with ImageServer() as server:
        expected = digest_of(task, Sources(), [server.url(f"/image/{number}.png") for number in range(6)], "http")
    root = opened(str(tmp_path / "files"))
    (tmp_path / "files").mkdir()
    for number, body in enumerate(BODIES):
        (tmp_path / "files" / f"{number}").write_bytes(body)
    urls = [(tmp_path / "files" / f"{number}").as_uri() for number in range(6)]
    if kind == "embedded":
        urls = rows_of(embed(tmp_path / "files" / "x.parquet", BODIES, 4).as_uri(), 6, 4)
    elif kind == "s3":
        store: Server = request.getfixturevalue("store")
        root = opened(place(store))
        for number, body in enumerate(BODIES):
            store.folder("photos").put_whole(f"{number}", body)
        urls = [f"s3://bucket/photos/{number}" for number in range(6)]
    assert digest_of(task, root, urls, kind) == expected


def digest_of(task: Task, sources: Sources, urls: Sequence[str], kind: str) -> tuple[str, list[str], list[object]]:
    """Of the dataset, with the sha256 of its bodies, and its images."""
    folder = task.folder / kind
    with hold(folder) as lease:
        names = process(replace(task, fence=lease.fence), sources, urls, folder)
        ledger = read_part(folder, names[0])
        images = read_shard(folder, ledger.shard)
        return seal(folder, names, lease.fence).digest, ledger.table["sha256"].to_pylist(), images.to_pylist()


def test_hostile_rows_read_nothing(task: Task, tmp_path: Path) -> None:
    """Whether a list names it, or an item that no list has made."""
    secret, allowed = tmp_path / "secret.png", tmp_path / "allowed"
    secret.write_bytes(image(7))
    embed(tmp_path / "secret.parquet", [image(7)])
    allowed.mkdir()
    (allowed / "link").symlink_to(secret)
    (allowed / "folder").symlink_to(tmp_path)
    os.mkfifo(allowed / "pipe")
    urls = [
        f"{secret}", secret.as_uri(), f"file:{secret}", f"FILE://{secret}", f"file://localhost{secret}",
        f"file://{allowed}/../secret.png", f"file://{allowed}/%2e%2e/secret.png", f"file://{allowed}/..%2Fsecret.png",
        f"file://{allowed}%2F..%2Fsecret.png", f"file://{allowed}/%252e%252e/secret.png",
        f"{allowed}-too/../secret.png",
        f"file://host{secret}", f"file:///{secret}", f"file://{allowed}/link", f"file://{allowed}/folder/secret.png",
        f"file://{allowed}/a%00/../../secret.png", f"file://{allowed}/pipe", f"file://{allowed}?/../../secret.png",
        f"file://{tmp_path}/secret.parquet#group=0&row=0", f"file://{allowed}/folder/secret.parquet#group=0&row=0",
        f"file://{allowed}#/../secret.png", f"file://{tmp_path}/allowed-too", f"{allowed}/link",
        "allowed/folder/secret.png", "../secret.png",
        f"s3://{secret}", f"s3://bucket{secret}", f"s3://allowed/..{secret}?endpoint_override=127.0.0.1:9&scheme=http",
        f"gs://{secret}", "\\\\host\\share", f"file:\\\\{secret}", f"local://{secret}", f"data:,{secret}",
    ]  # fmt: skip
    sources = replace(opened(str(allowed), Root("s3://allowed")), base=str(tmp_path))
    judged = [sources.judge(url) for url in urls]
    (name,) = process(task, sources, urls + [one.url for one in judged if not one.status], task.folder)
    states = set(read_part(task.folder, name).table["status"].to_pylist()) | {one.status for one in judged}
    assert states == {"", "blocked_scheme", "bad_url", "unreadable"}
    assert read_part(task.folder, name).shard == ""  # no image at all
    written = [path.read_bytes() for path in (tmp_path / "dataset").rglob("*") if path.is_file()]
    assert written
    assert not any(image(7)[8:] in data for data in written)
