"""What was measured as Markdown: medians, least to most, and whether targets are met."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

from rig.figures import spread
from rig.sweep.lab import Done

MAX_RATIO = 0.65
"""Of the time of a sweep of two slots to that of the same trials one after the other."""


def against(
    title: str, ours: Sequence[Done], other: Sequence[Done], *, max_ratio: float | None, processes: int | None
) -> str:
    """A sweep of two slots against the same trials one after the other.

    Args:
        max_ratio: of the whole times, to reach.
        processes: that may load TensorFlow.
    """
    rows = [
        f"| {title} | sweep, 2 at a time | one after the other | ratio | to reach |",
        "|---|---|---|---|---|",
        _row("seconds of the whole command", ours, other, lambda done: done.usage.wall_s, max_ratio),
        _row("seconds without the start and end of Python and Ray", ours, other, lambda done: done.answer["seconds"]),
        f"| of these after the last trial: leaderboard, files, HTML report | {_after(ours)} | | | |",
        _row("CPU seconds of the whole command", ours, other, lambda done: done.usage.cpu_s),
        _row("peak memory, MB (PSS)", ours, other, lambda done: done.usage.peak_bytes / 1e6),
        f"| processes that have loaded TensorFlow | {_loaded(ours)} | {_loaded(other)} | | {processes or ''} |",
        "",
        *(_same(one, two) for one, two in zip(ours, other, strict=True)),
    ]
    return "\n".join(rows)


def searches(found: Mapping[str, Sequence[Done]], levels: Sequence[float]) -> str:
    """A row for each contestant, with medians over the same seeds."""
    heads = [f"{what} until {level:g}" for level in levels for what in ("epochs", "s")]
    columns = ["", *heads, "best", "trials", "epochs", "s in all", "CPU s"]
    return "\n".join(
        [
            f"| {' | '.join(columns)} |",
            "|---" * len(columns) + "|",
            *(f"| {' | '.join([name, *_search(told, levels)])} |" for name, told in found.items() if told),
        ]
    )


def search_line(done: Done, levels: Sequence[float]) -> str:
    """One search in words."""
    assert done.search is not None
    parts = []
    for level in levels:
        reached = done.search.until(level)
        parts.append(f"{level:g} after {reached[0]} epochs and {reached[1]:.1f} s" if reached else f"{level:g} never")
    total = f"{done.answer['trials']} trials, {len(done.search.epochs)} epochs, {done.usage.wall_s:.1f} s"
    return f"{', '.join(parts)}; best {done.search.best:.4f} of {total}, {done.usage.cpu_s:.1f} CPU s"


def against_line(done: Done) -> str:
    """One run of `against` in words."""
    usage = done.usage
    return (
        f"{usage.wall_s:.1f} s, {done.answer['seconds']:.1f} of them without the start and end of Python and Ray, "
        f"{usage.cpu_s:.1f} CPU s"
    )


def _row(
    name: str,
    ours: Sequence[Done],
    other: Sequence[Done],
    figure: Callable[[Done], float],
    most: float | None = None,
) -> str:
    left, right = ([figure(done) for done in side] for side in (ours, other))
    ratio = statistics.median(left) / statistics.median(right)
    text = f"{ratio:.2f}x" if most is None or ratio <= most else f"**{ratio:.2f}x, missed**"
    target = "" if most is None else f"at most {most}x"
    return f"| {name} | {spread(left, '{:,.1f}')} | {spread(right, '{:,.1f}')} | {text} | {target} |"


def _after(told: Sequence[Done]) -> str:
    return spread([done.answer["after_s"] for done in told], "{:.1f}")


def _loaded(told: Sequence[Done]) -> str:
    """As seen from outside; and, of a sweep, as its document has it."""
    seen, said = ({*counts} for counts in ((d.tensorflows for d in told), (d.answer.get("processes") for d in told)))
    text = " or ".join(map(str, sorted(seen)))
    return text if None in said else f"{text} (`processes` of its document: {' or '.join(map(str, sorted(said)))})"


def _same(ours: Done, other: Done) -> str:
    """Whether the same trials have come to the same."""
    one, two = ours.answer["trials"], other.answer["trials"]
    if [values for values, _ in one] != [values for values, _ in two]:
        return "**The two have trained other configurations.**"
    pairs = [(a, b) for (_, a), (_, b) in zip(one, two, strict=True)]
    equal = sum(a == b for a, b in pairs)
    text = f"val/f1 of the last epoch is equal to the last bit in {equal} of {len(pairs)} trials"
    return f"{text}." if equal == len(pairs) else f"**{text}**: {[pair for pair in pairs if pair[0] != pair[1]]}."


def _search(told: Sequence[Done], levels: Sequence[float]) -> list[str]:
    cells: list[str] = []
    found = [done.search for done in told if done.search]
    for level in levels:
        reached = [search.until(level) for search in found]
        cells += [_until([each and each[i] for each in reached], form) for i, form in enumerate(("{:.0f}", "{:.1f}"))]
    totals: list[tuple[str, list[float]]] = [
        ("{:.4f}", [search.best for search in found]),
        ("{:.0f}", [done.answer["trials"] for done in told]),
        ("{:.0f}", [len(search.epochs) for search in found]),
        ("{:.1f}", [done.usage.wall_s for done in told]),
        ("{:.1f}", [done.usage.cpu_s for done in told]),
    ]
    return [*cells, *(spread(values, form) for form, values in totals)]


def _until(values: Sequence[float | None], form: str) -> str:
    """The median, in which a search that never came so far took for ever."""
    middle = statistics.median(math.inf if value is None else value for value in values)
    reached = sum(value is not None for value in values)
    text = "none" if math.isinf(middle) else form.format(middle)
    return text if reached == len(values) else f"{text} ({reached} of {len(values)} seeds)"
