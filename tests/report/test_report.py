"""The report from folders made by hand: what it shows, what it leaves out, and that nothing in it can run."""

from __future__ import annotations

import base64
import dataclasses
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from startup_ray import runs
from startup_ray.dataset import write_dataset
from startup_ray.errors import UsageError
from startup_ray.evaluate import judge
from startup_ray.gates import parse_gate
from startup_ray.ingest.encode import encode
from startup_ray.job import ImageOptions
from startup_ray.ledger import ledger_schema
from startup_ray.metrics import Stats
from startup_ray.report import write_report
from startup_ray.report.classifier import MAX_CLASSES, classes
from startup_ray.report.collection import funnel, left_out, meaning
from startup_ray.report.data import read_views
from startup_ray.report.pictures import thumbnail
from startup_ray.report.plots import curves
from startup_ray.storage import Folder
from tests.fakes import make_dataset, patterns
from tests.report.made import HISTORY, JOB, ROWS, dataset_in, judged, run_in
from tests.report.tags import Tags


@pytest.fixture
def storage(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


def page_of(storage: Folder, *found: Folder) -> str:
    path = write_report(found, storage.path("out/report.html"))
    return Path(path).read_text("utf-8")


def test_a_judged_run_shows_its_verdict_data_curves_and_mistakes(storage: Folder) -> None:
    dataset, run = dataset_in(storage / "dataset"), run_in(storage / "run", history=HISTORY)
    judged(run, dataset)
    page = page_of(storage, run)
    tags = Tags(page)
    text = re.sub(r"\s+", " ", tags.text)
    assert "83.3% of 12 test images classified correctly" in text
    assert "gate met" in text
    assert "the server answered 'Not Found'" in text
    assert "resumed from step 12" in text
    assert "keras==3.15.1" in text
    assert sum(tag == "svg" for tag, _ in tags.found) == 3  # two of curves, one of calibration
    images = [attributes for tag, attributes in tags.found if tag == "img"]
    wrong = [attributes["alt"] for attributes in images if "taken for" in attributes["alt"]]
    assert len(wrong) == 2 * 2  # among the surest, and by confusion
    assert len(images) == ROWS + 2 * 2
    assert text.index("00000http://host/0.png?x=<b>") < text.index("00001http://host/1.png")
    ids = [attributes["id"] for _, attributes in tags.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert page == page_of(storage, run)


def test_a_missed_gate_shows(storage: Folder) -> None:
    run = run_in(storage / "run")
    judged(run, dataset_in(storage / "dataset"), gate="f1 > 0.99")
    assert "1 of 1 gates not met" in page_of(storage, run)


def test_the_page_asks_no_network_and_runs_nothing(storage: Folder) -> None:
    run = run_in(storage / "run", history=HISTORY)
    judged(run, dataset_in(storage / "dataset"))
    page = page_of(storage, run)
    tags = Tags(page)
    assert not {tag for tag, _ in tags.found} & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in tags.found:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:")), tag
    assert "default-src 'none'" in page
    assert "@import" not in page


def test_hostile_names_stay_text(storage: Folder) -> None:
    evil = ("</style><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }} & 'x'")
    dataset = dataset_in(storage / "dataset", evil)
    run = run_in(storage / "run", JOB | {"name": "</pre><script>alert(2)</script>"})
    judged(run, dataset)
    tags = Tags(page_of(storage, run))
    assert not {"script", "i", "u"} & {tag for tag, attributes in tags.found if not attributes.get("style")}
    assert all(attributes["src"].startswith("data:") for tag, attributes in tags.found if tag == "img")
    for name in (*evil, "alert(2)", "http_404 <i>", "http://host/<u>"):
        assert name in tags.text


def test_signed_urls_do_not_leave_the_job_file(storage: Folder) -> None:
    secret = "https://user:hunter2@host/list.json?X-Signature=hunter3&page=1"
    run = run_in(storage / "run", JOB | {"ingest": {"manifest": secret}})
    dataset = dataclasses.replace(dataset_in(storage / "dataset"), manifest=secret)
    write_dataset(dataset)
    judged(run, dataset)
    page = page_of(storage, run)
    assert "hunter" not in page
    assert "https://host/list.json?X-Signature=REDACTED" in page


@pytest.mark.parametrize("stage", ["begun", "trained", "unlabelled", "dataset gone"])
def test_an_unfinished_run_still_gives_a_report(storage: Folder, stage: str) -> None:
    dataset, run = dataset_in(storage / "dataset"), run_in(storage / "run")
    if stage != "begun":
        judged(run, dataset)
    if stage == "trained":
        run.delete("evaluations")
    if stage == "unlabelled":
        place = run / "evaluations" / "0a1b2c3d"
        empty = judge(Stats.empty(3), dataset.classes, [parse_gate("f1 > 0")], average="macro", seed=1)
        runs.put_json(place, runs.EVALUATION, runs.read_json(place, runs.EVALUATION) | empty)
    if stage == "dataset gone":
        dataset.folder.delete("dataset.json")
    told = {
        "begun": "Training has not finished",
        "trained": "Trained, not evaluated yet",
        "unlabelled": "No row of the test split could be scored",
        "dataset gone": "is not where it was",
    }
    assert told[stage] in page_of(storage, run)


def test_an_empty_run_folder_with_a_job_gives_a_report(storage: Folder) -> None:
    storage.put_whole("run/job.yaml", b"")
    assert "Training has not finished" in page_of(storage, storage / "run")


def test_several_runs_are_compared_by_what_differs(storage: Folder) -> None:
    dataset = dataset_in(storage / "dataset")
    first, second = (
        run_in(storage / "a-1", history=HISTORY),
        run_in(storage / "b-1", JOB | {"training": {"epochs": 30}}, HISTORY),
    )
    judged(first, dataset, wrong=1)
    judged(second, dataset, wrong=4)
    page = page_of(storage, first, second)
    text = re.sub(r"\s+", " ", Tags(page).text)
    assert "2 runs compared" in text
    assert "training.epochs" in text
    assert "seed" not in text[: text.index("classified")]
    assert text.index("91.7%") < text.index("66.7%") < text.index("of 12 test images")
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_a_surely_worse_run_is_called_so_and_its_dataset_told_once(storage: Folder) -> None:
    dataset = dataset_in(storage / "dataset")
    names = ("a-1", "b-1", "c-1")
    for name, wrong in zip(names, (0, 9, 1), strict=True):
        judged(run_in(storage / name), dataset, wrong=wrong)
    run_in(storage / "d-1")
    page = page_of(storage, *(storage / name for name in (*names, "d-1")))
    text = re.sub(r"\s+", " ", Tags(page).text)
    table = text[text.index("Against a-1") : text.index("Points of percent")]
    assert re.search(r"b-1 worse -75\.0 ?-100\.0 to -50\.0", table)
    assert re.search(r"c-1 no sure -8\.3", table)
    assert "d-1 this run is not evaluated yet" in table
    assert text.count("The dataset of a-1.") == 2
    assert text.count("in the manifest") == 1


def test_a_wrong_cell_leads_to_its_examples(storage: Folder) -> None:
    run = run_in(storage / "run")
    judged(run, dataset_in(storage / "dataset"), wrong=5)
    tags = Tags(page_of(storage, run))
    ids = {attributes["id"] for _, attributes in tags.found if "id" in attributes}
    links = [attributes["href"] for tag, attributes in tags.found if tag == "a"]
    cells = [link for link in links if "confusion" in link]
    assert len(cells) == len(set(cells)) == 3
    assert {link.removeprefix("#") for link in links} <= ids


def test_what_was_asked_where_it_failed_and_which_classes_there_are(storage: Folder) -> None:
    job = {"name": "made", "ingest": {"manifest": "a.json"}, "training": {"epochs": 3, "global_batch": 32}}
    run = run_in(storage / "run", job)
    dataset = dataset_in(storage / "dataset")
    table = pa.Table.from_pylist(
        [
            {"id": "a", "url": "http://one.example/a", "status": "timeout"},
            {"id": "b", "url": "http://one.example/b", "status": "http_404"},
            {"id": "c", "url": "http://two.example/c", "status": "timeout"},
            {"id": "d", "url": "http://three.example/c", "status": "ok"},
        ],
        schema=ledger_schema(),
    )
    stream = io.BytesIO()
    pq.write_table(table, stream)
    dataset.folder.put_whole("ledger/000000.parquet", stream.getvalue())
    judged(run, dataset)
    view = read_views([run], max_mistakes=1)[0]
    assert view.asked == {"ingest.manifest": "a.json", "training.epochs": 3, "training.global_batch": 32}
    assert [(host.host, host.items, host.states) for host in view.hosts] == [
        ("one.example", 2, "1 timeout, 1 http_404"),
        ("two.example", 1, "1 timeout"),
    ]
    assert sum(row.total for row in view.labels) == ROWS
    assert all(1 <= len(row.faces) <= 6 and row.faces[0].image for row in view.labels)
    text = Tags(page_of(storage, run)).text
    assert "training.global_batch" in text
    assert "one.example" in text


def test_slices_are_shown_if_there_are_several(storage: Folder) -> None:
    run, dataset = run_in(storage / "run"), dataset_in(storage / "dataset")
    judged(run, dataset)
    assert "Slices" not in Tags(page_of(storage, run)).text  # one host, one width
    place = run / "evaluations" / "0a1b2c3d"
    part = {"rows": 6, "accuracy": 0.5, "low": 0.2, "high": 0.8, "f1": 0.4, "log_loss": 1.0}
    slices = {"host": [{"value": "<bad>.example", **part}, {"value": "good.example", **part}]}
    runs.put_json(place, runs.EVALUATION, runs.read_json(place, runs.EVALUATION) | {"slices": slices})
    text = Tags(page_of(storage, run)).text
    assert text.index("Slices") < text.index("<bad>.example") < text.index("good.example")


def test_a_model_card_lies_beside_the_report_of_one_run(storage: Folder) -> None:
    evil = ("*a* | b", "[x](http://evil)", "<script>")
    dataset, run = dataset_in(storage / "dataset", evil), run_in(storage / "run")
    judged(run, dataset, wrong=3)
    page_of(storage, run)
    card = storage.read("out/MODEL_CARD.md").decode()
    for heading in ("Model details", "Intended use", "Data", "Evaluation", "Limits", "Ethical considerations"):
        assert f"\n## {heading}\n" in card
    assert "| accuracy | 0.7500 |" in card
    assert "- f1 \\> 0.5: met" in card
    assert "<script>" not in card
    assert "[x](" not in card
    assert "\\*a\\* \\| b" in card
    assert "F1" in card[card.index("## Limits") :]


@pytest.mark.ray
def test_the_page_is_opened_in_the_browser_that_the_user_has(storage: Folder, tmp_path: Path) -> None:
    judged(run_in(storage / "run"), dataset_in(storage / "dataset"))
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/seen\n')
    browser.chmod(0o755)
    words = [sys.executable, "-m", "startup_ray", "report", storage.path("run"), "--open"]
    subprocess.run(words, env={**os.environ, "BROWSER": str(browser)}, check=True, capture_output=True, timeout=60)
    assert (tmp_path / "seen").read_text().strip() == (tmp_path / "run" / "report.html").as_uri()


def test_large_images_become_thumbnails_and_the_page_stays_small(storage: Folder) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (ROWS, 300, 200, 3), np.uint8)
    dataset, run = dataset_in(storage / "dataset"), run_in(storage / "run")
    _, labels = patterns(ROWS)
    counts, items = dataset.counts, dataset.items
    dataset = make_dataset(storage / "dataset", noise, labels, ["test"] * ROWS)
    write_dataset(dataclasses.replace(dataset, counts=counts, items=items))
    judged(run, dataset, wrong=ROWS)
    assert len(page_of(storage, run)) < 1_000_000 / 24 * ROWS


@pytest.mark.parametrize("store", ["png", "original", "raw"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_thumbnails_of_every_stored_form(storage: Folder, store: str, channels: int) -> None:
    image = ImageOptions.model_validate({"size": (100, 100), "channels": channels, "store": store})
    dataset = dataclasses.replace(dataset_in(storage / "dataset"), image=image, image_shape=image.shape)
    pixels = np.random.default_rng(0).integers(0, 256, image.shape, np.uint8)
    stored = encode(pixels, image.model_copy(update={"store": "png"}) if store == "original" else image)
    uri = thumbnail(stored, dataset)
    found = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert (found.size, len(found.getbands())) == ((80, 80), channels)


def test_what_is_no_run_is_told(storage: Folder) -> None:
    with pytest.raises(UsageError, match=r"job\.yaml is missing"):
        write_report([storage], storage.path("report.html"))
    with pytest.raises(UsageError, match="no run"):
        write_report([], storage.path("report.html"))


def test_the_evaluation_that_was_asked_for_last_counts(storage: Folder) -> None:
    run = run_in(storage / "run")
    judged(run, dataset_in(storage / "dataset"))
    document = runs.read_json(run / "evaluations" / "0a1b2c3d", runs.EVALUATION)
    runs.put_json(run / "evaluations" / "00000000", runs.EVALUATION, document | {"split": "val"})
    for key, split in (("00000000", "val"), ("0a1b2c3d", "test"), ("gone", "test")):
        runs.put_json(run, runs.LAST_EVALUATION, {"key": key})
        assert read_views([run], max_mistakes=1)[0].evaluation["split"] == split


def test_a_run_without_mistakes(storage: Folder) -> None:
    run, dataset = run_in(storage / "run"), dataset_in(storage / "dataset")
    judged(run, dataset, wrong=0)
    assert "None." in page_of(storage, run)
    (run / "evaluations" / "0a1b2c3d").delete("predictions")
    assert "The stored predictions are gone." in page_of(storage, run)


def test_a_damaged_image_leaves_a_gap(storage: Folder) -> None:
    run, dataset = run_in(storage / "run"), dataset_in(storage / "dataset")
    judged(run, dataset)
    dataset.folder.put_whole(f"images/{dataset.shards[0]}", b"torn")
    assert page_of(storage, run).count('class="gone"') == 2  # among the surest, and by confusion
    assert thumbnail(b"no image", dataset) == ""


def test_an_unevaluated_run_can_be_compared(storage: Folder) -> None:
    one, other = run_in(storage / "one"), run_in(storage / "other")
    judged(one, dataset_in(storage / "dataset"))
    write_report([one, other], f"{storage}/both.html")
    assert "2 runs compared" in storage.read("both.html").decode()


def test_the_funnel_takes_away_what_the_ledger_lost(storage: Folder) -> None:
    dataset = dataset_in(storage / "dataset")
    assert [(stage.items, stage.lost) for stage in funnel(dataset)] == [(16, 0), (14, 2), (13, 1), (12, 1)]
    found = left_out(dataset)
    assert [(state.status, state.items) for state in found] == [("http_404", 2), ("corrupt", 1), ("duplicate", 1)]
    assert found[0].id == "http_404 <i>"
    assert meaning("http_799") == "the server's final answer, e.g. http_404"


def test_many_classes_show_their_largest_confusions_and_the_worst_classes(storage: Folder) -> None:
    many = MAX_CLASSES + 5
    confusion = np.diag(np.full(many, 9))
    confusion[3, 7], confusion[5, 6] = 4, 8
    document = judge(Stats(confusion=confusion), tuple(f"c{i}" for i in range(many)), [], average="macro", seed=1)
    view = dataclasses.replace(read_views([run_in(storage / "run")], max_mistakes=1)[0], evaluation=document)
    found = classes(view, "a")
    assert found is not None
    assert found["matrix"] == []
    assert [(cell["label"], cell["predicted"], cell["rows"]) for cell in found["confusions"]] == [
        ("c5", "c6", 8),
        ("c3", "c7", 4),
    ]
    assert len(found["classes"]) == MAX_CLASSES
    assert {row["class"] for row in found["classes"][:4]} == {"c3", "c5", "c6", "c7"}


def test_curves_are_text_in_the_colours_of_the_page() -> None:
    drawn = curves(HISTORY, {"train": "train/loss", "validation": "val/loss"}, title="Loss", key="a")
    assert drawn == curves(HISTORY, {"train": "train/loss", "validation": "val/loss"}, title="Loss", key="a")
    assert drawn.startswith("<svg ")
    assert {"var(--series-1)", "var(--series-2)", "var(--rule)", "currentColor"} <= set(
        re.findall(r"var\([^)]*\)|currentColor", drawn)
    )
    assert not re.findall(r"#0102", drawn)
    assert ">validation</text>" in drawn
    assert all(name.startswith("a-") for name in re.findall(r'\bid="([^"]*)"', drawn))
    assert all(name.startswith("a-") for name in re.findall(r'(?:href="|url\()#([^")]*)', drawn))
    assert curves(HISTORY, {"x": "not/there"}, title="Loss", key="a") == ""
    assert curves(HISTORY[:1], {"train": "train/loss"}, title="Loss", key="a").count("<use") >= 1  # a marker
    assert len(drawn) < 20_000
