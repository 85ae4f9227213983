"""The job file: one frozen model per section, each handed only to the stage that uses it.

    job = load_job("jobs/digits-cnn.yaml", set=["training.epochs=3"])
    job.training.epochs                 # 3
    schema()                            # JSON schema, so that editors complete the file

Everything wrong with a file is told at once, each with its line and the way out.
Reading the text is `jobfile.py`, telling errors `jobcheck.py`; this module,
`ingest_options.py` and `options.py` say what a job may hold.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt, field_validator

from startup_ray.errors import UsageError
from startup_ray.ingest_options import FetchOptions as FetchOptions
from startup_ray.ingest_options import ImageOptions as ImageOptions
from startup_ray.ingest_options import IngestOptions as IngestOptions
from startup_ray.ingest_options import SplitOptions as SplitOptions
from startup_ray.options import ApplicationOptions as ApplicationOptions
from startup_ray.options import AugmentOptions as AugmentOptions
from startup_ray.options import CnnOptions as CnnOptions
from startup_ray.options import GanOptions as GanOptions
from startup_ray.options import ModelOptions as ModelOptions
from startup_ray.options import PythonOptions as PythonOptions
from startup_ray.options import ScalingOptions as ScalingOptions
from startup_ray.options import TrainingOptions as TrainingOptions
from startup_ray.section import Section
from startup_ray.sweep_options import SweepOptions as SweepOptions


class EvaluationOptions(Section):
    average: Literal["macro", "micro", "weighted"] = Field(
        "macro", description="which precision, recall and f1 go by the plain names"
    )
    gates: tuple[str, ...] = Field((), description="what must hold, or exit code 6: ['f1 >= 0.90', 'accuracy > 0.9']")
    slices: tuple[str, ...] = Field(
        ("host", "width"),
        description="what the scored rows are parted by to find where the model is weak: host, width, height, or a "
        "column of the manifest's own",
    )
    samples: PositiveInt = Field(2_000, description="images that a GAN makes to be judged; distances depend on it")
    features: str | None = Field(
        None,
        min_length=1,
        description="what a GAN's images are judged by: a job file, the folder of a run, a .keras file, or "
        "inception:WEIGHTS.h5; by default a classifier of the dataset's labels",
    )
    ray_above_rows: int = Field(20_000, ge=0, description="larger splits are evaluated by Ray Data, smaller in process")

    @field_validator("gates")
    @classmethod
    def _readable(cls, gates: tuple[str, ...]) -> tuple[str, ...]:
        from startup_ray.gates import parse_gate

        for gate in gates:
            try:
                parse_gate(gate)
            except UsageError as error:
                raise ValueError(f"{error.where}: {error.message} ({error.hint})") from None
        return gates


class Job(Section):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="lower-case name; part of every folder's name")
    seed: int = Field(0, ge=0, lt=2**31, description="of initial weights, order and all other randomness")
    storage: str = Field("runs", min_length=1, description="a folder, or s3://... gs://... (pyarrow filesystems)")
    ingest: IngestOptions = Field(description="manifest -> dataset")
    model: ModelOptions = Field(CnnOptions(), description="what is trained")
    training: TrainingOptions = Field(TrainingOptions(), description="how it is trained")
    scaling: ScalingOptions = Field(ScalingOptions(), description="on how much; changes no result beyond float error")
    sweep: SweepOptions | None = Field(None, description="hyperparameter search over keys of this file")
    evaluation: EvaluationOptions = Field(EvaluationOptions(), description="how it is judged")


def schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of a job file."""
    return Job.model_json_schema() | {"title": "startup_ray job"}
