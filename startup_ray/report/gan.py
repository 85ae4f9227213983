"""What a report tells of a GAN alone: its verdict, its curves, its samples.

A distance from real images is never 0 among few rows. So beside it stands what real test images have in the place of
samples, and what as many samples have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from startup_ray.report.data import View
from startup_ray.report.plots import Plot
from startup_ray.report.wording import count, distance, number, percent, without_secrets

MEANINGS = {
    "fid": "distance of features' mean and spread from training; 0 is best",
    "kid": "distance by a kernel; around 0 is best, and few rows do not raise it",
    "precision": "share of the samples that lie among training images",
    "recall": "share of the training images that lie among samples",
    "density": "how densely samples lie among training images; 1 is as real ones",
    "coverage": "share of the training images with a sample near by",
    "entropy": "how evenly the samples fall into classes; 1 is all alike",
    "rarest": "share of the samples that fall into the rarest class",
    "missing": "classes into which no sample falls",
    "cas": "accuracy on test images of a classifier trained on samples alone",
    "nearest_ratio": "median distance to the nearest training image over that of test images",
    "nearest_ratio_p5": "the same at the closest twentieth; below 1 is too close",
    "copies": "share nearer to a training image than 99% of test images; 0.01 is usual",
}
MAX_MODES = 40
"""Classes up to which all shares are shown; above, the least."""
GRID_COLUMNS = 10
"""Of the pictures made while training, in each of which a class stands if classes are asked for."""

Values = dict[str, Any]
Form = Callable[[float | None], str]
_TILES: dict[str, Form] = {
    "fid": distance,
    **dict.fromkeys(("coverage", "precision", "recall", "cas"), percent),
    "entropy": number,
}
_TITLES = {"fid": "FID", "entropy": "entropy of classes", "cas": "CAS"}


def verdict(view: View) -> Values:
    """Empty without an evaluation."""
    evaluation = view.evaluation
    if not evaluation:
        return {}
    return {"headline": headline(evaluation), "judge": judge(evaluation), "tiles": _tiles(evaluation)}


def headline(evaluation: Mapping[str, Any]) -> str:
    """One sentence of what there is to tell."""
    rows, fid, shares = evaluation["samples"]["generated"], evaluation["metrics"]["fid"], evaluation["modes"]
    made = sum(row["share"] > 0 for row in shares)
    on = f"FID {distance(fid)} on {rows:,} samples" if fid is not None else f"{rows:,} samples judged"
    return f"{on}, {made:,} of {len(shares):,} classes made" if shares else on


def judge(evaluation: Mapping[str, Any]) -> str:
    """Who has judged how many images."""
    rows, features = evaluation["samples"], evaluation["features"]
    text = f"{rows['generated']:,} samples against {rows['train']:,} training images, by {features['size']:,} features"
    text += f" of {without_secrets(features['from'])}"
    if features.get("accuracy") is not None:
        text += f", itself right on {percent(features['accuracy'])} of the test images"
    return text + "."


def plots(view: View) -> list[Plot]:
    """Of training; how good samples are before what the networks say of each other."""
    # A discriminator that only compares a real image with a generated one has one accuracy, not two.
    is_one = all(record.get("train/d_real") == record.get("train/d_fake") for record in view.history)
    told = {"pairs of a real and a generated image": "train/d_real"}
    apart = told if is_one else {"real images": "train/d_real", "generated images": "train/d_fake"}
    penalised = any(record.get("train/penalty") for record in view.history)
    penalty = {"penalty": "train/penalty"} if penalised else {}
    variety = {"coverage": "val/coverage", "entropy of classes": "val/entropy", "copies": "val/copies"}
    kept = f"; kept is the generator of epoch {view.train['best_epoch']}" if view.train.get("best_epoch") else ""
    losses = {"discriminator": "train/d_loss", "generator": "train/g_loss"} | penalty
    return [
        Plot(title="FID", series={"samples": "val/fid"}, note=f"Lower is better{kept}."),
        Plot(title="Variety of the samples", series=variety, note="A sudden fall is a collapse; copies should stay 0."),
        Plot(title="Loss", series=losses, note="One network's gain is the other's loss: neither has to fall."),
        Plot(title="Accuracy of the discriminator", series=apart, note="At 0.5 it can only guess."),
        Plot(title="Norm of the gradients", series={"discriminator": "train/d_norm", "generator": "train/g_norm"}),
    ]


def samples(view: View, key: str) -> Values | None:  # noqa: ARG001
    if not view.is_gan or not (view.evaluation or view.samples.over_time):
        return None
    evaluation, floor = view.evaluation, view.evaluation.get("floor", {})
    return {
        "columns": _columns(view),
        "modes": modes(view),
        "all_modes": len(evaluation.get("modes", [])),
        "metrics": metric_rows(evaluation) if evaluation else [],
        "floor": floor.get("rows", 0),
        "generated": evaluation.get("samples", {}).get("generated", 0),
        "nearest": nearest(evaluation.get("metrics", {})),
    }


def metric_rows(evaluation: Mapping[str, Any]) -> list[Values]:
    """Metrics that have a value, with what as many samples and as many test images have, and what they mean."""
    floor = evaluation["floor"]
    return [
        {
            "name": name,
            "value": _form(name)(value),
            "generated": _or_nothing(name, floor.get("generated", {})),
            "real": _or_nothing(name, floor.get("real", {})),
            "meaning": MEANINGS.get(name, ""),
        }
        for name, value in evaluation["metrics"].items()
        if value is not None
    ]


def modes(view: View) -> list[Values]:
    """Classes with their share of the samples, with its part of the largest, and their share of training images.

    The last is None where it is not known of all classes.
    """
    rows = view.evaluation.get("modes", [])
    largest = max((row["share"] for row in rows), default=0) or 1
    shown = rows if len(rows) <= MAX_MODES else sorted(rows, key=lambda row: row["share"])[:MAX_MODES]
    real = {row.label: row.splits[0] for row in view.labels}
    total = sum(real.values()) if {row["class"] for row in rows} <= real.keys() else 0
    return [
        row | {"part": row["share"] / largest, "real": real[row["class"]] / total if total else None} for row in shown
    ]


def nearest(metrics: Mapping[str, Any]) -> str:
    """What the distances from training images say of copies; empty if they were not looked at."""
    told = []
    if metrics.get("nearest_ratio") is not None:
        told.append(f"Samples are {metrics['nearest_ratio']:.2f} times as far from training images as test images are")
    if told and metrics.get("nearest_ratio_p5") is not None:
        told[0] += f", the closest twentieth {metrics['nearest_ratio_p5']:.2f} times; below 1 is too close"
    if metrics.get("copies") is not None:
        told.append(f"{percent(metrics['copies'])} are nearer than 99% of the test images: around 1% is usual")
    return "".join(f"{text}. " for text in told).strip()


def differ(views: Sequence[View]) -> list[str]:
    """What keeps FID and coverage of several GANs from being compared; empty if nothing does."""
    found = [view.evaluation for view in views if view.is_gan and view.evaluation]
    parts = {
        "datasets": [evaluation["dataset_digest"] for evaluation in found],
        "features": [(evaluation["features"]["from"], evaluation["features"]["size"]) for evaluation in found],
        "numbers of samples": [evaluation["samples"]["generated"] for evaluation in found],
    }
    return [name for name, values in parts.items() if len(set(values)) > 1]


def _tiles(evaluation: Mapping[str, Any]) -> list[Values]:
    """Of metrics that have a value, each with what is to be read beside it."""
    last = "entropy" if evaluation["metrics"]["cas"] is None else "cas"
    notes = {"entropy": ["1 is all classes alike"], "cas": ["on test images, learned from samples alone"]}
    return [
        {
            "name": _TITLES.get(name, name),
            "value": _TILES[name](evaluation["metrics"][name]),
            "notes": notes.get(name) or _beside(name, evaluation),
        }
        for name in ("fid", "coverage", "precision", "recall", last)
        if evaluation["metrics"][name] is not None
    ]


def _beside(name: str, evaluation: Mapping[str, Any]) -> list[str]:
    """The value of as many samples as there are test images, where these are fewer, and of the test images."""
    floor, form = evaluation["floor"], _TILES[name]
    rows, parts = floor["rows"], {"samples": "generated", "test images": "real"}
    if rows == evaluation["samples"]["generated"]:
        del parts["samples"]
    found = {what: floor.get(part, {}).get(name) for what, part in parts.items()}
    return [f"{rows:,} {what} {form(value)}" for what, value in found.items() if value is not None]


def _form(name: str) -> Form:
    return count if name == "missing" else number


def _or_nothing(name: str, values: Mapping[str, Any]) -> str:
    return "" if values.get(name) is None else _form(name)(values[name])


def _columns(view: View) -> list[str]:
    """Classes that the columns of a picture made while training are of; empty if the model knows none."""
    classes = view.dataset.classes if view.dataset else ()
    is_asked = classes and (view.job.get("model") or {}).get("conditional")
    return [classes[i % len(classes)] for i in range(GRID_COLUMNS)] if is_asked else []
