"""A page as a test sees it."""

from __future__ import annotations

import re
from html.parser import HTMLParser


class Tags(HTMLParser):
    """Every element of a page with its attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.pieces: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def words(self) -> str:
        """Its text on one line, elements apart from each other."""
        return re.sub(r"\s+", " ", " ".join(self.pieces))

    @property
    def sections(self) -> list[str]:
        """Names of the sections of the first run, in order."""
        ids = [given.get("id", "") for tag, given in self.found if tag == "section"]
        return [name.removeprefix("r0-") for name in ids if name.startswith("r0-")]
