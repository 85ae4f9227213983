"""The section of docs/benchmarks.md that the benchmark writes, between two marks; nothing else of the page changes."""

from __future__ import annotations

from pathlib import Path

from rig.training import plot
from rig.training.results import Results

DOCS = Path(__file__).parents[3] / "docs"
PAGE, DRAWING = DOCS / "benchmarks.md", DOCS / "training-speed.svg"
BEGIN, END = "<!-- training: begin -->", "<!-- training: end -->"

TEXT = """## Training against named peers and limits
Written by `{command}`. Rounds: {rounds}, interleaved; windows of at least {seconds:g} s after warm-up; medians
(least to most). A contestant runs alone: 2 worker processes, each pinned to one core with one intra-op and one inter-op
thread; 1 where it says so. CPU time is of all processes of the contestant within the window, with Ray its daemons.
Adam of 1e-3, fp32, no BatchNormalization. Ours and the independent workers run with op determinism on, as in
production; peers with it off, which is faster. Rows never change, so that feeding costs nothing; what Ray runs has a
pipeline. Ours, the independent workers and `scope` make 16 steps (resnet: 2) per call of one outer loop, `keras-fit`
as many per execution. `ours-ray` tells the speed of its own `exit.json`, without what is done between epochs; its CPU
time includes that. `ray-legacy` is given pinned cores, one thread, Adam, and no checkpoint within the window, none of
which stands in the example; `ray-default` is left as documented, threads and cores included.

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
