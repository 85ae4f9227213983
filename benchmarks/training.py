"""Training by several workers against named peers and limits, in one run. Linux only.

    python benchmarks/training.py [--quick] [--rounds 5] [--seconds 5] [--nets cnn,resnet] [--batches 64,256]
    python benchmarks/training.py --only independent,ours-ring,scope
    python benchmarks/training.py --write       # into docs/benchmarks.md and docs/training-speed.svg

Two worker processes, each pinned to one core with one thread, train a small CNN and a residual net: without
synchronising, by startup_ray's transports, by startup_ray on Ray Train, in a strategy's scope with Keras 3, and as
Ray's documented example does with legacy Keras, in an environment of its own. One process alone is measured too.
Contestants run one after the other in each round. One that fails is told with its reason, and the rest goes on.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection
from itertools import count, product
from pathlib import Path

from rig import environment, meter
from rig.training import page
from rig.training.case import NETS, Case
from rig.training.contestants import CONTESTANTS, Lab
from rig.training.results import Results

PACKAGES = ("tensorflow", "keras", "ray")
BATCHES = (64, 256)


def main() -> None:
    args = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception, so that all is cleared away
    meter.become_reaper()
    machine = environment.machine(PACKAGES)
    print(machine, flush=True)
    results = Results()
    with tempfile.TemporaryDirectory(prefix="sr-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        bench = Bench(Path(folder), args.seconds, results)
        for net, batch in product(args.nets, args.batches):
            for number in range(1, args.rounds + 1):
                bench.round(Case(net=net, batch=batch), number, args.only)
    print(f"\n{results.markdown()}", flush=True)
    if args.write:
        command = shlex.join(["python", "benchmarks/training.py", *sys.argv[1:]])
        page.write(results, command=command, rounds=args.rounds, seconds=args.seconds, machine=machine)


class Bench:
    """Rounds, each run in a fresh folder."""

    def __init__(self, folder: Path, seconds: float, results: Results) -> None:
        self._folder, self._seconds, self._results = folder, seconds, results
        self._numbers = count()

    def round(self, case: Case, number: int, names: list[str]) -> None:
        for name in names:
            if not self._results.is_given_up(case, name):
                print(f"{case.name}, round {number}, {name}: {self._run(case, name)}", flush=True)

    def _run(self, case: Case, name: str) -> str:
        """Measure once; what to tell of it."""
        folder = self._folder / str(next(self._numbers))
        folder.mkdir()
        lab = Lab(seconds=self._seconds, folder=folder, shared=self._folder / "shared")
        try:
            window = CONTESTANTS[name].run(case, lab)
        except (RuntimeError, OSError, ValueError, subprocess.SubprocessError) as error:
            reason = str(error) or repr(error)
            self._results.fail(case, name, reason)
            return f"failed: {reason}"
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._results.add(case, name, window)
        return f"{window.images_per_s:,.0f} images/s, {window.cpu_us:,.0f} CPU µs per image"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="least length of a window")
    parser.add_argument("--nets", type=_words(NETS), default=list(NETS), help=", ".join(NETS))
    parser.add_argument("--batches", type=_numbers, default=list(BATCHES), help="rows of each worker in a step")
    parser.add_argument("--only", type=_words(CONTESTANTS), default=list(CONTESTANTS), help=", ".join(CONTESTANTS))
    parser.add_argument("--quick", action="store_true", help="one round of 1 s at 64: does it work; figures are noise")
    parser.add_argument("--write", action="store_true", help="write tables and drawing into docs/")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.seconds, args.batches = 1, 1.0, [64]
    if args.rounds < 1 or args.seconds <= 0 or min(args.batches) < 1:
        parser.error("--rounds and --batches need to be at least 1, --seconds above 0")
    return args


def _words(known: Collection[str]) -> Callable[[str], list[str]]:
    """Reads names with commas between them."""

    def read(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"no {', '.join(unknown)}; there are {', '.join(known)}")
        return names

    return read


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    main()
