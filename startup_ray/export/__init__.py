"""The model of a finished run in other formats, each loaded again from what was written and compared with it.

    document = export(run, out, image=job.ingest.image, formats=("savedmodel", "onnx"), samples=64)
    document["exports"][1]["max_abs_diff"]

Contract of every format: float32 images [N, H, W, C] in [0, 255] in, float32 logits [N, classes] out; of a GAN's
generator noise float32 [N, Z] in, and label int32 [N] if it is asked for a class, and such images out.
Law: no export stays that does not say what the model says, within `compare.TOLERANCE`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from startup_ray.errors import StartupRayError, UsageError
from startup_ray.export.compare import Difference, compare, latency_ms, tolerance
from startup_ray.export.formats import (
    FORMATS,
    Call,
    Ends,
    Format,
    Original,
    classifier,
    find_formats,
    generator,
    serving,
)
from startup_ray.export.quiet import quiet
from startup_ray.export.samples import Samples, take_noise, take_samples
from startup_ray.job import ImageOptions
from startup_ray.runs import BEST_MODEL, CLASSES, JOB, read_classes, read_run
from startup_ray.storage import Folder
from startup_ray.trainers.scoring import load_model, open_model

__all__ = ["FORMATS", "export", "find_formats"]

BATCHES = (1, 32)
"""Sizes of the batches that are timed."""


def export(
    run: Folder, out: Folder, *, image: ImageOptions, formats: Sequence[Format], samples: int = 64
) -> dict[str, Any]:
    """Write `<run>/model.keras` into `out` in each format, with `classes.json` beside it.

    Args:
        run: of a finished run.
        out: a folder, also on an object store; what stands there under the same names is replaced.
        image: what the model was trained on.
        formats: of `find_formats`.
        samples: images that model and exports are compared on.

    Returns:
        The document of `startup-ray export --json`.

    Raises:
        UsageError: no model that is one image in, one row of logits out; or TensorFlow cannot say it in a format.
        StartupRayError: an export differs from the model. It is deleted again; `result` holds the document.
        StorageError: `out` cannot be written.
    """
    if out.exists(JOB):
        raise UsageError("this is the folder of a run", where=str(out), hint="exports need a folder of their own")
    with quiet(), tempfile.TemporaryDirectory(prefix="startup-ray-") as folder:
        original, seen, expected = _open(run, image, samples)
        limit = tolerance(original.model)
        out.put_whole(CLASSES, run.read(CLASSES))
        rows, wrong = [], []
        for form in formats:
            call = _publish(form, original, out, Path(folder))
            found = compare(call, seen.inputs, expected)
            rows.append(_row(form, out, Path(folder), found, call, seen.inputs))
            if not found.relative <= limit:  # NaN is not below anything
                out.delete(form.target)
                wrong.append(form.name)
    document = {"run": str(run), "samples": len(seen), "images": seen.told, "exports": rows}
    if wrong:
        raise _differs(wrong, rows, out, document, limit)
    return document


def _open(run: Folder, image: ImageOptions, samples: int) -> tuple[Original, Samples, np.ndarray]:
    """The model, the images to compare on, and its logits of them."""
    if samples < 1:
        raise UsageError("at least one image is needed to compare on", where=f"samples: {samples}")
    model, ends, seen = _generator(run, samples) if read_run(run).is_gan else _classifier(run, image, samples)
    expected = serving(model, ends)(*seen.inputs)[ends.output].numpy()
    if not np.isfinite(expected).all():
        raise UsageError(f"the model's {ends.output} are no numbers: nothing to compare", where=run.path(BEST_MODEL))
    return Original(run=run, model=model, ends=ends), seen, expected


def _classifier(run: Folder, image: ImageOptions, samples: int) -> tuple[Any, Ends, Samples]:
    model = open_model(run, image.shape, len(read_classes(run)))
    return model, classifier(image.shape), take_samples(run, image.shape, samples)


def _generator(run: Folder, samples: int) -> tuple[Any, Ends, Samples]:
    model = load_model(run, BEST_MODEL)
    size, classes = int(model.inputs[0].shape[-1]), len(read_classes(run)) if len(model.inputs) > 1 else 0
    return model, generator(size, has_classes=bool(classes)), take_noise(size, classes, samples)


def _publish(form: Format, original: Original, out: Folder, folder: Path) -> Call:
    """Make it on this machine, put its files whole, fetch them back and load what came."""
    made = folder / "made" / form.target
    made.parent.mkdir(exist_ok=True)
    with _told(form, original, out):
        form.write(original, made)
    names = _files(made)
    out.delete(form.target)  # files of a former export, which are not replaced one by one
    for name in names:
        out.put_whole(f"{form.target}{name}", Path(f"{made}{name}").read_bytes())
    back = folder / "back" / form.target
    for name in names:
        place = Path(f"{back}{name}")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(out.read(f"{form.target}{name}"))
    with _told(form, original, out):
        return form.load(back, original.ends)


def _files(made: Path) -> list[str]:
    """What stands behind the target in the names of its files: nothing, or `/saved_model.pb`, which comes last."""
    if made.is_file():
        return [""]
    found = sorted(path for path in made.rglob("*") if path.is_file())
    return [f"/{path.relative_to(made).as_posix()}" for path in sorted(found, key=lambda path: path.parent == made)]


@contextmanager
def _told(form: Format, original: Original, out: Folder) -> Iterator[None]:
    """What goes wrong with one format, told in a line; nothing of it stays."""
    try:
        yield
    except StartupRayError:
        raise
    except Exception as error:
        out.delete(form.target)
        lines = str(error).strip().splitlines() or [type(error).__name__]
        place = original.run.path(BEST_MODEL)
        raise UsageError(f"this model cannot be written as {form.name}: {lines[0][:300]}", where=place) from error


def _row(
    form: Format, out: Folder, folder: Path, found: Difference, call: Call, inputs: Sequence[np.ndarray]
) -> dict[str, Any]:
    back = folder / "back" / form.target
    return {
        "format": form.name,
        "path": out.path(form.target),
        "bytes": sum(Path(f"{back}{name}").stat().st_size for name in _files(back)),
        "max_abs_diff": found.absolute if isfinite(found.absolute) else None,
        "same_classes": found.same_classes,
        "latency_ms": {str(size): latency_ms(call, inputs, size) for size in BATCHES},
    }


def _differs(
    wrong: Sequence[str], rows: Sequence[dict[str, Any]], out: Folder, document: dict[str, Any], limit: float
) -> StartupRayError:
    by = {row["format"]: row["max_abs_diff"] for row in rows}
    told = ", ".join(f"{name} by {by[name]:.2g}" if by[name] else f"{name}, not a number" for name in wrong)
    return StartupRayError(
        f"exports differ from the model by more than {limit:g} of its largest number, and were deleted again: {told}",
        where=str(out),
        hint="leave them out of --to; please report it",
        result=document,
    )
