from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from startup_ray.errors import UsageError
from startup_ray.jobfile import load_job
from startup_ray.submit.order import Order, prepare, variables_of

JOB = """name: pets
storage: /shared/runs
ingest: {manifest: pets.json}
scaling: {workers: 3, threads_per_worker: 2}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "pets.yaml").write_text(JOB)
    (tmp_path / "pets.json").write_text('{"items": []}')
    monkeypatch.chdir(tmp_path)  # where `model.build` is looked for
    return tmp_path


def order(project: Path, *words: str, set: tuple[str, ...] = (), **more: Any) -> Order:  # noqa: A002
    path = "jobs/pets.yaml"
    return prepare(load_job(path, set=set), path, words, set=set, folder=project, **more)


def test_the_command_is_quoted(project: Path) -> None:
    found = order(project, "train", "--fresh", set=("training.monitor=val/f1",))
    assert found.argv[3:] == ("train", "jobs/pets.yaml", "--set", "training.monitor=val/f1", "--fresh")
    shell = order(project, set=("model.kind=cnn",), variables={"A": "b c"})
    assert shell.entrypoint == "python -m startup_ray run jobs/pets.yaml --set model.kind=cnn"
    odd = prepare(load_job("jobs/pets.yaml"), "jobs/pets.yaml", ["run", "$(reboot); x"], folder=project)
    assert odd.entrypoint == "python -m startup_ray run jobs/pets.yaml '$(reboot); x'"


def test_the_same_work_has_the_same_name(project: Path) -> None:
    first = order(project).stem
    assert first.startswith("pets-")
    assert order(project, "run").stem == first == order(project, variables={"A": "1"}).stem
    others = {
        order(project, "train").stem,
        order(project, set=("training.epochs=3",)).stem,
        order(project, "run", "-v").stem,
    }
    assert len({first, *others}) == 4


def test_time_is_left_for_a_checkpoint(project: Path) -> None:
    assert order(project).variables == {"RAY_JOB_STOP_WAIT_TIME_S": "60"}
    assert order(project, variables={"RAY_JOB_STOP_WAIT_TIME_S": "5"}).variables == {"RAY_JOB_STOP_WAIT_TIME_S": "5"}


def test_needs_are_those_of_all_workers(project: Path) -> None:
    assert order(project).needs == {"CPU": 6.0}
    shared = order(project, set=("scaling.workers=[2, 8]", "scaling.gpus_per_worker=0.5", "scaling.gpu_memory=4GB"))
    assert shared.needs == {"CPU": 4.0, "GPU": 1.0}
    space = "sweep={trials: 4, space: {training.learning_rate: 'loguniform(1e-4, 1e-1)'}}"
    assert order(project, set=(space,)).needs == {"CPU": 2.0}
    assert order(project, "ingest").needs == {}


def test_what_goes_up_is_told(project: Path) -> None:
    names = {file.name for file in order(project).files}
    assert {"jobs/pets.yaml", "pets.json", "startup_ray/__main__.py"} <= names


@pytest.mark.parametrize(
    ("set", "text"),
    [
        (("storage=runs",), "storage: runs: a relative path is gone with the job"),
        (("ingest.manifest=none.json",), "ingest.manifest: there is no none.json"),
        (("model={kind: python, build: 'nets.none:build'}",), "no module nets.none"),
    ],
)
def test_what_would_not_be_there_is_told(project: Path, set: tuple[str, ...], text: str) -> None:  # noqa: A002
    with pytest.raises(UsageError, match=text):
        order(project, set=set)


def test_what_is_left_out_of_the_upload_is_told(project: Path) -> None:
    (project / "nets.py").write_text("def build(image_shape, num_classes): ...\n")
    ours = ("model={kind: python, build: 'nets:build'}",)
    assert "nets.py" in {file.name for file in order(project, set=ours).files}
    for name, text in {"nets.py": "the model's module", "pets.json": "the manifest", "jobs/": "the job file"}.items():
        (project / ".rayignore").write_text(f"{name}\n")
        with pytest.raises(UsageError, match=f"{text} is left out of the upload"):
            order(project, set=ours)


def test_a_folder_of_images_goes_up_whole(project: Path) -> None:
    ours = ("ingest.manifest=photos",)
    with pytest.raises(UsageError, match=r"ingest\.manifest: there is no photos"):
        order(project, set=ours)
    for name in ("cats/1.jpg", "2.jpg"):
        (project / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (project / "photos" / name).touch()
    assert {"photos/cats/1.jpg", "photos/2.jpg"} <= {file.name for file in order(project, set=ours).files}
    (project / ".rayignore").write_text("cats/\n")
    with pytest.raises(UsageError, match="a file of the manifest is left out of the upload"):
        order(project, set=ours)


def test_a_job_file_elsewhere_is_told(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with pytest.raises(UsageError, match="the job file is not in the folder that is uploaded"):
        prepare(load_job("jobs/pets.yaml"), str(project / "jobs/pets.yaml"), folder=elsewhere)


@pytest.mark.parametrize(
    "variables",
    [
        *({name: "hunter2"} for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "API_KEY", "SENTRY_DSN")),
        *({"A": value} for value in ("AKIAIOSFODNN7EXAMPLE", "hf_" + "a" * 34, "s3://me:hunter2@host/x")),
    ],
)
def test_secrets_are_refused_and_not_shown(project: Path, variables: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="looks like a secret") as caught:
        order(project, variables=variables)
    (value,) = variables.values()
    assert value not in str(caught.value)
    with pytest.raises(UsageError, match="a job's command is no secret"):
        order(project, "run", "--set", "ingest.fetch.token=abc")


@pytest.mark.parametrize("name", ["TF_CPP_MIN_LOG_LEVEL", "MONKEY", "KEYBOARD", "RAY_task_retry_delay_ms", "PATH"])
def test_other_variables_are_taken(project: Path, name: str) -> None:
    assert order(project, variables={name: "1"}).variables[name] == "1"


def test_variables_have_a_value_or_are_set_here() -> None:
    assert variables_of(["A=1=2", "B", "C="], {"B": "here"}) == {"A": "1=2", "B": "here", "C": ""}
    for word in ("D", "=x", "A-B=1"):
        with pytest.raises(UsageError, match="is no variable that is set here"):
            variables_of([word], {"B": "here"})
