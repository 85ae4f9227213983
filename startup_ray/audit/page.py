"""An audit -> one HTML page. All that comes from the data is escaped, and opening it asks no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
from jinja2 import ChoiceLoader, PackageLoader, Template

import startup_ray
from startup_ray.audit.doubts import Doubt, Doubts
from startup_ray.audit.finding import Finding
from startup_ray.audit.items import Items, Repeated
from startup_ray.audit.labels import Label, imbalance
from startup_ray.audit.near import Group
from startup_ray.audit.sheets import read_sheets, read_thumbnails
from startup_ray.audit.sizes import histograms
from startup_ray.audit.survey import Survey
from startup_ray.dataset import SPLITS, Dataset
from startup_ray.report.collection import funnel, left_out
from startup_ray.report.render import environment
from startup_ray.report.wording import without_secrets

MAX_PICTURES = 24
"""Pictures of one finding."""
MAX_GROUPS = 16
MAX_MEMBERS = 8
"""Of a group, that are shown."""
MAX_LABELS = 60
GROUPED = ("near_duplicates_across_splits", "near_duplicates_other_labels", "near_duplicates")
"""Kinds whose pictures stand in groups."""


def render(
    dataset: Dataset,
    survey: Survey,
    items: Items,
    labels: list[Label],
    groups: list[Group],
    doubts: Doubts,
    found: Sequence[Finding],
) -> str:
    """The page; pictures are read from the dataset once more."""
    shown = Shown.of(survey, items, groups, doubts, found)
    thumbnails = read_thumbnails(dataset, shown.places)
    return _template().render(
        dataset=dataset,
        manifest=without_secrets(dataset.manifest),
        images=len(survey),
        splits=SPLITS,
        findings=found,
        bad=sum(finding.about.level == "bad" for finding in found),
        funnel=funnel(dataset),
        left_out=left_out(dataset),
        items=items,
        labels=labels[:MAX_LABELS],
        num_labels=len(labels),
        ratio=imbalance(labels),
        histograms=histograms(survey, items.sizes),
        shown=shown,
        num_groups=len(groups),
        doubts=doubts,
        sheets=read_sheets(dataset, survey, labels),
        picture=partial(_picture, dataset, survey, thumbnails),
        version=startup_ray.__version__,
    )


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What is shown with pictures, each with the places of its images; None for one that is not there."""

    odd: list[tuple[Finding, tuple[int, ...]]]
    groups: list[tuple[Group, tuple[int, ...]]]
    repeated: list[tuple[Repeated, int | None]]
    doubted: list[tuple[Doubt, int | None]]

    @classmethod
    def of(cls, survey: Survey, items: Items, groups: list[Group], doubts: Doubts, found: Sequence[Finding]) -> Shown:
        """As many of each as a page can bear."""
        repeated, rows = items.repeated[:MAX_GROUPS], doubts.rows[:MAX_PICTURES]
        return cls(
            odd=[(one, one.places[:MAX_PICTURES]) for one in found if one.places and one.kind not in GROUPED],
            groups=[(group, group.members[:MAX_MEMBERS]) for group in groups[:MAX_GROUPS]],
            repeated=list(zip(repeated, _places(survey, [one.id for one in repeated]), strict=True)),
            doubted=list(zip(rows, _places(survey, [one.id for one in rows]), strict=True)),
        )

    @property
    def places(self) -> set[int]:
        """Of all images that are shown."""
        several = [places for _, places in (*self.odd, *self.groups)]
        single = [place for _, place in (*self.repeated, *self.doubted) if place is not None]
        return {*single, *(place for places in several for place in places)}


def _template() -> Template:
    packages = ("startup_ray.audit", "startup_ray.report")
    made = environment().overlay(loader=ChoiceLoader([PackageLoader(package, "templates") for package in packages]))
    return made.get_template("audit.html.jinja")


def _places(survey: Survey, ids: Sequence[str]) -> list[int | None]:
    found: list[int | None] = pc.index_in(pa.array(ids, pa.string()), survey.ids).to_pylist()
    return found


def _picture(dataset: Dataset, survey: Survey, thumbnails: dict[int, str], place: int | None) -> dict[str, str]:
    """What is shown of an image; its texts are empty where nothing is known."""
    if place is None:
        return {"image": "", "id": "", "label": "", "split": "", "size": ""}
    label = int(survey.labels[place])
    width, height = int(survey.widths[place]), int(survey.heights[place])
    return {
        "image": thumbnails.get(place, ""),
        "id": survey.ids[place].as_py(),
        "label": dataset.classes[label] if label >= 0 else "",
        "split": SPLITS[survey.splits[place]],
        "size": f"{width} × {height}" if width and height else "",
    }
