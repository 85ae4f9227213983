"""The sections of a job file that ingest uses: what is fetched and how, and what it is made into."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from startup_ray.section import Fraction, Scaled, Section


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
        min_length=1, description="path or http(s) URL of a .json or .jsonl manifest, sample:digits or sample:photos"
    )
    image: ImageOptions = Field(ImageOptions(), description="what every image is made into")
    split: SplitOptions = Field(SplitOptions(), description="which images train, validate and test")
    fetch: FetchOptions = Field(FetchOptions(), description="how bodies are fetched, and what is refused")
    min_success: Fraction = Field(0.95, description="share of items that must end as ok or duplicate, or exit code 3")
