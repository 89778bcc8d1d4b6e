"""What a home remembers of its source: everything that the next start needs to go on at the same byte."""

import json
from itertools import islice
from pathlib import Path

import pytest

from producer.eventstreams.generator import Generator
from producer.exceptions import SourceError
from wikistream_assets.embedded.home import open_home
from wikistream_assets.embedded.source import choose_source, chosen_source
from wikistream_assets.exceptions import LakeError
from wikistream_assets.settings import Settings

pytestmark = pytest.mark.local


def test_the_synthetic_stream_of_a_home_stays_the_same(settings: Settings) -> None:
    open_home(settings)
    assert chosen_source(settings) is None
    first = choose_source(settings, "synthetic")
    assert choose_source(settings, "synthetic").source.identity == first.source.identity
    known = chosen_source(settings)
    assert known is not None
    assert (known.spec, known.endless, known.source.identity) == ("synthetic", True, first.source.identity)
    assert known.source.serve == first.source.serve

    live = choose_source(settings.model_copy(update={"contact": "me@example.org"}), "live")
    assert (live.spec, live.source.url) == ("live", settings.stream_url)
    assert choose_source(settings, "synthetic").source.identity == first.source.identity, "it was kept aside"


def test_another_rate_is_another_stream_with_other_events(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    open_home(settings)
    first = choose_source(settings, "synthetic").source.generator
    kept = json.loads((settings.root / "run" / "source.json").read_text())
    kept["synthetic"]["seed"] -= 1  # as if it had been asked for a second earlier
    (settings.root / "run" / "source.json").write_text(json.dumps(kept))
    older = choose_source(settings, "synthetic").source.generator
    faster = choose_source(
        settings.model_copy(update={"synthetic_events_per_second": 80.0}), "synthetic"
    ).source.generator
    assert first is not None
    assert older is not None
    assert faster is not None
    assert (first.events / first.hours, faster.events / faster.hours) == (50 * 3600, 80 * 3600)
    ids = [{line.event_id for line in islice(made.lines(), 500)} - {None} for made in (older, faster)]
    assert not ids[0] & ids[1]


def test_a_capture_is_kept_with_its_absolute_path_and_has_an_end(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_home(settings)
    capture = tmp_path / "some.jsonl"
    capture.write_bytes(b"\n".join(line.data for line in Generator(events=20, malformed=0).lines()) + b"\n")
    monkeypatch.chdir(tmp_path)
    chosen = choose_source(settings, "some.jsonl")
    assert (chosen.spec, chosen.endless) == (str(capture), False)
    with pytest.raises(SourceError, match="gone"):
        choose_source(settings, "gone.jsonl")
    assert chosen_source(settings) == chosen_source(settings)
    known = chosen_source(settings)
    assert known is not None
    assert known.spec == str(capture), "what cannot be used changes nothing"


def test_a_damaged_file_is_named(settings: Settings) -> None:
    (open_home(settings) / "run" / "source.json").write_text("{")
    with pytest.raises(LakeError, match=r"source\.json is damaged: "):
        chosen_source(settings)
