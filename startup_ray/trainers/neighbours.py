"""Sums between processes of one host, through memory that they share.

TensorFlow's own transport between processes is gRPC, which costs small nets more than half a step even on one host.
Here each worker writes its vectors into a region that all have mapped, sums its share of all vectors, and reads the
whole: two meetings, three passes over the data, no copy through the kernel.

    neighbours = join(token, rank=0, world=2)       # all workers, with the same token; waits for the others
    totals = neighbours.sum([gradients, more])      # numpy arrays; bit-identical on all workers
    neighbours.close()

Workers meet by a byte over Unix sockets: one that dies is noticed at once, since the kernel closes its sockets, and one
that hangs after `timeout_s`. The region has no name (memfd), so a killed worker leaves nothing behind.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from startup_ray.trainers.feed import share

CALL_S = 60.0
"""How long `join` waits for the others."""
LOOK_S = 5.0
"""A worker that one has waited for so long is looked at: found stopped twice in a row it is given up."""
_PAGE = mmap.ALLOCATIONGRANULARITY
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: unix(7)
_RANK = struct.Struct("i")


class NeighbourLostError(Exception):
    """A worker has died, or does not answer any more; this group cannot be used again."""


@dataclass(frozen=True)
class Peer:
    """Another worker, as this one sees it."""

    rank: int
    pid: int
    line: socket.socket


class Neighbours:
    """One worker's end. Every worker makes the same calls in the same order, from one thread at a time."""

    def __init__(self, rank: int, peers: Sequence[Peer], memory: int, timeout_s: float) -> None:
        """Args:
        peers: the other workers, in the order of their ranks.
        memory: file descriptor of the shared region; closed by `close`.
        """
        self.rank, self.world = rank, len(peers) + 1
        self._peers, self._memory, self._timeout_s = peers, memory, timeout_s
        self._slots: list[np.ndarray] = []
        """uint8 [capacity] of each rank, and behind them that of the sums."""

    def sum(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Arrays of any shapes and of one dtype -> their sums over all workers, each added in the order of ranks.

        Raises:
            NeighbourLostError: a worker died, or did not come within the time limit.
        """
        dtype = arrays[0].dtype
        slots = [slot.view(dtype) for slot in self._room(sum(array.nbytes for array in arrays))]
        end = 0
        for array in arrays:
            end += array.size
            slots[self.rank][end - array.size : end] = array.reshape(-1)
        self._meet()
        low, high = share(end, self.rank, self.world)
        total = slots[-1]
        np.add(slots[0][low:high], slots[1][low:high], out=total[low:high])
        for slot in slots[2:-1]:
            total[low:high] += slot[low:high]
        self._meet()
        sums, start = [], 0
        for array in arrays:
            sums.append(total[start : start + array.size].reshape(array.shape).copy())
            start += array.size
        return sums

    def close(self) -> None:
        """Leave; the others notice when they next wait for this worker."""
        for peer in self._peers:
            peer.line.close()
        self._slots = []
        os.close(self._memory)

    def _meet(self) -> None:
        """Wait until all workers are here. What each wrote before, all can read after."""
        for peer in self._peers:
            try:
                peer.line.sendall(b".")
            except OSError as error:
                raise _died(peer) from error
        deadline = time.monotonic() + self._timeout_s
        for peer in self._peers:
            _await(peer, deadline)

    def _room(self, needed: int) -> list[np.ndarray]:
        """Slots of `needed` bytes at least. It grows on all workers in the same call, since all send the same sizes."""
        if not self._slots or len(self._slots[0]) < needed:
            capacity = -(-max(needed, 1) // _PAGE) * _PAGE
            size = capacity * (self.world + 1)
            os.ftruncate(self._memory, size)
            self._meet()  # nobody touches pages that another has not made room for yet
            region = np.frombuffer(mmap.mmap(self._memory, size), np.uint8)
            self._slots = [region[i * capacity : (i + 1) * capacity] for i in range(self.world + 1)]
        return self._slots


def join(token: str, *, rank: int, world: int, timeout_s: float, call_s: float = CALL_S) -> Neighbours:
    """Find the other workers of this host.

    Args:
        token: the same for all workers of a group and for no other group.
        timeout_s: how long a worker waits for the others in each call.

    Raises:
        NeighbourLostError: they are not all here within `call_s`.
    """
    deadline = time.monotonic() + call_s
    peers: list[Peer] = []
    try:
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(_address(token, rank))
            door.listen(world)
            peers.extend(_visit(token, other, rank, deadline) for other in range(rank))
            peers.extend(_admit(door, deadline) for _ in range(rank + 1, world))
        peers.sort(key=lambda peer: peer.rank)
        memory = _share_memory(rank, peers)
    except (OSError, ValueError, struct.error) as error:  # the last two of one that dies while it is greeted
        for peer in peers:
            peer.line.close()
        raise NeighbourLostError(f"workers of this host do not find each other: {error}") from error
    for peer in peers:
        peer.line.settimeout(LOOK_S)
    return Neighbours(rank, peers, memory, timeout_s)


def _await(peer: Peer, deadline: float) -> None:
    was_stopped = False
    while True:
        try:
            if not peer.line.recv(1):
                raise _died(peer)
            return
        except TimeoutError:
            is_stopped = _is_stopped(peer.pid)
            if time.monotonic() > deadline or (is_stopped and was_stopped):
                raise NeighbourLostError(f"worker {peer.rank} does not answer any more") from None
            was_stopped = is_stopped
        except OSError as error:
            raise _died(peer) from error


def _died(peer: Peer) -> NeighbourLostError:
    return NeighbourLostError(f"worker {peer.rank} has died")


def _is_stopped(pid: int) -> bool:
    """Whether a process has been sent SIGSTOP and the like: proc_pid_stat(5)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    except OSError:
        return False


def _address(token: str, rank: int) -> str:
    """In Linux' abstract namespace, which knows no files that could be left behind: unix(7)."""
    return f"\0startup-ray-{token}-{rank}"


def _visit(token: str, other: int, rank: int, deadline: float) -> Peer:
    while True:
        line = socket.socket(socket.AF_UNIX)
        line.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            line.connect(_address(token, other))
        except ConnectionRefusedError:  # not there yet
            line.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            line.sendall(_RANK.pack(rank))
            return Peer(other, _process(line), line)


def _admit(door: socket.socket, deadline: float) -> Peer:
    door.settimeout(max(deadline - time.monotonic(), 0.001))
    line, _ = door.accept()
    line.settimeout(max(deadline - time.monotonic(), 0.001))
    return Peer(_RANK.unpack(line.recv(_RANK.size, socket.MSG_WAITALL))[0], _process(line), line)


def _process(line: socket.socket) -> int:
    """Process id of the other end, which must be of the same user: abstract addresses are open to all of the host."""
    pid, user, _ = _CREDENTIALS.unpack(line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    if user != os.geteuid():
        raise PermissionError(f"user {user} pretends to be a worker")
    return int(pid)


def _share_memory(rank: int, peers: Sequence[Peer]) -> int:
    """Rank 0 makes the region and hands it to the others."""
    if rank == 0:
        memory = os.memfd_create("startup-ray", os.MFD_CLOEXEC)
        for peer in peers:
            socket.send_fds(peer.line, [b"m"], [memory])
        return memory
    _, (memory, *_), _, _ = socket.recv_fds(peers[0].line, 1, 1)
    return memory
