from wikistream_assets.quality.rule import Rule

HOURLY_STATS_RULES: tuple[Rule, ...] = ()
RISK_SCORES_RULES: tuple[Rule, ...] = ()
ENTITY_TRENDS_RULES: tuple[Rule, ...] = ()
DAILY_ANALYTICS_SUMMARY_RULES: tuple[Rule, ...] = ()
