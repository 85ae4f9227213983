"""`startup-ray forget` on a storage with a real dataset, and with runs made by hand; what it does to a dataset is in
tests/ingest/test_forget.py."""

from __future__ import annotations

import io
import json
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from startup_ray.data_api import forget_items
from startup_ray.dataset import read_dataset
from startup_ray.items import Item
from startup_ray.lease import hold
from startup_ray.storage import Folder
from startup_ray.trainers.cache import empty_cache, find_caches, open_split
from tests.image_server import ImageServer
from tests.ingest.here import ingest
from tests.test_cli import document, run
from tests.test_verbs import Terminal, put

NAME = "pets-0123abcd"
SPLITS = {"a": "train", "b": "test", "c": "train", "d": "val", "e": "train"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    storage = tmp_path_factory.mktemp("made") / "store"
    with ImageServer() as server:
        rows = [
            Item(position=i, id=name, url=server.url(f"/image/{i}.png"), label="l", split=split)
            for i, (name, split) in enumerate(SPLITS.items())
        ]
        ingest(Folder(str(storage / "datasets" / NAME)), rows)
    return storage


@pytest.fixture
def storage(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The dataset with a run, a sweep, an export, and a run of something else."""
    monkeypatch.setenv("STARTUP_RAY_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "store"
    shutil.copytree(made, root)
    pets = json.dumps({"dataset": f"{root}/datasets/{NAME}", "digest": "sha256:00"})
    for name, text in {
        "runs/pets-1/job.yaml": "name: pets\n",
        "runs/pets-1/exit.json": "{}",
        "runs/pets-1/dataset.json": pets,
        "runs/pets-1/report.html": "<html>",
        "runs/pets-1/exports/model.keras": "x",
        "runs/pets-1/evaluations/last.json": "{}",
        "runs/dogs-1/job.yaml": "name: dogs\n",
        "runs/dogs-1/dataset.json": json.dumps({"dataset": f"{root}/datasets/dogs"}),
        "sweeps/pets-2/job.yaml": "name: pets\n",
        "sweeps/pets-2/dataset.json": pets,
        f"datasets/{NAME}/exports/webdataset-1/train-000000.tar": "x",
    }.items():
        put(root, name, text)
    record = {"to": "webdataset", "out": f"{root}/datasets/{NAME}/exports/webdataset-1", "splits": ["train", "test"]}
    put(root, f"datasets/{NAME}/exports/0a1b2c3d.json", json.dumps(record))
    judged = root / "runs/pets-1/evaluations/0a1b2c3d/predictions"
    judged.mkdir(parents=True)
    pq.write_table(pa.table({"id": ["b"], "predicted": [0]}), judged / "000000000000-000000000001.parquet")
    return root


def told(found: dict[str, Any]) -> list[tuple[str, str, list[str]]]:
    return [(one["kind"], one["name"], one["splits"]) for one in found["seen_by"]]


def tree(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file() and "lease" not in path.parts}


def test_it_goes_and_all_that_has_seen_it_is_named_and_stays(capsys: pytest.CaptureFixture[str], storage: Path) -> None:
    before = read_dataset(Folder(str(storage / "datasets" / NAME)))
    open_split(before, "train")
    runs = tree(storage / "runs")
    code, found = document(capsys, "forget", "a", "b", "--yes", "--storage", str(storage))
    assert code == 0
    after = read_dataset(before.folder)
    assert after.counts == {"ok": 3, "forgotten": 2}
    assert after.digest != before.digest
    assert found["forgotten"] == [{"dataset": str(before.folder), "items": ["a", "b"], "digest": after.digest}]
    assert told(found) == [
        ("run", "pets-1", ["train", "test"]),
        ("evaluation", "pets-1", ["test"]),
        ("report", "pets-1", ["train", "test"]),
        ("export", "pets-1", ["train"]),
        ("sweep", "pets-2", ["train", "test"]),
        ("export", "webdataset", ["train", "test"]),
        ("cache", NAME, []),
    ]
    assert all(Path(one["path"]).exists() for one in found["seen_by"])
    assert not list(Path(found["seen_by"][-1]["path"]).glob("*/*"))
    assert tree(storage / "runs") == runs


def test_only_what_has_seen_it_is_named(capsys: pytest.CaptureFixture[str], storage: Path) -> None:
    """An item of the validation split is in no export of this dataset, and no model has learnt from it."""
    _, found = document(capsys, "forget", "d", "--yes", "--storage", str(storage))
    assert told(found) == [("run", "pets-1", ["val"]), ("report", "pets-1", ["val"]), ("sweep", "pets-2", ["val"])]


def test_a_storage_that_was_moved_knows_its_runs_and_exports(
    capsys: pytest.CaptureFixture[str], storage: Path, tmp_path: Path
) -> None:
    moved = storage.rename(tmp_path / "moved")
    with hold(Folder(str(moved / "runs/pets-1"))):
        assert run(capsys, "forget", "a", "--yes", "--storage", str(moved))[0] == 5
    _, found = document(capsys, "forget", "a", "--yes", "--storage", str(moved))
    assert [(kind, name) for kind, name, _ in told(found)] == [
        ("run", "pets-1"),
        ("report", "pets-1"),
        ("export", "pets-1"),
        ("sweep", "pets-2"),
        ("export", "webdataset"),
    ]
    assert all(Path(one["path"]).exists() for one in found["seen_by"])


def test_asked_again_it_names_what_is_still_there(capsys: pytest.CaptureFixture[str], storage: Path) -> None:
    at = ("--yes", "--storage", str(storage))
    _, first = document(capsys, "forget", "a", *at)
    assert document(capsys, "forget", "a", *at)[1] == {"forgotten": [], "seen_by": first["seen_by"]}
    assert document(capsys, "runs", "delete", "pets-1", "pets-2", *at)[0] == 0
    assert told(document(capsys, "forget", "a", *at)[1]) == [("export", "webdataset", ["train"])]
    shutil.rmtree(storage / "datasets" / NAME / "exports")
    assert run(capsys, "forget", "a", *at)[:2] == (0, "nothing to forget\n")


def test_a_dry_run_tells_all_and_changes_nothing(capsys: pytest.CaptureFixture[str], storage: Path) -> None:
    before = tree(storage)
    at = ("--dry-run", "--storage", str(storage))
    code, found = document(capsys, "forget", "a", *at)
    assert code == 0
    assert found["would_forget"][0]["items"] == ["a"]
    assert len(found["seen_by"]) == 5
    out = run(capsys, "forget", "a", *at)[1]
    assert f"would forget  1 of {storage}/datasets/{NAME}: a\n" in out
    assert f"run           {storage}/runs/pets-1  learnt from it\n" in out
    assert f"report        {storage}/runs/pets-1/report.html  may show it\n" in out
    assert f"export        {storage}/datasets/{NAME}/exports/webdataset-1  has a copy of it\n" in out
    assert f"startup-ray runs delete pets-1 pets-2 --storage {storage}" in out
    assert tree(storage) == before


@pytest.mark.parametrize(("answer", "is_gone"), [("y\n", True), ("n\n", False), ("", False)])
def test_on_a_terminal_it_asks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, storage: Path, answer: str, is_gone: bool
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    _, _, err = run(capsys, "forget", "a", "--storage", str(storage))
    assert "forget this for good?" in err
    assert (storage / "forgotten").exists() == is_gone


def test_words_come_from_a_file_and_from_stdin(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, storage: Path, tmp_path: Path
) -> None:
    (tmp_path / "words.txt").write_text("b\n\n  a \n")
    monkeypatch.setattr(sys, "stdin", io.StringIO("c\na\n"))
    words = ["-", "--from", str(tmp_path / "words.txt"), "--dataset", str(storage / "datasets" / NAME)]
    _, found = document(capsys, "forget", *words, "--yes")
    assert found["forgotten"][0]["items"] == ["a", "b", "c"]


def test_it_is_undone(capsys: pytest.CaptureFixture[str], storage: Path) -> None:
    at = ("--storage", str(storage))
    run(capsys, "forget", "a", "b", "--yes", *at)
    assert document(capsys, "forget", "a", "--undo", *at) == (0, {"let_in": 1})
    code, found = document(capsys, "forget", "a", "--undo", *at)
    assert (code, found["error"]["message"]) == (2, "'a' was not forgotten")
    assert document(capsys, "forget", "b", "--undo", *at) == (0, {"let_in": 1})


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "nothing is named"),
        (["--from", "/proc/none"], "cannot read the words"),
        (["a"], "forgetting needs a yes"),
        (["z", "--yes"], "no dataset holds 'z'"),
        (["a", "z", "--yes"], "no dataset holds 'z'"),
        (["../a", "--yes"], "no dataset holds '../a'"),
        (["a", "--yes", "--dataset", "/proc/none"], "no dataset here"),
    ],
)
def test_a_mistake_changes_nothing(
    capsys: pytest.CaptureFixture[str], storage: Path, words: list[str], told: str
) -> None:
    before = tree(storage)
    code, found = document(capsys, "forget", *words, "--storage", str(storage))
    assert code == 2
    assert told in found["error"]["message"]
    assert tree(storage) == before


def test_what_a_run_is_learning_from_is_not_taken_from_it(capsys: pytest.CaptureFixture[str], storage: Path) -> None:
    before = tree(storage)
    with hold(Folder(str(storage / "runs/pets-1"))):
        code, found = document(capsys, "forget", "a", "--yes", "--storage", str(storage))
    assert code == 5
    assert "is learning from this dataset, in pets-1" in found["error"]["message"]
    assert tree(storage) == before


def test_what_an_ingest_ends_with_while_the_user_is_asked_goes_too(storage: Path) -> None:
    others = [Folder(str(storage / "datasets" / name)) for name in ("cats-00000000", "dogs-00000000")]

    def ingest_meanwhile(_: dict[str, Any]) -> None:
        with ImageServer() as server:
            row = Item(position=0, id="other", url=server.url("/image/0.png"))
            for folder in others:
                ingest(folder, [row, Item(position=1, id="z", url=server.url("/image/9.png"))])

    done = forget_items(["a"], storage=str(storage), ask=ingest_meanwhile)
    datasets = [Folder(str(storage / "datasets" / NAME)), *others]
    assert [(at["dataset"], at["items"]) for at in done["forgotten"]] == [
        (str(datasets[0]), ["a"]), *((str(folder), ["other"]) for folder in others)
    ]  # fmt: skip
    for at, folder in zip(done["forgotten"], datasets, strict=True):
        dataset = read_dataset(folder)
        assert (dataset.counts["forgotten"], dataset.digest) == (1, at["digest"])


def test_an_ingest_that_is_at_work_by_then_sees_the_list_itself(storage: Path) -> None:
    folder = Folder(str(storage / "datasets" / "cats-00000000"))
    with ExitStack() as stack:

        def begin(_: dict[str, Any]) -> None:
            with ImageServer() as server:
                ingest(folder, [Item(position=0, id="other", url=server.url("/image/0.png"))])
            stack.enter_context(hold(folder))
            folder.delete("dataset.json")

        done = forget_items(["a"], storage=str(storage), ask=begin)
        assert [at["items"] for at in done["forgotten"]] == [["a"]]


def test_a_missing_word_may_be_left_out(capsys: pytest.CaptureFixture[str], storage: Path) -> None:
    at = ("--ignore-missing", "--yes", "--storage", str(storage))
    assert document(capsys, "forget", "a", "z", *at)[1]["forgotten"][0]["items"] == ["a"]
    assert document(capsys, "forget", "z", *at) == (0, {"forgotten": [], "seen_by": []})


def test_an_id_writes_nothing_on_a_terminal_but_itself(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with ImageServer() as server:
        row = Item(position=0, id="\x1b[2J\x1b]0;owned\x07 7", url=server.url("/image/1.png"))
        ingest(Folder(str(tmp_path / "datasets" / NAME)), [row])
    code, out, _ = run(capsys, "forget", row.id, "--yes", "--storage", str(tmp_path))
    assert code == 0
    assert out == f"forgotten     1 of {tmp_path}/datasets/{NAME}: [2J ]0;owned 7\n"


def test_only_caches_of_this_dataset_are_deleted(tmp_path: Path) -> None:
    for name in ("pets-0123456789abcdef", "pets-2-0123456789abcdef", "pets-notes"):
        (tmp_path / name / "train").mkdir(parents=True)
    (tmp_path / "pets-0123456789abcdef" / "val.tmp-0a1b").mkdir()
    assert find_caches("pets", root=tmp_path) == [tmp_path / "pets-0123456789abcdef"]
    empty_cache(tmp_path / "pets-0123456789abcdef")
    assert find_caches("pets", root=tmp_path) == []
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_dir())
    assert left == [
        "pets-0123456789abcdef",
        "pets-2-0123456789abcdef",
        "pets-2-0123456789abcdef/train",
        "pets-notes",
        "pets-notes/train",
    ]
    assert find_caches("none", root=tmp_path / "none") == []
