from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest

import startup_ray
from startup_ray.errors import UsageError
from startup_ray.submit.upload import chosen, packed, with_package


def tree(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return root


def names(root: Path) -> list[str]:
    return [file.name for file in chosen(root)]


def test_what_must_not_leave_stays(tmp_path: Path) -> None:
    secrets = [
        ".env",
        ".env.local",
        "prod.env",
        ".ssh/id_rsa",
        "deep/id_ed25519.pub",
        "tls.key",
        "a/cert.pem",
        ".netrc",
    ]
    secrets += [
        ".aws/credentials",
        "auth_token",
        "my.token",
        "credentials.json",
        "service-account-1.json",
        ".kube/config",
    ]
    waste = [".git/config", ".venv/bin/python", "a/__pycache__/x.pyc", "node_modules/x/y.js", "train.tfrecord"]
    tree(
        tmp_path, *secrets, *waste, "job.yaml", "nets/small.py", "env.py", "tokens.py", "keyboard.py", "credentials.py"
    )
    assert names(tmp_path) == ["credentials.py", "env.py", "job.yaml", "keyboard.py", "nets/small.py", "tokens.py"]


def test_ignore_files_count_in_each_folder_for_what_is_below(tmp_path: Path) -> None:
    tree(tmp_path, "a.log", "keep.log", "runs/x", "src/runs/y", "src/big.bin", "src/z.py", "big.bin")
    (tmp_path / ".gitignore").write_text("*.log\n!keep.log\n/runs/\n")
    (tmp_path / "src" / ".rayignore").write_text("big.bin\n")
    assert names(tmp_path) == [".gitignore", "big.bin", "keep.log", "src/.rayignore", "src/runs/y", "src/z.py"]


def test_datasets_stay_on_their_storage(tmp_path: Path) -> None:
    tree(
        tmp_path,
        "runs/datasets/pets-1/dataset.json",
        "runs/datasets/pets-1/ledger/0",
        "runs/datasets/pets-1/images/0",
        "x",
    )
    assert names(tmp_path) == ["x"]


def test_links_do_not_lead_out(tmp_path: Path) -> None:
    outside, root = tree(tmp_path / "outside", "secret"), tree(tmp_path / "root", "a", "sub/b")
    os.symlink(outside / "secret", root / "out")
    os.symlink(outside, root / "folder")
    os.symlink(root / "sub", root / "loop")
    os.symlink(root / "a", root / "in")
    assert names(root) == ["a", "in", "sub/b"]


def test_too_much_is_told_with_the_largest(tmp_path: Path) -> None:
    tree(tmp_path, "small")
    (tmp_path / "large.bin").write_bytes(bytes(3_000_000))
    with pytest.raises(UsageError, match=r"3.0 MB would be uploaded, the limit is 1.0 MB") as caught:
        chosen(tmp_path, max_bytes=1_000_000)
    assert "large.bin (3.0 MB)" in caught.value.hint


def test_the_same_files_are_the_same_package(tmp_path: Path) -> None:
    one, other = tree(tmp_path / "one", "a", "b/c"), tree(tmp_path / "other", "b/c", "a")
    os.utime(other / "a", (1, 1))
    assert packed(chosen(one)) == packed(chosen(other))
    (other / "a").chmod(0o755)
    assert packed(chosen(one))[0] != packed(chosen(other))[0]
    (one / "a").write_text("another")
    assert packed(chosen(one))[0] != packed(chosen(other))[0]


def test_the_zip_holds_the_files_and_their_modes(tmp_path: Path) -> None:
    root = tree(tmp_path, "a", "b/c")
    (root / "a").chmod(0o755)
    name, data = packed(chosen(root))
    assert name.startswith("_ray_pkg_")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert {info.filename: info.external_attr >> 16 for info in archive.infolist()} == {"a": 0o755, "b/c": 0o644}
        assert archive.read("b/c") == b"b/c"


def test_the_package_comes_along_whole_unless_it_is_there(tmp_path: Path) -> None:
    package = Path(startup_ray.__file__).parent
    found = [file.name for file in with_package(chosen(tree(tmp_path, "job.yaml")), package)]
    sources = {f"startup_ray/{path.relative_to(package).as_posix()}" for path in package.rglob("*.py")}
    assert sources <= {*found}
    assert "startup_ray/report/templates/style.css" in found
    own = chosen(tree(tmp_path / "checkout", "startup_ray/__init__.py", "job.yaml"))
    assert with_package(own, package) == own
