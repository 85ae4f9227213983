"""The images of cluster/docker, as far as their recipe says: no daemon builds them here."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from startup_ray.submit.kuberay import SCRATCH, STORAGE, USER

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "cluster" / "docker" / "Dockerfile"
TARGETS = ["cpu", "gpu"]

Stage = list[tuple[str, str]]
"""Instructions as (word, rest), continued lines joined."""


def stages(text: str) -> dict[str, Stage]:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    found: dict[str, Stage] = {}
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            _, name = rest.split(" AS ")
            found[name] = []
        found[name].append((word, " ".join(rest.split())))
    return found


def whole(name: str) -> Stage:
    """A stage after those that it stands on."""
    stage = stages(RECIPE.read_text())[name]
    below = stage[0][1].split(" AS ")[0]
    return [*(whole(below) if below in stages(RECIPE.read_text()) else []), *stage]


def words(name: str, word: str) -> list[str]:
    return [rest for each, rest in whole(name) if each == word]


@pytest.mark.parametrize("target", TARGETS)
def test_nobody_is_root(target: str) -> None:
    assert words(target, "USER") == [f"{USER}:{USER}"]
    after = [word for word, _ in whole(target)]
    assert after[after.index("USER") :] == ["USER", "CMD"]
    assert f"--uid {USER}" in words(target, "RUN")[0]
    assert f"/home/ray {STORAGE} {SCRATCH}".split()[1:] == words(target, "RUN")[0].split()[-2:]


@pytest.mark.parametrize("target", TARGETS)
def test_every_version_is_pinned(target: str) -> None:
    (constraints,) = re.findall(r"PIP_CONSTRAINT=(\S+)", " ".join(words(target, "ENV")))
    order = [(word, rest) for word, rest in whole(target) if "pip install" in rest or constraints in rest]
    assert order.index(("COPY", f"constraints.txt {constraints}")) == 1  # after ENV, before any install
    assert len(order) == 4
    pinned = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines() if line}
    named = re.findall(r'pip install "?([a-z]+)(?:\[[^]]*\])?"? "?([a-z]+)', " ".join(words(target, "RUN")))
    assert {name for pair in named for name in pair} == {"ray", "tensorflow"} <= pinned


def test_extras_are_those_that_the_package_has() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = {target: re.findall(r"\.whl\)\[([a-z,]+)\]", " ".join(words(target, "RUN"))) for target in TARGETS}
    assert asked == {"cpu": ["cluster"], "gpu": ["cluster,gpu"]}
    assert {"cluster", "gpu"} <= extras.keys()
    assert extras["gpu"] == ["tensorflow[and-cuda]"]
    assert '"tensorflow[and-cuda]"' in " ".join(words("gpu", "RUN"))


@pytest.mark.parametrize("target", TARGETS)
def test_a_pod_sees_no_gpu_that_it_did_not_ask_for(target: str) -> None:
    assert "NVIDIA_VISIBLE_DEVICES" not in " ".join(words(target, "ENV"))


@pytest.mark.parametrize("target", ["wheel", *TARGETS])
def test_the_base_is_plain_and_nothing_is_fetched_by_hand(target: str) -> None:
    assert words(target, "FROM")[0].startswith("python:3.11-slim-")
    assert not words(target, "ADD")
    assert not re.search(r"curl|wget|https?://|sudo|chmod 777", " ".join(words(target, "RUN")))
    assert not words(target, "ARG")  # a secret given so would stay in the history


def ignored(path: str) -> bool:
    """As Docker reads the ignore file: the last pattern that a path or a folder above it matches decides."""
    parts = path.split("/")
    above = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    verdict = False
    for line in (RECIPE.parent / "Dockerfile.dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if (
            line
            and not line.startswith("#")
            and any(fnmatch(each, pattern) or matches(each, pattern) for each in above)
        ):
            verdict = not line.startswith("!")
    return verdict


def matches(path: str, pattern: str) -> bool:
    return pattern.startswith("**/") and fnmatch(path.rpartition("/")[2], pattern[3:])


def test_what_is_copied_is_there_and_not_ignored() -> None:
    copied = [rest for name in ["wheel", *TARGETS] for rest in words(name, "COPY")]
    sources = {part for rest in copied for part in rest.split()[:-1] if not part.startswith("--")}
    assert sources == {"pyproject.toml", "README.md", "LICENSE", "jobs", "startup_ray", "constraints.txt"}
    assert all((ROOT / source).exists() and not ignored(source) for source in sources)
    assert not ignored("startup_ray/submit/kuberay.py")


@pytest.mark.parametrize(
    "path",
    [".git/config", ".env", "startup_ray/.env", "runs/x", ".venv/bin/python", "token", "tests/__pycache__/x.pyc"],
)
def test_what_is_nobodys_business_stays_out(path: str) -> None:
    assert ignored(path)


def test_the_package_is_built_from_what_the_image_has() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["packages"], *wheel["force-include"], project["project"]["readme"]}
    assert all(not ignored(name) for name in needed | set(project["project"]["license-files"]))
