"""Commands as a user types them, each a process of its own with its own home."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


class Desk:
    """A folder in which commands run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {**os.environ, "HOME": str(folder), "STARTUP_RAY_CACHE": str(folder / "cache")}
        self.env.pop("RAY_ADDRESS", None)

    def start(self, *args: str, **more: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "startup_ray", *args],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **more,
        )

    def run(self, *args: str, timeout_s: float = 280) -> tuple[int, dict[str, Any], str]:
        """Exit code, the document on stdout, the text on stderr."""
        with self.start(*args, "--json") as process:
            out, err = process.communicate(timeout=timeout_s)
        return process.returncode, json.loads(out), err
