"""Where every measurement is kept: a JSON line of each in ``bench/results/results.jsonl``."""

import json
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

_RESULTS: Final = Path(__file__).parent / "results" / "results.jsonl"


def append(result: dict[str, Any]) -> None:
    """Add a result, with when and by which Python it was measured."""
    _RESULTS.parent.mkdir(exist_ok=True)
    machine = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "python": platform.python_version()}
    with _RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**machine, **result}) + "\n")
