from wikistream_assets.quality.rule import Rule

RAW_EVENTS_RULES: tuple[Rule, ...] = ()
