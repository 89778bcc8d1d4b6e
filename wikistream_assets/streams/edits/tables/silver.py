"""Contracts of the Silver layer: cleaned, classified, one row per event; and the quarantine of what breaks a row rule."""

from wikistream_assets.streams.edits.rules.silver import CLEANED_EVENTS_RULES, cleaned_events_rules_of
from wikistream_assets.tables.spec import TableSpec, columns

_EVENT_COLUMNS = columns(
    ("event_id", "string", "meta.id, the event's UUID; unique in the table"),
    ("rc_id", "long", "id in MediaWiki's recentchanges table; null for some log events"),
    ("event_type", "string", "edit, new, log, categorize, external, or other for a numeric type", "drift"),
    ("domain", "string", "the wiki's domain, e.g. en.wikipedia.org", "hourly"),
    (
        "region",
        "string",
        "americas, asia_pacific, europe, middle_east or other; one per domain (criteria: regions); partition",
        "criteria",
        "hourly",
    ),
    ("language", "string", "ISO 639 code of the edition's language; mul for multilingual projects", "hourly"),
    ("title", "string", "full page title without control and bidirectional characters, on one line", "personal"),
    ("namespace", "int", "MediaWiki namespace of the page; 0 is articles"),
    (
        "user_normalized",
        "string",
        "user name without control and zero-width characters, on one line; masked user- or ip-<hash>",
        "personal",
    ),
    ("user_kind", "string", "bot, registered, temporary, ip4 or ip6", "drift"),
    ("is_bot", "boolean", "the edit's bot flag"),
    ("is_anonymous", "boolean", "user_kind is temporary, ip4 or ip6"),
    ("length_old", "int", "page size before the change, bytes; 0 for new pages"),
    ("length_new", "int", "page size after the change, bytes"),
    ("length_delta", "int", "length_new - length_old, bytes; null for non-edits", "drift"),
    ("revision_old", "long", "revision before the change"),
    ("revision_new", "long", "revision made by the change"),
    ("is_valid", "boolean", "event_id, domain, event_timestamp and user are all present"),
    ("is_large_deletion", "boolean", "removes more than 5000 bytes (criteria: sizes)", "criteria"),
    ("is_large_addition", "boolean", "adds more than 50000 bytes (criteria: sizes)", "criteria"),
    ("event_timestamp", "timestamp", "when the change happened"),
    ("bronze_processed_at", "timestamp", "when Bronze wrote the event", "incidental"),
    ("silver_processed_at", "timestamp", "when Silver wrote the event", "incidental"),
    ("event_date", "string", "UTC date of event_timestamp, yyyy-MM-dd; partition"),
    ("schema_version", "string", "the event's own $schema"),
)

CLEANED_EVENTS = TableSpec(
    namespace="silver",
    name="cleaned_events",
    description="One row per event, cleaned and classified. Append-only; only rows that passed the Silver gate are on main.",
    columns=_EVENT_COLUMNS,
    partition_by=("event_date", "region"),
    key=("event_id",),
    upstream=("bronze.raw_events",),
    rules=CLEANED_EVENTS_RULES,
    rules_of=cleaned_events_rules_of,
    profiled=("event_type", "region", "language", "namespace", "user_kind", "is_anonymous", "length_delta"),
)

QUARANTINE = TableSpec(
    namespace="quarantine",
    name="cleaned_events",
    description="One row per event that broke a row-level rule or was rejected by an operator; it never reaches Silver.",
    columns=_EVENT_COLUMNS
    + columns(
        ("failed_rules", "string", "comma-separated row rules the event broke, or rejected:<decision>"),
        ("quarantine_processed_at", "timestamp", "when the event was quarantined", "incidental"),
    ),
    partition_by=("event_date",),
    key=("event_id",),
    upstream=("bronze.raw_events",),
)
