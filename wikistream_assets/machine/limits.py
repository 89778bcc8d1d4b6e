"""The operating system's limit of open files, which Spark's and Kafka's jars, segments and sockets count against."""

import resource
import sys
from contextlib import suppress
from typing import Final

from wikistream_assets.exceptions import SetupError

OPEN_FILES: Final = 1024
"""What the largest process needs, with room to spare; supervisord asks for as many."""

_WANTED: Final = 8192


def ensure_open_files() -> int:
    """Raise this process's limit of open files, and so its children's, as far as is allowed and useful; return the limit.

    Raises:
        SetupError: fewer than ``OPEN_FILES`` are allowed.
    """
    if _allowed() < _WANTED:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        enough = hard == resource.RLIM_INFINITY or hard >= _WANTED
        # only root may raise the hard limit
        for wanted in ((_WANTED, hard if enough else _WANTED), (_WANTED if enough else hard, hard)):
            with suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, wanted)
                break
    allowed = _allowed()
    if allowed < OPEN_FILES:
        raise SetupError(
            f"this shell allows {allowed} open files (ulimit -Hn), WikiStream needs {OPEN_FILES}: raise the limit in the shell, "
            "container or service that starts it (ulimit -n 4096 as root, docker run --ulimit nofile=4096, LimitNOFILE=4096)"
        )
    return allowed


def _allowed() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft
