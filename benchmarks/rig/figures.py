"""Runs to figures: by slope, in which starting does not count, and in total; medians, and Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rig.case import MIN_LIMIT, Case
from rig.meter import Usage

MIN_COST_MS = 0.005
"""What a kind of process takes less per image is not told."""


class Pair(NamedTuple):
    """A short and a long run of one side."""

    few: int
    """Images of the short run."""
    many: int
    short: Usage
    long: Usage

    @property
    def rate(self) -> float:
        """Images per second between the two."""
        return (self.many - self.few) / (self.long.wall_s - self.short.wall_s)

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds per image between the two."""
        return (self.long.cpu_s - self.short.cpu_s) * 1e3 / (self.many - self.few)

    @property
    def total_rate(self) -> float:
        return self.many / self.long.wall_s

    @property
    def total_cpu_ms(self) -> float:
        return self.long.cpu_s * 1e3 / self.many

    def cpu_ms_of(self, process: str) -> float:
        """Of one kind of process, by slope."""
        used_s = self.long.cpu_s_by_name.get(process, 0.0) - self.short.cpu_s_by_name.get(process, 0.0)
        return used_s * 1e3 / (self.many - self.few)

    @property
    def peak_mb(self) -> float:
        return self.long.peak_bytes / 1e6


@dataclass(frozen=True, kw_only=True)
class Figures:
    """All that was measured of a case."""

    case: Case
    ours: Sequence[Pair]
    peer: Sequence[Pair]
    setting: str
    """The peer's best."""
    psnr: tuple[float, float]
    """Ours and the peer's, in dB."""
    psnr_ceiling: float
    fetch_ms: Sequence[float]
    """CPU time of fetching alone."""
    decode_ms: Sequence[float]

    @property
    def limit_share(self) -> float:
        """Of the images per second and core of fetching and decoding alone, what is left end to end."""
        alone = statistics.median(self.fetch_ms) + statistics.median(self.decode_ms)
        return alone / statistics.median(pair.cpu_ms for pair in self.ours)

    def markdown(self) -> str:
        case = self.case
        cpu, rate = f"at most {case.max_cpu}x", f"at least {case.min_rate}x" if case.min_rate else ""
        return "\n".join(
            [
                f"| {case.name} | startup_ray | img2dataset ({self.setting}) | ratio | to reach |",
                "|---|---|---|---|---|",
                self._row("images/s, by slope", lambda pair: pair.rate, rate, "{:,.0f}"),
                self._row("images/s, in total", lambda pair: pair.total_rate, "", "{:,.0f}"),
                self._row("CPU ms per image, by slope", lambda pair: pair.cpu_ms, cpu, "{:.2f}"),
                self._row("CPU ms per image, in total", lambda pair: pair.total_cpu_ms, "", "{:.2f}"),
                self._row("peak memory, MB (PSS)", lambda pair: pair.peak_mb, "", "{:,.0f}"),
                f"| PSNR, dB; the reference as JPEG has {self.psnr_ceiling:.1f} "
                f"| {self.psnr[0]:.1f} | {self.psnr[1]:.1f} | | |",
                self._limit_row(),
                "",
                f"CPU ms per image of startup_ray by process: {self._processes()}.",
            ]
        )

    def _row(self, name: str, figure: Callable[[Pair], float], target: str, form: str) -> str:
        ours, peer = ([figure(pair) for pair in pairs] for pairs in (self.ours, self.peer))
        ratio = statistics.median(ours) / statistics.median(peer)
        return f"| {name} | {spread(ours, form)} | {spread(peer, form)} | {ratio:.2f}x | {target} |"

    def _limit_row(self) -> str:
        parts = f"fetch {spread(self.fetch_ms, '{:.2f}')} + decode {spread(self.decode_ms, '{:.2f}')} CPU ms"
        return f"| share of the limit per core | {self.limit_share:.0%} of {parts} | | | at least {MIN_LIMIT:.0%} |"

    def _processes(self) -> str:
        names = {name for pair in self.ours for name in pair.long.cpu_s_by_name}
        costs = {name: statistics.median(pair.cpu_ms_of(name) for pair in self.ours) for name in names}
        largest = sorted(costs, key=lambda name: -costs[name])
        return ", ".join(f"{name} {costs[name]:.2f}" for name in largest if costs[name] >= MIN_COST_MS)


def spread(values: Sequence[float], form: str) -> str:
    """Median, and least to most of several."""
    middle, least, most = (form.format(value) for value in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({least} to {most})" if len(values) > 1 else middle
