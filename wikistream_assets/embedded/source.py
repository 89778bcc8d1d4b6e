"""Which source this home's pipeline reads, kept in the home: the next start goes on exactly where this one was.

The synthetic source runs in the time of the clock from the moment it was first asked for. Its start, rate and seed are written
down, because every byte of it follows from them; another rate is another stream. Its seed is that moment, in seconds: no two
streams of a home have an event in common.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from producer.eventstreams.generator import Generator
from producer.launch import Source, capture_path, source_from
from wikistream_assets.exceptions import LakeError
from wikistream_assets.machine.files import replace_whole
from wikistream_assets.settings import Settings

SOURCE_FILE: Final = "run/source.json"
"""Where it stands, from the home on."""

DEMO_EVENTS: Final = 50_000
"""How many events the demo's synthetic source has; another number is another stream."""

_SYNTHETIC: Final = "synthetic"


@dataclass(frozen=True)
class PipelineSource:
    """What ``SOURCE`` was, and what came of it.

    Attributes:
        spec: synthetic, live, or the absolute path of a capture.
        source: for the source's server and the producer.
    """

    spec: str
    source: Source

    @property
    def endless(self) -> bool:
        """A capture has an end; a producer that has read it is done."""
        return self.source.mode != "replay"


def choose_source(settings: Settings, spec: str) -> PipelineSource:
    """Understand ``SOURCE`` and remember it in the home, which must be open.

    Args:
        settings: the home, and the rate of the synthetic source.
        spec: synthetic, live, or the path of a capture, which is read to its end to see that it is sound.

    Raises:
        ProducerError: a capture that cannot be used, a live stream without a contact (the producer's errors).
        LakeError: what an earlier start wrote down cannot be read.
    """
    known = _read(settings) or {}
    synthetic = known.get(_SYNTHETIC)
    generator = None
    if spec == _SYNTHETIC:
        if synthetic is None or synthetic["events_per_second"] != settings.synthetic_events_per_second:
            synthetic = _new_stream(settings)
        generator = Generator.lasting(
            datetime.fromisoformat(synthetic["start"]), synthetic["events_per_second"], synthetic["seed"]
        )
    source = source_from(spec, settings, generator)
    chosen = spec if spec in (_SYNTHETIC, "live") else str(capture_path(spec))
    document = {
        "spec": chosen,
        "source": {"identity": source.identity, "mode": source.mode, "url": source.url, "serve": source.serve},
        _SYNTHETIC: synthetic,
    }
    replace_whole(_path(settings), json.dumps(document, indent=1).encode())
    return PipelineSource(chosen, source)


def chosen_source(settings: Settings) -> PipelineSource | None:
    """What the last start of the pipeline chose; None if this home never had one.

    Raises:
        LakeError: it cannot be read.
    """
    document = _read(settings)
    if document is None:
        return None
    kept = document["source"]
    return PipelineSource(document["spec"], Source(**{**kept, "serve": tuple(kept["serve"])}))


def demo_source(settings: Settings, events: int | None = None) -> Source:
    """The synthetic source that has an end, for a home that is only to be looked at; the pipeline's has none."""
    return source_from(_SYNTHETIC, settings, Generator(events=events or DEMO_EVENTS))


def _new_stream(settings: Settings) -> dict[str, Any]:
    start = datetime.now(UTC).replace(microsecond=0)
    return {
        "start": start.isoformat(),
        "events_per_second": settings.synthetic_events_per_second,
        "seed": int(start.timestamp()),
    }


def _path(settings: Settings) -> Path:
    return settings.root / SOURCE_FILE


def _read(settings: Settings) -> dict[str, Any] | None:
    path = _path(settings)
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        raise LakeError(
            f"{path} is damaged: restore it from a backup, or remove it (a new synthetic stream then begins)"
        ) from None
    return document
