from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from startup_ray.errors import JobError
from startup_ray.job import CnnOptions, Job, SweepOptions, schema
from startup_ray.jobfile import load_job, parse_job

SMALL = "name: x\ningest:\n  manifest: m.json\n"
RATE = SMALL + "sweep:\n  space:\n    training.learning_rate: loguniform(1e-4, 1e-2)\n"


def problems(text: str, *, set: tuple[str, ...] = ()) -> str:  # noqa: A002
    with pytest.raises(JobError) as caught:
        parse_job(text, set=set, path="jobs/x.yaml")
    return str(caught.value)


def test_all_errors_of_a_file_are_told_at_once_with_their_lines() -> None:
    text = SMALL + "training:\n  epoch: 3\n  global_batch: -1\nmodle: 3\n"
    assert sorted(problems(text).splitlines()) == [
        "jobs/x.yaml:5: training.epoch: unknown key, did you mean 'epochs'?",
        "jobs/x.yaml:6: training.global_batch: input should be greater than 0, not -1",
        "jobs/x.yaml:7: modle: unknown key, did you mean 'model'?",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: x\n", "jobs/x.yaml: ingest: missing"),
        ("name: x\ningest:\n  image: {}\n", "jobs/x.yaml:2: ingest.manifest: missing"),
        ("name: [", "jobs/x.yaml:1: not YAML"),
        ("- a\n", "jobs/x.yaml: a job file is a mapping of sections"),
        ("", "jobs/x.yaml: a job file is a mapping of sections"),
        (SMALL + "seed: 1\nseed: 2\n", "jobs/x.yaml:5: seed: this key stands twice"),
        (
            SMALL + "model: {kind: vae}\n",
            "jobs/x.yaml:4: model.kind: kind should be one of cnn, application, python, gan, not 'vae'",
        ),
        (SMALL + "zzz: 1\n", "jobs/x.yaml:4: zzz: unknown key (known: name, seed,"),
        (SMALL + "scaling: {workers: 0}\n", "jobs/x.yaml:4: scaling.workers: input should be greater than 0, not 0"),
        (SMALL + "scaling: {workers: x}\n", "jobs/x.yaml:4: scaling.workers: input should be a valid integer"),
        (SMALL + "training: {xla: maybe}\n", "jobs/x.yaml:4: training.xla: input should be 'auto', not 'maybe'"),
        (SMALL + "training: {class_weights: {float: 0}}\n", "training.class_weights.float: input should be greater"),
        (SMALL + "training: {epochs: 3, steps: 4}\n", "training: epochs and steps are two words for the same"),
        (SMALL + "training: {accumulate: 5}\n", "accumulate must divide global_batch, which is 64"),
        (SMALL + "model: {kind: python, build: x}\n", "jobs/x.yaml:4: model.build: string should match pattern"),
        (SMALL + "model: {kind: application, nam: X}\n", "model.nam: unknown key, did you mean 'name'?"),
        (SMALL + "scaling: {gpus_per_worker: 0.5}\n", "workers that share a GPU need gpu_memory"),
        (SMALL + "scaling: {transport: nccl}\n", "transport nccl needs a GPU for each worker"),
        ("name: ../x\ningest: {manifest: m}\n", "jobs/x.yaml:1: name: string should match pattern"),
        (SMALL + "  split: {val: 0.5, test: 0.5}\n", "val + test must be below 1"),
        (SMALL + "  fetch: {max_bytes: 20XB}\n", "jobs/x.yaml:4: ingest.fetch.max_bytes: input should be a valid int"),
        (SMALL + "a: !!python/object/apply:os.system [true]\n", "not YAML"),
        (SMALL + "evaluation:\n  gates: ['f1_macr > 0']\n", "jobs/x.yaml:5: evaluation.gates: gate 'f1_macr > 0'"),
        (SMALL + "? [1, 2]\n: 3\n", "not YAML"),
    ],
)
def test_an_error_names_the_place_and_the_way_out(text: str, told: str) -> None:
    assert told in problems(text)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("training.epoch=3", "--set training.epoch=3: training.epoch: unknown key, did you mean 'epochs'?"),
        ("training.epochs", "--set training.epochs: expected key=value"),
        ("name.x=1", "--set name.x=1: name is a value, not a section"),
        ("seed=[", "--set seed=[: the value is not YAML"),
    ],
)
def test_an_override_is_checked_like_the_file(override: str, told: str) -> None:
    assert told in problems(SMALL, set=(override,))


def test_overrides_are_yaml_and_later_ones_win() -> None:
    sets = ["training.learning_rate=3e-4", "ingest.fetch.max_bytes=20MB", "seed=1", "seed=2", "model.filters=[8, 16]"]
    job = parse_job(SMALL, set=sets)
    assert job.training.learning_rate == 3e-4
    assert job.ingest.fetch.max_bytes == 20_000_000
    assert job.seed == 2
    assert job.model == CnnOptions(filters=(8, 16))


@pytest.mark.parametrize(("text", "value"), [("50M", 50_000_000), ("20MiB", 20 * 2**20), ("1.5k", 1500), ("7", 7)])
def test_counts_may_have_a_suffix(text: str, value: int) -> None:
    assert parse_job(SMALL, set=[f"ingest.fetch.max_pixels={text}"]).ingest.fetch.max_pixels == value


def test_the_resolved_job_reads_back_as_itself() -> None:
    job = parse_job(SMALL, set=["ingest.fetch.allow_private=[127.0.0.1/32]"])
    assert Job.model_validate(job.model_dump(mode="json")) == job


def test_a_missing_file_and_one_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="cannot read the job file: No such file"):
        load_job(tmp_path / "none.yaml")
    (tmp_path / "bin.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(JobError, match="not UTF-8 text"):
        load_job(tmp_path / "bin.yaml")


def test_a_job_cannot_be_changed() -> None:
    job = parse_job(SMALL)
    with pytest.raises(ValidationError):
        setattr(job, "seed", 3)  # noqa: B010 - as a caller without a type checker would


def _fields(model: type[BaseModel]) -> list[tuple[str, str | None]]:
    found = []
    for name, field in model.model_fields.items():
        found.append((f"{model.__name__}.{name}", field.description))
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += _fields(field.annotation)
    return found


@pytest.mark.parametrize(("name", "text"), _fields(Job) + _fields(SweepOptions))
def test_every_field_has_a_line_of_text(name: str, text: str | None) -> None:
    assert text


def test_the_schema_names_every_section() -> None:
    assert set(schema()["properties"]) == set(Job.model_fields)


@pytest.mark.parametrize("path", sorted(Path("jobs").glob("*.yaml")), ids=str)
def test_the_shipped_jobs_hold(path: Path) -> None:
    assert load_job(path).name == path.stem


@pytest.mark.parametrize("section", ["scaling: {workers: x}", "training: {class_weights: 3}", "training: {xla: maybe}"])
def test_a_value_that_fits_no_member_of_a_union_is_told_in_one_line(section: str) -> None:
    assert len(problems(f"{SMALL}{section}\n").splitlines()) == 1


@pytest.mark.parametrize(
    ("sweep", "told"),
    [
        ("3", "jobs/x.yaml:4: sweep: input should be a valid dictionary"),
        ("{}", "jobs/x.yaml:4: sweep.space: missing"),
        ("{spce: {}}", "jobs/x.yaml:4: sweep.spce: unknown key, did you mean 'space'?"),
        ("{space: {}}", "jobs/x.yaml:4: sweep.space: dictionary should have at least 1 item"),
        ("{space: [a]}", "jobs/x.yaml:4: sweep.space: input should be a valid dictionary"),
    ],
)
def test_a_sweep_needs_a_space(sweep: str, told: str) -> None:
    assert told in problems(f"{SMALL}sweep: {sweep}\n")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("sweep.trials=0", "sweep.trials: input should be greater than 0, not 0"),
        ("sweep.reduction=1", "sweep.reduction: input should be greater than or equal to 2, not 1"),
        ("sweep.budget=2 weeks", "sweep.budget: a time is written 90s, 30m, 2h or 1d, not '2 weeks'"),
        ("sweep.budget=0s", "sweep.budget: input should be greater than 0"),
        ("sweep.metric=f1", "sweep.metric: string should match pattern"),
        ("sweep.space.training.epoch=int(1, 2)", "sweep.space.training.epoch: unknown key, did you mean 'epochs'?"),
        ("sweep.space.training.epochs=[1, 2]", "sweep.space.training.epochs: a list is not read as choices"),
        (
            "sweep.space.training.learning_rate=uniform(-1, 1)",
            "sweep.space.training.learning_rate: input should be greater than 0, not -1.0",
        ),
    ],
)
def test_an_override_reaches_a_sweep_and_the_dotted_keys_of_its_space(override: str, told: str) -> None:
    assert f"--set {override}: {told}" in problems(RATE, set=(override,))


def test_options_of_a_sweep() -> None:
    job = parse_job(RATE, set=["sweep.budget=1.5h", "sweep.space.model.dense=choice(64, 128)", "sweep.searcher=random"])
    assert job.sweep is not None
    assert job.sweep.budget == 5400
    assert [axis.key for axis in job.sweep.axes] == ["training.learning_rate", "model.dense"]
    assert Job.model_validate(job.model_dump(mode="json")) == job
    assert parse_job(SMALL).sweep is None
    assert problems(RATE, set=("sweep.test=true", "sweep.confirm=0")).endswith("set confirm to 1 or more")


def test_a_grid_needs_steps_on_every_axis() -> None:
    told = problems(RATE + "    model.dense: int(1, 2)\n  searcher: grid\n")
    assert told.startswith("jobs/x.yaml:6: sweep.space.training.learning_rate: a grid needs values")
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize("end", ["loguniform(1e-4, 1e-2)", "choice(1, 2, 3)", "int(1, 5)"])
def test_a_space_that_yaml_splits_at_its_commas_is_one_problem(end: str) -> None:
    told = problems(f"{SMALL}sweep: {{space: {{training.learning_rate: {end}}}}}\n")
    assert told.startswith("jobs/x.yaml:4: sweep.space.training.learning_rate: the parenthesis of ")
    assert len(told.splitlines()) == 1
    assert "in quotes" in told
