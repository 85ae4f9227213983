"""Reports of GANs: what they show, what they leave out, and how they stand beside classifiers."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from startup_ray import runs
from startup_ray.gates import GENERATIVE
from startup_ray.report import write_report
from startup_ray.report.collection import LabelRows
from startup_ray.report.data import View, read_views
from startup_ray.report.gan import MAX_MODES, MEANINGS, headline, judge, modes, nearest, plots
from startup_ray.storage import Folder
from tests.report.made import HISTORY as CLASSIFIED
from tests.report.made import JOB, dataset_in, judged, run_in
from tests.report.made_gan import GAN_JOB, HISTORY, METRICS, finished, gan_in, judged_gan
from tests.report.tags import Tags

NOTHING = dict.fromkeys(GENERATIVE) | {"fid": 12.0}


@pytest.fixture
def storage(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


def tags_of(storage: Folder, *found: Folder) -> Tags:
    return Tags(Path(write_report(found, storage.path("out/report.html"))).read_text("utf-8"))


def test_a_judged_gan_shows_its_verdict_curves_and_samples(storage: Folder) -> None:
    run, dataset = gan_in(storage / "run"), dataset_in(storage / "dataset")
    judged_gan(run, dataset)
    tags = tags_of(storage, run)
    text = tags.words
    assert "FID 4.04 on 2,000 samples, 2 of 3 classes made" in text
    assert "gate met" in text
    assert "FID 4.04 342 samples 7.83 342 test images 3.48" in text
    assert "coverage 88.0% 342 samples 54.0% 342 test images 72.0%" in text
    assert "CAS 92.0%" in text
    assert "entropy of classes 0.95" not in text
    assert "by 64 features of a classifier of the train split, itself right on 98.0% of the test images" in text
    assert "kept is the generator of epoch 4" in text
    assert "4 epochs, 40 steps, 2 workers" in text
    assert "computing 75.0%" in text
    assert "Columns from the left: 0, 1, 2, 0, 1, 2, 0, 1, 2, 0." in text
    for meaning in MEANINGS.values():
        assert meaning in text
    assert "1.24 times as far from training images as test images are, the closest twentieth 1.39 times" in text
    assert sum(tag == "svg" for tag, _ in tags.found) == 5
    grids = [given for tag, given in tags.found if tag == "img" and "grid" in given.get("class", "")]
    assert [given["alt"] for given in grids] == [
        "Samples after epoch 2",
        "Samples after epoch 4",
        "Samples that were judged",
        "Samples above, the nearest training image below each",
    ]
    assert all(given["src"].startswith("data:image/png;base64,") for given in grids)
    ids = [given["id"] for _, given in tags.found if "id" in given]
    assert len(ids) == len(set(ids))


def test_each_kind_has_its_own_sections(storage: Folder) -> None:
    gan, classifier, dataset = gan_in(storage / "gan"), run_in(storage / "cnn"), dataset_in(storage / "dataset")
    judged_gan(gan, dataset)
    judged(classifier, dataset)
    assert tags_of(storage, gan).sections == ["data", "training", "samples", "reproduce"]
    assert tags_of(storage, classifier).sections == ["data", "metrics", "classes", "mistakes", "reproduce"]


def test_a_missed_gate_of_a_gan_shows(storage: Folder) -> None:
    run = gan_in(storage / "run")
    judged_gan(run, dataset_in(storage / "dataset"), gates=("fid <= 2", "coverage >= 0.5"))
    assert "1 of 2 gates not met" in tags_of(storage, run).words


@pytest.mark.parametrize("stage", ["begun", "looked at", "trained", "without labels", "pictures gone"])
def test_an_unfinished_gan_still_gives_a_report(storage: Folder, stage: str) -> None:
    run, dataset = gan_in(storage / "run", looks=() if stage == "begun" else (2,)), dataset_in(storage / "dataset")
    if stage == "trained":
        finished(run, dataset)
    if stage == "without labels":
        features = {"from": "inception:weights.h5", "size": 2_048}
        judged_gan(run, dataset, metrics=NOTHING, modes=[], classes=[], floor={"rows": 0}, features=features)
    if stage == "pictures gone":
        judged_gan(run, dataset)
        run.delete("evaluations/0a1b2c3d/samples.png")
        run.put_whole("evaluations/0a1b2c3d/nearest.png", b"torn")
    told = {
        "begun": "Training has not finished",
        "looked at": "epoch 2",
        "trained": "Trained, not evaluated yet",
        "without labels": "FID 12.00 on 2,000 samples 2,000 samples against",
        "pictures gone": "2 of 3 classes made",
    }
    tags = tags_of(storage, run)
    assert told[stage] in tags.words
    assert ("samples" in tags.sections) == (stage != "begun")
    assert "None" not in tags.words


def test_hostile_names_of_classes_and_features_stay_text(storage: Folder) -> None:
    evil = ("</style><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }} & 'x'")
    run = gan_in(storage / "run")
    features = {"from": "<script>alert(2)</script> https://host/a?token=hunter2", "size": 3}
    judged_gan(run, dataset_in(storage / "dataset", evil), features=features)
    tags = tags_of(storage, run)
    assert not {"script", "u"} & {tag for tag, _ in tags.found}
    assert all(given["src"].startswith("data:") for tag, given in tags.found if tag == "img")
    for name in (*evil, "alert(2)"):
        assert name in tags.text
    assert "hunter2" not in tags.text
    card = storage.read("out/MODEL_CARD.md").decode()
    assert "<script>" not in card
    assert "hunter2" not in card


def test_gans_are_compared_by_their_own_metrics(storage: Folder) -> None:
    dataset = dataset_in(storage / "dataset")
    for name in ("a-1", "b-1"):
        judged_gan(gan_in(storage / name, history=()), dataset)
    words = tags_of(storage, storage / "a-1", storage / "b-1").words
    table = words[: words.index("FID 4.04 on")]
    assert "FID coverage CAS images/s" in table
    assert "4.04 88.0% 92.0%" in table
    assert "accuracy" not in table
    assert "McNemar" not in table
    assert "b-1 is not compared with a-1 on the same rows: a GAN is not judged row by row." in table
    assert "do not compare here" not in table


def test_gans_that_were_judged_otherwise_are_not_comparable(storage: Folder) -> None:
    dataset = dataset_in(storage / "dataset")
    judged_gan(gan_in(storage / "a-1", history=()), dataset)
    samples, features = {"generated": 10, "train": 5, "test": 0}, {"from": "another", "size": 64}
    judged_gan(gan_in(storage / "b-1", history=()), dataset, samples=samples, features=features)
    words = tags_of(storage, storage / "a-1", storage / "b-1").words
    assert "judged with different features and numbers of samples" in words


def test_mixed_kinds_are_compared_with_a_dash_where_a_kind_has_no_such_metric(storage: Folder) -> None:
    dataset = dataset_in(storage / "dataset")
    for name in ("a-1", "b-1"):
        judged(run_in(storage / name), dataset)
    judged_gan(gan_in(storage / "c-1", history=()), dataset)
    words = tags_of(storage, *(storage / name for name in ("a-1", "b-1", "c-1"))).words
    table = words[: words.index("Points of percent")]
    assert "accuracy 95% interval F1 log-loss FID coverage CAS" in table
    assert "c-1 gate met – – – – 4.04 88.0% 92.0%" in table
    assert re.search(r"a-1 gate met 83\.3% [\d.]+ to [\d.]+ [\d.]+% [\d.]+ – – –", table)
    assert "c-1 a GAN is not judged row by row" in table


def test_the_card_of_a_gan_tells_its_metrics_and_its_rarest_classes(storage: Folder) -> None:
    run = gan_in(storage / "run")
    judged_gan(run, dataset_in(storage / "dataset", ("a", "b", "c*")))
    tags_of(storage, run)
    card = storage.read("out/MODEL_CARD.md").decode()
    assert "| Kind | gan |" in card
    assert "| metric | value | of 342 samples | of 342 test images | meaning |" in card
    assert "| FID | 4.0400 | 7.8300 | 3.4800 | distance" in card
    assert "| missing | 1 |  |  | classes into which" in card
    assert "- fid \\<= 8: met" in card
    assert "interval" not in card
    limits = card[card.index("## Limits") :]
    assert limits.index("class c\\*: 0.0%") < limits.index("class a: 50.0%")
    assert "1.2% are nearer than 99% of the test images" in limits


@pytest.mark.parametrize("is_judged", [False, True])
def test_the_card_of_a_gan_tells_no_more_than_is_known(storage: Folder, is_judged: bool) -> None:
    run, dataset = gan_in(storage / "run", history=()), dataset_in(storage / "dataset")
    finished(run, dataset)
    if is_judged:
        judged_gan(run, dataset, metrics=NOTHING, modes=[], floor={"rows": 0})
    tags_of(storage, run)
    card = storage.read("out/MODEL_CARD.md").decode()
    assert ("| metric | value | meaning |" in card) == is_judged
    assert ("Not evaluated." in card) != is_judged
    assert "Where it was weakest" not in card


def test_headlines_say_only_what_there_is() -> None:
    document: dict[str, Any] = {"samples": {"generated": 500}, "metrics": {"fid": 0.01234}, "modes": []}
    assert headline(document) == "FID 0.0123 on 500 samples"
    assert headline(document | {"metrics": {"fid": None}}) == "500 samples judged"
    shares = [{"class": "a", "share": 1.0}, {"class": "b", "share": 0.0}]
    assert headline(document | {"modes": shares}) == "FID 0.0123 on 500 samples, 1 of 2 classes made"


def test_judges_without_labels_have_no_accuracy() -> None:
    rows = {"generated": 500, "train": 1_000}
    assert judge({"samples": rows, "features": {"from": "x", "size": 2_048}}) == (
        "500 samples against 1,000 training images, by 2,048 features of x."
    )


def test_distances_that_nobody_looked_at_are_not_told() -> None:
    assert nearest({"nearest_ratio": None, "nearest_ratio_p5": None, "copies": None}) == ""
    assert nearest({}) == ""
    assert nearest({"nearest_ratio": 1.0, "copies": None}) == (
        "Samples are 1.00 times as far from training images as test images are."
    )


def test_every_metric_has_a_meaning() -> None:
    assert tuple(MEANINGS) == GENERATIVE
    assert tuple(METRICS) == GENERATIVE


def viewed(storage: Folder, **changes: Any) -> View:
    view = read_views([gan_in(storage / "run")], max_mistakes=1)[0]
    return dataclasses.replace(view, **changes)


def test_one_accuracy_of_pairs_is_drawn_once(storage: Folder) -> None:
    view = viewed(storage)
    titles = {plot.title: plot.series for plot in plots(view)}
    assert len(titles["Accuracy of the discriminator"]) == 1
    assert len(titles["Loss"]) == 3
    apart = [record | {"train/d_fake": 0.4, "train/penalty": 0.0} for record in HISTORY]
    titles = {plot.title: plot.series for plot in plots(dataclasses.replace(view, history=apart))}
    assert len(titles["Accuracy of the discriminator"]) == 2
    assert len(titles["Loss"]) == 2
    assert len(plots(viewed(storage, history=[]))) == 5


def test_shares_of_classes_stand_beside_those_of_training_images(storage: Folder) -> None:
    shares = [{"class": "a", "share": 0.2}, {"class": "b", "share": 0.8}]
    labels = [LabelRows(label="b", splits=(30, 1, 1)), LabelRows(label="a", splits=(10, 9, 9))]
    found = modes(viewed(storage, evaluation={"modes": shares}, labels=labels))
    assert [(row["class"], row["part"], row["real"]) for row in found] == [("a", 0.25, 0.25), ("b", 1.0, 0.75)]
    found = modes(viewed(storage, evaluation={"modes": shares}, labels=labels[:1]))
    assert [row["real"] for row in found] == [None, None]


def test_of_many_classes_the_rarest_are_shown(storage: Folder) -> None:
    shares = [{"class": f"c{i}", "share": i / 2_000} for i in reversed(range(MAX_MODES + 5))]
    found = modes(viewed(storage, evaluation={"modes": shares}))
    assert [row["class"] for row in found] == [f"c{i}" for i in range(MAX_MODES)]


def test_a_gan_is_known_by_its_job_or_by_its_result(storage: Folder) -> None:
    run = run_in(storage / "run", GAN_JOB)
    assert read_views([run], max_mistakes=1)[0].is_gan
    for job, kind in ((JOB | {"model": "gan"}, "cnn"), (JOB, "gan")):
        runs.put_json(run_in(storage / "run", job), runs.EXIT, {"kind": kind})
        assert read_views([run], max_mistakes=1)[0].is_gan == (kind == "gan")


def test_curves_of_classifiers_are_as_they_were(storage: Folder) -> None:
    run = run_in(storage / "run", history=CLASSIFIED)
    judged(run, dataset_in(storage / "dataset"))
    tags = tags_of(storage, run)
    drawn = [given["aria-label"] for tag, given in tags.found if tag == "svg"]
    assert drawn == ["Loss by epoch", "Accuracy and F1 by epoch", "Accuracy by confidence"]
