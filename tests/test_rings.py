"""The four rings: imports point downward only, and each ring knows only its own libraries."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "startup_ray"

RINGS: dict[str, int] = {
    **dict.fromkeys(
        [
            "errors",
            "section",
            "options",
            "ingest_options",
            "space",
            "space_arguments",
            "space_text",
            "sweep_options",
            "merit",
            "tuning",
            "tuning.rungs",
            "tuning.journal",
            "tuning.measure",
            "tuning.pace",
            "tuning.conductor",
            "tuning.leaderboard",
            "job",
            "jobcheck",
            "jobspace",
            "jobfile",
            "usercode",
            "object_store",
            "steady",
            "storage",
            "lease",
            "runs",
            "provenance",
            "progress",
            "inventory",
            "forgotten",
        ],
        0,
    ),
    **dict.fromkeys(["items", "sources", "manifest", "ledger", "dataset", "dataset_tables", "metrics", "gates"], 0),
    **dict.fromkeys(["manifests", "manifests.forms", "manifests.streams", "manifests.trees", "manifests.rows"], 0),
    **dict.fromkeys(["manifests.image_folders", "manifests.tables", "manifests.parquet_rows", "manifests.contents"], 0),
    **dict.fromkeys(
        [
            "fidelity",
            "neighbourhoods",
            "scored",
            "ranking",
            "calibration",
            "confidence",
            "judged",
            "slices",
            "comparison",
        ],
        0,
    ),
    **dict.fromkeys(
        ["ingest", "ingest.guard", "ingest.resolve", "ingest.fetch", "ingest.exchange", "ingest.faults"], 1
    ),
    **dict.fromkeys(["ingest.persist", "ingest.bodies", "ingest.embedded"], 1),
    **dict.fromkeys(["ingest.hosts", "ingest.places", "ingest.shares", "ingest.breaker"], 1),
    **dict.fromkeys(
        ["ingest.optout", "ingest.credentials", "ingest.samples", "ingest.sample_images", "ingest.source"], 1
    ),
    **dict.fromkeys(["ingest.decode", "ingest.jpeg", "ingest.encode", "ingest.finish", "stored"], 1),
    "regions": 0,
    "ingest.blur": 1,
    **dict.fromkeys(["ingest.formats", "ingest.geometry", "ingest.tiff"], 1),
    **dict.fromkeys(
        [
            "ingest.chunks",
            "ingest.plan",
            "ingest.former",
            "ingest.work",
            "ingest.forget",
            "ingest.naming",
            "ingest.seal",
            "ingest.spill",
        ],
        1,
    ),
    "ingest.together": 1,
    **dict.fromkeys(["tuning.codes", "tuning.study", "tuning.optuna_file", "tuning.messages"], 1),
    **dict.fromkeys(["report.board", "report.parallel", "report.scales"], 1),
    **dict.fromkeys(["report.sweep", "report.sweep_data", "report.sweep_verdict"], 1),
    **dict.fromkeys(
        ["tuning.trial", "tuning.referee", "tuning.groups", "tuning.edge", "tuning.results", "tuning.sweep"], 2
    ),
    **dict.fromkeys(["trainers", "trainers.models", "trainers.sync", "trainers.cnn", "trainers.loop"], 1),
    **dict.fromkeys(
        ["trainers.writer", "trainers.messages", "trainers.recorder", "trainers.scaling", "trainers.tensorboard"], 1
    ),
    **dict.fromkeys(
        ["trainers.augment", "trainers.norm", "trainers.optimizer", "trainers.neighbours", "trainers.seeds"], 1
    ),
    **dict.fromkeys(["trainers.program", "trainers.objective", "trainers.contract", "trainers.validation"], 1),
    **dict.fromkeys(["trainers.applications", "trainers.warm", "trainers.state"], 1),
    **dict.fromkeys(["trainers.gan", "trainers.gan.recipes", "trainers.gan.nets", "trainers.gan.augment"], 1),
    **dict.fromkeys(["trainers.gan.step", "trainers.gan.program", "trainers.gan.build", "trainers.gan.judge"], 1),
    **dict.fromkeys(
        ["trainers.gan.sampling", "trainers.gan.watch", "trainers.gan.evaluation", "trainers.gan.publish"], 1
    ),
    **dict.fromkeys(["trainers.feed", "trainers.cache", "trainers.checkpoint", "trainers.scoring"], 1),
    **dict.fromkeys(["trainers.lean", "trainers.windows", "trainers.shards", "trainers.pixels", "trainers.pace"], 1),
    **dict.fromkeys(["report", "report.render", "report.plots", "report.data", "report.sections", "report.card"], 1),
    **dict.fromkeys(["report.classifier", "report.gan", "report.samples", "report.wording"], 1),
    **dict.fromkeys(["report.collection", "report.pictures", "report.mistakes"], 1),
    **dict.fromkeys(["likeness", "audit", "audit.finding", "audit.survey", "audit.items", "audit.labels"], 1),
    **dict.fromkeys(["audit.sizes", "audit.near", "audit.oddities", "audit.doubts", "audit.sheets", "audit.page"], 1),
    **dict.fromkeys(["export", "export.formats", "export.compare", "export.samples", "export.quiet"], 1),
    **dict.fromkeys(["outlet", "outlet.rows", "outlet.names", "outlet.target", "outlet.parts"], 1),
    **dict.fromkeys(["outlet.webdataset", "outlet.tfrecord", "outlet.folder", "outlet.parquet"], 1),
    **dict.fromkeys(["predict", "predict.files", "predict.gather", "predict.table"], 1),
    **dict.fromkeys(["submit", "submit.kuberay"], 0),
    **dict.fromkeys(["submit.address", "submit.jobs_api", "submit.follow", "submit.verdict"], 1),
    **dict.fromkeys(["submit.upload", "submit.order", "submit.cluster", "submit.send"], 1),
    **dict.fromkeys(
        ["session", "remote", "reach", "growth", "ingest.pipeline", "ingest.pool", "ingest.broker", "evaluate"], 2
    ),
    **dict.fromkeys(["seen", "takedown"], 1),
    **dict.fromkeys(["doctor.checks"], 1),
    **dict.fromkeys(["doctor", "doctor.cluster"], 2),
    **dict.fromkeys(
        ["trainers.backend", "trainers.worker", "trainers.failures", "trainers.launch", "trainers.preflight"], 2
    ),
    **dict.fromkeys(
        [
            "",
            "api",
            "data_api",
            "planning",
            "cli",
            "verbs",
            "model_verbs",
            "data_verbs",
            "cluster_verbs",
            "console",
            "__main__",
        ],
        3,
    ),
    **dict.fromkeys(
        [
            "trainers.backend",
            "trainers.worker",
            "trainers.failures",
            "trainers.launch",
            "trainers.preflight",
            "trainers.stream",
        ],
        2,
    ),
    **dict.fromkeys(["", "api", "data_api", "planning", "cli", "verbs", "console", "__main__"], 3),
}
"""Ring of every module, by its name below `startup_ray`."""

FORBIDDEN = {
    0: {"ray", "tensorflow", "keras", "aiohttp", "sklearn", "pandas", "PIL", "duckdb", "matplotlib", "jinja2"},
    1: {"ray"},
    2: set[str](),
    3: {"ray", "tensorflow", "keras", "aiohttp", "sklearn", "pandas"},
}
"""Libraries that a ring's modules never import, not even inside a function."""

HEAVY = ["aiohttp", "ray", "tensorflow", "keras", "sklearn", "pandas"]


def _modules() -> list[tuple[str, Path]]:
    paths = sorted(PACKAGE.rglob("*.py"))
    return [
        (".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip("."), path)
        for path in paths
    ]


def _imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every module that a file imports, and whether it does so only for a type checker."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            yield name, id(node) in typing_only


@pytest.mark.parametrize(("name", "path"), _modules())
def test_imports_point_downward_only(name: str, path: Path) -> None:
    ring = RINGS[name]
    for imported, typing_only in _imports(path):
        package, _, below = imported.partition(".")
        if package == "startup_ray" and below in RINGS and below and not typing_only:
            assert RINGS[below] <= ring, f"{name} (ring {ring}) imports {below} (ring {RINGS[below]})"
        assert package not in FORBIDDEN[ring], f"{name} (ring {ring}) imports {imported}"


def test_every_module_has_a_ring_and_every_ring_entry_a_module() -> None:
    assert set(RINGS) == {name for name, _ in _modules()}


LIGHT = [
    (["--help"], 0),
    (["--version"], 0),
    (["run", "--help"], 0),
    (["schema"], 0),
    (["run", "none.yaml"], 2),
    (["run", "jobs/digits-cnn.yaml", "--set", "training.epoch=1"], 2),
    (["train", "jobs/digits-cnn.yaml", "--set", "storage=/proc/none"], 2),
    (["report", "/proc/none"], 2),
    (["export", "/proc/none"], 2),
    (["predict", "/proc/none", "photos"], 2),
    (["forget", "1", "--storage", "/proc/none"], 2),
    (["run", "jobs/digits-cnn.yaml", "--dry-run", "--set", "storage=/proc/none"], 0),
    (["submit", "jobs/digits-cnn.yaml", "--dry-run", "--set", "storage=/proc/none"], 0),
    (["submit", "jobs/gpu-cnn.yaml", "--kuberay", "--image", "x"], 0),
    (["jobs", "--address", "http://127.0.0.1:9"], 5),
]
"""Commands that need no stage, each with its exit code."""


def test_what_needs_no_stage_imports_nothing_heavy() -> None:
    """One after the other in one interpreter, so that the first that does is told."""
    script = (
        "import json, sys\nfrom startup_ray.cli import main\n"
        "for args in json.loads(sys.argv[1]):\n"
        "    try: code = main(args)\n"
        "    except SystemExit as stop: code = stop.code\n"
        f"    found = [name for name in {HEAVY} if name in sys.modules]\n"
        "    sys.stderr.write('\\nseen ' + json.dumps([args, code, found]) + '\\n')\n"
    )
    words = [sys.executable, "-c", script, json.dumps([args for args, _ in LIGHT])]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=ROOT, check=True)
    seen = [json.loads(line.removeprefix("seen ")) for line in done.stderr.splitlines() if line.startswith("seen ")]
    assert seen == [[args, code, []] for args, code in LIGHT]


def test_help_answers_at_once() -> None:
    script = "import resource,sys\nfrom startup_ray.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    script += "used = resource.getrusage(resource.RUSAGE_SELF)\nsys.stderr.write(str(used.ru_utime + used.ru_stime))"
    runs = [
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True) for _ in range(3)
    ]
    assert min(float(done.stderr) for done in runs) < 0.3
