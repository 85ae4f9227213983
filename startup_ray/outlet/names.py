"""Ids and labels, which are data, as names of files and folders that every file system takes.

    file_name("../../x", "png")           # 'x-9cdf6a50100a862e.png'
    folder_names(["cat", "Cat", "CON"])   # ('cat-0', 'Cat-1', 'CON-2')

Laws: a name is one part of a path, neither hidden nor an option of a command; different ids and different labels have
names that differ, also where case does not count.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

MAX_BYTES = 80
"""Of the part of a name that comes from an id or a label; file systems take 255, archives often fewer."""
_NUMBERED = re.compile(r"-\d+$")
# Names of devices on Windows, whatever their case or ending ("Naming Files, Paths, and Namespaces", Microsoft).
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])", re.IGNORECASE)


def file_name(item_id: str, ending: str) -> str:
    """An id's readable part, 64 bits of its sha256, and the ending."""
    return f"{_readable(item_id)}-{hashlib.sha256(item_id.encode()).hexdigest()[:16]}.{ending}"


def folder_names(labels: Sequence[str]) -> tuple[str, ...]:
    """A folder for each class: its own name where that is safe and has no twin, else with the class's index."""
    readable = [_readable(label) for label in labels]
    twins = Counter(_folded(name) for name in readable)
    return tuple(
        name if name == label and twins[_folded(name)] == 1 and _is_free(name) else f"{name}-{index}"
        for index, (name, label) in enumerate(zip(readable, labels, strict=True))
    )


def _is_free(name: str) -> bool:
    """Whether a name needs no number, and could not be taken for one that has."""
    return not _NUMBERED.search(name) and not _DEVICES.fullmatch(name)


def _readable(text: str) -> str:
    """Letters, digits and blanks of any language, with an underscore for everything else."""
    plain = "".join(
        sign if sign in "-_ " or unicodedata.category(sign)[0] in "LMN" else "_"
        for sign in unicodedata.normalize("NFC", text)
    )
    cut = plain.encode()[:MAX_BYTES].decode("utf-8", "ignore")
    return cut.strip(" -_") or "x"  # `datasets` leaves out what begins with two underscores


def _folded(name: str) -> str:
    """Equal for names that some file system takes for one."""
    return unicodedata.normalize("NFKC", name).casefold()
