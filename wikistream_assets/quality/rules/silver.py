from wikistream_assets.quality.rule import Rule

CLEANED_EVENTS_RULES: tuple[Rule, ...] = ()
