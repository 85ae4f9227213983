"""Groups of near duplicates: those that straddle splits first, then those whose labels differ, then the largest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from startup_ray.audit.finding import Finding, counted, of_splits
from startup_ray.audit.survey import Survey
from startup_ray.dataset import SPLITS


@dataclass(frozen=True, kw_only=True)
class Group:
    """An image and those that resemble it, by their places; the one that leads is the first."""

    members: tuple[int, ...]
    straddles: bool
    """More than one split."""
    disagrees: bool
    """More than one label."""


def read_groups(survey: Survey) -> list[Group]:
    """All groups of two and more."""
    order = np.argsort(survey.firsts, kind="stable")
    bounds = np.flatnonzero(np.diff(survey.firsts[order])) + 1
    parts = [part for part in np.split(order, bounds) if len(part) > 1]
    found = [
        Group(
            members=tuple(part.tolist()),
            straddles=len(np.unique(survey.splits[part])) > 1,
            disagrees=len(np.unique(survey.labels[part][survey.labels[part] >= 0])) > 1,
        )
        for part in parts
    ]
    return sorted(found, key=lambda group: (not group.straddles, not group.disagrees, -len(group.members)))


def findings(survey: Survey, groups: list[Group]) -> list[Finding]:
    """Images that resemble one before them; those in another split, or with another label, on their own as well."""
    followers = [place for group in groups for place in group.members[1:]]
    firsts, splits, labels = survey.firsts, survey.splits, survey.labels
    across = [place for place in followers if splits[place] != splits[firsts[place]]]
    other = [
        place
        for place in followers
        if labels[place] != labels[firsts[place]] and min(labels[[place, firsts[place]]]) >= 0
    ]
    counts = {name: sum(splits[place] == i for place in across) for i, name in enumerate(SPLITS)}
    return [
        Finding(kind=kind, count=len(places), of=len(survey), note=note, places=tuple(places))
        for kind, places, note in (
            ("near_duplicates_across_splits", across, of_splits(counts)),
            ("near_duplicates_other_labels", other, ""),
            ("near_duplicates", followers, f"in {counted(len(groups), 'group', 'groups')}"),
        )
    ]
