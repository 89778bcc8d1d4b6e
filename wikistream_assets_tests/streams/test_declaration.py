"""What every declared stream must agree with itself in."""

import pytest

from wikistream_assets.streams.declaration import Append, Function, Stream
from wikistream_assets.streams.registry import ALL_TABLES, STREAMS, TABLE_BY_IDENTIFIER, stream_of
from wikistream_assets.tables.dq_audit import QUALITY_RESULTS

pytestmark = pytest.mark.unit

of_each_stream = pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)


def test_a_table_has_one_name_and_one_stream() -> None:
    assert len(TABLE_BY_IDENTIFIER) == len(ALL_TABLES)
    for stream in STREAMS.values():
        assert {stream_of(spec).name for spec in stream.tables} == {stream.name}
    with pytest.raises(KeyError):
        stream_of(QUALITY_RESULTS)


@of_each_stream
def test_tables_that_name_people_have_a_mask_and_no_others(stream: Stream) -> None:
    assert set(stream.masks) == {spec for spec in stream.tables if spec.having("personal")}
    for spec, mask in stream.masks.items():
        assert mask.told_by is None or list(stream.tables).index(mask.told_by) < list(stream.tables).index(spec)


@of_each_stream
def test_what_a_stream_names_is_a_rule_or_a_column_of_its_tables(stream: Stream) -> None:
    raw_rules = {rule.name for rule in stream.raw.rules}
    assert {stream.ingest.parity, *stream.ingest.on_nothing} <= raw_rules
    for publication in stream.publications:
        if isinstance(publication.build, Append):
            leader, aside = publication.tables
            assert publication.build.parity in {rule.name for rule in leader.rules}
            assert publication.build.set_aside in aside.column_names
            checks = {check for names in publication.build.accepted_with.values() for check in names}
            assert checks <= {rule.name for rule in publication.upstream.rules}


@of_each_stream
def test_publications_follow_from_one_another(stream: Stream) -> None:
    known = {stream.raw}
    for publication in stream.publications:
        assert publication.upstream in known
        assert stream.publication(publication.layer) is publication
        assert all(stream.publication_of(spec) is publication for spec in publication.tables)
        known.add(publication.leader)


@of_each_stream
def test_the_functions_that_a_stream_names_exist(stream: Stream) -> None:
    parts = (stream.ingest, *(publication.build for publication in stream.publications), *stream.masks.values())
    named = [value for part in parts for value in vars(part).values() if isinstance(value, Function)]
    assert named
    assert all(callable(function.loaded) for function in named)
