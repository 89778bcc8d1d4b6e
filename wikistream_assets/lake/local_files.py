"""Files of the lake and their locations, under any name that a folder may have.

A location is ``file://`` and the plain path without percent-encoding, which is what Iceberg's Java library reads and writes.
PyIceberg parses it as a URL, so the path would end at a ``#`` or ``?`` and all tables would share one file.
"""

import logging
import re
from pathlib import Path
from typing import Final

from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.typedef import EMPTY_DICT, Properties

IO_PROPERTY: Final = {"py-io-impl": f"{__name__}.LocalFileIO"}
"""By this property a PyIceberg catalog reads and writes its files with ``LocalFileIO``."""

logging.getLogger("pyiceberg.io").setLevel(logging.WARNING)  # it would tell of this class at each look at a table


class LocalFileIO(PyArrowFileIO):
    """PyIceberg's own, but for how it reads a location."""

    @staticmethod
    def parse_location(location: str, properties: Properties = EMPTY_DICT) -> tuple[str, str, str]:
        """Return scheme, host and path."""
        return "file", "", local_path(location)


def location_of(path: Path) -> str:
    """The Iceberg location of an absolute path."""
    return f"file://{path}"


def local_path(location: str) -> str:
    """The file system path of an Iceberg location."""
    return re.sub(r"^file:(//)?(?=/)", "", location)
