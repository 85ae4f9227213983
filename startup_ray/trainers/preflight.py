"""What must hold before a training starts, so that it fails at once or not at all.

    spec = preflight(dataset, model=job.model, training=job.training, scaling=job.scaling, seed=job.seed)
    await_room(job.scaling, wait_s=45)

What only Keras can judge is looked at in a process of its own: the driver never imports TensorFlow.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping
from typing import TypeVar

import ray

from startup_ray.dataset import Dataset, read_split, require_one_size
from startup_ray.errors import ClusterError, UsageError
from startup_ray.growth import amounts, await_nodes, grow, require_reach, totals
from startup_ray.job import CnnOptions, GanOptions, ModelOptions, PythonOptions, ScalingOptions, TrainingOptions
from startup_ray.reach import find_limits, fitting
from startup_ray.remote import run_task
from startup_ray.runs import location_of
from startup_ray.section import Section
from startup_ray.trainers.backend import worker_environment
from startup_ray.trainers.gan.build import require_trainable
from startup_ray.trainers.models import feature_shape
from startup_ray.trainers.program import Spec, class_weights, examine, needs_examination
from startup_ray.trainers.windows import choose_feed
from startup_ray.usercode import locate

log = logging.getLogger("startup_ray")

S = TypeVar("S", bound=Section)

_FIRST = {"weights": "none", "init_from": None}
"""Where no first weights come from."""
WAIT_S = 45.0
"""How long training waits for CPUs and GPUs that other work holds."""
PATIENCE_S = 10.0
"""The same where nodes can come: what has just ended needs no new ones."""


def preflight(
    dataset: Dataset,
    *,
    model: ModelOptions,
    training: TrainingOptions,
    scaling: ScalingOptions,
    seed: int,
    features: str = "",
    is_begun: bool = False,
) -> Spec:
    """See that data, options and cluster fit, before anything is started or written.

    Args:
        features: what a GAN's images are judged by, as `evaluation.features` names it.
        is_begun: there is a checkpoint to go on from, so that first weights are not needed any more.

    Returns:
        What the workers make their program from.

    Raises:
        UsageError: no labels, one class, images or options that do not fit the model, a model that does not keep the
            contract, or not: labelled rows >= global_batch >= accumulate * workers.
        ClusterError: more CPUs or GPUs asked for than the cluster has or may grow to.
    """
    spec = make_spec(
        dataset, model=model, training=training, scaling=scaling, seed=seed, features=features, is_begun=is_begun
    )
    require_room(scaling, waits=False)
    reason = choose_feed(dataset, training.cache_limit, training.feed)
    log.log(logging.INFO if reason.feed == "stream" else logging.DEBUG, "train: %s", reason.reason)
    if needs_examination(spec):
        log.info("train: looking at the model")
        note = run_task(examine, spec, stage="look at the model", env=worker_environment(scaling.threads_per_worker))
        if note:
            log.info("train: %s", note)
    require_room(scaling)  # last, for nodes that have come and have nothing to do go again
    return spec


def make_spec(
    dataset: Dataset,
    *,
    model: ModelOptions,
    training: TrainingOptions,
    scaling: ScalingOptions,
    seed: int,
    features: str = "",
    is_begun: bool = False,
) -> Spec:
    """What `preflight` returns, without a look at the cluster or at what only Keras can judge.

    Raises:
        UsageError: data and options do not fit together.
    """
    require_one_size(dataset.image_shape, where=str(dataset.folder))
    rows = _require_rows(dataset, model)
    spec = Spec(
        image_shape=dataset.image_shape,
        classes=dataset.classes,
        class_rows=rows,
        model=_placed(model, "weights", is_begun),
        training=_placed(training, "init_from", is_begun),
        seed=seed,
        code=locate(model.build) if isinstance(model, PythonOptions) else None,
        workers=scaling.max_workers,
        features=features,
    )
    if isinstance(model, GanOptions):
        require_trainable(spec)
    _require_batch(dataset, sum(rows), training, scaling)
    class_weights(training.class_weights, dataset.classes, rows)
    if isinstance(model, CnnOptions):
        feature_shape(dataset.image_shape, model)
    choice = choose_feed(dataset, training.cache_limit, training.feed)
    if isinstance(model, GanOptions) and choice.feed == "stream":
        hint = "set training.feed: memory, or a larger training.cache_limit"
        raise UsageError(f"a GAN does not train from a stream; {choice.reason}", where="training.feed", hint=hint)
    return spec


def _placed(options: S, key: str, is_begun: bool) -> S:
    """Options whose path means the same in a worker, which has another working directory; none if it is not needed."""
    place = getattr(options, key, None)
    if place is None or place == "none":
        return options
    return options.model_copy(update={key: _FIRST[key] if is_begun else location_of(place)})


def require_room(scaling: ScalingOptions, *, waits: bool = True) -> int:
    """Workers that the whole cluster has room for, if nothing else runs there.

    Args:
        waits: for nodes, where they can come.

    Raises:
        ClusterError: fewer than are asked for, and the cluster does not grow so far, or not in time.
    """
    wanted, count = per_worker(scaling), scaling.min_workers
    room = _room(wanted)
    if room >= count:
        return room
    each = ", ".join(f"{each:g} {name}" for name, each in wanted.items())
    workers = f"{count} workers of {each}"
    limits = find_limits()
    if limits is not None:
        (grow if waits else require_reach)(wanted, count, limits, asker="training", shape=workers)
        return max(_room(wanted), count)
    asked = amounts({name: count * each for name, each in wanted.items()})
    nodes = sum(node["Alive"] for node in ray.nodes())
    raise ClusterError(
        f"training asks for {asked} ({workers}), the cluster has {amounts(totals(wanted))}"
        + (f" on {nodes} nodes" if nodes > 1 else ""),
        hint="lower scaling.workers or what each asks for, or join a larger cluster with --address",
    )


def room_to_come(scaling: ScalingOptions) -> float:
    """Workers that the cluster would have room for after growing as far as it may; infinite if that cannot be known."""
    limits = find_limits()
    return limits.room(per_worker(scaling)) if limits is not None else 0


def _room(wanted: Mapping[str, float]) -> int:
    return sum(fitting(node["Resources"], wanted) for node in ray.nodes() if node["Alive"])


def per_worker(scaling: ScalingOptions) -> dict[str, float]:
    """Ray's resources for one worker."""
    gpus = {"GPU": scaling.gpus_per_worker} if scaling.gpus_per_worker else {}
    return {"CPU": float(scaling.threads_per_worker), **gpus}


def _require_rows(dataset: Dataset, model: ModelOptions) -> tuple[int, ...]:
    """Training rows of each class; of all together for a GAN that is not asked for one."""
    if isinstance(model, GanOptions) and not model.conditional:
        return (dataset.splits["train"],)
    where = str(dataset.folder)
    if len(dataset.classes) < 2 and not isinstance(model, GanOptions):
        names = f"only the class {dataset.classes[0]!r}" if dataset.classes else "no labels"
        hint = "give the manifest's items a `label` each, of two classes at least"
        raise UsageError(f"the dataset has {names}: there is nothing to tell apart", where=where, hint=hint)
    counts = Counter(read_split(dataset, "train", ["label"])["label"].to_pylist())
    return tuple(counts[name] for name in dataset.classes)


def _require_batch(dataset: Dataset, rows: int, training: TrainingOptions, scaling: ScalingOptions) -> None:
    where, batch = str(dataset.folder), training.global_batch
    if rows < batch:
        raise UsageError(
            f"training.global_batch is {batch}, the train split has {rows} rows to train on",
            where=where,
            hint=f"set training.global_batch to {rows} or less, or ingest more images",
        )
    if training.early_stopping and not dataset.splits["val"]:
        raise UsageError(
            "training.early_stopping needs a val split, and there is none", where=where, hint="set ingest.split.val"
        )
    workers, parts = scaling.max_workers, training.accumulate
    if batch < workers * parts:
        each = f"{workers} workers" + (f" in {parts} parts" if parts > 1 else "")
        raise UsageError(
            f"training.global_batch is {batch}, too few for {each}: each needs a row",
            hint=f"set training.global_batch to {workers * parts} or more, or lower scaling.workers",
        )


def await_room(scaling: ScalingOptions, wait_s: float) -> None:
    """Wait until what the workers need is free; where nodes can come, ask for them after a while.

    Raises:
        ClusterError: other work has held it for `wait_s`, or nodes have not come in time.
    """
    lacking = _await_free(scaling, min(wait_s, PATIENCE_S))
    limits = find_limits() if lacking else None
    if lacking and limits is None:
        lacking = _await_free(scaling, wait_s - PATIENCE_S)
    if not lacking:
        return
    name, free = lacking
    asks = f"training needs {scaling.min_workers * per_worker(scaling)[name]:g} {name}s"
    if limits is None:
        raise ClusterError(
            f"{asks}, only {free:g} were free for {wait_s:.0f} s",
            hint="wait for other work on this Ray cluster to end, or lower scaling.workers",
        )
    log.info("%s, %g are free: waiting for nodes", asks, free)
    await_nodes(per_worker(scaling), scaling.min_workers, limits, asks=asks)


def _await_free(scaling: ScalingOptions, wait_s: float) -> tuple[str, float] | None:
    """What the workers lack after so long, and how much of it is free; None as soon as they lack nothing."""
    deadline = time.monotonic() + wait_s
    while True:
        free = ray.available_resources()
        short = {
            name: float(free.get(name, 0))
            for name, each in per_worker(scaling).items()
            if free.get(name, 0) < scaling.min_workers * each - 1e-9
        }
        if not short:
            return None
        if time.monotonic() > deadline:
            return next(iter(short.items()))
        time.sleep(0.2)
