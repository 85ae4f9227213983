"""The section of docs/benchmarks.md that the benchmark writes, between two marks; nothing else of the page changes."""

from __future__ import annotations

from pathlib import Path

from rig.training import plot
from rig.training.case import NETS
from rig.training.results import Results

DOCS = Path(__file__).parents[3] / "docs"
PAGE, DRAWING = DOCS / "benchmarks.md", DOCS / "training-speed.svg"
BEGIN, END = "<!-- training: begin -->", "<!-- training: end -->"

TEXT = """## Training against named peers and limits
`{command}` wrote this. {rounds} interleaved rounds, windows of at least {seconds:g} s after warm-up, medians (least to
most). A contestant runs alone: 2 worker processes, or 1 where it says so, each pinned to one core, with one intra-op
and one inter-op thread. CPU time is of all its processes within the window, Ray's daemons included. Adam of 1e-3, no
BatchNormalization. Ours and the independent workers run with op determinism on, as in production; peers with it off.
Steps per call of the outer loop, or per execution of `keras-fit`: {steps}. The rows of those without Ray never change,
so that feeding costs nothing; those with Ray have a pipeline. `ours-ray` has two speeds, that of its own `exit.json`,
which is without validation, metrics and checkpoints, and that with them; its CPU time is with them (images of an epoch:
{epochs}); its workers are not pinned, as in production. `ray-legacy` is given pinned cores, one thread, Adam, and no
checkpoint within the window, none of which stands in Ray's example; `ray-default` has threads and cores as documented.

{machine}.

![images per second of each contestant]({drawing})

{tables}"""


def write(results: Results, *, command: str, rounds: int, seconds: float, machine: str) -> None:
    """Draw, and put the section in the place of the one that was there.

    Raises:
        RuntimeError: the page has no such place.
    """
    text = TEXT.format(
        command=command,
        rounds=rounds,
        seconds=seconds,
        machine=machine,
        steps=", ".join(f"{name} {net.steps_per_call}" for name, net in NETS.items()),
        epochs=", ".join(f"{name} {net.rows:,}" for name, net in NETS.items()),
        drawing=DRAWING.name,
        tables=results.markdown(),
    )
    PAGE.write_text(replaced(PAGE.read_text(), text))
    plot.draw(results, DRAWING)


def replaced(page: str, section: str) -> str:
    """The page with another section between the marks."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise RuntimeError(f"{PAGE} has no {BEGIN} and {END} after it: put them where the section is to stand")
    return f"{head}{BEGIN}\n{section}\n{END}{tail}"
