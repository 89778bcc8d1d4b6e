"""The questions that the lake is there to answer, as queries with a name: ``wikistream queries``.

Each reads Gold alone and is run as ``wikistream sql`` would run it. Where a query says "the newest days", it means the last seven
dates up to the newest one in Gold: a lake that stands still keeps its answers.
"""

from dataclasses import dataclass
from typing import Final

CONTENT: Final = "content monitoring"
VANDALISM: Final = "vandalism detection"
REGIONS: Final = "regional analysis"
BOTS: Final = "bot activity"


@dataclass(frozen=True)
class NamedQuery:
    """One question.

    Attributes:
        name: what a person types.
        use_case: one of the four above.
        title: what it shows, in a few words.
        answers: the question, and what to know about the answer.
        sql: one statement, as for ``query.query``.
    """

    name: str
    use_case: str
    title: str
    answers: str
    sql: str


_QUERIES: Final = (
    NamedQuery(
        "edit-velocity",
        CONTENT,
        "events of each hour of the newest day",
        "How fast is the stream, and how much of it is people? One row per UTC hour, over all wikis.",
        """
        select stat_date, stat_hour, sum(total_events)::bigint as events, sum(human_edits)::bigint as human_events,
          sum(bot_edits)::bigint as bot_events, bool_and(is_final) as is_final
        from gold.hourly_stats
        where stat_date = (select max(stat_date) from gold.hourly_stats)
        group by all order by stat_hour
        """,
    ),
    NamedQuery(
        "top-contributors",
        CONTENT,
        "the 20 busiest users of the newest day",
        "Who edits most? Bots are among them; edits_per_hour counts only the hours in which a user was active.",
        """
        select stat_date, rank, entity_id as user_name, edits, edits_per_hour
        from gold.entity_trends
        where entity_type = 'user' and rank <= 20 and stat_date = (select max(stat_date) from gold.entity_trends)
        order by rank
        """,
    ),
    NamedQuery(
        "trending-pages",
        CONTENT,
        "articles that many people suddenly edit, newest days",
        "What is news? Each page's sharpest hour: how many edits by how many people, against how many were expected.",
        """
        select stat_date, trend_rank, entity_id as page, burst_start, burst_edits as edits, burst_editors as people,
          burst_expected as expected, trend_ratio
        from gold.entity_trends
        where trend_rank is not null
          and stat_date >= (select strftime(max(stat_date)::date - 6, '%Y-%m-%d') from gold.entity_trends)
        order by stat_date desc, trend_rank
        """,
    ),
    NamedQuery(
        "suspicious-users",
        VANDALISM,
        "users with MEDIUM or HIGH risk, newest days",
        "Whose edits should be looked at? Rapid edits, large deletions, many wikis; the points are explained in evidence.",
        """
        select stat_date, entity_id as user_name, entity_type as user_kind, risk_level, risk_score, total_edits as edits,
          edits_per_hour_avg as edits_per_hour, large_deletions, domains_edited, evidence
        from gold.risk_scores
        where risk_level in ('MEDIUM', 'HIGH')
          and stat_date >= (select strftime(max(stat_date)::date - 6, '%Y-%m-%d') from gold.risk_scores)
        order by stat_date desc, risk_score desc, total_edits desc, entity_id
        """,
    ),
    NamedQuery(
        "large-deletions",
        VANDALISM,
        "wikis by large deletions, newest days",
        "Where is much text removed? Deletions of more than 5,000 bytes, and how many of 1,000 human events they are.",
        """
        select domain, sum(large_deletions)::bigint as large_deletions, sum(human_edits)::bigint as human_events,
          1000 * sum(large_deletions) / nullif(sum(human_edits), 0) as per_1000_human_events
        from gold.hourly_stats
        where stat_date >= (select strftime(max(stat_date)::date - 6, '%Y-%m-%d') from gold.hourly_stats)
        group by domain having sum(large_deletions) > 0
        order by large_deletions desc, domain
        """,
    ),
    NamedQuery(
        "regions",
        REGIONS,
        "regions compared, newest days",
        "How does activity compare between regions? Shares are of all events in Gold on these days.",
        """
        select region, sum(total_events)::bigint as events, 100 * sum(total_events) / sum(sum(total_events)) over () as share,
          count(distinct domain) as wikis, 100 * sum(bot_edits) / sum(total_events) as bot_percentage,
          100 * sum(anonymous_edits) / sum(total_events) as anonymous_percentage,
          sum(bytes_added - bytes_removed)::bigint as net_bytes
        from gold.hourly_stats
        where stat_date >= (select strftime(max(stat_date)::date - 6, '%Y-%m-%d') from gold.hourly_stats)
        group by region order by events desc, region
        """,
    ),
    NamedQuery(
        "language-editions",
        REGIONS,
        "language editions compared, newest days",
        "How does activity compare between language editions? mul is projects of several languages; NULL is dates that were"
        " computed before Gold had a language: the job 'backfill' recomputes them.",
        """
        select language, sum(total_events)::bigint as events, 100 * sum(total_events) / sum(sum(total_events)) over () as share,
          count(distinct domain) as wikis, 100 * sum(bot_edits) / sum(total_events) as bot_percentage,
          100 * sum(anonymous_edits) / sum(total_events) as anonymous_percentage, sum(type_new)::bigint as new_pages,
          sum(bytes_added - bytes_removed)::bigint as net_bytes
        from gold.hourly_stats
        where stat_date >= (select strftime(max(stat_date)::date - 6, '%Y-%m-%d') from gold.hourly_stats)
        group by language order by events desc, language
        """,
    ),
    NamedQuery(
        "bots",
        BOTS,
        "bots and people by wiki, newest days",
        "How much of each wiki is automated? Counted by the bot flag of each event.",
        """
        select domain, sum(bot_edits)::bigint as bot_events, sum(human_edits)::bigint as human_events,
          100 * sum(bot_edits) / sum(total_events) as bot_percentage
        from gold.hourly_stats
        where stat_date >= (select strftime(max(stat_date)::date - 6, '%Y-%m-%d') from gold.hourly_stats)
        group by domain order by bot_events desc, domain
        """,
    ),
    NamedQuery(
        "bots-by-day",
        BOTS,
        "bots and people by day, newest days",
        "Does the share of bots change? The daily figures, newest day first.",
        """
        select summary_date, total_events as events, bot_percentage, anonymous_percentage, registered_user_percentage, is_final
        from gold.daily_analytics_summary
        where summary_date >= (select strftime(max(summary_date)::date - 6, '%Y-%m-%d') from gold.daily_analytics_summary)
        order by summary_date desc
        """,
    ),
)

NAMED_QUERIES: Final[dict[str, NamedQuery]] = {query.name: query for query in _QUERIES}
"""All of them by name, in the order in which they are shown."""
