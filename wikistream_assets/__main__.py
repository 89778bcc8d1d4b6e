"""``python -m wikistream_assets``: the command ``wikistream``, for whoever starts it without a PATH."""

from wikistream_assets.cli.main import main

main()
