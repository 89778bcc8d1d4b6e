"""What engines say in pages of stack trace, in one line: the failures that a person can fix, recognized in one place.

Belongs here: what Spark's, PyIceberg's and DuckDB's texts mean. Everything else stays as it was raised.
"""

from collections.abc import Callable
from functools import wraps
from typing import Final, ParamSpec, TypeVar

from wikistream_assets.exceptions import ClockBehindError, LakeError, WikistreamError
from wikistream_assets.lake.lakehouse import REMEDY, named_file

_GONE: Final = ("NotFoundException", "FileNotFoundException", "No such file or directory", "No files found that match")

_CLOCK: Final = ("Invalid snapshot timestamp", "Invalid update timestamp", "[BUG] Expected sorted")
"""What Iceberg's Java says when a commit's time is too far before the last one's; PyIceberg's the lakehouse refuses."""

_READING: Final = "TableMetadataParser"
"""In the stack trace where Java said so while it read: then an earlier commit has made the table unreadable."""

_P = ParamSpec("_P")
_R = TypeVar("_R")


def explained(error: Exception) -> WikistreamError | None:
    """The one line for a failure that is recognized: a file of the lake is gone, or the clock is behind; None for any other."""
    # PySpark keeps Java's stack trace apart from the text of the errors that it knows
    text = f"{type(error).__name__}: {error}\n{getattr(error, 'stackTrace', '')}"
    if any(words in text for words in _CLOCK):
        if _READING in text:
            return LakeError(f"a table was written while the clock was set back, and is not readable since: {REMEDY}")
        return ClockBehindError(
            "the clock is behind the newest commit of a table, so nothing can be committed: set it right, or wait until it has "
            "passed that; 'wikistream health' tells by how much"
        )
    file = named_file(text)
    if any(words in text for words in _GONE) and file.startswith("/"):
        return LakeError(f"{file} is missing from the lake: {REMEDY}")
    return None


def in_one_line(job: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a job raise the failures that are recognized in one line; its other errors stay as they are."""

    @wraps(job)
    def run(*arguments: _P.args, **keywords: _P.kwargs) -> _R:
        try:
            return job(*arguments, **keywords)
        except WikistreamError:
            raise
        except Exception as error:
            told = explained(error)
            if told is None:
                raise
            raise told from error

    return run
