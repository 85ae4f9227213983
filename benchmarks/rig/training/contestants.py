"""Who takes part, by name.

    window = CONTESTANTS["ours-ring"].run(case, lab)

A variant of synchronisation is one more line of VARIANTS.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rig import environment
from rig.training import group, ray_legacy, ray_run
from rig.training.case import WORKERS, Case, Spec
from rig.training.window import Window

LEGACY_REQUIREMENTS = Path(__file__).parents[2] / "ray-legacy.txt"


@dataclass(frozen=True, kw_only=True)
class Lab:
    """What every contestant is given for one run."""

    seconds: float
    """A window's least length."""
    folder: Path
    """Empty, for this run."""
    shared: Path
    """For what runs of the same contestant share."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A way to synchronise."""

    what: str
    scaling: Mapping[str, Any]
    """`transport` and `wire` of the job's `scaling`."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Further options of the job's `training`."""


VARIANTS = {
    "memory": Variant(what="fp32, shared memory", scaling={"transport": "memory"}),
    "ring": Variant(what="fp32, ring", scaling={"transport": "ring"}),
    "ring-bf16": Variant(what="bfloat16 on the wire, ring", scaling={"transport": "ring", "wire": "bfloat16"}),
    "ring-fp16": Variant(what="float16 on the wire, ring", scaling={"transport": "ring", "wire": "float16"}),
}
RAY_VARIANT = "memory"
"""What Ray's workers of one host use by default."""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    what: str
    run: Callable[[Case, Lab], Window]


def _processes(
    case: Case, lab: Lab, *, program: str, workers: int, synchronised: bool, variant: Variant | None = None
) -> Window:
    options = {"connect": _named(variant.scaling), "training": variant.training} if variant else {}
    world = workers if synchronised else 1
    specs = [Spec(program=program, case=case, world=world, rank=rank, **options) for rank in range(workers)]
    return group.measure(specs, seconds=lab.seconds, folder=lab.folder)


def _named(scaling: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `sync.connect`: memory is told by a name that no other run has."""
    is_memory = scaling["transport"] == "memory"
    return {**scaling, **({"transport": f"memory:{secrets.token_hex(16)}"} if is_memory else {})}


def _on_dataset(case: Case, lab: Lab, *, way: str) -> Window:
    variant = VARIANTS[RAY_VARIANT]
    spec = Spec(program="loop", case=case, world=WORKERS, rank=0, connect=variant.scaling, training=variant.training)
    words = [way, spec.text(), str(lab.seconds), str(lab.shared / f"dataset-{case.net}")]
    env = environment.private(lab.folder) | {
        "STARTUP_RAY_CACHE": str(lab.shared / "cache"),
        "PYTHONPATH": group.python_path(),
    }
    return ray_run.measure([sys.executable, "-m", "rig.training.on_dataset", *words], env=env, folder=lab.folder)


def _legacy_by_ray(case: Case, lab: Lab, *, program: str) -> Window:
    python = environment.install("ray-legacy", LEGACY_REQUIREMENTS)
    spec = Spec(program=program, case=case, world=WORKERS, rank=0)
    env = environment.private(lab.folder) | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [str(python), "-m", "rig.training.ray_legacy", spec.text(), str(lab.seconds)]
    return ray_run.measure(command, env=env, folder=lab.folder)


_ours = partial(_processes, program="loop")

CONTESTANTS: dict[str, Contestant] = {
    "independent": Contestant(
        what="2 workers that do not synchronise: the limit", run=partial(_ours, workers=WORKERS, synchronised=False)
    ),
    **{
        f"ours-{name}": Contestant(
            what=f"startup_ray, 2 workers ({variant.what})",
            run=partial(_ours, workers=WORKERS, synchronised=True, variant=variant),
        )
        for name, variant in VARIANTS.items()
    },
    "ours-dataset": Contestant(
        what=f"the same ({VARIANTS[RAY_VARIANT].what}) on a dataset, not pinned",
        run=partial(_on_dataset, way="processes"),
    ),
    "ours-ray": Contestant(what="the same on a dataset by Ray Train, not pinned", run=partial(_on_dataset, way="ray")),
    "one": Contestant(what="startup_ray, 1 worker", run=partial(_ours, workers=1, synchronised=False)),
    "scope": Contestant(
        what="Keras 3 in the scope of MultiWorkerMirroredStrategy, 2 workers",
        run=partial(_processes, program="scope", workers=WORKERS, synchronised=True),
    ),
    "ray-legacy": Contestant(
        what="Ray's documented example, legacy Keras, 2 workers, pinned",
        run=partial(_legacy_by_ray, program=ray_legacy.PINNED),
    ),
    "ray-default": Contestant(
        what="the same with threads and cores as documented",
        run=partial(_legacy_by_ray, program=ray_legacy.AS_DOCUMENTED),
    ),
    "keras-fit": Contestant(
        what="Keras 3 `model.fit`, 1 process", run=partial(_processes, program="fit", workers=1, synchronised=False)
    ),
}
