"""The module that a user's own model comes from: where it is, what it says, and importing it.

    code = locate("nets.small:build")       # Code(build=..., folder="/home/me/project")
    code.digest()                           # of the module's source, comments and layout left out
    function = code.load()                  # imports it; in the process that builds the model

A module is looked for in the folder in which the command runs, then where Python looks.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import os
import sys
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from startup_ray.errors import UsageError, first_line

WHERE = "model.build"


@dataclass(frozen=True)
class Code:
    """`package.module:function`, and the folder to import it from first."""

    build: str
    folder: str

    @property
    def module(self) -> str:
        return self.build.partition(":")[0]

    @property
    def _looked_for(self) -> str:
        return f"it is looked for in {self.folder}, then where Python looks"

    def digest(self) -> str:
        """sha256 hex of the syntax tree of the module's source; empty if it has none that can be read.

        Other modules that it imports do not count.

        Raises:
            UsageError: there is no such module.
        """
        path = _source(self.module, [self.folder, *sys.path])
        if path is None:
            raise UsageError(f"no module {self.module}", where=WHERE, hint=self._looked_for)
        try:
            tree = ast.parse(path.read_text("utf-8"))
        except (OSError, SyntaxError, ValueError):
            return ""
        return hashlib.sha256(ast.dump(tree).encode()).hexdigest()

    def load(self) -> Any:
        """Import the module and return the function.

        Raises:
            UsageError: it is not there, fails when it is imported, or has no such function.
        """
        if self.folder not in sys.path:
            sys.path.insert(0, self.folder)
        try:
            module = importlib.import_module(self.module)
        except Exception as error:
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise UsageError(f"{self.module}: {reason}", where=WHERE, hint=self._looked_for) from error
        function = getattr(module, self.build.partition(":")[2], None)
        if not callable(function):
            raise UsageError(f"{self.build}: the module has no such function", where=WHERE)
        return function


def locate(build: str) -> Code:
    """A user's model as this process would import it."""
    return Code(build, os.getcwd())


def _source(module: str, folders: list[str]) -> Path | None:
    """File of a module, without importing its packages."""
    spec = None
    for name in module.split("."):
        spec = PathFinder.find_spec(name, folders)
        if spec is None:
            return None
        folders = list(spec.submodule_search_locations or [])
    return Path(spec.origin) if spec and spec.origin else None
