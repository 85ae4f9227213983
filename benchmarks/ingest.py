"""startup_ray's ingest against img2dataset 1.47.0, and against its own limit. Linux only; needs nginx.

    python benchmarks/ingest.py [--quick] [--cases 256-64,640-64,640-256] [--repeats 3] [--n 4000,16000]
    python benchmarks/ingest.py --cases 256-64 --profile stacks.txt     # py-spy of one fetch actor instead

A loopback nginx serves JPEG crops of two photographs, each body another. Both sides fetch the same URLs, crop,
hash, and store JPEG of quality 95 in Parquet: startup_ray as its command, with Ray, all guards and the seal;
img2dataset in an environment of its own and in its fastest setting. Runs alternate; the slope between short and
long ones leaves out what starting costs. nginx's own CPU time is nobody's.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path

from rig import burner, environment, limit, meter, nginx, ours, peer, photos, profile, psnr
from rig.case import CASES, Case, Work
from rig.figures import Figures, Pair
from rig.meter import Usage
from rig.peer import Setting

SETTINGS = tuple(Setting(processes, threads) for processes in (1, 2) for threads in (8, 16, 32))
PACKAGES = ("ray", "aiohttp", "simplejpeg", "pillow", "pyarrow")
PSNR_IMAGES = 200
LIMIT_IMAGES = 2_000


def main() -> None:
    args = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception, so that all is cleared away
    meter.become_reaper()
    print(environment.machine(PACKAGES))
    print("meter: {:.2f} CPU s burned, {:.2f} seen\n".format(*burner.check()), flush=True)
    with tempfile.TemporaryDirectory(prefix="sr-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)  # nginx's workers are another user
        bench = Bench(folder=Path(folder), few=args.n[0], many=args.n[1])
        for case in args.cases:
            if args.profile:
                print(bench.profile(case, args.profile), flush=True)
            else:
                figures = bench.measure(case, args.repeats, peer.install(args.peer), args.settings)
                print(figures.markdown(), end="\n\n", flush=True)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Runs of both sides, each in a fresh folder."""

    folder: Path
    few: int
    """Images of a short run."""
    many: int
    _numbers: Iterator[int] = field(default_factory=count)

    def measure(self, case: Case, repeats: int, python: Path, settings: Sequence[Setting]) -> Figures:
        """One case: find the peer's best setting, then alternate."""
        with self._served(case) as (urls, files):
            best = self._fastest(case, urls, python, settings)
            run_peer = partial(peer.run, python=python, setting=best)
            bodies = [path.read_bytes() for path in files[:LIMIT_IMAGES]]
            pairs, alone = [], []
            for _ in range(repeats):
                pairs.append((self._pair(ours.run, case, urls), self._pair(run_peer, case, urls)))
                alone.append((limit.fetch_cpu_s(urls[:LIMIT_IMAGES]), limit.decode_cpu_s(bodies, case.target)))
            quality = [
                self._psnr(run, images, case, urls, bodies)
                for run, images in ((ours.run, ours.images), (run_peer, peer.images))
            ]
        return Figures(
            case=case,
            ours=[pair for pair, _ in pairs],
            peer=[pair for _, pair in pairs],
            setting=str(best),
            psnr=(quality[0], quality[1]),
            psnr_ceiling=psnr.ceiling(bodies[:PSNR_IMAGES], case.target),
            fetch_ms=[fetch * 1e3 for fetch, _ in alone],
            decode_ms=[decode * 1e3 for _, decode in alone],
        )

    def profile(self, case: Case, out: Path) -> str:
        """One long run with py-spy at a fetch actor; where the time went, and all stacks in `out`."""
        watch = profile.watcher(out)
        with self._served(case) as (urls, _), self._work(case, urls) as work:
            usage = ours.run(work, watch)
        return f"{profile.processes(usage, len(urls))}\n\n{profile.parts(out.read_text())}"

    @contextmanager
    def _served(self, case: Case) -> Iterator[tuple[list[str], list[Path]]]:
        files = photos.write(self.folder / "www" / "x".join(map(str, case.source)), case.source, self.many)
        with nginx.serve(self.folder / "www", self.folder / "nginx") as address:
            yield [f"{address}/{path.parent.name}/{path.name}" for path in files], files

    @contextmanager
    def _work(self, case: Case, urls: Sequence[str]) -> Iterator[Work]:
        folder = self.folder / str(next(self._numbers))
        try:
            yield Work(case=case, urls=urls, folder=folder, env=environment.private(folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _fastest(self, case: Case, urls: Sequence[str], python: Path, settings: Sequence[Setting]) -> Setting:
        rates: dict[Setting, float] = {}
        for setting in settings:
            with self._work(case, urls[: self.few]) as work:
                usage = peer.run(work, python, setting)
            rates[setting] = self.few / usage.wall_s
            print(f"img2dataset, {case.name}, {setting}: {rates[setting]:.0f} images/s in all,", end=" ")
            print(f"{usage.cpu_s * 1e3 / self.few:.2f} CPU ms per image", flush=True)
        return max(rates, key=rates.__getitem__)

    def _pair(self, run: Callable[[Work], Usage], case: Case, urls: Sequence[str]) -> Pair:
        usages = []
        for number in (self.few, self.many):
            with self._work(case, urls[:number]) as work:
                usages.append(run(work))
        return Pair(few=self.few, many=self.many, short=usages[0], long=usages[1])

    def _psnr(
        self,
        run: Callable[[Work], Usage],
        images: Callable[[Work, int], list[bytes]],
        case: Case,
        urls: Sequence[str],
        bodies: Sequence[bytes],
    ) -> float:
        with self._work(case, urls[:PSNR_IMAGES]) as work:
            run(work)
            return psnr.mean_psnr(images(work, PSNR_IMAGES), bodies[:PSNR_IMAGES])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--cases", metavar="NAMES", default=",".join(CASES), help="of 256-64, 640-64, 640-256")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--n", metavar="FEW,MANY", default="4000,16000", help="images of short and long runs")
    parser.add_argument(
        "--peer", metavar="FILE", type=Path, default=peer.REQUIREMENTS, help="versions of img2dataset's environment"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one short repeat of one case: does it work; its slopes are noise"
    )
    parser.add_argument("--profile", metavar="FILE", type=Path, help="write py-spy's stacks of one fetch actor")
    args = parser.parse_args()
    args.settings = SETTINGS
    if args.quick:
        args.cases, args.repeats, args.n, args.settings = "256-64", 1, "400,2400", SETTINGS[:1]
    try:
        args.cases = [CASES[name] for name in args.cases.split(",")]
        args.n = tuple(map(int, args.n.split(",")))
    except (KeyError, ValueError) as error:
        parser.error(str(error))
    if len(args.n) != 2 or not PSNR_IMAGES <= args.n[0] < args.n[1] or args.repeats < 1:
        parser.error(f"--n needs two numbers, {PSNR_IMAGES} or more, the second larger; --repeats at least 1")
    return args


if __name__ == "__main__":
    main()
