"""GANs on scikit-learn's digits at 28x28: quality for equal CPU time, and steps per second against named peers.

    python benchmarks/gan.py [--seconds 45] [--seeds 3] [--rounds 3] [--only r3gan] [--without speed] [--grids docs]

Quality: each contestant trains for so many CPU seconds in a process of its own on one core, one thread, batches of 32
of the 1,197 training images, building and tracing not counted. 2,000 samples are then judged against those images by a
classifier that was trained on them. What the 600 test images have in the place of samples stands below.
Speed: each measurement is a process of its own, pinned; peers are given our networks, so that only the loop differs.
Medians over rounds, contestants one after the other in each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")

QUALITY = ("dcgan", "wgan-gp", "r3gan", "r3gan-conditional")
SPEED = ("dcgan:tutorial", "dcgan:fit", "dcgan:ours", "r3gan:tutorial", "r3gan:ours", "r3gan:two")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=45.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400, help="of a measurement of speed")
    parser.add_argument("--only", default="")
    parser.add_argument("--without", action="append", default=[], choices=("quality", "speed"))
    parser.add_argument("--grids", metavar="DIR", help="where a grid of each contestant's samples goes")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sr-gan-") as folder:
        if "quality" not in args.without:
            quality(args, folder)
        if "speed" not in args.without:
            speed(args)


def quality(args: argparse.Namespace, folder: str) -> None:
    print(show(ask("judge", folder)))
    for kind in chosen(QUALITY, args.only):
        for seed in range(args.seeds):
            found = ask("quality", folder, kind, str(seed), str(args.seconds))
            print(f"{kind}, seed {seed}: {show(found)}", flush=True)
        if args.grids:
            picture = Path(folder, f"{kind}.png").read_bytes()  # of the last seed
            Path(args.grids, f"gan-{kind}.png").write_bytes(picture)


def speed(args: argparse.Namespace) -> None:
    kinds = chosen(SPEED, args.only)
    told = [{kind: ask("speed", kind, str(args.steps)) for kind in kinds} for _ in range(args.rounds)]
    for kind in kinds:
        medians = {key: statistics.median(each[kind][key] for each in told) for key in told[0][kind]}
        print(f"{kind}: {show(medians)}", flush=True)


def chosen(names: tuple[str, ...], only: str) -> list[str]:
    wanted = [part for part in only.split(",") if part]
    return [name for name in names if not wanted or name in wanted or name.split(":")[0] in wanted]


def ask(*words: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, __file__, "--one", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-3_000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def show(found: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:,.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in found.items()
    )


def one(words: list[str]) -> dict[str, Any]:
    from rig.gan import quality as of_quality
    from rig.gan import speed as of_speed

    if words[0] == "judge":
        return of_quality.make_judge(words[1])
    if words[0] == "quality":
        return of_quality.measure(words[1], words[2], seed=int(words[3]), seconds=float(words[4]))
    return of_speed.measure(words[1], int(words[2]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one(sys.argv[2:])))
    else:
        main()
