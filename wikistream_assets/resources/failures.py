"""What engines say in pages of stack trace, in one line: the failures that a person can mend, recognized in one place.

Belongs here: what Spark's, PyIceberg's and DuckDB's texts mean. Everything else stays as it was raised.
"""

from collections.abc import Callable
from functools import wraps
from typing import Final, ParamSpec, TypeVar

from wikistream_assets.exceptions import ClockBehindError, LakeError, WikistreamError
from wikistream_assets.resources.lakehouse import REMEDY, named_file

_GONE: Final = ("NotFoundException", "FileNotFoundException", "No such file or directory", "No files found that match")

_CLOCK: Final = ("Invalid snapshot timestamp", "Invalid update timestamp")
"""What Iceberg's Java says when it refuses a commit for the clock. PyIceberg's commits are refused by the lakehouse itself."""

_UNSORTED: Final = "Expected sorted snapshot log entries"

_P = ParamSpec("_P")
_R = TypeVar("_R")


def explained(error: Exception) -> WikistreamError | None:
    """The one line for a failure that is recognized: a file of the lake is gone, or the clock is behind; None for any other."""
    text = f"{type(error).__name__}: {error}"
    if any(words in text for words in _CLOCK):
        return ClockBehindError(
            "the clock is behind the newest commit of a table, so nothing can be committed: set it right, or wait until it has "
            "passed that; 'wikistream health' tells by how much"
        )
    if _UNSORTED in text:
        return LakeError(
            f"the clock was set back while an earlier version wrote a table, which is not readable since: {REMEDY}"
        )
    file = named_file(error)
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
