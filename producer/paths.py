"""Paths as people write them, in settings, options and make variables."""

import sys
from contextlib import suppress
from pathlib import Path


def absolute(path: Path | str) -> Path:
    """Return the absolute path, links resolved; ``~`` and ``~name`` are home folders, unless nobody has that name."""
    written = Path(path)
    with suppress(RuntimeError):  # no such user: then it is a file's name that happens to begin with '~'
        written = written.expanduser()
    with suppress(RuntimeError):  # a loop of links: whoever opens it is told so
        return written.resolve()
    return written.absolute()


def fault_in(path: Path) -> str | None:
    """Return why the pipeline's programs could not be given this path, in a few words; None if they can."""
    text = str(path)
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        return "contains a control character (a line break or a tab, for example)"
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes that are not UTF-8 become lone surrogates
        return "is not UTF-8"
    if not text.isascii() and sys.getfilesystemencoding() != "utf-8":
        return f"is not ASCII, and this locale's file names are {sys.getfilesystemencoding()} (LC_ALL=C.UTF-8 changes that)"
    return None
