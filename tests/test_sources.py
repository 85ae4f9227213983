from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError

from startup_ray.job import FetchOptions, IngestOptions
from startup_ray.sources import NO_SOURCES, Place, Root, Sources, is_place, place_of, sources_of


def sources(manifest: str = "/lists/m.csv", **fetch: tuple[str, ...]) -> Sources:
    return sources_of(IngestOptions(manifest=manifest, fetch=FetchOptions.model_validate(fetch)), manifest)


FILES = sources(allow_files=("/data/", "/more"))
STORES = sources(allow_storage=("s3://bucket/photos/?region=x", "gs://all"))


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("/data/a.jpg", "file:///data/a.jpg"),
        ("file:///data/a.jpg", "file:///data/a.jpg"),
        ("FILE://localhost/data/a.jpg", "file:///data/a.jpg"),
        ("file:/data/a.jpg", "file:///data/a.jpg"),
        ("/more/./b/../a%20b #1?.jpg", "file:///more/a%2520b%20%231%3F.jpg"),
        ("file:///data/%C3%A9%20b%23.jpg", "file:///data/%C3%A9%20b%23.jpg"),
        ("file:///data/%ff.jpg", "file:///data/%FF.jpg"),  # a name that is no UTF-8
        ("../data/a.jpg", "file:///data/a.jpg"),
        ("http://e.com/a.jpg", "http://e.com/a.jpg"),
    ],
)
def test_files_below_an_allowed_folder(text: str, url: str) -> None:
    assert FILES.judge(text) == (url, "", "")
    assert FILES.judge(url).url == url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("s3://bucket/photos/a.jpg", "s3://bucket/photos/a.jpg"),
        ("S3://bucket/photos/a b%2e#1.jpg", "s3://bucket/photos/a b%2e#1.jpg"),
        ("gs://all/x/..y", "gs://all/x/..y"),
    ],
)
def test_objects_below_an_allowed_place(text: str, url: str) -> None:
    assert STORES.judge(text) == (url, "", "")
    assert place_of(url) == Place(url)


HOSTILE = [
    ("/etc/passwd", "blocked_scheme"),
    ("file:///etc/passwd", "blocked_scheme"),
    ("/data-secret/a", "blocked_scheme"),
    ("file:///data-secret/a", "blocked_scheme"),
    ("/data/../etc/passwd", "blocked_scheme"),
    ("../../../../etc/passwd", "blocked_scheme"),
    ("file:///data/../etc/passwd", "blocked_scheme"),
    ("file:///data/%2e%2e/etc/passwd", "blocked_scheme"),
    ("file:///data/..%2fetc/passwd", "blocked_scheme"),
    ("m.csv", "blocked_scheme"),
    ("/lists/m.csv", "blocked_scheme"),
    ("", "bad_url"),
    ("file:etc/passwd", "bad_url"),
    ("file://host/data/a.jpg", "bad_url"),
    ("file://data/a.jpg", "bad_url"),
    ("file:////data/a.jpg", "bad_url"),
    ("//data/a.jpg", "bad_url"),
    ("file://[/data/a.jpg", "bad_url"),
    ("file://me:password@a\u2100b/data/a.jpg", "bad_url"),
    ("/data/a\0.jpg", "bad_url"),
    ("file:///data/a%00.jpg", "bad_url"),
    ("file:///data/a.jpg?x=1", "bad_url"),
    ("file:///data/x.parquet#group=0&row=1", "bad_url"),
    ("file:///data/a.jpg#changed=9", "bad_url"),
    ("s3://bucket/photos/a.jpg#changed=9", "bad_url"),
    ("s3:///photos/a.jpg", "bad_url"),
    ("s3:bucket/photos/a.jpg", "bad_url"),
    ("s3://bucket", "bad_url"),
    ("s3://bucket/photos/../secret/a.jpg", "bad_url"),
    ("s3://bucket/photos//a.jpg", "bad_url"),
    ("s3://bucket/photos/x.parquet#group=0&row=1", "bad_url"),
    ("s3://bucket/photos/a.jpg?endpoint_override=evil.example", "bad_url"),
    ("s3://bucket/photos-secret/a.jpg", "blocked_scheme"),
    ("s3://bucket/secret/a.jpg", "blocked_scheme"),
    ("s3://other/photos/a.jpg", "blocked_scheme"),
    ("s3://bucket:80/photos/a.jpg", "blocked_scheme"),
    ("s3://key:word@bucket/photos/a.jpg", "blocked_scheme"),
    ("s3://bucket%2fphotos/a.jpg", "blocked_scheme"),
    ("gs://bucket/photos/a.jpg", "blocked_scheme"),
    ("ftp://bucket/a.jpg", "blocked_scheme"),
    ("data:image/png;base64,AAAA", "blocked_scheme"),
    ("hdfs://all/x", "blocked_scheme"),
]


@pytest.mark.parametrize(("text", "status"), HOSTILE)
def test_tricks_lead_nowhere(text: str, status: str) -> None:
    allowed = sources(allow_files=("/data",), allow_storage=("s3://bucket/photos", "gs://all"))
    judged = allowed.judge(text)
    assert judged[:2] == (text, status)
    assert judged.reason
    assert "word" not in judged.reason


def test_a_reason_names_the_option() -> None:
    assert "fetch.allow_files" in NO_SOURCES.judge("file:///etc/passwd").reason
    assert "fetch.allow_storage" in NO_SOURCES.judge("s3://bucket/key").reason


def test_without_options_nothing_is_open() -> None:
    closed = sources()
    for text in (
        "a.jpg",
        "/lists/a.jpg",
        "file:///a?sig=x",
        "s3://b/k?sig=x",
        "/lists/m.csv",
        "file:///lists/m.csv",
        "s3://b/k",
        "gs://b/k",
    ):
        assert closed.judge(text).status == "blocked_scheme"
    assert closed.root_of(Place("/lists/m.csv")) is None
    assert not closed.is_local


def test_the_root_of_all_files_may_be_allowed() -> None:
    assert sources(allow_files=("/",)).judge("/etc/hosts") == ("file:///etc/hosts", "", "")


@pytest.mark.parametrize("manifest", ["http://e.com/m.csv", "s3://bucket/m.csv", "sample:digits"])
def test_relative_paths_need_a_manifest_that_is_a_file(manifest: str) -> None:
    assert sources(manifest, allow_files=("/",)).judge("a.jpg").status == "bad_url"


def test_relative_paths_begin_at_the_manifest_and_folders_of_the_job_at_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = sources(str(tmp_path / "sub" / "m.csv"), allow_files=("sub",))
    assert found.judge("a.jpg").url == (tmp_path / "sub" / "a.jpg").as_uri()
    assert found.judge("../a.jpg").status == "blocked_scheme"


def test_what_a_manifest_holds_itself_is_open_to_its_readers_alone(tmp_path: Path) -> None:
    for name in (tmp_path, tmp_path / "x.parquet"):
        own = sources(str(name))
        assert own.root_of(Place(str(name / "a.jpg"))) == Root(str(name))
        assert own.judge(str(name)).status == own.judge("a.jpg").status == "blocked_scheme"
        assert own.is_local
    store = sources("s3://bucket/x.parquet?region=x")
    assert store.root_of(Place("s3://bucket/x.parquet")) == Root("s3://bucket/x.parquet", "?region=x")
    assert store.judge("s3://bucket/x.parquet").status == "blocked_scheme"
    assert not store.is_local


def test_lists_hold_nothing_themselves() -> None:
    for name in ("m.json", "m.jsonl", "m.ndjson.gz", "m.csv", "m.TSV.gz", "m.txt"):
        assert sources(f"/lists/{name}").own is None
        assert sources(f"s3://bucket/{name}?region=x").own is None


def test_the_nearest_root_tells_how_a_store_is_reached() -> None:
    both = sources(allow_storage=("s3://b?region=x", "s3://b/near?region=y"))
    assert both.root_of(Place("s3://b/near/k")) == Root("s3://b/near", "?region=y")
    assert both.root_of(Place("s3://b/nearby/k")) == Root("s3://b", "?region=x")


def test_links_are_followed_only_within_what_is_open(tmp_path: Path) -> None:
    for name in ("open", "closed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_bytes(b"")
    (tmp_path / "open" / "in").symlink_to(tmp_path / "open" / "a")
    (tmp_path / "open" / "out").symlink_to(tmp_path / "closed")
    (tmp_path / "alias").symlink_to(tmp_path / "open")
    found = sources(allow_files=(str(tmp_path / "alias"),))
    assert found.real_path(str(tmp_path / "alias" / "in")) == str(tmp_path / "open" / "a")
    assert found.real_path(str(tmp_path / "alias" / "out" / "a")) is None


def test_places() -> None:
    assert place_of("file:///data/a%20b.parquet#group=2&row=13") == Place("/data/a b.parquet", 2, 13)
    assert place_of("s3://bucket/x.parquet#group=0&row=7") == Place("s3://bucket/x.parquet", 0, 7)
    assert place_of("s3://bucket/x.parquet#group=0&row=7&changed=9") == Place("s3://bucket/x.parquet", 0, 7, 9)
    assert place_of("s3://bucket/a#b.jpg#changed=9") == Place("s3://bucket/a#b.jpg")
    assert place_of("file:///data/a.jpg#changed=9") == Place("/data/a.jpg")
    assert [is_place(url) for url in ("file:///a", "gs://b/k", "http://e.com/a", "")] == [True, True, False, False]
    for url in ("http://e.com/a", "file:///a#group=1", "file:///a#group=-1&row=0", "file://host/a"):
        with pytest.raises(ValueError, match=r"neither|not|\?|machine"):
            place_of(url)


@pytest.mark.parametrize("url", ["/data", "http://b/k", "s3://", "s3://key:word@bucket", "s3://bucket/a#b"])
def test_a_job_names_stores_by_their_url_without_a_password(url: str) -> None:
    with pytest.raises(ValidationError):
        FetchOptions(allow_storage=(url,))


def test_sources_pickle() -> None:
    assert pickle.loads(pickle.dumps(STORES)) == STORES  # noqa: S301
