"""What differs between local and aws: where Spark runs, which catalog, which broker, who is told."""

from wikistream_assets.embedded.variables import adopt_for_libraries

adopt_for_libraries()  # PyIceberg reads its settings when it is imported, in whatever process that is
