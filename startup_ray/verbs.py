"""The verbs that belong to no stage: `doctor` and `runs`, and what opens a report."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
import webbrowser
from contextlib import redirect_stdout
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from startup_ray.errors import ClusterError, UsageError

if TYPE_CHECKING:
    from startup_ray.inventory import Entry

_SECONDS = {"h": 3600, "d": 86400, "w": 7 * 86400}
_SIZES = ("B", "kB", "MB", "GB", "TB")


def add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="JOB", nargs="?", help="a job file, whose storage is looked at")
    parser.add_argument("--storage", metavar="PLACE", help="a storage to look at")


def doctor(args: argparse.Namespace) -> int:
    """Print each check as it is known; ClusterError's exit code if one failed."""
    from startup_ray.doctor import FAIL, examine

    storage = args.storage
    if args.job:
        from startup_ray.jobfile import load_job

        storage = storage or load_job(args.job, set=args.set).storage
    checks, out = [], sys.stdout
    with redirect_stdout(sys.stderr):
        for check in examine(address=args.address, storage=storage):
            checks.append(check)
            if not args.json:
                hint = f"\n      -> {check.hint}" if check.hint else ""
                print(f"{check.state:4}  {check.name:13} {check.seen}{hint}", file=out, flush=True)
    if args.json:
        fields = ("name", "state", "seen", "hint")
        print(json.dumps({"checks": [{f: getattr(check, f) for f in fields} for check in checks]}, indent=2))
    return ClusterError.exit_code if any(check.state == FAIL for check in checks) else 0


def add_runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=("list", "delete"), default="list", help="(default: list)")
    parser.add_argument("names", metavar="NAME", nargs="*", help="to delete: names that the list shows")
    parser.add_argument("--storage", metavar="PLACE", default="runs", help="what jobs name so (default: runs)")
    parser.add_argument("--state", choices=("finished", "running", "stopped"), help="only those in this state")
    parser.add_argument("--older-than", metavar="AGE", help="only those unchanged for so long: 12h, 30d, 8w")
    parser.add_argument("--dry-run", action="store_true", help="print what would be deleted")
    parser.add_argument("--yes", action="store_true", help="delete without asking")


def runs(args: argparse.Namespace) -> int:
    """List, or delete what is named or chosen."""
    from startup_ray.inventory import delete, entries

    if args.names and args.action == "list":
        raise UsageError("`runs list` takes no names", hint="choose with --state and --older-than")
    found = entries(args.storage)
    now = time.time()
    chosen = _choose(args, found, now)
    if args.action == "list":
        print(json.dumps({"entries": [_document(e) for e in chosen]}, indent=2) if args.json else _table(chosen, now))
        return 0
    if chosen and not args.dry_run:
        _ask(args, chosen, now)
        for entry in delete(chosen, found):
            print(f"deleted {entry.kind} {entry.name}", file=sys.stderr)
    if args.json:
        print(json.dumps({"deleted" if not args.dry_run else "would_delete": [_document(e) for e in chosen]}, indent=2))
    elif args.dry_run or not chosen:
        print(f"would delete:\n{_table(chosen, now)}" if chosen else "nothing to delete")
    return 0


def show(place: str) -> None:
    """Open a local page in the user's browser.

    Raises:
        UsageError: it lies in a storage that no browser reads, or there is no browser here.
    """
    if "://" in place:
        raise UsageError("a browser does not read this storage", where=place, hint="write it here: --out report.html")
    if not webbrowser.open(Path(place).resolve().as_uri()):
        raise UsageError("no browser here", where=place, hint="copy the file to where one is")


def _choose(args: argparse.Namespace, found: list[Entry], now: float) -> list[Entry]:
    if args.action == "delete" and not (args.names or args.state or args.older_than):
        raise UsageError("nothing is chosen to be deleted", hint="give names, --state or --older-than")
    names = {entry.name for entry in found}
    for name in args.names:
        if name not in names:
            close = get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "`startup-ray runs` lists what there is"
            raise UsageError(f"no dataset, run or sweep is called {name!r}", where=args.storage, hint=hint)
    oldest = now - _age_s(args.older_than) if args.older_than else None
    return [
        entry
        for entry in found
        if (not args.names or entry.name in args.names)
        and (not args.state or entry.state == args.state)
        and (oldest is None or entry.changed < oldest)
    ]


def _age_s(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([hdw])", text)
    if not match:
        raise UsageError(f"--older-than {text}: not an age", hint="write 12h, 30d or 8w")
    return float(match[1]) * _SECONDS[match[2]]


def _ask(args: argparse.Namespace, chosen: list[Entry], now: float) -> None:
    if args.yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("deleting needs a yes", hint="add --yes; --dry-run shows what would be deleted")
    print(_table(chosen, now), file=sys.stderr)
    print(f"delete these {len(chosen)}? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was deleted")


def _document(entry: Entry) -> dict[str, Any]:
    return {
        "kind": entry.kind,
        "name": entry.name,
        "state": entry.state,
        "owner": entry.owner,
        "bytes": entry.bytes,
        "changed": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry.changed)),
        "folder": str(entry.folder),
        "dataset": entry.dataset,
    }


def _table(entries: list[Entry], now: float) -> str:
    if not entries:
        return "nothing here"
    width = max(len(entry.name) for entry in entries)
    lines = [f"{'kind':7}  {'name':{width}}  {'state':8}  {'size':>8}  {'age':>5}"]
    for entry in entries:
        age, size = _age(now - entry.changed), _size(entry.bytes)
        by = f"  {entry.owner}" if entry.owner else ""
        lines.append(f"{entry.kind:7}  {entry.name:{width}}  {entry.state:8}  {size:>8}  {age:>5}{by}")
    return "\n".join(lines)


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return "now"


def _size(number: float) -> str:
    for unit in _SIZES:
        if number < 1000 or unit == _SIZES[-1]:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 10 else f"{number:.1f} {unit}"
        number /= 1000
    raise AssertionError
