"""Windows to figures: medians, ratios, Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from rig.figures import spread
from rig.training.case import NETS, Case
from rig.training.contestants import CONTESTANTS, VARIANTS
from rig.training.window import Window

OURS = tuple(f"ours-{name}" for name in VARIANTS)
MAX_FAILURES = 2
"""Then a contestant is left out of the rounds that follow."""


@dataclass(frozen=True, kw_only=True)
class Target:
    what: str
    ours: tuple[str, ...]
    """The fastest of these."""
    peer: str
    batches: tuple[int, ...]
    at_least: float


TARGETS = (
    Target(what="best of ours to independent workers", ours=OURS, peer="independent", batches=(64,), at_least=0.75),
    Target(what="best of ours to independent workers", ours=OURS, peer="independent", batches=(256,), at_least=0.85),
    Target(what="best of ours, 2 workers, to 1 worker", ours=OURS, peer="one", batches=(256,), at_least=1.6),
    Target(what="best of ours to Ray's example", ours=OURS, peer="ray-legacy", batches=(64, 256), at_least=3.0),
    Target(
        what="ours by Ray to ours without",
        ours=("ours-ray",),
        peer="ours-dataset",
        batches=(64, 256),
        at_least=0.97,
    ),
)


@dataclass(frozen=True)
class Results:
    windows: dict[tuple[Case, str], list[Window]] = field(default_factory=dict)
    failures: dict[tuple[Case, str], list[str]] = field(default_factory=dict)

    def add(self, case: Case, name: str, window: Window) -> None:
        self.windows.setdefault((case, name), []).append(window)

    def fail(self, case: Case, name: str, reason: str) -> None:
        self.failures.setdefault((case, name), []).append(reason)

    def is_given_up(self, case: Case, name: str) -> bool:
        return len(self.failures.get((case, name), [])) >= MAX_FAILURES

    @property
    def cases(self) -> list[Case]:
        """In the order in which they were measured."""
        return list(dict.fromkeys(case for case, _ in [*self.windows, *self.failures]))

    def rates(self, case: Case, name: str) -> list[float]:
        """Images per second of each round; none if it did not run."""
        return [window.images_per_s for window in self.windows.get((case, name), [])]

    def markdown(self) -> str:
        return "\n\n".join([*(self._table(case) for case in self.cases), self._ratios()])

    def _table(self, case: Case) -> str:
        head = [
            f"| {case.name} ({NETS[case.net].what}) | images/s | CPU µs per image | of independent |",
            "|---|---|---|---|",
        ]
        return "\n".join([*head, *filter(None, (self._row(case, name) for name in CONTESTANTS))])

    def _row(self, case: Case, name: str) -> str:
        """Empty for a contestant that was not asked to run."""
        head = f"| `{name}`: {CONTESTANTS[name].what}"
        windows, reasons = self.windows.get((case, name), []), self.failures.get((case, name), [])
        if not windows:
            return f"{head} | failed: {_cell(reasons[-1])} | | |" if reasons else ""
        rate = spread(self.rates(case, name), "{:,.0f}")
        cpu = spread([window.cpu_us for window in windows], "{:,.0f}")
        whole = [window.whole_images_per_s for window in windows if window.whole_images_per_s is not None]
        rate += f"; {spread(whole, '{:,.0f}')} with epochs' ends" if whole else ""
        note = f"; failed {len(reasons)} times: {_cell(reasons[-1])}" if reasons else ""
        share = self._ratio(case, (name,), "independent")
        return f"{head} | {rate}{note} | {cpu} | {'' if share is None else f'{share:.0%}'} |"

    def _ratios(self) -> str:
        nets = list(dict.fromkeys(case.net for case in self.cases))
        rows = [self._ratio_row(target, batch, nets) for target in TARGETS for batch in target.batches]
        head = [f"| ratio of images/s | {' | '.join(nets)} | to reach |", f"|---{'|---' * len(nets)}|---|"]
        return "\n".join([*head, *rows])

    def _ratio_row(self, target: Target, batch: int, nets: Sequence[str]) -> str:
        cells = [_judged(self._ratio(Case(net=net, batch=batch), target.ours, target.peer), target) for net in nets]
        return f"| {target.what}, {batch} rows per worker | {' | '.join(cells)} | at least {target.at_least}x |"

    def _ratio(self, case: Case, names: Sequence[str], peer: str) -> float | None:
        """Of medians, the fastest of `names` to the peer; None if one side is missing."""
        ours = [statistics.median(rates) for name in names if (rates := self.rates(case, name))]
        theirs = self.rates(case, peer)
        return max(ours) / statistics.median(theirs) if ours and theirs else None


def _judged(ratio: float | None, target: Target) -> str:
    if ratio is None:
        return ""
    return f"{ratio:.2f}x" if ratio >= target.at_least else f"**{ratio:.2f}x, missed**"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")
