"""WikiStream: the public Wikimedia edit stream as audited Iceberg tables, on Dagster.

Each room below says what belongs there. Dependencies point one way only, from ``cli`` and ``defs`` down to ``text``; the order
of all rooms stands in ``wikistream_assets_tests/test_rings.py``, which allows no other.
"""
