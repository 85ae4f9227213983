"""Evaluation against `model.predict` and scikit-learn, and two actors of Ray Data against one.

    python benchmarks/evaluation.py [--rows 60000,240000] [--rounds 3] [--ray-rows 1000000] [--without ray]

A CNN scores 28x28x1 digits that lie decoded in the cache. Each measurement is a process of its own: rows per second
with loading the model and all metrics, and the peak of its memory (RssAnon). The peer predicts all rows, then asks
scikit-learn for the same metrics; on one thread as startup_ray does, and with TensorFlow's own choice of threads.
Medians over rounds, kinds one after the other in each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", RAY_USAGE_STATS_ENABLED="0", CUDA_VISIBLE_DEVICES="-1")

import numpy as np
from digits import make_digits

from startup_ray.dataset import read_dataset
from startup_ray.evaluate import evaluate
from startup_ray.job import EvaluationOptions, ImageOptions
from startup_ray.metrics import Stats
from startup_ray.runs import put_json
from startup_ray.scored import ScoredRows
from startup_ray.storage import Folder
from startup_ray.trainers.cache import open_split
from startup_ray.trainers.scoring import PART_ROWS

KINDS = ("ours", "peer", "peer-threads")
CLASSES = tuple("0123456789")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rows", default="60000,240000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ray-rows", type=int, default=1_000_000)
    parser.add_argument("--without", action="append", default=[], help="ray")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sr-", dir="/tmp") as folder:
        os.environ.update(HOME=folder, STARTUP_RAY_CACHE=f"{folder}/cache")
        make_run(Folder(f"{folder}/run"))
        for rows in map(int, args.rows.split(",")):
            prepare(folder, rows)
            told = [{kind: ask(folder, kind, rows) for kind in KINDS} for _ in range(args.rounds)]
            for kind in KINDS:
                show(f"{rows:,} rows, {kind}", [each[kind] for each in told])
        if "ray" not in args.without:
            prepare(folder, args.ray_rows)
            told = [{n: ask(folder, f"ray-{n}", args.ray_rows) for n in (1, 2)} for _ in range(args.rounds)]
            for n in (1, 2):
                show(f"{args.ray_rows:,} rows, Ray, {n} actors", [each[n] for each in told])


def prepare(folder: str, rows: int) -> None:
    options = ImageOptions(size=(28, 28), channels=1)
    dataset = make_digits(Folder(f"{folder}/dataset-{rows}"), rows, options=options, split="test")
    open_split(dataset, "test")  # decodes into the cache


def make_run(run: Folder) -> None:
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(10),
        ]
    )
    put_json(run, "classes.json", list(CLASSES))  # type: ignore[arg-type]
    model.save(run.path("model.keras"))


def ask(folder: str, kind: str, rows: int) -> dict[str, float]:
    words = [sys.executable, __file__, "--one", folder, kind, str(rows)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2_000:])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def show(name: str, told: list[dict[str, float]]) -> None:
    medians = {key: statistics.median(each[key] for each in told) for key in told[0]}
    print(f"{name}: " + ", ".join(f"{value:,.4g} {key}" for key, value in medians.items()), flush=True)


def one(folder: str, kind: str, rows: int) -> dict[str, float]:
    run, dataset = Folder(f"{folder}/run"), read_dataset(Folder(f"{folder}/dataset-{rows}"))
    if kind.startswith("ray-"):
        return by_ray(run, dataset, folder, int(kind[4:]))
    import tensorflow as tf

    peak = Peak()
    if kind != "peer-threads":
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    if kind.startswith("peer"):
        seconds, share = predict_and_judge(run, dataset)
    else:
        tf.constant(1)  # TensorFlow is up, as it is for the peer
        began = time.perf_counter()
        options = EvaluationOptions(ray_above_rows=10**9, slices=())
        evaluate(run, dataset, Folder(f"{folder}/evaluation-{rows}"), options=options)
        seconds, share = time.perf_counter() - began, metric_share(run, dataset)
    return {"rows/s": rows / seconds, "MB": peak.mb, "% of the time in metrics": 100 * share}


def predict_and_judge(run: Folder, dataset) -> tuple[float, float]:
    import keras
    from sklearn import metrics as sk

    began = time.perf_counter()
    model = keras.saving.load_model(run.path("model.keras"), compile=False)
    split = open_split(dataset, "test")
    logits = model.predict(np.asarray(split.images, np.float32), batch_size=256, verbose=0)
    predicted_at = time.perf_counter()
    labels = np.asarray(split.labels)
    scores, predicted = ScoredRows.of(labels, logits).scores, logits.argmax(axis=1)
    sk.accuracy_score(labels, predicted)
    sk.balanced_accuracy_score(labels, predicted)
    for average in ("macro", "micro", "weighted", None):
        sk.precision_recall_fscore_support(labels, predicted, average=average, zero_division=0)
    sk.cohen_kappa_score(labels, predicted)
    sk.matthews_corrcoef(labels, predicted)
    sk.log_loss(labels, scores)
    sk.brier_score_loss(labels, scores)
    for k in (3, 5):
        sk.top_k_accuracy_score(labels, logits, k=k)
    sk.roc_auc_score(labels, scores, multi_class="ovr")
    sk.average_precision_score(np.eye(10)[labels], scores)
    ended = time.perf_counter()
    return ended - began, (ended - predicted_at) / (ended - began)


def metric_share(run: Folder, dataset) -> float:
    """CPU time of the statistics of some parts, to that of the model on the same rows."""
    from startup_ray.trainers.scoring import ScoringTask, open_scorer

    task = ScoringTask(
        run=run, classes=CLASSES, dataset=dataset, split="test", predictions=Folder(str(Path(str(run), "scratch")))
    )
    scorer = open_scorer(task)
    total, infer, count = Stats.empty(10), 0.0, 0.0
    for part in range(min(32, len(scorer.rows) // PART_ROWS)):
        rows = slice(part * PART_ROWS, (part + 1) * PART_ROWS)
        began = time.process_time()
        batches = [scorer.rows.images[i : i + 256] for i in range(rows.start, rows.stop, 256)]
        logits = np.concatenate([np.asarray(scorer.logits_of(batch)) for batch in batches])
        then = time.process_time()
        total = total.update(ScoredRows.of(np.asarray(scorer.rows.labels[rows]), logits))
        infer, count = infer + then - began, count + time.process_time() - then
    return count / infer


def by_ray(run: Folder, dataset, folder: str, actors: int) -> dict[str, float]:
    import ray

    ray.init(num_cpus=actors + 1, include_dashboard=False, log_to_driver=False, _temp_dir=f"{folder}/ray")
    began = time.perf_counter()
    rows = dataset.splits["test"]
    place = Folder(f"{folder}/evaluation-{rows}")
    evaluate(run, dataset, place, options=EvaluationOptions(ray_above_rows=0, slices=()))
    seconds = time.perf_counter() - began
    ray.shutdown()
    return {"rows/s": rows / seconds, "seconds": seconds}


class Peak:
    """The most memory of its own that this process has had: pages of mapped images are the system's to take back."""

    def __init__(self) -> None:
        self.mb = 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            lines = Path("/proc/self/status").read_text().splitlines()
            self.mb = max(self.mb, *(int(line.split()[1]) / 1e3 for line in lines if line.startswith("RssAnon")))
            time.sleep(0.05)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one(sys.argv[2], sys.argv[3], int(sys.argv[4]))))
    else:
        main()
