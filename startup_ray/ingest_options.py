"""The sections of a job file that ingest uses: what is fetched and how, and what it is made into."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from startup_ray.section import Fraction, Scaled, Section

StoragePlace = Annotated[str, Field(pattern=r"^(s3|gs)://[^/@:?#\s]+(/[^?#]*)?(\?[^#]*)?$")]
"""A bucket or a part of one; no password, which belongs into the environment."""


class ImageOptions(Section):
    size: tuple[PositiveInt, PositiveInt] = Field((28, 28), description="height and width of every image, in pixels")
    channels: Literal[1, 3, 4] = Field(3, description="1 for grey, 3 for RGB, 4 for RGBA: transparency is kept")
    resize: Literal["center_crop", "border", "fit", "no"] = Field(
        "center_crop",
        description="cut to the target's aspect ratio; keep all and pad with black; keep all and shrink to within "
        "`size`; or leave as it is. With the last two each image has a size of its own",
    )
    store: Literal["png", "jpeg", "original", "raw"] = Field(
        "png",
        description="how images are stored: png loses nothing, jpeg of photographs is cheaper and smaller, original is "
        "the body as it was fetched, raw are the pixels",
    )
    quality: int = Field(95, ge=1, le=100, description="of a stored jpeg")

    @field_validator("resize", mode="before")
    @classmethod
    def _bare_no(cls, value: object) -> object:
        return "no" if value is False else value  # YAML 1.1 takes a bare `no` for false

    @model_validator(mode="after")
    def _storable(self) -> ImageOptions:
        if self.store == "jpeg" and self.channels == 4:
            raise ValueError("a jpeg keeps no transparency: set store: png, or channels: 3")
        if self.store == "raw" and not self.is_one_size:
            raise ValueError(
                f"raw pixels do not tell their size, and with resize: {self.resize} each has its own: set store: png"
            )
        return self

    @property
    def is_one_size(self) -> bool:
        """Whether all images become `size`."""
        return self.resize not in ("fit", "no")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels of every image; height and width are 0 where each has its own."""
        return (*(self.size if self.is_one_size else (0, 0)), self.channels)


class SplitOptions(Section):
    val: Fraction = Field(0.1, description="share of the images held out to choose the model")
    test: Fraction = Field(0.2, description="share of the images held out to judge the model")
    by: Literal["content", "host", "manifest"] = Field(
        "content",
        description="by sha256 of the body, or of the URL's host, where an item's own split wins; or by the items' own "
        "splits alone",
    )

    group: Literal["near_duplicates"] | None = Field(
        None, description="keep images that resemble each other in one split, also those with a split of their own"
    )

    @model_validator(mode="after")
    def _leave_some(self) -> SplitOptions:
        if self.val + self.test >= 1:
            raise ValueError("val + test must be below 1, or nothing is left to train on")
        if self.group and self.by == "manifest":
            raise ValueError("group moves images to other splits than the manifest's: leave it out, or by: manifest")
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
    allow_files: tuple[str, ...] = Field(
        (),
        description="folders whose files a manifest may name, relative ones to the working directory; [.] for that one",
    )
    allow_storage: tuple[StoragePlace, ...] = Field(
        (),
        description="what a manifest may name of object stores, e.g. [s3://bucket/photos, gs://bucket]; in a query "
        "what pyarrow needs, e.g. ?region=eu-central-1",
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


class ColumnOptions(Section):
    """Names of a manifest's columns; null leaves one alone, so that it is a column of the user's own."""

    id: str = Field("id", min_length=1, description="of the ids; without such a column ids come from the URLs")
    url: str = Field("url", min_length=1, description="of the URLs, or of paths below fetch.allow_files")
    label: str | None = Field("label", min_length=1, description="of the labels")
    split: str | None = Field("split", min_length=1, description="of the splits: train, val, test or empty")
    image: str | None = Field("image", min_length=1, description="of the images that a Parquet file holds itself")
    sha256: str | None = Field("sha256", min_length=1, description="of hex digests that the bodies must have")
    sha512: str | None = Field("sha512", min_length=1, description="as sha256")
    md5: str | None = Field("md5", min_length=1, description="as sha256; no guard against malice")
    blur: str | None = Field(
        None,
        min_length=1,
        description="of regions to blur, such as faces: lists of [left, top, right, bottom] in [0, 1]",
    )


class IngestOptions(Section):
    manifest: str = Field(
        min_length=1,
        description="path, http(s), s3:// or gs:// URL of a list (.json, .jsonl, .csv, .tsv, .txt, each also with .gz, "
        "or .parquet), of a folder of lists or of a folder of images; or sample:digits, sample:photos",
    )
    columns: ColumnOptions = Field(ColumnOptions(), description="what the columns of the manifest are called")
    image: ImageOptions = Field(ImageOptions(), description="what every image is made into")
    split: SplitOptions = Field(SplitOptions(), description="which images train, validate and test")
    fetch: FetchOptions = Field(FetchOptions(), description="how bodies are fetched, and what is refused")
    min_success: Fraction = Field(0.95, description="share of items that must end as ok or duplicate, or exit code 3")

    @model_validator(mode="after")
    def _blurred(self) -> IngestOptions:
        if self.columns.blur is not None and self.image.store == "original":
            raise ValueError(
                "an original keeps what columns.blur is to hide: set image.store: png or jpeg, or columns.blur: null"
            )
        return self
