"""Sweeps against the same trials without a sweep, and against KerasTuner's Hyperband and plain Optuna. Linux only.

    python benchmarks/sweep.py [--rounds 3] [--seeds 0,1,2] [--levels 0.95,0.97]
    python benchmarks/sweep.py --only slots --epochs 30
    python benchmarks/sweep.py --smoke      # does it work; figures are noise

The seed CNN on scikit-learn's digits at 28x28, 9 epochs at most, learning rate, optimizer, batch, filters and dense
units searched. Each measurement is a command of its own; wall and CPU time are of all its processes, daemons
included, and the dataset lies decoded in the cache. Medians over rounds, contestants one after the other in each.

slots   24 random configurations, none stopped, as a sweep of two trials at a time, one thread each, with the start of
        Ray and the report; against `worker.work` on the same ones in one process, one thread, without Ray.
nested  4 of them, each a run of Ray Train with one worker, two at a time; against `launch.train` in a loop.
peers   Searches of 24 trials: ours (TPE and ASHA) with 2 slots and with 1, one thread each; Optuna (TPE, successive
        halving) around `fit`; KerasTuner's Hyperband for as many epochs as ours with 2 slots trained with the same
        seed, in an environment of its own. Those two are one process, which is given both cores (two intra-op and two
        inter-op threads), and op determinism is off for them, unlike for us. All have the same arrays and network.
        Epochs and seconds, from the start of the command, until the first model with a validation accuracy of a level.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rig import environment, meter
from rig.sweep import tables
from rig.sweep.lab import Done, Lab
from rig.sweep.space import Size

PACKAGES = ("tensorflow", "keras", "ray", "optuna")
SMOKE = Size(trials=2, nested=2, epochs=2)
OURS, OURS_ONE, TUNER, OPTUNA = "startup_ray, 2 slots", "startup_ray, 1 slot", "KerasTuner Hyperband", "Optuna"


def main() -> None:
    args = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception, so that all is cleared away
    meter.become_reaper()
    print(environment.machine(PACKAGES), flush=True)
    with tempfile.TemporaryDirectory(prefix="sr-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        lab = Lab(folder=Path(folder), size=SMOKE if args.smoke else Size(epochs=args.epochs))
        lab.prepare()
        for part in args.only or PARTS:
            print(f"\n{PARTS[part](lab, args)}", flush=True)


def slots(lab: Lab, args: argparse.Namespace) -> str:
    ours, other = _both(lab, "slots", "loop", args.rounds)
    title = f"{lab.size.trials} trials of {lab.size.epochs} epochs"
    return tables.against(title, ours, other, max_ratio=tables.MAX_RATIO, processes=2)


def nested(lab: Lab, args: argparse.Namespace) -> str:
    ours, other = _both(lab, "nested", "runs", args.rounds)
    title = f"{lab.size.nested} runs of Ray Train, {lab.size.epochs} epochs each"
    return tables.against(title, ours, other, max_ratio=None, processes=None)


def peers(lab: Lab, args: argparse.Namespace) -> str:
    found: dict[str, list[Done]] = {name: [] for name in (OURS, OURS_ONE, TUNER, OPTUNA)}
    for seed in args.seeds:
        for name, told in found.items():
            try:
                done = _search(lab, name, seed, found[OURS])
            except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                print(f"{name}, seed {seed}: failed: {error}", flush=True)
                continue
            told.append(done)
            print(f"{name}, seed {seed}: {tables.search_line(done, args.levels)}", flush=True)
    return tables.searches(found, args.levels)


PARTS = {"slots": slots, "nested": nested, "peers": peers}


def _both(lab: Lab, way: str, without: str, rounds: int) -> tuple[list[Done], list[Done]]:
    """A sweep and its trials one after the other, in turns."""
    told: dict[str, list[Done]] = {way: [], without: []}
    for number in range(1, rounds + 1):
        for name, found in told.items():
            found.append(lab.ours(name, slots=2))
            print(f"{name}, round {number}: {tables.against_line(found[-1])}", flush=True)
    return told[way], told[without]


def _search(lab: Lab, name: str, seed: int, ours: list[Done]) -> Done:
    """
    Args:
        ours: what was found with 2 slots, this seed's last.
    """
    if name == TUNER:
        return lab.keras_tuner(seed=seed, epochs=ours[-1].answer["epochs"] if ours else None)
    if name == OPTUNA:
        return lab.optuna(seed=seed)
    return lab.ours("search", seed=seed, slots=2 if name == OURS else 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3, help="of slots and nested")
    parser.add_argument("--seeds", type=_numbers(int), default=[0, 1, 2], help="of peers")
    parser.add_argument("--levels", type=_numbers(float), default=[0.95, 0.97], help="validation accuracies of peers")
    parser.add_argument("--only", action="append", choices=PARTS, help="may be given more than once")
    parser.add_argument("--epochs", type=int, default=9, help="of each trial; at most, where they may be stopped")
    parser.add_argument("--smoke", action="store_true", help="2 trials of 2 epochs, one round, one seed")
    args = parser.parse_args()
    if args.smoke:
        args.rounds, args.seeds = 1, args.seeds[:1]
    if args.rounds < 1:
        parser.error("--rounds needs to be at least 1")
    return args


def _numbers(kind: type[int] | type[float]) -> Callable[[str], list[float]]:
    return lambda text: [kind(word) for word in text.split(",")]


if __name__ == "__main__":
    main()
