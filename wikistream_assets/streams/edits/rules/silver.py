"""Rules of the Silver gate: is the cleaned, classified event right, once, and like yesterday's?

Row rules run here on rows that passed the quarantine split; a breach means that the transform and its contract disagree.
"The captures" are six public recordings of the stream (2014 to 2021; 92,834 distinct events).
"""

from typing import Final

from producer.wikis import REGIONS
from wikistream_assets.quality.criteria import DEFAULT_CRITERIA, Criteria, Regions, Sizes
from wikistream_assets.quality.rule import Basis, Computed, Dimension, Holds, Rule, Severity
from wikistream_assets.quality.shapes import (
    DRIFT_CATEGORIES,
    DRIFT_NULL_RATE,
    DRIFT_NUMERIC,
    MIX_AS_USUAL,
    NO_MISSING_HOURS,
    QUARANTINE_BUDGET_DAY,
    QUARANTINE_BUDGET_RANGE,
    VOLUME_AS_USUAL,
    computed,
    event_date_valid,
    every,
    mostly_present,
    not_null,
    sql_list,
    unique,
)

PARITY_BRONZE_SILVER: Final = "parity_bronze_silver"

EVENT_TYPES: Final = ("edit", "new", "log", "categorize", "external", "other")
USER_KINDS: Final = ("bot", "registered", "temporary", "ip4", "ip6")

# Deliberately not the expressions that the transform uses: an accuracy check that repeats the code under test can never fail.
# The method differs, the language does not (streams/edits/users.py): there regular expressions, here a name is taken apart
# into its groups. One list of names holds both, and Python's ipaddress module judges them.
_DIGITS = "'0123456789'"
_HEXADECIMAL = "'0123456789ABCDEF'"


def _is_ip4(name: str) -> str:
    # What is left without digits tells at once that nearly all names are none, and only the rest is split.
    return (
        f"(translate({name}, {_DIGITS}, '') = '...' AND forall(split({name}, '[.]'), octet ->"
        " coalesce(CAST(CAST(octet AS SMALLINT) AS STRING) = octet AND CAST(octet AS SMALLINT) <= 255, false)))"
    )


def _is_ip6(name: str) -> str:
    last = f"substring_index({name}, ':', -1)"
    # An IPv4 address at the end stands for two groups; any other end with a dot in it stays, and is no group.
    groups = f"if({_is_ip4(last)}, concat(left({name}, length({name}) - length({last})), '0:0'), {name})"
    sides = f"split({groups}, '::')"
    count = f"size(filter(split({groups}, ':'), part -> part <> ''))"
    return (
        f"(contains({name}, ':') AND translate(upper({name}), {_HEXADECIMAL}, '') RLIKE '^[:.]+$'"
        f" AND forall(split({groups}, ':'), part ->"
        f" length(part) <= 4 AND translate(upper(part), {_HEXADECIMAL}, '') = '')"
        f" AND NOT contains({groups}, ':::')"
        f" AND forall({sides}, side -> side = '' OR forall(split(side, ':'), part -> part <> ''))"
        f" AND ((size({sides}) = 1 AND {count} = 8) OR (size({sides}) = 2 AND {count} <= 7)))"
    )


_IS_IP4 = _is_ip4("user_normalized")
_IS_IP6 = _is_ip6("user_normalized")
_IS_TEMPORARY = (
    "(startswith(user_normalized, '~') AND forall(split(substring(user_normalized, 2), '-'), part ->"
    f" part <> '' AND translate(part, {_DIGITS}, '') = ''))"
)


def _region_mapping(regions: Regions) -> Rule:
    wikis = " ".join(f"WHEN '{domain}' THEN '{region}'" for domain, region in sorted(regions.by_domain.items()))
    return every(
        "region_mapping",
        Dimension.ACCURACY,
        "region is the one that lists the domain (criteria: regions), other if none does.",
        f"region = CASE domain {wikis} ELSE 'other' END" if wikis else "region = 'other'",
        "decision: one region per domain, or the regions' shares of a day would not add up to 100 %",
        where=f"domain IS NOT NULL AND region IN {sql_list(REGIONS)}",
    )


def _size_flags_consistent(sizes: Sizes) -> Rule:
    return every(
        "size_flags_consistent",
        Dimension.CONSISTENCY,
        "is_large_deletion and is_large_addition say whether length_delta is beyond the bounds (criteria: sizes).",
        f"is_large_deletion = coalesce(length_delta < -{sizes.large_deletion_bytes}, false)"
        f" AND is_large_addition = coalesce(length_delta > {sizes.large_addition_bytes}, false)",
        "bounds of the contract; measured: 60 large deletions and 6 large additions in 48,206 events of two large wikis",
    )


def cleaned_events_rules_of(criteria: Criteria) -> tuple[Rule, ...]:
    """Those of ``CLEANED_EVENTS_RULES`` whose bounds are criteria."""
    return (_region_mapping(criteria.regions), _size_flags_consistent(criteria.sizes))


_FROM_BRONZE = (
    "Bronze's gate and the quarantine let no row without it through; null in 0 of 92,834 events of the captures"
)

_QUARANTINED = (
    "measured: of the captures' 92,834 events 0 go to quarantine (streams/edits/test_real_captures.py), of the default demo's"
    " 22,460 rows 10, whose authors are suppressed"
)

CLEANED_EVENTS_RULES: Final[tuple[Rule, ...]] = (
    not_null("event_id", _FROM_BRONZE),
    not_null("domain", _FROM_BRONZE),
    not_null("event_timestamp", _FROM_BRONZE),
    not_null("region", "decision: every domain has a region, unknown ones are 'other'; it is a partition column"),
    not_null("language", "decision: every domain has a language code, multilingual projects 'mul'"),
    mostly_present(
        "length_delta",
        0.99,
        "log and categorize events have no lengths, so only edit and new count; measured with length_old = 0 for new pages:"
        " present in all 68,341 edit and new events of the captures",
        where="event_type IN ('edit', 'new')",
    ),
    every(
        "region_valid",
        Dimension.VALIDITY,
        f"region is one of {', '.join(REGIONS)}.",
        f"region IN {sql_list(REGIONS)}",
        "decision: the closed set of the followed wikis",
        where="region IS NOT NULL",
    ),
    every(
        "event_type_valid",
        Dimension.VALIDITY,
        f"event_type is one of {', '.join(EVENT_TYPES)}.",
        f"event_type IN {sql_list(EVENT_TYPES)}",
        "decision: numeric types count as other; measured: 5 numeric types in 92,834 events",
    ),
    every(
        "user_kind_valid",
        Dimension.VALIDITY,
        f"user_kind is one of {', '.join(USER_KINDS)}.",
        f"user_kind IN {sql_list(USER_KINDS)}",
        "decision: every user is exactly one of these, so that their shares add up to 100 %",
    ),
    event_date_valid(),
    every(
        "no_control_characters",
        Dimension.VALIDITY,
        "No control characters are left in title and user_normalized.",
        r"NOT coalesce(title RLIKE r'\p{Cc}', false) AND NOT coalesce(user_normalized RLIKE r'\p{Cc}', false)",
        "decision: they break terminals, CSV files and logs further down; the transform removes them",
    ),
    Rule(
        name="is_anonymous_accuracy",
        dimension=Dimension.ACCURACY,
        description="is_anonymous agrees with an independent reading of the user name for at least 99 % of the rows.",
        measure=Holds(
            f"is_anonymous = (NOT is_bot AND ({_IS_TEMPORARY} OR {_IS_IP4} OR {_IS_IP6}))",
            where="user_normalized IS NOT NULL AND is_bot IS NOT NULL",
        ),
        threshold=0.99,
        because="decision: the reading takes names apart instead of repeating the transform's expression, in the same language."
        " It agrees with Python's ipaddress module on all 92,834 users of the captures (7,552 IPv4, 1,709 IPv6); a share, so that"
        " a few names that a later MediaWiki forms otherwise do not close the gate",
        basis=Basis.RATIO,
    ),
    _region_mapping(DEFAULT_CRITERIA.regions),
    every(
        "is_valid_consistent",
        Dimension.CONSISTENCY,
        "is_valid says whether event_id, domain, event_timestamp and user are all present.",
        "is_valid = (event_id IS NOT NULL AND domain IS NOT NULL AND event_timestamp IS NOT NULL"
        " AND user_normalized IS NOT NULL)",
        "decision: the flag is a definition, it holds for every row",
        where="event_id IS NOT NULL AND domain IS NOT NULL AND event_timestamp IS NOT NULL",
    ),
    every(
        "is_anonymous_consistent",
        Dimension.CONSISTENCY,
        "is_anonymous says whether user_kind is temporary, ip4 or ip6.",
        "is_anonymous = (user_kind IN ('temporary', 'ip4', 'ip6'))",
        "decision: the flag is a definition, it holds for every row",
        where=f"user_kind IN {sql_list(USER_KINDS)}",
    ),
    every(
        "is_bot_consistent",
        Dimension.CONSISTENCY,
        "is_bot says whether user_kind is bot.",
        "is_bot = (user_kind = 'bot')",
        "decision: the bot flag takes precedence over what the name looks like; measured: 0 of 9,261 events by IP users carry it",
        where=f"user_kind IN {sql_list(USER_KINDS)}",
    ),
    every(
        "length_delta_consistent",
        Dimension.CONSISTENCY,
        "length_delta is length_new - length_old.",
        "length_delta = length_new - length_old",
        "decision: length_old is 0 for new pages, which restores 1,471,337 of 6,316,957 added bytes of one capture",
        where="length_delta IS NOT NULL",
    ),
    _size_flags_consistent(DEFAULT_CRITERIA.sizes),
    unique(
        "event_id_unique",
        ("event_id",),
        "decision: the first Bronze row of an event_id wins, the table is append-only and holds each event once",
    ),
    computed(
        PARITY_BRONZE_SILVER,
        Dimension.CONSISTENCY,
        "Bronze rows up to the audited tag = Silver rows + quarantined rows, for every hour.",
        "decision: no event is lost or doubled between the layers",
    ),
    computed(
        DRIFT_NULL_RATE,
        Dimension.DRIFT,
        "No profiled column's share of nulls moved by more than 10 points from its 7-day baseline (alert: 20).",
        "bounds of the contract: 10 % warns, 20 % alerts; a warning, because a change of the world is not an error of the data",
        severity=Severity.WARNING,
    ),
    computed(
        DRIFT_CATEGORIES,
        Dimension.DRIFT,
        "The shares of event types and user kinds stay near their 7-day baseline (population stability index, PSI).",
        "bounds 0.25 (warn) and 0.5 (alert), measured: with ten hours behind it no hour of a whole day exceeds 0.16; region and"
        " language follow the sun (up to 0.75 and 1.07 at dawn) and are not judged. A warning, like all drift",
        severity=Severity.WARNING,
    ),
    computed(
        DRIFT_NUMERIC,
        Dimension.DRIFT,
        "Mean, median and 95th percentile of length_delta stay near their 7-day baseline (robust z: median and MAD).",
        "bounds 5 (warn) and 10 (alert), measured: with ten hours behind it no hour of a whole day exceeds 4.4; the scale is"
        " at least a tenth of the interquartile range, or a MAD of 0 would make every change infinite. A warning, like all drift",
        severity=Severity.WARNING,
    ),
    Rule(
        name=QUARANTINE_BUDGET_RANGE,
        dimension=Dimension.ACCURACY,
        description="At most 1 % of a range's rows go to quarantine (WARNING); more than 20 % close the gate.",
        measure=Computed(),
        threshold=0.8,
        warn_below=0.99,
        because=f"{_QUARANTINED}. A small range is judged together with the rows before it, so two bad rows in a quiet minute are"
        " no alarm. A fifth is a large wiki or an event type: losing that in silence is worse than waiting for a decision",
        basis=Basis.RATIO,
    ),
    Rule(
        name=QUARANTINE_BUDGET_DAY,
        dimension=Dimension.ACCURACY,
        description="At most 0.5 % of a day's rows go to quarantine (WARNING); more than 10 % close the gate.",
        measure=Computed(),
        threshold=0.9,
        warn_below=0.995,
        because=f"{_QUARANTINED}. A day has more rows than a range, so half the range's bounds suffice to find what leaks slowly;"
        " days are those of the events",
        basis=Basis.RATIO,
    ),
    computed(
        VOLUME_AS_USUAL,
        Dimension.DRIFT,
        "Each hour and each day has about as many events as the same hours and days before it (robust z: median and MAD).",
        "bound 4 on the scale of twice the square root, where Poisson noise is 1; the unit is at least that noise and a tenth of"
        " the usual volume, so half a day's events are 5.9 units away. Measured: 30 simulated days with the rhythm of day and"
        " week give no alarm. A warning: the world may really have changed",
        severity=Severity.WARNING,
    ),
    computed(
        MIX_AS_USUAL,
        Dimension.DRIFT,
        "No domain, language or region has vanished from an hour or a day, or taken it over.",
        "decision: vanished is less than a tenth of at least 20 expected events; taken over is three times the usual share and at"
        " least a tenth of all. Smaller moves follow the sun and the news. A warning: a wiki may really have closed",
        severity=Severity.WARNING,
    ),
    computed(
        NO_MISSING_HOURS,
        Dimension.COMPLETENESS,
        "No hour without events lies between hours that have some, where this hour usually has events.",
        "decision: ten usual events make an empty hour less likely than 1 in 20,000. A hole of more than 48 hours is an outage,"
        " which the freshness alerts report. A warning: what the source does not have cannot be waited for",
        severity=Severity.WARNING,
    ),
)
