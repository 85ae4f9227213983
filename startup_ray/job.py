"""The job file: one frozen model per section, each handed only to the stage that uses it.

    job = load_job("jobs/digits-cnn.yaml", set=["training.epochs=3"])
    job.training.epochs                 # 3
    schema()                            # JSON schema, so that editors complete the file

Everything wrong with a file is told at once, each with its line and the way out.
Reading the text and telling the errors is `jobfile.py`; this module says what a job may hold.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, field_validator, model_validator

from startup_ray.errors import UsageError

_SUFFIXES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


def _scaled(value: Any) -> Any:
    """`20MB`, `50M`, `1.5 GiB` -> int; anything else is left for pydantic to judge."""
    if not isinstance(value, str):
        return value
    text = value.strip().upper().removesuffix("B")
    digits = text.rstrip("KMGI")
    scale = _SUFFIXES.get(text[len(digits) :])
    try:
        return value if scale is None else int(float(digits) * scale)
    except (ValueError, OverflowError):
        return value


Scaled = Annotated[PositiveInt, BeforeValidator(_scaled)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class ImageOptions(Section):
    size: tuple[PositiveInt, PositiveInt] = Field((28, 28), description="height and width of every image, in pixels")
    channels: Literal[1, 3] = Field(3, description="1 for grey, 3 for RGB")
    resize: Literal["center_crop", "border"] = Field(
        "center_crop", description="cut to the target's aspect ratio, or keep all and pad with black"
    )
    store: Literal["png", "jpeg"] = Field(
        "png", description="how images are stored: png loses nothing, jpeg of photographs is cheaper and smaller"
    )
    quality: int = Field(95, ge=1, le=100, description="of a stored jpeg")


class SplitOptions(Section):
    val: Fraction = Field(0.1, description="share of the images held out to choose the model")
    test: Fraction = Field(0.2, description="share of the images held out to judge the model")
    by: Literal["content", "host", "manifest"] = Field(
        "content",
        description="by sha256 of the body, or of the URL's host, where an item's own split wins; or by the items' own "
        "splits alone",
    )

    @model_validator(mode="after")
    def _leave_some(self) -> SplitOptions:
        if self.val + self.test >= 1:
            raise ValueError("val + test must be below 1, or nothing is left to train on")
        return self


class FetchOptions(Section):
    concurrency: PositiveInt = Field(64, description="open requests per fetch actor")
    per_host: PositiveInt = Field(8, description="open requests to one host, over the whole cluster")
    rate_per_host: float | None = Field(
        None, gt=0, description="requests per second to one host, over the whole cluster; no limit by default"
    )
    timeout_s: float = Field(20, gt=0, description="limit for one attempt, redirects and body included")
    connect_timeout_s: float = Field(10, gt=0, description="limit for looking up a name, connecting and TLS")
    read_timeout_s: float = Field(15, gt=0, description="limit for the silence between two pieces of an answer")
    retries: int = Field(3, ge=0, le=10, description="further attempts after 408, 425, 429, 5xx or a broken connection")
    max_bytes: Scaled = Field(20_000_000, description="refuse larger bodies, while they stream; 20MB and 20MiB work")
    max_pixels: Scaled = Field(50_000_000, description="refuse larger images, from their header; 50M works")
    max_redirects: int = Field(5, ge=0, le=20, description="follow at most so many redirects")
    allow_private: tuple[IPv4Network | IPv6Network, ...] = Field(
        (), description="networks that are not public yet may be fetched from, e.g. [127.0.0.1/32]"
    )
    user_agent: str | None = Field(
        None,
        pattern=r"^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$",
        description="what we call ourselves (default: startup_ray/VERSION); name a page or mailbox to complain to",
    )
    respect_opt_out: bool = Field(
        True, description="leave out images whose X-Robots-Tag says noai, noimageai, noindex or noimageindex"
    )
    respect_robots_txt: bool = Field(False, description="leave out URLs that the host's robots.txt disallows")


class IngestOptions(Section):
    manifest: str = Field(
        min_length=1, description="path or http(s) URL of a .json or .jsonl manifest, or sample:digits"
    )
    image: ImageOptions = Field(ImageOptions(), description="what every image is made into")
    split: SplitOptions = Field(SplitOptions(), description="which images train, validate and test")
    fetch: FetchOptions = Field(FetchOptions(), description="how bodies are fetched, and what is refused")
    min_success: Fraction = Field(0.95, description="share of items that must end as ok or duplicate, or exit code 3")


class CnnOptions(Section):
    kind: Literal["cnn"] = Field("cnn", description="a convolutional classifier")
    filters: tuple[PositiveInt, ...] = Field((32,), min_length=1, description="filters of each 3x3 convolution")
    dense: PositiveInt = Field(128, description="units of the hidden dense layer")
    batch_norm: bool = Field(False, description="batch normalisation of each convolution, over the global batch")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the hidden units left out in each training step")
    l2: float = Field(0.0, ge=0, description="weight of the squared kernels in the loss")


class AugmentOptions(Section):
    flip: bool = Field(False, description="mirror left and right, half of the images")
    shift: float = Field(0.0, ge=0, le=0.5, description="move by up to this share of height and width")
    rotate_deg: float = Field(0.0, ge=0, le=180, description="turn by up to so many degrees, either way")
    zoom: float = Field(0.0, ge=0, le=0.5, description="scale by up to this share, in or out")
    contrast: float = Field(0.0, ge=0, le=0.9, description="scale the distance from the image's mean, up to this share")


class TrainingOptions(Section):
    epochs: PositiveInt = Field(30, description="passes over the training split")
    global_batch: PositiveInt = Field(64, description="rows of one step, over all workers together")
    learning_rate: float = Field(1e-3, gt=0, description="of Adam; the highest, where a schedule lowers it")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="of the learning rate; cosine falls to zero at the last step"
    )
    warmup_steps: int = Field(0, ge=0, description="steps in which the learning rate rises from zero")
    clip_norm: float | None = Field(None, gt=0, description="scale gradients down to this norm of all together")
    ema: float | None = Field(
        None, gt=0, lt=1, description="momentum of a moving average of the weights, which is judged and kept as best"
    )
    augment: AugmentOptions = Field(AugmentOptions(), description="random changes of the training images")
    steps_per_call: PositiveInt = Field(16, description="steps inside one tf.function call; changes speed, no result")
    checkpoint_every_steps: PositiveInt = Field(200, description="also at the end of each epoch")
    keep: PositiveInt = Field(3, description="checkpoints to keep, the newest")
    monitor: Literal["val/f1", "val/accuracy", "val/loss"] = Field(
        "val/f1",
        description="what makes model.keras the best; of equals the lower val/loss, without a val split the last",
    )


class ScalingOptions(Section):
    workers: PositiveInt = Field(2, description="processes that train together, one replica each")
    threads_per_worker: PositiveInt = Field(1, description="CPU threads of each worker; changes the last bits")
    max_failures: int = Field(3, ge=0, description="restarts from the last checkpoint before giving up")


class EvaluationOptions(Section):
    average: Literal["macro", "micro", "weighted"] = Field(
        "macro", description="which precision, recall and f1 go by the plain names"
    )
    gates: tuple[str, ...] = Field((), description="what must hold, or exit code 6: ['f1 >= 0.90', 'accuracy > 0.9']")
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
    model: CnnOptions = Field(CnnOptions(), description="what is trained")
    training: TrainingOptions = Field(TrainingOptions(), description="how it is trained")
    scaling: ScalingOptions = Field(ScalingOptions(), description="on how much; changes no result beyond float error")
    evaluation: EvaluationOptions = Field(EvaluationOptions(), description="how it is judged")


def schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of a job file."""
    return Job.model_json_schema() | {"title": "startup_ray job"}
