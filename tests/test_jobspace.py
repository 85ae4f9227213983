from __future__ import annotations

from collections.abc import Mapping

import pytest

from startup_ray.errors import JobError
from startup_ray.job import CnnOptions, GanOptions
from startup_ray.jobfile import parse_job
from startup_ray.jobspace import with_values

SMALL = "name: x\ningest:\n  manifest: m.json\n"


def searching(space: Mapping[str, str]) -> str:
    """A job file; the first axis is in its line 6."""
    return SMALL + "sweep:\n  space:\n" + "".join(f"    {key}: {text}\n" for key, text in space.items())


def problems(space: Mapping[str, str]) -> str:
    with pytest.raises(JobError) as caught:
        parse_job(searching(space), path="jobs/x.yaml")
    return str(caught.value)


def test_all_errors_of_a_space_are_told_at_once_with_their_lines() -> None:
    space = {
        "training.epoch": "int(1, 3)",
        "training.learning_rate": "uniform(-1, 1)",
        "ingest.split.val": "uniform(0, 0.1)",
        "seed": "int(1, 9)",
        "scaling.workers": "int(1, 2)",
        "training.monitor": "choice(val/f1, val/loss)",
        "learning_rate": "uniform(0.1, 1)",
        "training.global_batch": "uniform(32, 128)",
        "model.filters": "choice([8], [0])",
        "training.class_weights.cat": "uniform(-1, 2)",
    }
    told = problems(space).splitlines()
    assert [line.split(": ")[:2] for line in told] == [
        [f"jobs/x.yaml:{i}", f"sweep.space.{key}"] for i, key in enumerate(space, 6)
    ]
    for line, part in zip(
        told,
        [
            "unknown key, did you mean 'epochs'?",
            "input should be greater than 0, not -1.0",
            "one sweep for each dataset",
            "fresh seeds",
            "changes speed, but no result",
            "judged alike",
            "unknown key, did you mean 'training.learning_rate'?",
            "got a number with a fractional part",
            "input should be greater than 0, not 0",
            "input should be greater than 0, not -1.0",
        ],
        strict=True,
    ):
        assert part in line


@pytest.mark.parametrize(
    "key",
    [
        *("name", "storage", "evaluation.average", "sweep.trials", "training.keep", "training.checkpoint_every_steps"),
        *("training.steps_per_call", "training.feed", "training.cache_limit", "model.watch_samples"),
    ],
)
def test_what_changes_no_result_is_not_searched(key: str) -> None:
    told = problems({key: "choice(1, 2)"})
    assert told.startswith(f"jobs/x.yaml:6: sweep.space.{key}: ")
    assert "unknown" not in told


@pytest.mark.parametrize(
    ("space", "told"),
    [
        (
            {"training.accumulate": "choice(1, 3)"},
            "6: sweep.space.training.accumulate: training: accumulate must divide global_batch, which is 64, with "
            "training.accumulate: 3",
        ),
        (
            {"model.dense": "int(1, 2)", "training.epochs": "int(1, 2)", "training.steps": "int(5, 6)"},
            "7: sweep.space.training.epochs: training: epochs and steps are two words for the same: leave one of them "
            "out, with training.epochs: 1, training.steps: 5",
        ),
        (
            {"model.kind": "choice(cnn, application)"},
            "6: sweep.space.model.kind: model.name: missing, with model.kind: application",
        ),
        ({"model.kind": "choice(cnn, vae)"}, "6: sweep.space.model.kind: kind should be one of"),
        ({"model.kind": "choice(cnn, gan)"}, "6: sweep.space.model.kind: not searched: a GAN is judged by other"),
        (
            {"training.learning_rate.x": "int(1, 2)"},
            "6: sweep.space.training.learning_rate.x: training.learning_rate: input should be a valid number",
        ),
        (
            {"model.dense": "choice(0, 8)", "model.dropout": "uniform(0, 1) if model.dense != 0"},
            "7: sweep.space.model.dropout: input should be less than 1, not 1.0",
        ),
    ],
)
def test_a_space_is_checked_where_its_axes_meet(space: dict[str, str], told: str) -> None:
    found = problems(space)
    assert found.startswith(f"jobs/x.yaml:{told}")
    assert len(found.splitlines()) == 1


@pytest.mark.parametrize(
    "space",
    [
        {"training.optimizer_args.momentum": "uniform(0, 0.9) if training.optimizer == sgd"}
        | {"training.optimizer": "choice(adam, sgd)"},
        {"training.accumulate": "choice(2, 3)", "training.global_batch": "choice(48, 96)"},
        {"training.steps": "int(100, 200)", "training.augment.flip": "choice(true, false)"},
        {
            "model.kind": "choice(cnn, application)",
            "model.name": "choice(MobileNetV2, ResNet50) if model.kind == application",
            "model.args.alpha": "choice(0.35, 1.0) if model.name == MobileNetV2",
            "model.filters": "choice([32], [32, 64]) if model.kind == cnn",
        },
    ],
)
def test_a_space_holds_and_reads_back_from_the_resolved_job(space: dict[str, str]) -> None:
    job = parse_job(searching(space))
    assert job.sweep is not None
    assert job.sweep.space == space
    assert parse_job(job.model_dump_json()) == job


def test_a_trial_is_the_job_with_values_and_without_its_sweep() -> None:
    job = parse_job(
        searching({"training.learning_rate": "loguniform(1e-4, 1e-2)"}), set=["training.epochs=3", "model.filters=[8]"]
    )
    trial = with_values(job, {"training.learning_rate": 0.5, "training.optimizer_args.beta_1": 0.8})
    assert trial.sweep is None
    assert (trial.training.learning_rate, trial.training.optimizer_args) == (0.5, {"beta_1": 0.8})
    assert (trial.training.epochs, trial.model) == (3, CnnOptions(filters=(8,)))
    assert with_values(job, {}) == job.model_copy(update={"sweep": None})


def test_a_trial_keeps_the_kind_of_a_model_that_was_made_in_python() -> None:
    job = parse_job(SMALL).model_copy(update={"model": GanOptions(recipe="dcgan")})
    assert with_values(job, {"model.beta1": 0.4}).model == GanOptions(recipe="dcgan", beta1=0.4)


def test_a_trial_that_does_not_hold() -> None:
    job = parse_job(SMALL)
    with pytest.raises(JobError) as caught:
        with_values(job, {"training.epoch": 3, "training.learning_rate": -1})
    assert sorted(str(caught.value).splitlines()) == [
        "training.epoch: unknown key, did you mean 'epochs'?",
        "training.learning_rate: input should be greater than 0, not -1",
    ]
    with pytest.raises(JobError, match=r"training\.epochs is a value, not a section"):
        with_values(with_values(job, {"training.epochs": 3}), {"training.epochs.x": 3})
