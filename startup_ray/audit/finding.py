"""What an audit finds: each kind with what it means and the way out, the worst kinds first.

Finding(kind="blank", count=3, of=1_000, places=(17, 4, 80))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Level = Literal["bad", "look"]
IMAGES, ITEMS, CLASSES = ("image", "images"), ("item", "items"), ("class", "classes")


@dataclass(frozen=True)
class Kind:
    title: str
    level: Level
    """`bad` spoils a measure or is an error; `look` is for somebody to judge."""
    meaning: str
    hint: str = ""


KINDS = {
    "damaged": Kind(
        "damaged images", "bad", "stored images that cannot be read back", "run `startup-ray ingest JOB --fresh`"
    ),
    "near_duplicates_across_splits": Kind(
        "near duplicates across splits",
        "bad",
        "images that resemble one of another split, so that the model is judged on what it has seen",
        "set `ingest.split.group: near_duplicates` to keep them together",
    ),
    "near_duplicates_other_labels": Kind(
        "near duplicates with other labels",
        "bad",
        "images that resemble one of another label: one of the two labels is wrong, or both are true",
    ),
    "likely_wrong_labels": Kind(
        "likely wrong labels",
        "bad",
        "images of which the model is surer that they are of another class than it mostly is of that class",
        "look at them, the surest first, and mend the manifest",
    ),
    "missing_labels": Kind(
        "labels missing in a split",
        "bad",
        "classes without an image in a split, where they are neither learnt nor judged",
        "list more images of them, or choose larger shares in `ingest.split`",
    ),
    "unlabelled": Kind("images without a label", "look", "they are not used to train a classifier"),
    "rare_labels": Kind("rare labels", "look", "classes with few images, about which no score is sure"),
    "imbalance": Kind(
        "imbalance",
        "look",
        "classes with less than a tenth of the images of the largest",
        "judge by macro averages: `evaluation.average: macro`",
    ),
    "failures": Kind(
        "failed items",
        "look",
        "items of the manifest that did not become images",
        "`startup-ray ingest JOB --retry-failed` fetches them again",
    ),
    "blank": Kind(
        "blank images", "bad", "one colour all over", "placeholders, most often: take them out of the manifest"
    ),
    "nearly_blank": Kind("nearly blank images", "look", "hardly any contrast"),
    "near_duplicates": Kind("near duplicates", "look", "images that resemble one that stands before them"),
    "exact_duplicates": Kind(
        "exact duplicates", "look", "items whose body is that of an earlier one; they were left out already"
    ),
    "tiny": Kind("tiny originals", "look", "smaller than the dataset's images, so that they were enlarged"),
    "extreme_aspect": Kind(
        "extreme aspect ratios", "look", "more than three times as long as wide, or as wide as long"
    ),
    "odd_brightness": Kind("unusual brightness", "look", "far darker or lighter than the other images"),
    "odd_contrast": Kind("unusual contrast", "look", "far paler or harsher than the other images"),
}
"""In the order in which they are told."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something about some of the images, items or classes."""

    kind: str
    count: int
    of: int
    """How many there are of what is counted."""
    unit: tuple[str, str] = IMAGES
    """What is counted, one of it and several."""
    note: str = ""
    """More about these ones, a sentence or a part of one."""
    places: tuple[int, ...] = ()
    """Examples among the images, those first that should be looked at first."""
    names: tuple[str, ...] = ()
    """Examples that are no images: ids of items, labels."""

    @property
    def about(self) -> Kind:
        return KINDS[self.kind]

    @property
    def what(self) -> str:
        return self.unit[self.count != 1]

    @property
    def share(self) -> float:
        return self.count / max(self.of, 1)


def counted(number: int, one: str, several: str) -> str:
    """1 group, 2 groups."""
    return f"{number:,} {several if number != 1 else one}"


def of_splits(counts: Mapping[str, int]) -> str:
    """3 in train, 1 in test: of those that have any."""
    return ", ".join(f"{number:,} in {split}" for split, number in counts.items() if number)


def ranked(found: list[Finding]) -> list[Finding]:
    """Those of which there is anything: bad ones first, then in the order of `KINDS`."""
    order = list(KINDS)
    there = [finding for finding in found if finding.count]
    return sorted(there, key=lambda finding: (finding.about.level != "bad", order.index(finding.kind)))
