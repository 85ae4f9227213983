"""One writer per folder: a lease that expires, with a number that fences off its former holders.

    with hold(folder) as lease:         # RunHeldError names the living owner
        fence = lease.fence             # pickles; hand it to workers
        fence.check()                   # before each commit: raises when somebody took over

Each holder writes `lease/<number>.json`, one higher than the last; the highest is in force. On local disk
two processes cannot create the same number. An object store without a conditional put leaves a window of
one round trip there, which `check` closes at the first commit: the later writer of the file wins.
So does a write that failed and lands late: it may leave nobody in possession, but never two.
Fencing tokens: Kleppmann, "How to do distributed locking" (2016).
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from startup_ray.errors import RunHeldError, StorageError
from startup_ray.storage import Folder

LEASE = "lease"
TTL_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Owner:
    host: str
    """Name, boot and process namespace: containers may share a host's name, but not its processes."""
    pid: int
    started: str
    """Start time of the process, which tells it from a later one with the same pid."""
    user: str
    nonce: str

    def is_gone(self) -> bool:
        """True when this host can tell that the process has ended; another host cannot."""
        return self.host == _host() and _start_time(self.pid) != self.started


@dataclass(frozen=True)
class Fence:
    """The right to write a folder, as long as nobody has taken a higher number."""

    folder: Folder
    number: int
    nonce: str

    def check(self) -> None:
        """Raise RunHeldError unless this lease is still the one in force, and its holder is not known to have ended.

        What works for a dead process writes nothing more: whatever else ended with it looks like a fault to the work.
        """
        number, record = _latest(self.folder)
        if number != self.number or record.get("nonce") != self.nonce:
            raise RunHeldError(f"{_name(record)} has taken over this folder", where=str(self.folder))
        if _owner(record).is_gone():
            raise RunHeldError(f"{_name(record)}, for which this was done, has ended", where=str(self.folder))


@dataclass(frozen=True)
class Lease:
    fence: Fence
    owner: Owner


@contextmanager
def hold(folder: Folder, *, ttl_s: float = TTL_S, clock: Callable[[], float] = time.time) -> Iterator[Lease]:
    """Be the one writer of `folder`, renewing the lease in a thread until the block ends.

    Raises:
        RunHeldError: a living process holds it, or one on another host whose lease has not expired.
    """
    lease = _take(folder, ttl_s, clock)
    ended = threading.Event()
    thread = threading.Thread(target=_renew, args=(lease, ttl_s, clock, ended), daemon=True, name="lease")
    thread.start()
    try:
        yield lease
    finally:
        ended.set()
        thread.join()
        with suppress(RunHeldError, StorageError):
            lease.fence.check()
            _write(lease, expires=0.0)


def living_owner(folder: Folder, *, clock: Callable[[], float] = time.time) -> str:
    """Who holds the folder's lease, in words; empty if nobody does."""
    _, record = _latest(folder)
    return _name(record) if _is_held(record, clock) else ""


def _take(folder: Folder, ttl_s: float, clock: Callable[[], float]) -> Lease:
    number, record = _latest(folder)
    if _is_held(record, clock):
        raise RunHeldError(
            f"{_name(record)} is writing this folder",
            where=str(folder),
            hint="wait for it, stop it, or use --fresh; a dead owner is forgotten in "
            f"{_expires(record) - clock():.0f} s",
        )
    nonce = uuid.uuid4().hex
    me = Owner(host=_host(), pid=os.getpid(), started=_start_time(os.getpid()), user=_user(), nonce=nonce)
    lease = Lease(Fence(folder, number + 1, nonce), me)
    if not _create(lease, expires=clock() + ttl_s):
        raise RunHeldError("another process has just begun to write this folder", where=str(folder))
    lease.fence.check()
    for old in _numbers(folder):
        if old < number:
            folder.delete(f"{LEASE}/{old}.json")
    return lease


def _renew(lease: Lease, ttl_s: float, clock: Callable[[], float], ended: threading.Event) -> None:
    while not ended.wait(ttl_s / 3):
        with suppress(StorageError):  # a store that is away for a moment; what is committed checks the fence
            try:
                lease.fence.check()
            except RunHeldError:
                return
            _write(lease, expires=clock() + ttl_s)


def _create(lease: Lease, *, expires: float) -> bool:
    """Write the lease's file, or return False if another process was faster to this number."""
    folder, name = lease.fence.folder, f"{LEASE}/{lease.fence.number}.json"
    if not folder.is_local:
        _write(lease, expires=expires)
        return True
    draft = f"{LEASE}/.tmp-{lease.owner.nonce}"
    folder.put_whole(draft, _encode(lease, expires))
    try:
        os.link(folder.path(draft), folder.path(name))
    except FileExistsError:
        return False
    except OSError as error:
        raise StorageError(f"cannot link a file here: {error.strerror}", where=str(folder)) from error
    finally:
        Path(folder.path(draft)).unlink()
    return True


def _write(lease: Lease, *, expires: float) -> None:
    lease.fence.folder.put_whole(f"{LEASE}/{lease.fence.number}.json", _encode(lease, expires))


def _encode(lease: Lease, expires: float) -> bytes:
    return json.dumps({**asdict(lease.owner), "expires": expires}).encode()


def _latest(folder: Folder) -> tuple[int, dict[str, Any]]:
    number = max(_numbers(folder), default=0)
    if not number:
        return 0, {}
    try:
        record: dict[str, Any] = json.loads(folder.read(f"{LEASE}/{number}.json"))
    except (FileNotFoundError, ValueError) as error:
        raise StorageError("the lease of this folder cannot be read", where=str(folder)) from error
    return number, record


def _numbers(folder: Folder) -> list[int]:
    names = [name.removesuffix(".json") for name in folder.list(LEASE)]
    return [int(name) for name in names if name.isdigit()]


def _is_held(record: dict[str, Any], clock: Callable[[], float]) -> bool:
    return _expires(record) > clock() and not _owner(record).is_gone()


def _expires(record: dict[str, Any]) -> float:
    return float(record.get("expires", 0.0))


def _owner(record: dict[str, Any]) -> Owner:
    fields = {name: record[name] for name in Owner.__dataclass_fields__}
    return Owner(**fields)


def _name(record: dict[str, Any]) -> str:
    host = str(record.get("host")).split(" ", 1)[0]
    return f"process {record.get('pid')} of {record.get('user')} on {host}"


def _host() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _start_time(pid: int) -> str:
    """Clock ticks since boot; empty when no such process runs, one that waits for its parent included (proc(5))."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()  # from the 3rd, the state
        return "" if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        return ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a uid without a name, as containers have
        return f"uid {os.getuid()}"
