"""Tests mirror the package: wikistream_assets/x/y.py is tested in wikistream_assets_tests/x/test_y.py."""
