"""The stream on a real Ray: the same rows as in one process, whatever dies, and no more of them than it may hold."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from startup_ray.dataset import Dataset
from startup_ray.errors import StorageError
from startup_ray.storage import Folder
from startup_ray.trainers.feed import share
from startup_ray.trainers.loop import Plan, chunks
from startup_ray.trainers.stream import WINDOWS_AT_ONCE, Stream, open_stream
from tests.fakes import make_dataset, patterns
from tests.ray.training import LONG, MARKS, MODEL, Killer, await_until, dataset_in, fit, results

pytestmark = MARKS
BATCH, EPOCHS, SIZE = 35, 2, 32
READY = 4
"""Blocks that may wait to be taken."""
TASK = "ray::MapBatches(_decode_window)"
"""How a process is called in which Ray Data decodes."""


@pytest.fixture(scope="module")
def images_dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """1,900 labelled rows in five shards: 54 steps an epoch, and a tail of ten."""
    images, names = patterns(2_000, size=SIZE)
    labels = [None if i % 20 == 0 else name for i, name in enumerate(names)]
    folder = Folder(str(tmp_path_factory.mktemp("images")))
    return make_dataset(folder, images, labels, ["train"] * 2_000, shards=5)


def stream_of(
    dataset: Dataset, rank: int = 0, world: int = 1, *, window_steps: int = 12, block_steps: int = 3
) -> Stream:
    positions = np.arange(*share(BATCH, rank, world))
    stream = open_stream(dataset, global_batch=BATCH, epochs=EPOCHS, seed=7, positions=positions)
    order = replace(stream.order, window_rows=window_steps * BATCH)
    block_bytes = block_steps * len(positions) * SIZE * SIZE
    return replace(stream, order=order, block_bytes=block_bytes, ready_bytes=READY * block_bytes)


def plan_of(stream: Stream, k: int) -> Plan:
    per_epoch = stream.steps_per_epoch
    return Plan(steps=EPOCHS * per_epoch, steps_per_epoch=per_epoch, steps_per_call=k, checkpoint_every_steps=10**6)


def drawn(stream: Stream, *, k: int = 5, start: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of all steps from `start` on."""
    parts = list(stream.batches(chunks(plan_of(stream, k), start)))
    assert all(images.shape[:2] == labels.shape == (chunk.count, stream.rows) for chunk, images, labels in parts)
    return np.concatenate([images for _, images, _ in parts]), np.concatenate([labels for _, _, labels in parts])


@pytest.fixture(scope="module")
def alone(images_dataset: Dataset, ray_session: None) -> tuple[np.ndarray, np.ndarray]:
    """What one worker draws."""
    return drawn(stream_of(images_dataset))


def equal(one: tuple[np.ndarray, np.ndarray], two: tuple[np.ndarray, np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def decoders() -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if TASK in " ".join(_command(process))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def executions() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "StreamingExecutor" in thread.name]


def test_every_labelled_row_is_drawn_once_an_epoch(alone: tuple[np.ndarray, np.ndarray]) -> None:
    assert len(alone[1]) == EPOCHS * (1_900 // BATCH)
    for epoch in np.split(alone[0], EPOCHS):
        rows = [image.tobytes() for image in epoch.reshape(-1, SIZE, SIZE)]
        assert len(rows) == len(set(rows)) == 1_900 // BATCH * BATCH
    first, second = np.split(alone[0], EPOCHS)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("world", [2, 3])
def test_workers_together_draw_what_one_worker_draws(
    images_dataset: Dataset, alone: tuple[np.ndarray, np.ndarray], world: int
) -> None:
    parts = [drawn(stream_of(images_dataset, rank, world)) for rank in range(world)]
    together = [np.concatenate(columns, axis=1) for columns in zip(*parts, strict=True)]
    assert equal((together[0], together[1]), alone)


@pytest.mark.parametrize(("start", "k"), [(7, 1), (40, 16), (71, 5)])
def test_begun_at_any_step_it_draws_what_it_would_have_drawn(
    images_dataset: Dataset, alone: tuple[np.ndarray, np.ndarray], start: int, k: int
) -> None:
    assert equal(drawn(stream_of(images_dataset), k=k, start=start), (alone[0][start:], alone[1][start:]))


def test_more_windows_than_one_execution_takes_are_drawn_in_order(images_dataset: Dataset) -> None:
    stream = stream_of(images_dataset, window_steps=1)
    windows = [(epoch, step) for epoch in range(EPOCHS) for step in range(stream.steps_per_epoch)]
    assert len(windows) > WINDOWS_AT_ONCE
    here = [part for epoch, step in windows for part in stream.window_blocks(epoch, step)]
    assert equal(drawn(stream), (np.concatenate([a for a, _ in here]), np.concatenate([b for _, b in here])))


def test_a_killed_decoder_costs_no_row(images_dataset: Dataset, alone: tuple[np.ndarray, np.ndarray]) -> None:
    stream = stream_of(images_dataset, window_steps=60, block_steps=1)
    undisturbed, killed = drawn(stream), 0
    parts = []
    for chunk, images, labels in stream.batches(chunks(plan_of(stream, 5), 0)):
        parts.append((images.copy(), labels.copy()))
        if chunk.first in (10, 25):
            await_until(lambda: bool(decoders()))
            for process in decoders():
                os.kill(process.pid, signal.SIGKILL)
                killed += 1
    assert killed >= 2
    found = tuple(np.concatenate(column) for column in zip(*parts, strict=True))
    assert equal((found[0], found[1]), undisturbed)


def test_it_reads_ahead_a_few_blocks_and_no_more(images_dataset: Dataset, tmp_path: Path) -> None:
    """Shards that vanish while the loop stands still are missed once it needs a window that was not read yet."""
    images, names = patterns(2_000, size=SIZE)
    dataset = make_dataset(Folder(str(tmp_path / "d")), images, names, ["train"] * 2_000, shards=20)
    stream = stream_of(dataset, window_steps=2, block_steps=1)
    batches = stream.batches(chunks(plan_of(stream, 1), 0))
    steps = [next(batches)]
    await_until(lambda: any(_is_still(process) for process in decoders()))
    for name in dataset.shards:
        Path(dataset.folder.path(f"images/{name}")).unlink()
    with pytest.raises(StorageError) as caught:
        steps.extend(batches)
    assert "images/0000" in caught.value.where
    # The one in use, those that wait, and the rest of the windows that they and the next one belong to.
    assert READY < len(steps) <= 1 + READY + 4
    assert not executions()


def _is_still(process: psutil.Process) -> bool:
    try:
        before = sum(process.cpu_times()[:2])
        threading.Event().wait(1)
        return sum(process.cpu_times()[:2]) - before < 0.05
    except psutil.Error:
        return False


def test_one_who_stops_early_leaves_nothing_running(images_dataset: Dataset) -> None:
    for take in (0, 1, 4, 9):
        stream = stream_of(images_dataset, window_steps=60, block_steps=1)
        batches: Iterator[object] = stream.batches(chunks(plan_of(stream, 1), 0))
        for _ in range(take):
            next(batches)
        batches.close()  # type: ignore[attr-defined]
        assert not executions()
        await_until(lambda: not decoders(), limit_s=20)


@pytest.mark.parametrize("harm", ["cut", "cell"])
def test_a_damaged_shard_is_our_error_and_names_it(tmp_path: Path, harm: str) -> None:
    images, names = patterns(300, size=SIZE)
    dataset = make_dataset(Folder(str(tmp_path / "d")), images, names, ["train"] * 300, shards=3)
    stream = stream_of(dataset)
    path = Path(dataset.folder.path(f"images/{dataset.shards[2]}"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-100] if harm == "cut" else whole.replace(b"IDAT", b"IDOT"))
    with pytest.raises(StorageError) as caught:
        drawn(stream)
    assert caught.value.where == str(path)
    assert not executions()


def test_chunks_that_leave_a_gap_are_a_fault_of_the_caller(images_dataset: Dataset) -> None:
    stream = stream_of(images_dataset)
    some = list(chunks(plan_of(stream, 5), 0))
    with pytest.raises(ValueError, match="step 10 after step 5"):
        list(stream.batches([some[0], some[2]]))


def test_a_run_streams(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """That one worker draws the same rows is told above."""
    caplog.set_level("INFO", "startup_ray")
    dataset = dataset_in(Folder(str(tmp_path / "dataset")))
    training = LONG.model_copy(update={"feed": "stream", "epochs": 2})
    document = fit(dataset, Folder(str(tmp_path / "two")), model=MODEL, training=training)
    assert "training.feed is stream" in caplog.text
    assert document["epochs"] == 2
    assert document["metrics"]["train/loss"] > 0


@pytest.mark.soak  # that a stream begins at any step, and that training goes on after a kill, is told by shorter ones
def test_a_kill_costs_no_bit(tmp_path: Path) -> None:
    dataset = dataset_in(Folder(str(tmp_path / "dataset")))
    training = LONG.model_copy(update={"feed": "stream", "epochs": 6})
    two, killed = (Folder(str(tmp_path / name)) for name in ("two", "killed"))
    document = fit(dataset, two, model=MODEL, training=training)
    killer = Killer([(1, signal.SIGKILL)], after=9)
    again = fit(dataset, killed, model=MODEL, training=training, max_failures=1, on_progress=killer)
    assert not killer.blows
    assert again["weights_digest"] == document["weights_digest"]
    assert results(killed) == results(two)


def test_a_damaged_image_ends_the_run_with_its_shard_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Met by the worker alone whose row it is."""
    images, labels = patterns(200)
    dataset = make_dataset(
        Folder(str(tmp_path / "data")), images, list(labels), ["train"] * 160 + ["val"] * 40, shards=1
    )
    name = f"{dataset.folder}/images/{dataset.shards[0]}"
    table = pq.read_table(name)
    cells = table["image"].to_pylist()
    cells[77] = b"no image"
    pq.write_table(table.set_column(table.schema.get_field_index("image"), "image", pa.array(cells, pa.binary())), name)
    began = time.monotonic()
    with pytest.raises(StorageError, match="cannot read the dataset"):
        fit(dataset, Folder(str(tmp_path / "run")), model=MODEL, training=LONG.model_copy(update={"feed": "stream"}))
    assert time.monotonic() - began < 60
