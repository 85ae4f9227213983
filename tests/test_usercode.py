from __future__ import annotations

from pathlib import Path

import pytest

from startup_ray.errors import UsageError
from startup_ray.usercode import Code, locate

SOURCE = "def build(image_shape, num_classes):\n    return 3\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pack_of_usercode").mkdir()
    (tmp_path / "pack_of_usercode" / "__init__.py").write_text("raise RuntimeError('never imported for a digest')\n")
    (tmp_path / "pack_of_usercode" / "net.py").write_text(SOURCE)
    return tmp_path


def test_the_digest_sees_code_and_neither_comments_nor_layout(folder: Path) -> None:
    code = Code("pack_of_usercode.net:build", str(folder))
    before = code.digest()
    assert len(before) == 64
    path = folder / "pack_of_usercode" / "net.py"
    path.write_text("# a comment\n" + SOURCE.replace("    return", "\n    return"))
    assert code.digest() == before
    path.write_text(SOURCE.replace("3", "4"))
    assert code.digest() != before


@pytest.mark.parametrize("module", ["no_such_module_here", "pack_of_usercode.other"])
def test_a_module_that_cannot_be_found_is_told(folder: Path, module: str) -> None:
    with pytest.raises(UsageError, match=f"no module {module}") as caught:
        Code(f"{module}:build", str(folder)).digest()
    assert str(folder) in caught.value.hint


def test_a_module_that_cannot_be_read_has_no_digest(folder: Path) -> None:
    (folder / "pack_of_usercode" / "net.py").write_text("def (")
    assert Code("pack_of_usercode.net:build", str(folder)).digest() == ""


def test_a_function_is_imported_from_the_folder(tmp_path: Path) -> None:
    (tmp_path / "net_of_usercode.py").write_text(SOURCE)
    assert Code("net_of_usercode:build", str(tmp_path)).load()(None, None) == 3


def test_what_cannot_be_imported_says_why_and_where_it_is_looked_for(folder: Path) -> None:
    with pytest.raises(UsageError, match="RuntimeError: never imported") as caught:
        Code("pack_of_usercode.net:build", str(folder)).load()
    assert str(folder) in caught.value.hint
    with pytest.raises(UsageError, match="has no such function"):
        Code("json:nothing", str(folder)).load()


def test_a_model_is_looked_for_where_the_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate("a.b:c") == Code("a.b:c", str(tmp_path))
    assert locate("a.b:c").module == "a.b"
