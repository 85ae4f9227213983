from __future__ import annotations

from pathlib import Path

import pytest

from startup_ray.errors import UsageError
from startup_ray.submit.address import Cluster, find_cluster

HERE = "http://127.0.0.1:8265"
AWAY = "http://ray.example.org:8265"


def env(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"HOME": str(tmp_path), **more}


def test_a_token_is_found_where_ray_looks(tmp_path: Path) -> None:
    assert find_cluster(HERE, env=env(tmp_path)).headers() == {}
    home = tmp_path / ".ray" / "auth_token"
    home.parent.mkdir()
    home.write_text("of-the-home\n")
    named = tmp_path / "named"
    named.write_text(" of-a-file ")
    assert find_cluster(HERE, env=env(tmp_path)).token == "of-the-home"
    path = {"RAY_AUTH_TOKEN_PATH": str(named)}
    assert find_cluster(HERE, env=env(tmp_path, **path)).token == "of-a-file"
    assert find_cluster(HERE, env=env(tmp_path, RAY_AUTH_TOKEN="own", **path)).token == "own"
    assert find_cluster(HERE, env=env(tmp_path, RAY_AUTH_TOKEN="own", RAY_AUTH_MODE="disabled")).token == ""


def test_a_token_file_that_is_named_and_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the token: No such file"):
        find_cluster(HERE, env=env(tmp_path, RAY_AUTH_TOKEN_PATH=str(tmp_path / "none")))


@pytest.mark.parametrize("url", [HERE, "http://localhost:8265", "http://[::1]:8265", "https://ray.example.org"])
def test_a_token_goes_over_tls_and_to_this_machine(tmp_path: Path, url: str) -> None:
    cluster = find_cluster(url, env=env(tmp_path, RAY_AUTH_TOKEN="sesame"))
    assert cluster.headers() == {"Authorization": "Bearer sesame"}
    assert "sesame" not in repr(cluster)


@pytest.mark.parametrize(
    "url", [AWAY, "http://10.0.0.1:8265", "http://127.0.0.1.example.org", "http://localhost.example.org"]
)
def test_it_does_not_go_in_clear_over_a_network(tmp_path: Path, url: str) -> None:
    with_token = env(tmp_path, RAY_AUTH_TOKEN="sesame")
    with pytest.raises(UsageError, match="in clear") as caught:
        find_cluster(url, env=with_token)
    assert "sesame" not in str(caught.value)
    assert find_cluster(url, env=with_token, is_insecure=True).token == "sesame"
    assert find_cluster(url, env=env(tmp_path)) == Cluster(url)


def test_the_address_may_come_from_the_environment(tmp_path: Path) -> None:
    both = env(tmp_path, RAY_ADDRESS=HERE, RAY_API_SERVER_ADDRESS="http://127.0.0.1:1/")
    assert find_cluster(None, env=both).url == "http://127.0.0.1:1"
    assert find_cluster(None, env=env(tmp_path, RAY_ADDRESS=HERE)).url == HERE
    with pytest.raises(UsageError, match="which cluster"):
        find_cluster(None, env=env(tmp_path, RAY_ADDRESS="10.0.0.1:6379"))


@pytest.mark.parametrize("url", ["10.0.0.1:6379", "ray://host:10001", "auto", "ftp://host", "http://", "http://host:x"])
def test_what_is_no_jobs_api_is_told(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match="not an address of a Jobs API"):
        find_cluster(url, env=env(tmp_path))


@pytest.mark.parametrize("url", ["https://me:hunter2@host", "https://host/?token=hunter2"])
def test_secrets_in_an_address_are_refused_and_not_shown(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match="no password") as caught:
        find_cluster(url, env=env(tmp_path))
    assert "hunter2" not in str(caught.value)
