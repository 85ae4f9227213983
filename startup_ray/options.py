"""The sections of a job file that training uses: what is trained, how, and on how much."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, PositiveFloat, PositiveInt, Tag, field_validator, model_validator

from startup_ray.section import Fraction, Scaled, Section

PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")
KINDS = ("cnn", "application", "python", "gan")


class CnnOptions(Section):
    kind: Literal["cnn"] = Field("cnn", description="a convolutional classifier")
    filters: tuple[PositiveInt, ...] = Field((32,), min_length=1, description="filters of each 3x3 convolution")
    dense: int = Field(128, ge=0, description="units of the hidden dense layer; 0 for none")
    residual: bool = Field(
        False,
        description="two convolutions and a shortcut per entry of filters, and an average over the image at the end",
    )
    batch_norm: bool = Field(False, description="batch normalisation of each convolution, over the global batch")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the hidden units left out in each training step")
    l2: float = Field(0.0, ge=0, description="weight of the squared kernels in the loss")


class ApplicationOptions(Section):
    kind: Literal["application"] = Field("application", description="a network of keras.applications")
    name: str = Field(min_length=1, description="as keras.applications calls it: MobileNetV2, ResNet50, EfficientNetB0")
    weights: str = Field("none", description="none, or a local .weights.h5 or .h5 file for the network without its top")
    args: dict[str, Any] = Field({}, description="further arguments of the network, e.g. {alpha: 0.35}")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the features left out in each training step")


class PythonOptions(Section):
    kind: Literal["python"] = Field("python", description="a Keras 3 model of your own")
    build: str = Field(
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$",
        description="package.module:function, called as function(image_shape, num_classes, **args); it returns a model",
    )
    args: dict[str, Any] = Field({}, description="further arguments of the function")


class GanOptions(Section):
    kind: Literal["gan"] = Field("gan", description="a generator and a discriminator that are trained together")
    recipe: Literal["r3gan", "dcgan"] = Field(
        "r3gan", description="networks, loss and optimizers; r3gan is stable and good, dcgan the classic"
    )
    conditional: bool = Field(False, description="images of a class that is asked for; needs labels")
    noise: PositiveInt | None = Field(None, description="numbers that an image is made from (r3gan: 64, dcgan: 100)")
    width: PositiveInt | None = Field(
        None, description="channels at the largest size; double with each halving (r3gan: 32, dcgan: 64)"
    )
    learning_rate: float | None = Field(None, gt=0, description="of both networks (r3gan: 1e-3, dcgan: 2e-4)")
    beta1: float | None = Field(None, ge=0, lt=1, description="momentum of Adam (r3gan: 0, dcgan: 0.5)")
    gamma: float | None = Field(None, ge=0, description="weight of the penalties R1 and R2 (r3gan: 1, dcgan: 0)")
    ema: float | None = Field(
        None, ge=0, lt=1, description="momentum of the moving average of the generator, which is kept (0.995)"
    )
    augment: tuple[Literal["shift", "cutout", "color"], ...] = Field(
        (), description="changes of what the discriminator sees, real and generated alike; for small datasets"
    )
    watch_every_epochs: PositiveInt = Field(10, description="epochs between two looks at samples and their quality")
    watch_samples: PositiveInt = Field(1000, description="images that are made for a look")
    on_alarm: Literal["warn", "stop"] = Field(
        "warn", description="when samples lose their variety, or copy training images"
    )


def _kind(value: Any) -> Any:
    return value.get("kind", "cnn") if isinstance(value, dict) else getattr(value, "kind", "cnn")


ModelOptions = Annotated[
    Annotated[CnnOptions, Tag("cnn")]
    | Annotated[ApplicationOptions, Tag("application")]
    | Annotated[PythonOptions, Tag("python")]
    | Annotated[GanOptions, Tag("gan")],
    Discriminator(
        _kind,
        custom_error_type="kind",
        custom_error_message=f"kind should be one of {', '.join(KINDS)}",
    ),
]


class AugmentOptions(Section):
    flip: bool = Field(False, description="mirror left and right, half of the images")
    shift: float = Field(0.0, ge=0, le=0.5, description="move by up to this share of height and width")
    rotate_deg: float = Field(0.0, ge=0, le=180, description="turn by up to so many degrees, either way")
    zoom: float = Field(0.0, ge=0, le=0.5, description="scale by up to this share, in or out")
    contrast: float = Field(0.0, ge=0, le=0.9, description="scale the distance from the image's mean, up to this share")


class TrainingOptions(Section):
    epochs: PositiveInt = Field(30, description="passes over the training split")
    steps: PositiveInt | None = Field(None, description="global batches to train on, in the place of epochs")
    global_batch: PositiveInt = Field(64, description="rows of one step, over all workers together")
    accumulate: PositiveInt = Field(
        1, description="parts in which a step computes its gradients one after the other, to save memory"
    )
    optimizer: Literal[
        "adam", "adamw", "sgd", "rmsprop", "adagrad", "adadelta", "adamax", "nadam", "lion", "ftrl", "adafactor"
    ] = Field("adam", description="as Keras calls it")
    optimizer_args: dict[str, bool | int | float | str | None] = Field(
        {}, description="further arguments, e.g. {momentum: 0.9}"
    )
    learning_rate: float = Field(1e-3, gt=0, description="of the optimizer; the highest, where a schedule lowers it")
    schedule: Literal["constant", "cosine", "step"] = Field(
        "constant", description="of the learning rate; cosine falls to zero at the last step, step falls in steps"
    )
    decay_epochs: PositiveInt = Field(10, description="epochs after each of which the schedule `step` lowers the rate")
    decay_factor: float = Field(0.1, gt=0, lt=1, description="by which the schedule `step` multiplies it")
    warmup_steps: int = Field(0, ge=0, description="steps in which the learning rate rises from zero")
    weight_decay: float | None = Field(
        None, gt=0, description="decoupled from the gradient; not of biases and normalisations"
    )
    clip_norm: float | None = Field(None, gt=0, description="scale gradients down to this norm of all together")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of a row's weight spread over all classes")
    class_weights: Literal["balanced"] | dict[str, PositiveFloat] = Field(
        {}, description="factor of a row's loss by its class; balanced: all classes weigh the same together"
    )
    ema: float | None = Field(
        None, gt=0, lt=1, description="momentum of a moving average of the weights, which is judged and kept as best"
    )
    early_stopping: PositiveInt | None = Field(
        None, description="stop after so many epochs without a new best one, as `monitor` says"
    )
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = Field(
        "auto", description="of computing; auto: float32 on CPUs, 16 bits on GPUs that are faster with them"
    )
    xla: Literal["auto"] | bool = Field("auto", description="compile forward and backward pass; auto: on GPUs alone")
    augment: AugmentOptions = Field(AugmentOptions(), description="random changes of the training images")
    init_from: str | None = Field(
        None, min_length=1, description="folder of a run, or a .keras file, whose weights are the first ones"
    )
    freeze: tuple[str, ...] = Field((), description="layers that are not trained, by name or pattern: ['conv*']")
    feed: Literal["auto", "memory", "stream"] = Field(
        "auto", description="how images reach the workers; auto: stream what is larger than cache_limit"
    )
    cache_limit: Scaled = Field(64 * 10**9, description="most that a node keeps of decoded training images, e.g. 20GB")
    steps_per_call: PositiveInt = Field(16, description="steps inside one tf.function call; changes speed, no result")
    checkpoint_every_steps: PositiveInt = Field(200, description="also at the end of each epoch")
    keep: PositiveInt = Field(3, description="checkpoints to keep, the newest")
    monitor: Literal["val/f1", "val/accuracy", "val/loss"] = Field(
        "val/f1",
        description="what makes model.keras the best; of equals the lower val/loss, without a val split the last",
    )

    @model_validator(mode="after")
    def _fits(self) -> TrainingOptions:
        if self.steps is not None and self.epochs != type(self).model_fields["epochs"].default:
            raise ValueError("epochs and steps are two words for the same: leave one of them out")
        if self.global_batch % self.accumulate:
            raise ValueError(f"accumulate must divide global_batch, which is {self.global_batch}")
        return self


def monitor_of(model: ModelOptions, training: TrainingOptions) -> str:
    """By which metric an epoch is the best."""
    return "val/fid" if isinstance(model, GanOptions) else training.monitor


class ScalingOptions(Section):
    workers: PositiveInt | tuple[PositiveInt, PositiveInt] = Field(
        2, description="processes that train together, one replica each; [1, 4]: as many as there is room for"
    )
    threads_per_worker: PositiveInt = Field(1, description="CPU threads of each worker; changes the last bits")
    gpus_per_worker: Fraction = Field(0.0, description="1 for GPUs, a share of one for workers that share it")
    gpu_memory: Scaled | None = Field(None, description="limit of a worker that shares a GPU, e.g. 8GB")
    transport: Literal["auto", "memory", "ring", "nccl"] = Field(
        "auto", description="of gradients; auto: nccl for whole GPUs, memory on one host, ring between hosts"
    )
    wire: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="of gradients by ring or nccl; 16 bits are faster and less exact"
    )
    max_failures: int = Field(3, ge=0, description="restarts from the last checkpoint before giving up")

    @field_validator("workers")
    @classmethod
    def _in_order(cls, workers: int | tuple[int, int]) -> int | tuple[int, int]:
        if isinstance(workers, tuple) and workers[0] > workers[1]:
            raise ValueError("write the smaller number first")
        return workers

    @model_validator(mode="after")
    def _shares(self) -> ScalingOptions:
        if 0 < self.gpus_per_worker < 1 and self.gpu_memory is None:
            raise ValueError("workers that share a GPU need gpu_memory, or the first one takes all of it")
        if self.transport == "nccl" and self.gpus_per_worker < 1:
            raise ValueError("transport nccl needs a GPU for each worker: set gpus_per_worker to 1")
        return self

    @property
    def min_workers(self) -> int:
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def max_workers(self) -> int:
        return self.workers if isinstance(self.workers, int) else self.workers[1]
