"""Hand-made events of every published version of the stream, for table tests. Users, pages and ids are made up."""

import copy
import json
from typing import Any

ID = "6f1c2d3e-0a1b-4c5d-8e9f-001122334455"

EDIT_2026: dict[str, Any] = {
    "$schema": "/mediawiki/recentchange/1.0.0",
    "meta": {
        "uri": "https://en.wikipedia.org/wiki/Kettle",
        "request_id": "f0e1d2c3-b4a5-4697-8879-6a5b4c3d2e1f",
        "id": ID,
        "domain": "en.wikipedia.org",
        "stream": "mediawiki.recentchange",
        "dt": "2026-03-01T12:00:02.345Z",
        "topic": "codfw.mediawiki.recentchange",
        "partition": 0,
        "offset": 7,
    },
    "id": 2_000_000_001,
    "type": "edit",
    "namespace": 0,
    "title": "Kettle",
    "title_url": "https://en.wikipedia.org/wiki/Kettle",
    "comment": "/* Use */ typo",
    "timestamp": 1_772_366_400,
    "user": "~2026-12345-67",
    "bot": False,
    "notify_url": "https://en.wikipedia.org/w/index.php?diff=2&oldid=1",
    "minor": True,
    "patrolled": False,
    "length": {"old": 100, "new": 112},
    "revision": {"old": 1, "new": 2},
    "server_url": "https://en.wikipedia.org",
    "server_name": "en.wikipedia.org",
    "server_script_path": "/w",
    "wiki": "enwiki",
    "parsedcomment": "typo",
}


def event(*drop: str, **change: Any) -> dict[str, Any]:
    """A copy of the sample. ``drop`` and ``change`` name top-level fields, or with ``meta_`` in front those of ``meta``."""
    copied = copy.deepcopy(EDIT_2026)
    for name in drop:
        target, key = _where(copied, name)
        del target[key]
    for name, value in change.items():
        target, key = _where(copied, name)
        target[key] = value
    return copied


def line(*drop: str, **change: Any) -> str:
    """``event`` as one line of JSON."""
    return json.dumps(event(*drop, **change), ensure_ascii=False)


def _where(document: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
    return (document["meta"], name.removeprefix("meta_")) if name.startswith("meta_") else (document, name)
