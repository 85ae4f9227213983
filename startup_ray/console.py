"""What people see: notes and progress on stderr, a few lines of result."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import yaml

from startup_ray.progress import Progress

SHOWN_HOSTS = 10
SHOWN_EPOCHS = 8


def listen(*, quiet: bool, verbose: bool) -> None:
    """Send the notes of `startup_ray` to stderr; warnings alone if quiet."""
    handler = _Stderr()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("startup_ray")
    log.handlers = [handler]
    log.propagate = False
    log.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0" if verbose else "3")


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to what `sys.stderr` is at the moment, so that a note appears above a live table and not in it."""

    @property
    def stream(self) -> Any:
        return sys.stderr

    @stream.setter
    def stream(self, _: Any) -> None:
        """Set by the base class."""


def keep_stderr() -> None:
    """Keep stderr for what Python writes there; -v leaves it as it is.

    TensorFlow and Ray's core print notices to file descriptor 2 that no setting turns off, for example
    tensorflow#79029 and ray#53727.
    """
    sys.stderr.flush()
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


@contextmanager
def progress(stage: str, *, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """A bar on a terminal, else a line every few seconds; see `Progress`."""
    if quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        tables = {"train": _table, "sweep": _trials}
        with tables[stage]() if stage in tables else _bar(stage) as show:
            yield show
    else:
        yield _lines(stage)


@contextmanager
def _bar(stage: str) -> Iterator[Callable[[Progress], None]]:
    from rich import progress as rich
    from rich.console import Console

    text = (rich.TextColumn("{task.description}"), rich.TextColumn("{task.fields[text]}"))
    with rich.Progress(
        text[0], rich.BarColumn(30), text[1], rich.TimeElapsedColumn(), console=Console(stderr=True)
    ) as bar:
        task = bar.add_task(f"{stage:8}", total=None, text="starting")

        def show(event: Progress) -> None:
            bar.update(task, completed=event.done, total=event.total, text=event.text)

        yield show


@contextmanager
def _table() -> Iterator[Callable[[Progress], None]]:
    """The last epochs as a table, the present one under it."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    epochs: dict[int, Mapping[str, float]] = {}
    with Live(console=Console(stderr=True), refresh_per_second=5) as live:

        def show(event: Progress) -> None:
            metrics = getattr(event, "metrics", {})  # those of an epoch that has just ended
            if metrics:
                epochs[int(metrics["epoch"])] = metrics
            rows = [epochs[epoch] for epoch in sorted(epochs)[-SHOWN_EPOCHS:]]
            live.update(Group(*([epoch_table(rows)] if rows else []), Text(f"train    {event.text}")))

        yield show


@contextmanager
def _trials() -> Iterator[Callable[[Any], None]]:
    """The trials that run as a table, all others counted under it."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(stderr=True), refresh_per_second=5) as live:
        yield lambda event: live.update(Group(trial_table(event), Text(f"sweep    {event.text}")))


def trial_table(event: Any) -> Any:
    """A `rich` table of `tuning.messages.SweepProgress`: the best trial, then a row for each that runs."""
    from rich.table import Table

    table = Table("trial", "epochs", event.metric, "values", box=None, header_style="bold", pad_edge=False)
    if event.best is not None:
        number, score, values = event.best
        table.add_row(f"{number}", "best", f"{score:.4f}", values_text(values))
    for number, epochs, score, values in event.running:
        table.add_row(f"{number}", f"{epochs}", "-" if score is None else f"{score:.4f}", values_text(values))
    return table


def values_text(values: Mapping[str, Any]) -> str:
    """`learning_rate 0.0016, dense 128`: keys without their sections."""
    shown = [
        f"{key.rpartition('.')[2]} {f'{value:.3g}' if isinstance(value, float) else value}"
        for key, value in values.items()
    ]
    return ", ".join(shown)


def epoch_table(rows: Sequence[Mapping[str, float]]) -> Any:
    """A `rich` table with a row per epoch and a column per metric."""
    from rich.table import Table

    names = [name for name in rows[-1] if name not in ("epoch", "step", "images_per_s", "seconds")]
    table = Table("epoch", "step", *names, "images/s", "seconds", box=None, header_style="bold", pad_edge=False)
    for column in table.columns:
        column.justify = "right"
        column.no_wrap = True
    for row in rows:
        values = [f"{row[name]:.4f}" if name in row else "-" for name in names]
        table.add_row(
            f"{row['epoch']}", f"{row['step']}", *values, f"{row['images_per_s']:.0f}", f"{row['seconds']:.1f}"
        )
    return table


def _lines(stage: str, every_s: float = 5.0) -> Callable[[Progress], None]:
    shown_at, shown = 0.0, -1

    def show(event: Progress) -> None:
        nonlocal shown_at, shown
        is_last = event.done == event.total and event.done != shown
        if is_last or time.monotonic() - shown_at >= every_s:
            shown_at, shown = time.monotonic(), event.done
            sys.stderr.write(f"{stage}: {event.text}\n")

    return show


def plan_text(job: Mapping[str, Any], steps: Sequence[Mapping[str, str]], survey: Mapping[str, Any]) -> str:
    """The resolved job as YAML, a line per stage, and what an ingest would fetch from where."""
    rows = [f"  {step['stage']:9} {step['state']:9} {step['folder']}".rstrip() for step in steps]
    return "\n".join([yaml.safe_dump(dict(job), sort_keys=False), "would do:", *rows, *_survey_lines(survey)])


def _survey_lines(survey: Mapping[str, Any]) -> list[str]:
    if not survey:
        return []
    hosts = survey["hosts"]
    shown = [f"    {host['items']:>11,}  {host['host']}" for host in hosts[:SHOWN_HOSTS]]
    if rest := hosts[SHOWN_HOSTS:]:
        shown.append(f"    {sum(host['items'] for host in rest):>11,}  from {len(rest):,} other hosts")
    bad = "".join(f", {number:,} {state}" for state, number in survey["bad_rows"].items())
    head = f"would fetch {survey['to_fetch']:,} of {survey['items']:,} items{bad}"
    where = "1 host" if len(hosts) == 1 else f"{len(hosts):,} hosts"
    return [f"{head}, from {where}:" if hosts else head, *shown]


def summary(documents: Mapping[str, Mapping[str, Any]]) -> str:
    """A line or two per stage."""
    return "\n".join(_SUMMARIES[stage](document) for stage, document in documents.items())


def next_commands(documents: Mapping[str, Mapping[str, Any]], job: str) -> str:
    """Three commands to try after the demo."""
    shown = os.path.relpath(job) if not os.path.relpath(job).startswith("..") else job
    run = documents["train"]["run"]
    return f"""
next, try:
  startup-ray run {shown} --set training.epochs=60 --set model.dense=256
  startup-ray run {shown} --set ingest.manifest=YOUR_MANIFEST.json --set name=mine
  startup-ray report {os.path.relpath(run)} RUN_TO_COMPARE"""


def _ingest(document: Mapping[str, Any]) -> str:
    states = ", ".join(f"{count} {state}" for state, count in document["counts"].items())
    splits = ", ".join(f"{count} {split}" for split, count in document["splits"].items())
    return f"dataset   {document['dataset']}\n          {document['items']} items: {states}\n          {splits}"


def _train(document: Mapping[str, Any]) -> str:
    metrics = document["metrics"]
    named = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items() if isinstance(value, float))
    speed = f"{document['workers']} workers, {document['images_per_s']:.0f} images/s"
    return f"run       {document['run']}\n          {document['steps']} steps, {speed}\n          {named}"


def _sweep(document: Mapping[str, Any]) -> str:
    best = document["best"]
    states = ", ".join(f"{document[name]} {name}" for name in ("finished", "stopped", "diverged", "failed"))
    interval = " ({:.4f} to {:.4f} with fresh seeds)".format(*best["interval"]) if best.get("interval") else ""
    lines = [
        f"{document['trials']} trials: {states}; {document['epochs']} epochs",
        f"best {document['metric']} {best['value']:.4f}{interval}",
        f"trial {best['trial']}: {values_text(best['values'])}",
    ]
    if others := best.get("as_good"):
        trials = f"trial{'s' * (len(others) > 1)} {', '.join(map(str, others))}"
        lines.append(f"which may be chance: {trials} may be as good")
    if document["test"]:
        lines.append(f"test: {_few(document['test']['metrics'])}")
    return "\n          ".join([f"sweep     {document['sweep']}", *lines]) + f"\njob       {document['job']}"


def _few(metrics: Mapping[str, float | None]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in list(metrics.items())[:4] if value is not None)


def _evaluate(document: Mapping[str, Any]) -> str:
    gates = [f"{gate['gate']}: {'met' if gate['passed'] else 'NOT met'}" for gate in document["gates"]]
    if document.get("kind") == "gan":
        shown = {name: value for name, value in document["metrics"].items() if value is not None}
        samples = f"samples   {document['samples']['generated']:,} against {document['samples']['train']:,} images"
        return "\n          ".join([samples, ", ".join(f"{name} {value:.4g}" for name, value in shown.items()), *gates])
    lines = []
    for name in ("accuracy", "f1"):
        low, high = document["intervals"].get(name, (None, None))
        interval = f" ({low:.4f} to {high:.4f})" if low is not None else ""
        lines.append(f"{name} {_number(document['metrics'][name])}{interval}")
    return "\n          ".join([f"test      {', '.join(lines)}", *gates])


def _report(document: Mapping[str, Any]) -> str:
    return f"report    {document.get('report', '')}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


_SUMMARIES = {"ingest": _ingest, "sweep": _sweep, "train": _train, "evaluate": _evaluate, "report": _report}
