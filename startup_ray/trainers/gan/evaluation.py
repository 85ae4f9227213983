"""How good a trained generator is: samples against the images that it has learned from.

    document = evaluate_gan(run, dataset, folder, options=job.evaluation, seed=job.seed)
    document["metrics"]["fid"], document["floor"]["fid"]

All distances are of features by the run's judge. Beside each stands what real images of the test split have, at their
number: a generator cannot be better than that by much, whatever it does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from startup_ray.dataset import Dataset
from startup_ray.errors import UsageError
from startup_ray.fidelity import Moments, frechet_distance, kernel_distance, modes
from startup_ray.gates import GENERATIVE, Gate, check_gates, parse_gate
from startup_ray.job import EvaluationOptions
from startup_ray.neighbourhoods import closeness, nearest, neighbourhoods
from startup_ray.progress import Part, Progress, ignore
from startup_ray.runs import BEST_MODEL, EVALUATION, FEATURES, put_json
from startup_ray.storage import Folder
from startup_ray.trainers.cache import Rows, open_split
from startup_ray.trainers.gan.judge import EPOCHS, Judge, judge_of, make_judge, open_judge, train_classifier
from startup_ray.trainers.gan.sampling import BATCH_ROWS, Wanted, as_in_training, draw, flat, grid, png, wanted_images
from startup_ray.trainers.scoring import load_model, use_one_thread

MOST_REAL = 50_000
MOST_NUMBERS = 2**26
"""Of features that are held, rows times size."""
MOST_PAIRED = 10_000
"""Rows of each set whose neighbours are looked for: that takes time with their square."""
MOST_COPIES = 1_000
"""Samples that are compared with training images pixel by pixel."""
MOST_PIXELS = 2**27
CLASSIFIER_SEED = 1
NEIGHBOURS = 5
GRID_COLUMNS, GRID_ROWS = 10, 10
PAIRS = 10
"""Samples that are shown with the training image they are nearest to."""


@dataclass(frozen=True, kw_only=True)
class _Sets:
    """Images and their features; of as many rows as are held."""

    fake: np.ndarray
    fake_features: np.ndarray
    predicted: np.ndarray
    train_features: np.ndarray
    test_features: np.ndarray
    test_predicted: np.ndarray


def evaluate_gan(
    run: Folder,
    dataset: Dataset,
    folder: Folder,
    *,
    options: EvaluationOptions,
    seed: int = 0,
    on_progress: Callable[[Progress], None] = ignore,
) -> dict[str, Any]:
    """Judge `<run>/model.keras`; write `<folder>/{samples,nearest}.png` and `<folder>/evaluation.json`.

    Args:
        seed: of the samples.
        on_progress: told the images that are judged.

    Raises:
        UsageError: a gate cannot be read, there is no generator, or nobody to judge its images.
        StorageError: storage cannot be used.
    """
    gates = gates_of(options)
    use_one_thread()
    model = load_model(run, BEST_MODEL)
    train, test = open_split(dataset, "train"), open_split(dataset, "test")
    judge = _judge(run, dataset, options)
    wanted = _wanted(model, train, options.samples, seed)
    sets = _sets(model, wanted, judge, train, test, on_progress)
    distances, places = nearest(flat(sets.fake[:MOST_COPIES]), flat(_compared(train)))
    document = {
        "evaluation": str(folder),
        "kind": "gan",
        "model": run.path(BEST_MODEL),
        "dataset": str(dataset.folder),
        "dataset_digest": dataset.digest,
        "samples": {"generated": len(wanted), "train": len(sets.train_features), "test": len(sets.test_features)},
        "features": {"from": options.features or "a classifier of the train split", "size": judge.size}
        | _accuracy_of(sets, test, judge),
        "metrics": _metrics(sets, wanted, judge, train, test, distances),
        "floor": _floor(sets),
        "modes": _modes(sets, judge, dataset),
        "classes": list(dataset.classes) if wanted.classes is not None else [],
    }
    document["gates"] = check_gates(gates, document)
    for name, picture in _pictures(sets, train, distances, places).items():
        folder.put_whole(name, picture)
    put_json(folder, EVALUATION, document)
    return document


def gates_of(options: EvaluationOptions) -> list[Gate]:
    """The gates, all of them about metrics that a GAN has.

    Raises:
        UsageError: one is not, or cannot be read.
    """
    gates = [parse_gate(text) for text in options.gates]
    for gate in gates:
        if gate.metric not in GENERATIVE or gate.label is not None or gate.end is not None:
            hint = f"a GAN has {', '.join(GENERATIVE)}"
            raise UsageError("a GAN has no such metric", where=f"gate {gate.text!r}", hint=hint)
    return gates


def _judge(run: Folder, dataset: Dataset, options: EvaluationOptions) -> Judge:
    if not options.features and run.exists(FEATURES):
        return open_judge(run, FEATURES, dataset.image_shape)
    made = make_judge(dataset, options.features or "")
    if not made:
        hint = "name a model: set evaluation.features to a run, a .keras file or inception:WEIGHTS.h5"
        raise UsageError("there are no labels from which to learn what images are like", where="evaluation", hint=hint)
    with tempfile.TemporaryDirectory() as place:
        folder = Folder(place)
        folder.put_whole(FEATURES, made)
        return judge_of(load_model(folder, FEATURES), dataset.image_shape)


def _wanted(model: Any, train: Rows, count: int, seed: int) -> Wanted:
    """Samples with classes as often as in training, if it is asked for them."""
    inputs = model.inputs
    classes = as_in_training(np.asarray(train.labels), seed) if len(inputs) > 1 else None
    return wanted_images(seed, count, int(inputs[0].shape[-1]), classes)


def _sets(
    model: Any, wanted: Wanted, judge: Judge, train: Rows, test: Rows, on_progress: Callable[[Progress], None]
) -> _Sets:
    most = min(MOST_REAL, max(MOST_NUMBERS // judge.size, 2))
    counts = (len(wanted), min(len(train), most), min(len(test), most))
    done = 0

    def seen(rows: int) -> None:
        nonlocal done
        done += rows
        on_progress(Part(done, sum(counts), "images judged"))

    fakes, features, predicted = [], [], []
    for start in range(0, len(wanted), BATCH_ROWS):
        fakes.append(draw(model, wanted, start, min(start + BATCH_ROWS, len(wanted))))
        found = judge(fakes[-1])
        features.append(found[0])
        predicted.append(found[1])
        seen(len(fakes[-1]))
    train_features, _ = judge(train.images[: counts[1]])
    seen(counts[1])
    test_features, test_predicted = judge(test.images[: counts[2]])
    seen(counts[2])
    return _Sets(
        fake=np.concatenate(fakes),
        fake_features=np.concatenate(features),
        predicted=np.concatenate(predicted),
        train_features=train_features,
        test_features=test_features,
        test_predicted=test_predicted,
    )


def _metrics(
    sets: _Sets, wanted: Wanted, judge: Judge, train: Rows, test: Rows, distances: np.ndarray
) -> dict[str, float | None]:
    """`distances` are those of the first samples to the nearest training image."""
    found: dict[str, float | None] = dict.fromkeys(GENERATIVE)
    found |= _distances(sets.fake_features, sets.train_features)
    if judge.num_classes > 1:
        seen = modes(sets.predicted, judge.num_classes)
        found |= {"entropy": seen.entropy, "rarest": seen.rarest, "missing": float(len(seen.missing))}
    if len(test):
        near = closeness(distances, nearest(flat(_compared(test)), flat(_compared(train)))[0])
        found |= {"nearest_ratio": near["ratio"], "nearest_ratio_p5": near["ratio_p5"], "copies": near["copies"]}
    if wanted.classes is not None:
        found["cas"] = _classification_accuracy(sets.fake, wanted.classes, test)
    return {name: found[name] for name in GENERATIVE}


def _distances(some: np.ndarray, train: np.ndarray) -> dict[str, float | None]:
    found: dict[str, float | None] = {"fid": frechet_distance(Moments.of(some), Moments.of(train))}
    if min(len(some), len(train)) > 1:
        found["kid"] = kernel_distance(some[:MOST_PAIRED], train[:MOST_PAIRED])
    if min(len(some), len(train)) > NEIGHBOURS:
        found |= neighbourhoods(some[:MOST_PAIRED], train[:MOST_PAIRED], k=NEIGHBOURS)
    return found


def _floor(sets: _Sets) -> dict[str, Any]:
    """Test images in the place of samples, and as many samples for comparison."""
    rows = min(len(sets.test_features), len(sets.fake_features))
    if not rows:
        return {"rows": 0}
    real = _distances(sets.test_features[:rows], sets.train_features)
    fake = _distances(sets.fake_features[:rows], sets.train_features)
    return {"rows": rows, "real": real, "generated": fake}


def _modes(sets: _Sets, judge: Judge, dataset: Dataset) -> list[dict[str, Any]]:
    """Share of the samples that the judge takes for each class, if it was trained on these classes."""
    if judge.num_classes != len(dataset.classes):
        return []
    shares = modes(sets.predicted, judge.num_classes).shares
    return [{"class": name, "share": float(share)} for name, share in zip(dataset.classes, shares, strict=True)]


def _accuracy_of(sets: _Sets, test: Rows, judge: Judge) -> dict[str, float]:
    """How often the judge is right itself, on test images."""
    labels = np.asarray(test.labels[: len(sets.test_predicted)])
    known = labels >= 0
    if not known.any() or judge.num_classes <= labels.max():
        return {}
    return {"accuracy": float((sets.test_predicted == labels)[known].mean())}


def _classification_accuracy(images: np.ndarray, labels: np.ndarray, test: Rows) -> float | None:
    """Of a classifier that has seen samples alone, on real test images (Ravuri & Vinyals, arXiv:1905.10887).

    It is trained as the judge is, for as many epochs.
    """
    known = np.flatnonzero(test.labels >= 0)
    if not known.size:
        return None
    classes = int(max(labels.max(), test.labels[known].max())) + 1
    model = train_classifier(images, labels, classes, seed=CLASSIFIER_SEED, epochs=EPOCHS)
    _, predicted = judge_of(model, images.shape[1:])(test.images[known])
    return float((predicted == test.labels[known]).mean())


def _compared(rows: Rows) -> np.ndarray:
    """As many images as are compared pixel by pixel."""
    return rows.images[: max(min(MOST_REAL, MOST_PIXELS // rows.images[0].size), 1)]


def _pictures(sets: _Sets, train: Rows, distances: np.ndarray, places: np.ndarray) -> dict[str, bytes]:
    """The first samples, and those nearest to a training image, which stands below each."""
    closest = np.argsort(distances, kind="stable")[:PAIRS]
    pairs = np.concatenate([sets.fake[closest], train.images[places[closest]]])
    return {
        "samples.png": png(grid(sets.fake[: GRID_ROWS * GRID_COLUMNS], GRID_COLUMNS)),
        "nearest.png": png(grid(pairs, len(closest))),
    }
