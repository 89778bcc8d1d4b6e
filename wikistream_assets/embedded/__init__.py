"""The embedded default: Java, jars, the broker and its supervision on one machine, all under WIKISTREAM_HOME."""
