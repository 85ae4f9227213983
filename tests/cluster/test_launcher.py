"""The files of cluster/launcher, as `ray up` reads them."""

from __future__ import annotations

import copy
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
LAUNCHER = ROOT / "cluster" / "launcher"
CLOUDS = ["aws", "gcp"]
ALL = [*CLOUDS, "own-machines"]
TOKEN = "~/.config/startup_ray/token"
NOTICES_DEATH = {"initial_delay_ms": 1000, "period_ms": 1000, "timeout_ms": 2000, "failure_threshold": 3}


def read(name: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((LAUNCHER / f"{name}.yaml").read_text())
    return config


def test_there_are_no_others() -> None:
    assert sorted(path.stem for path in LAUNCHER.iterdir()) == sorted(ALL)


@pytest.mark.ray
@pytest.mark.parametrize("name", ALL)
def test_ray_takes_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    monkeypatch.chdir(ROOT)
    config = prepare_config(read(name))
    validate_config(config)
    types = config["available_node_types"]
    assert sum(each["min_workers"] for each in types.values()) <= config["max_workers"]
    with pytest.raises(Exception, match="Additional properties are not allowed"):
        validate_config({**copy.deepcopy(config), "idle_timeout": 5})


def start(name: str, role: str) -> str:
    """The command that starts Ray; the one before it ends what ran."""
    stop, command = read(name)[f"{role}_start_ray_commands"]
    assert re.fullmatch(r"~/startup_ray/(venv/bin/ray stop|local/stop\.sh)", stop)
    return str(command)


@pytest.mark.parametrize("name", CLOUDS)
def test_a_head_takes_no_work_and_is_heard_on_its_loopback_alone(name: str) -> None:
    config = read(name)
    head = config["available_node_types"][config["head_node_type"]]
    assert (head["resources"], head["min_workers"], head["max_workers"]) == ({"CPU": 0}, 0, 0)
    command = start(name, "head")
    assert {"--num-cpus=0", "--dashboard-host=127.0.0.1"} <= set(command.split())
    assert {f"RAY_health_check_{key}={value}" for key, value in NOTICES_DEATH.items()} <= set(
        re.split(r"[ ;]", command)
    )


def test_on_own_machines_the_scripts_see_to_that() -> None:
    config = read("own-machines")
    assert (ROOT / config["file_mounts"]["~/startup_ray/local"]).samefile(ROOT / "cluster" / "local")
    assert "STARTUP_RAY_CPUS=0 STARTUP_RAY_GPUS=0 ~/startup_ray/local/head.sh" in start("own-machines", "head")
    assert start("own-machines", "worker").endswith("~/startup_ray/local/worker.sh $RAY_HEAD_IP")
    assert all((ROOT / "cluster" / "local" / f"{script}.sh").exists() for script in ("head", "worker", "stop", "token"))
    assert len(config["provider"]["worker_ips"]) == config["max_workers"] == config["min_workers"]


@pytest.mark.parametrize("name", ALL)
def test_the_token_is_a_file_of_the_users_and_nothing_else(name: str) -> None:
    assert read(name)["file_mounts"][TOKEN] == TOKEN
    text = (LAUNCHER / f"{name}.yaml").read_text()
    assert "RAY_AUTH_TOKEN=" not in text
    assert not re.search(r"\b[0-9a-f]{32,}\b|AKIA[0-9A-Z]{16}|PRIVATE KEY", text)


@pytest.mark.parametrize("role", ["head", "worker"])
@pytest.mark.parametrize("name", CLOUDS)
def test_without_a_token_nothing_is_started(name: str, role: str, tmp_path: Path) -> None:
    """The commands as a shell runs them, with a `ray` that tells how it was called."""
    (tmp_path / "startup_ray/venv/bin").mkdir(parents=True)
    ray = tmp_path / "startup_ray/venv/bin/ray"
    ray.write_text('#!/bin/sh\necho "$RAY_AUTH_MODE $(cat "$RAY_AUTH_TOKEN_PATH") $*"\n')
    ray.chmod(0o755)
    ask = ["/bin/bash", "-c", f"ulimit() {{ :; }}; {start(name, role)}"]
    env = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "RAY_HEAD_IP": "192.0.2.1"}
    without = subprocess.run(ask, env=env, capture_output=True, text=True, check=False)
    assert (without.returncode, without.stdout) == (1, "")
    token = tmp_path / TOKEN.removeprefix("~/")
    token.parent.mkdir(parents=True)
    token.write_text("0123")
    having = subprocess.run(ask, env=env, capture_output=True, text=True, check=True)
    assert having.stdout.startswith(f"token 0123 start {'--head' if role == 'head' else '--address=192.0.2.1:6379'} ")


@pytest.mark.parametrize("name", CLOUDS)
def test_workers_come_on_demand_or_as_spot_within_limits(name: str) -> None:
    config = read(name)
    types = config["available_node_types"]
    workers = {key: value for key, value in types.items() if key != config["head_node_type"]}
    assert {key: value["resources"].get("GPU", 0) for key, value in workers.items()} == {
        "cpu": 0,
        "gpu": 1,
        "gpu_spot": 1,
    }
    assert all(value["min_workers"] == 0 <= value["max_workers"] for value in workers.values())
    assert config["max_workers"] == sum(value["max_workers"] for value in workers.values())
    assert 0 < config["idle_timeout_minutes"] <= 10
    on_demand, spot = copy.deepcopy(workers["gpu"]), copy.deepcopy(workers["gpu_spot"])
    assert (on_demand.pop("max_workers") > 0, spot.pop("max_workers")) == (True, 0)
    market = {"InstanceMarketOptions", "scheduling"}
    asked = {key: spot["node_config"].pop(key) for key in market & spot["node_config"].keys()}
    assert "spot" in str(asked).lower()
    assert "spot" not in str(on_demand["node_config"]).lower()
    on_demand["node_config"].pop("scheduling", None)
    assert on_demand == spot


@pytest.mark.parametrize("name", ALL)
def test_all_machines_get_the_package_of_the_checkout_with_pinned_versions(name: str) -> None:
    config = read(name)
    assert config["file_mounts"]["~/startup_ray/dist"] == "dist"
    assert config["file_mounts"]["~/startup_ray/constraints.txt"] == "constraints.txt"
    lists = {"head": config["head_setup_commands"], "worker": config["worker_setup_commands"]}
    for key, value in config.get("available_node_types", {}).items():
        lists |= {key: value["worker_setup_commands"]} if "worker_setup_commands" in value else {}
    for commands in lists.values():
        (install,) = (command for command in commands if "uv pip install" in command)
        assert "-c ~/startup_ray/constraints.txt" in install
    gpu = {key for key, commands in lists.items() if "[cluster,gpu]" in " ".join(commands)}
    assert gpu == ({"gpu", "gpu_spot"} if name in CLOUDS else {"worker"})
    # A type's own list stands in the place of the common ones, which make the environment.
    making = [command for command in config["setup_commands"] if "uv venv" in command]
    assert all(making == commands[:1] for key, commands in lists.items() if key.startswith("gpu"))
    for command in [*making, *(each for commands in lists.values() for each in commands)]:
        subprocess.run(["/bin/bash", "-n", "-c", command], check=True)


def test_an_aws_machine_gives_its_role_to_nobody_who_asks_by_the_old_protocol() -> None:
    types = read("aws")["available_node_types"].values()
    machines = [each["node_config"] for each in types]
    assert all(machine["MetadataOptions"]["HttpTokens"] == "required" for machine in machines)
    assert all(machine["SecurityGroupIds"] for machine in machines)  # Ray's own opens SSH to the world
    assert all(disk["Ebs"]["Encrypted"] for machine in machines for disk in machine["BlockDeviceMappings"])
