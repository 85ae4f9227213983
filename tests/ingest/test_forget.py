from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from startup_ray.dataset import Dataset, read_dataset
from startup_ray.errors import RunHeldError, StorageError, UsageError
from startup_ray.forgotten import read_forgotten
from startup_ray.ingest.chunks import IMAGES, LEDGER, names_in, read_part
from startup_ray.ingest.forget import FORGETTING, held, restore, set_aside
from startup_ray.ingest.plan import make_plan
from startup_ray.items import BadRow, Item
from startup_ray.lease import hold
from startup_ray.ledger import NOTHING, Again, failures
from startup_ray.runs import DATASET
from startup_ray.storage import Folder
from startup_ray.takedown import Takedown, carry_out, look_up, undo
from tests.image_server import ImageServer, image
from tests.ingest.here import ingest, ledger
from tests.ingest.pictures import photo, save
from tests.s3 import KEYS, s3_server

Rows = list[Item | BadRow]
NAME = "pets-0123abcd"
MADE = "2031-05-04T10:00:00Z"


@pytest.fixture(scope="module")
def server() -> Iterator[ImageServer]:
    with ImageServer() as running:
        yield running


@pytest.fixture(scope="module")
def rows(server: ImageServer) -> Rows:
    """Every way in which rows hang together: equal bodies, a repeated id, one page of errors for two, a bad row."""
    places = {
        "a": "/image/1.png",
        "b": "/image/2.png",
        "same-as-a": "/image/1.png?copy",
        "c": "/image/3.png",
        "page": "/page",
        "d": "/image/4.png",
        "same-page": "/page?2",
        "gone": "/status?code=404",
        "again-a": "/image/1.png?copy=2",
        "e": "/image/5.png",
    }
    items: Rows = [
        Item(position=i, id=name, url=server.url(path), label="l") for i, (name, path) in enumerate(places.items())
    ]
    items.append(Item(position=10, id="b", url=server.url("/image/6.png"), label="l"))
    items.append(Item(position=11, id="f", url=server.url("/image/6.png?f"), label="m"))
    items.append(BadRow(position=12, id="bad", url="", status="bad_url", reason="url is missing"))
    return items


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, rows: Rows) -> Path:
    """A storage with the dataset of `rows`; for copies alone."""
    storage = tmp_path_factory.mktemp("made")
    ingest(dataset_in(storage), rows)
    return storage


@pytest.fixture
def folder(tmp_path: Path, made: Path) -> Folder:
    """The dataset of `rows`, in the storage `tmp_path`."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return dataset_in(tmp_path)


def dataset_in(storage: Path, name: str = NAME) -> Folder:
    return Folder(str(storage / "datasets" / name))


def forget(storage: Path, *words: str) -> Takedown:
    return carry_out(look_up(words, storage=str(storage)), made=MADE)


def copy_list(one: Path, other: Path) -> None:
    shutil.copytree(one / "forgotten", other / "forgotten")


def states(folder: Folder) -> dict[str, str]:
    return {row["id"]: row["status"] for row in reversed(ledger(folder))}


def traces(folder: Folder, *needles: str | bytes) -> list[str]:
    """Files of a folder, half written ones too, that hold one of these, as it is or within Parquet."""
    found = []
    for path in filter(Path.is_file, Path(folder.uri).rglob("*")):
        texts = [path.read_bytes()]
        if path.suffix == ".parquet":
            texts += [repr(row).encode() for row in pq.read_table(path).to_pylist()]
            texts += [
                value for row in pq.read_table(path).to_pylist() for value in row.values() if isinstance(value, bytes)
            ]
        wanted = [needle.encode() if isinstance(needle, str) else needle for needle in needles]
        found += [str(path)] if any(needle in text for needle in wanted for text in texts) else []
    return found


@pytest.mark.parametrize(
    "words", [["a"], ["same-as-a"], ["b"], ["f"], ["page"], ["gone", "e"], ["bad"], ["a", "b", "c", "d", "e", "f"]]
)
def test_ingest_then_forget_is_an_ingest_with_the_list_from_the_start(
    tmp_path: Path, folder: Folder, rows: Rows, words: list[str]
) -> None:
    done = forget(tmp_path, *words)
    copy_list(tmp_path, tmp_path / "other")
    other = ingest(dataset_in(tmp_path / "other"), rows)
    one = read_dataset(folder)
    assert ledger(one.folder) == ledger(other.folder)
    assert replace(one, folder=other.folder, shards=()) == replace(other, shards=())
    assert done.holdings[0].digest == one.digest
    assert sum(one.counts.values()) == one.items == len(rows)


def test_those_that_were_kept_in_one_split_with_it_are_where_they_would_be_without_it(
    tmp_path: Path, server: ImageServer
) -> None:
    """Three files of each picture: equal pixels, other bodies, so only their likeness keeps them together."""
    alike: Rows = []
    for picture in range(3):
        for level in range(3):
            name = f"{picture}-{level}"
            server.bodies[name] = save(photo(40, 40, picture), "PNG", compress_level=level)
            alike.append(Item(position=len(alike), id=name, url=server.url(f"/body/{name}"), label="l"))
    before = ingest(dataset_in(tmp_path / "one"), alike, group="near_duplicates")
    assert before.counts["ok"] == 9
    forget(tmp_path / "one", "0-0", "1-0", "2-0")
    copy_list(tmp_path / "one", tmp_path / "other")
    one = read_dataset(before.folder)
    assert one.splits["test"] > before.splits["test"]  # others lead now
    assert one.digest == ingest(dataset_in(tmp_path / "other"), alike, group="near_duplicates").digest


def test_the_same_picture_goes_under_every_id(tmp_path: Path, folder: Folder) -> None:
    assert [at.items for at in forget(tmp_path, "same-as-a").holdings] == [("a", "same-as-a", "again-a")]
    now = states(folder)
    assert [now[name] for name in ("a", "same-as-a", "again-a", "b", "c")] == ["forgotten"] * 3 + ["ok"] * 2


def test_one_page_of_errors_is_not_one_picture(tmp_path: Path, folder: Folder) -> None:
    forget(tmp_path, "page")
    assert (states(folder)["page"], states(folder)["same-page"]) == ("forgotten", "not_image")


def test_a_row_that_repeats_an_id_takes_no_other_picture_along(
    tmp_path: Path, folder: Folder, server: ImageServer
) -> None:
    """The second `b` has the body of `f`."""
    assert [row["status"] for row in ledger(folder) if row["id"] in ("b", "f")] == ["ok", "bad_item", "ok"]
    shutil.copytree(tmp_path, tmp_path.with_suffix(".url"))
    forget(tmp_path, "b")
    assert [row["status"] for row in ledger(folder) if row["id"] in ("b", "f")] == ["forgotten", "forgotten", "ok"]
    forget(tmp_path.with_suffix(".url"), server.url("/image/6.png"))  # and its URL not the one that has the id
    folder = dataset_in(tmp_path.with_suffix(".url"))
    assert [row["status"] for row in ledger(folder) if row["id"] in ("b", "f")] == ["ok", "forgotten", "forgotten"]


def test_nothing_of_it_is_left_in_the_folder(tmp_path: Path, folder: Folder, server: ImageServer) -> None:
    folder.put_whole("audit.html", server.url("/image/1.png").encode())
    (stored,) = [
        row["image"]
        for name in names_in(folder, IMAGES)
        for row in pq.read_table(folder.path(f"{IMAGES}/{name}.parquet")).to_pylist()
        if row["id"] == "a"
    ]
    for half_written in (".tmp-0a1b", f"{IMAGES}/.tmp-0a1b", f"{LEDGER}/.tmp-0a1b"):
        Path(folder.path(half_written)).write_bytes(stored)
    needles = (stored, "/image/1.png", hashlib.sha256(image(1)).hexdigest())
    assert len(traces(folder, *needles)) >= 4
    forget(tmp_path, "a")
    assert traces(folder, *needles) == []
    assert traces(Folder(str(tmp_path)), "/image/1.png", needles[2]) == []
    assert traces(folder, "/image/2.png")


@pytest.mark.ray
def test_it_stays_forgotten_whatever_is_done(tmp_path: Path, folder: Folder, rows: Rows, server: ImageServer) -> None:
    forget(tmp_path, "a", "gone")
    server.hits.clear()
    late: Rows = [
        Item(position=0, id="first", url=server.url("/image/9.png"), label="l"),
        *(replace(row, position=row.position + 1) for row in rows),
        Item(position=14, id="moved", url=server.url("/image/1.png?moved"), label="l"),
        Item(position=15, id="a2", url=server.url("/image/1.png"), label="l"),
    ]
    ingest(folder, late)
    ingest(folder, late, again=failures())
    fresh = ingest(dataset_in(tmp_path, f"{NAME}-2"), late).folder
    assert server.hits["/status"] == 0
    another = ingest(dataset_in(tmp_path, "dogs-ffffffff"), late).folder
    # By its id if the manifest is the same, by its URL if that tells it from others, or by its body.
    pictures = {"a", "same-as-a", "again-a", "moved", "a2"}
    for place, gone in ((folder, {*pictures, "gone"}), (fresh, {*pictures, "gone"}), (another, pictures)):
        assert {name for name, state in states(place).items() if state == "forgotten"} == gone
        assert traces(place, hashlib.sha256(image(1)).hexdigest(), "image/1.png") == []


def test_every_dataset_of_the_storage_loses_it(tmp_path: Path, folder: Folder, rows: Rows) -> None:
    """Where its id is another's, too."""
    dogs = [replace(row, id=f"dog {row.id}") for row in rows]
    other = ingest(dataset_in(tmp_path, "dogs-ffffffff"), [*dogs[:9], replace(dogs[9], id="a")]).folder
    done = carry_out(look_up(["a"], storage=str(tmp_path), dataset=folder), made=MADE)
    assert {at.folder.name: at.items for at in done.holdings} == {
        NAME: ("a", "same-as-a", "again-a"),
        other.name: ("dog a", "dog same-as-a", "dog again-a"),
    }
    assert states(other)["a"] == "ok"


def test_what_a_url_was_elsewhere_goes_with_all_that_is_equal_to_it(tmp_path: Path, server: ImageServer) -> None:
    server.bodies["face"] = image(20)
    face = Item(position=0, id="face", url=server.url("/body/face"), label="l")
    ingest(dataset_in(tmp_path), [face])
    server.bodies["face"] = server.bodies["copy"] = image(21)
    copy = Item(position=1, id="copy", url=server.url("/body/copy"), label="l")
    other = ingest(dataset_in(tmp_path, "dogs-ffffffff"), [replace(face, id="dog"), copy]).folder
    forget(tmp_path, "face")
    assert states(other) == {"dog": "forgotten", "copy": "forgotten"}


class Stop(BaseException):
    pass


class Dying(Folder):
    """A folder whose process is killed before its n-th write or deletion, its lease aside."""

    left = 0

    def put_whole(self, name: str, data: bytes) -> None:
        self._count(name)
        super().put_whole(name, data)

    def delete(self, name: str) -> None:
        self._count(name)
        super().delete(name)

    def _count(self, name: str) -> None:
        if not name.startswith("lease/"):
            Dying.left -= 1
            if Dying.left < 0:
                raise Stop


def dying(takedown: Takedown) -> Takedown:
    holdings = tuple(replace(at, folder=Dying(at.folder.uri)) for at in takedown.holdings)
    return replace(takedown, home=Dying(takedown.home.uri), holdings=holdings)


@pytest.mark.ray
def test_killed_at_every_write(tmp_path: Path, rows: Rows) -> None:
    """Forgetting goes on, and so does an ingest; and no dataset stands that holds what is listed."""
    made, rows = tmp_path / "made", rows[:6]
    ingest(dataset_in(made), rows)
    words = ["a", "c"]
    shutil.copytree(made, tmp_path / "whole")
    forget(tmp_path / "whole", *words)
    expected = read_dataset(dataset_in(tmp_path / "whole"))
    for steps in range(100):
        storage = tmp_path / str(steps)
        shutil.copytree(made, storage)
        Dying.left = steps
        try:
            carry_out(dying(look_up(words, storage=str(storage))), made=MADE)
        except Stop:
            _check_after_kill(storage, rows, words, expected)
        else:
            assert steps > 8
            return
    raise AssertionError("never ends")


def _check_after_kill(storage: Path, rows: Rows, words: Sequence[str], expected: Dataset) -> None:
    folder = dataset_in(storage)
    is_listed = bool(read_forgotten(folder))
    assert not (is_listed and folder.exists(DATASET) and held(folder, read_forgotten(folder)))
    shutil.copytree(storage, storage.with_suffix(".ingest"))
    again = ingest(dataset_in(storage.with_suffix(".ingest")), rows)
    assert (again.digest == expected.digest) == is_listed
    forget(storage, *words)
    found = read_dataset(folder)
    assert (found.digest, found.counts, found.splits) == (expected.digest, expected.counts, expected.splits)
    assert not folder.exists(FORGETTING)
    assert len(names_in(folder, IMAGES)) == len(found.shards)
    assert traces(folder, hashlib.sha256(image(1)).hexdigest(), "/image/3.png") == []


def test_twice_is_once(tmp_path: Path, folder: Folder) -> None:
    forget(tmp_path, "a")
    files = sorted(Path(tmp_path).rglob("*.json")), names_in(folder, IMAGES)
    again = look_up(["a"], storage=str(tmp_path))
    assert (again.words, again.holdings) == ((), ())
    carry_out(again, made="later")
    assert (sorted(Path(tmp_path).rglob("*.json")), names_in(folder, IMAGES)) == files


def test_an_ingest_that_was_killed_loses_it_too(
    tmp_path: Path, folder: Folder, rows: Rows, server: ImageServer
) -> None:
    """From what is still to be fetched and from images that no commit names; the ingest then goes on."""
    folder.delete(DATASET)
    folder.delete(f"{LEDGER}/{names_in(folder, LEDGER)[0]}.parquet")  # its shard stands
    make_plan(rows, folder, folder, 3, NOTHING)
    assert "a" not in states(folder)
    (at,) = forget(tmp_path, "a").holdings
    assert (at.digest, set(at.items)) == ("", {"a", "again-a"})  # of the third nobody knows yet what it is
    assert traces(folder, hashlib.sha256(image(1)).hexdigest(), "/image/1.png") == []
    assert not folder.exists(DATASET)
    again = ingest(folder, rows)
    assert again.counts["forgotten"] == 3


def test_what_is_let_in_again_is_fetched_again(tmp_path: Path, folder: Folder, rows: Rows) -> None:
    before = read_dataset(folder)
    forget(tmp_path, "a", "e")
    assert undo(["a"], storage=str(tmp_path)) == 1
    assert ingest(before.folder, rows).counts["forgotten"] == 4  # nothing comes back by itself
    assert ingest(before.folder, rows, again=failures(["forgotten"])).counts["forgotten"] == 1
    assert undo(["e"], storage=str(tmp_path)) == 1
    after = ingest(before.folder, rows, again=Again(("forgotten",)))
    assert (after.digest, after.counts) == (before.digest, before.counts)
    with pytest.raises(UsageError, match="'e' was not forgotten"):
        undo(["e"], storage=str(tmp_path))


def test_words_that_nothing_is_called_by_change_nothing(tmp_path: Path, folder: Folder) -> None:
    with pytest.raises(UsageError, match=r"no dataset holds 'z', 'https://e\.com/\?token=REDACTED'"):
        look_up(["a", "z", "https://e.com/?token=hunter2"], storage=str(tmp_path))
    found = look_up(["a", "z"], storage=str(tmp_path), ignore_missing=True)
    assert found.document(is_done=False)["would_forget"][0]["items"] == ["a", "same-as-a", "again-a"]
    assert states(folder)["a"] == "ok"
    assert not (tmp_path / "forgotten").exists()


def test_a_url_may_be_written_as_the_manifest_has_it(tmp_path: Path, folder: Folder, server: ImageServer) -> None:
    forget(tmp_path, server.url("/image/3.png").replace("http://", "http://user:pw@"))
    assert states(folder)["c"] == "forgotten"


def test_a_url_of_several_items_that_only_a_secret_tells_apart_is_refused(tmp_path: Path, server: ImageServer) -> None:
    signed: Rows = [Item(position=i, id=f"{i}", url=server.url(f"/image/{i}.png"), label="l") for i in range(2)]
    signed = [replace(row, url=server.url(f"/image/7.png?key={row.id}")) for row in signed]
    folder = ingest(dataset_in(tmp_path), signed).folder
    with pytest.raises(UsageError, match="2 items have this URL, as far as it is known"):
        look_up([server.url("/image/7.png?key=0")], storage=str(tmp_path))
    assert states(folder) == {"0": "ok", "1": "duplicate"}


def test_a_dataset_at_work_is_refused_and_nothing_is_changed(tmp_path: Path, folder: Folder, rows: Rows) -> None:
    other = ingest(dataset_in(tmp_path, "dogs-ffffffff"), rows).folder
    found = look_up(["a"], storage=str(tmp_path))
    with hold(other), pytest.raises(RunHeldError):
        carry_out(found, made=MADE)
    assert folder.exists(DATASET)
    assert not (tmp_path / "forgotten").exists()


def test_a_dataset_that_misses_images_is_told(tmp_path: Path, folder: Folder, rows: Rows) -> None:
    folder.delete(f"{IMAGES}/{read_part(folder, names_in(folder, LEDGER)[1]).shard}.parquet")
    with pytest.raises(StorageError, match="images of this dataset are missing"):
        forget(tmp_path, "e")
    assert ingest(folder, rows).counts["forgotten"] == 1


def test_a_dataset_that_lies_in_no_storage_has_a_list_of_its_own(tmp_path: Path, rows: Rows) -> None:
    folder = ingest(Folder(str(tmp_path / "mine")), rows).folder
    carry_out(look_up(["a"], storage=str(tmp_path / "none"), dataset=folder), made=MADE)
    assert list((tmp_path / "mine" / "forgotten").iterdir())
    assert ingest(folder, rows, again=failures()).counts["forgotten"] == 3


def test_what_was_set_aside_is_the_same_dataset_again(folder: Folder) -> None:
    before = read_dataset(folder)
    with hold(before.folder) as lease:
        set_aside(before.folder)
        assert not before.folder.exists(DATASET)
        assert restore(before.folder, lease.fence) == before.digest
    assert read_dataset(before.folder) == before


@pytest.mark.ray
def test_on_an_object_store_it_is_the_same(
    tmp_path: Path, rows: Rows, server: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = ingest(dataset_in(tmp_path), rows)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    with s3_server() as store:
        storage = store.folder("runs")
        folder = ingest(storage / "datasets" / NAME, rows).folder
        (there,) = carry_out(look_up(["a", server.url("/image/3.png")], storage=str(storage)), made=MADE).holdings
        (here,) = forget(tmp_path, "a", server.url("/image/3.png")).holdings
        assert (there.items, there.digest) == (here.items, here.digest)
        assert read_dataset(folder).counts == read_dataset(local.folder).counts
        assert {f"{name}.parquet" for name in names_in(folder, IMAGES)} == set(read_dataset(folder).shards)
        assert sorted((storage / "forgotten").list()) == sorted(Folder(str(tmp_path / "forgotten")).list())
        assert ingest(folder, rows, again=failures()).digest == here.digest
        assert undo(["a"], storage=str(storage)) == 1
        with pytest.raises(UsageError):
            look_up(["z"], storage=str(storage))
