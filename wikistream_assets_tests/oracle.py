"""What the tables must hold, recomputed from the events themselves in plain Python, one event after the other.

Written from the contracts' words, with other means than the code under test: ``ipaddress`` instead of regular expressions,
``unicodedata`` instead of character classes, loops and sets instead of Spark. The transforms' tests compare DataFrames with it,
the end-to-end tests compare what PyIceberg reads.

Rows are dicts with the columns that follow from the events; the clocks, Kafka's places and the run's own columns are left out
(``COLUMNS_OF_THE_RUN``). Timestamps are aware datetimes in UTC. ``evidence`` is the parsed JSON.
"""

import gzip
import hashlib
import hmac
import ipaddress
import json
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Event = dict[str, Any]

COLUMNS_OF_THE_RUN = frozenset(
    {
        "kafka_topic",
        "kafka_partition",
        "kafka_offset",
        "kafka_timestamp",
        "producer_ingested_at",
        "bronze_processed_at",
        "silver_processed_at",
        "quarantine_processed_at",
        "gold_processed_at",
        "source_mode",
    }
)

REGION = {
    **dict.fromkeys(("en.wikipedia.org", "pt.wikipedia.org"), "americas"),
    **{f"{code}.wikipedia.org": "asia_pacific" for code in ["zh", "ja", "ko", "vi", "id", "th"]},
    **{f"{code}.wikipedia.org": "europe" for code in ["de", "fr", "es", "it", "pl", "nl", "ru"]},
    **{f"{code}.wikipedia.org": "middle_east" for code in ["ar", "fa", "he"]},
}
"""The 18 followed wikis."""

_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)

_LANGUAGE_PROJECTS = {
    "wikipedia", "wiktionary", "wikibooks", "wikinews", "wikiquote", "wikisource", "wikiversity", "wikivoyage",
}  # fmt: skip


# --- Bronze ---------------------------------------------------------------------------------------------------------------


def read_capture(path: Path) -> list[str]:
    """The JSON lines of a capture, ``.jsonl[.gz]``, as text."""
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    return text.rstrip("\n").split("\n")  # not splitlines: it also cuts at U+2028, which JSON allows inside a string


def bronze_rows(lines: Iterable[str], domains: frozenset[str] | None) -> list[Row]:
    """Bronze rows of the lines, in their order: each ``meta.id`` once, the first time it comes.

    Args:
        lines: what the source sent; lines that are no event (not JSON; no id, domain, type or time) give no row.
        domains: followed domains, None for all; canaries are never followed.
    """
    rows: dict[str, Row] = {}
    for line in lines:
        row = _bronze_row(line)
        if row and row["domain"] != "canary" and (domains is None or row["domain"] in domains):
            rows.setdefault(row["event_id"], row)
    return list(rows.values())


def _bronze_row(line: str) -> Row | None:
    try:
        event: Event = json.loads(line)
        meta = event["meta"]
        event_id, domain, event_type, happened = meta["id"], meta["domain"], event["type"], _event_time(event)
    except (ValueError, KeyError, TypeError):
        return None
    if not (event_id and domain and event_type is not None and happened):
        return None
    old, new = ((event.get("length") or {}).get(which) for which in ("old", "new"))
    subtracted = 0 if old is None and event_type == "new" else old
    return {
        "event_id": event_id,
        "rc_id": event.get("id"),
        "event_type": str(event_type),
        "namespace": event.get("namespace"),
        "domain": domain,
        "title": event.get("title"),
        "title_url": event.get("title_url"),
        "user": event.get("user"),
        "is_bot": event.get("bot"),
        "comment": event.get("comment"),
        "wiki": event.get("wiki"),
        "server_name": event.get("server_name"),
        "length_old": old,
        "length_new": new,
        "length_delta": None if new is None or subtracted is None else new - subtracted,
        "revision_old": (event.get("revision") or {}).get("old"),
        "revision_new": (event.get("revision") or {}).get("new"),
        "event_timestamp": happened,
        "event_date": happened.strftime("%Y-%m-%d"),
        "event_hour": happened.hour,
        "schema_version": event.get("$schema") or meta.get("schema_uri"),
        "payload": line,
    }


def _event_time(event: Event) -> datetime | None:
    if event.get("timestamp") is not None:
        return datetime.fromtimestamp(event["timestamp"], UTC)
    written = event["meta"].get("dt")
    return datetime.fromisoformat(written).astimezone(UTC) if written else None


# --- Silver ---------------------------------------------------------------------------------------------------------------


WIKIPEDIA_OPENED = datetime(2001, 1, 15, tzinfo=UTC)


def silver_rows(bronze: Iterable[Row]) -> list[Row]:
    """Silver rows of Bronze rows that break no row rule."""
    return [row for row in map(_silver_row, bronze) if not _impossible(row)]


def quarantined_ids(bronze: Iterable[Row]) -> list[str]:
    """Ids of the Bronze rows that break a row rule, in their order."""
    return [row["event_id"] for row in map(_silver_row, bronze) if _impossible(row)]


def _impossible(row: Row) -> bool:
    """Whether a cleaned row cannot be true: nobody made it, it changes nothing, is of no kind, or from before Wikipedia."""
    return (
        row["user_normalized"] is None
        or (row["title"] is None and row["event_type"] in ("edit", "new"))
        or row["event_type"] not in ("edit", "new", "log", "categorize", "external", "other")
        or min(row["length_old"] or 0, row["length_new"] or 0) < 0
        or row["event_timestamp"] < WIKIPEDIA_OPENED
    )


def _silver_row(row: Row) -> Row:
    event_type = row["event_type"].lower()
    if event_type.lstrip("-").replace(".", "", 1).isdecimal():
        event_type = "other"
    user = _visible(row["user"], also_removed=_is_zero_width)
    kind = "bot" if row["is_bot"] else user_kind(user)
    old = 0 if event_type == "new" and row["length_old"] is None else row["length_old"]
    delta = None if old is None or row["length_new"] is None else row["length_new"] - old
    same = ("event_id", "rc_id", "domain", "namespace", "length_new", "revision_old", "revision_new", "event_timestamp",
            "event_date", "schema_version")  # fmt: skip
    return {
        **{name: row[name] for name in same},
        "event_type": event_type,
        "region": REGION.get(row["domain"], "other"),
        "language": language(row["domain"]),
        "title": _visible(row["title"], also_removed=lambda _: False),
        "user_normalized": user,
        "user_kind": kind,
        "is_bot": bool(row["is_bot"]),
        "is_anonymous": kind in ("ip4", "ip6", "temporary"),
        "length_old": old,
        "length_delta": delta,
        "is_valid": None not in (row["event_id"], row["domain"], row["event_timestamp"], user),
        "is_large_deletion": delta is not None and delta < -5000,
        "is_large_addition": delta is not None and delta > 50000,
    }


def language(domain: str) -> str:
    """ISO 639 code of the edition's language, else ``mul``."""
    label, _, project = domain.removesuffix(".org").partition(".")
    first = label.split("-")[0]
    if label == "simple":
        return "en"
    is_code = len(first) in (2, 3) and first.isascii() and first.islower() and first not in ("www", "ten")
    return first if is_code and project in _LANGUAGE_PROJECTS else "mul"


def user_kind(user: str | None) -> str | None:
    """Kind of a user without bot flag."""
    if user is None:
        return None
    if address := _address(user):
        return f"ip{address.version}"
    digits = user[1:].split("-") if user.startswith("~") else [""]
    return "temporary" if all(part.isascii() and part.isdecimal() for part in digits) else "registered"


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return None if "%" in name else ipaddress.ip_address(name)  # an address with a zone is nobody's on the Internet
    except ValueError:
        return None


def _visible(text: str | None, also_removed: Callable[[str], bool]) -> str | None:
    """``text`` on one line, without what cannot be seen; None if nothing is left."""
    words = "".join(
        " " if _is_space(char) else char
        for char in text or ""
        if _is_space(char) or not (_is_control(char) or also_removed(char))
    )
    return " ".join(word for word in words.split(" ") if word) or None


def _is_space(char: str) -> bool:
    return unicodedata.category(char) in ("Zs", "Zl", "Zp") or char in "\t\n\v\f\r\x85"


def _is_control(char: str) -> bool:
    name = unicodedata.name(char, "")
    bidirectional = unicodedata.bidirectional(char) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    return unicodedata.category(char) == "Cc" or bidirectional or name in (
        "LEFT-TO-RIGHT MARK", "RIGHT-TO-LEFT MARK", "ARABIC LETTER MARK",
    )  # fmt: skip


def _is_zero_width(char: str) -> bool:
    return unicodedata.name(char, "") in (
        "SOFT HYPHEN", "MONGOLIAN VOWEL SEPARATOR", "ZERO WIDTH SPACE", "ZERO WIDTH NON-JOINER", "ZERO WIDTH JOINER",
        "WORD JOINER", "FUNCTION APPLICATION", "INVISIBLE TIMES", "INVISIBLE SEPARATOR", "INVISIBLE PLUS",
        "ZERO WIDTH NO-BREAK SPACE",
    )  # fmt: skip


# --- Gold -----------------------------------------------------------------------------------------------------------------


@dataclass
class Gold:
    """The four Gold tables of some Silver rows: all of a lake's, or all of the dates in question.

    Attributes:
        silver: rows as ``silver_rows`` gives them.
        key: the home's key for the pseudonyms of addresses.
        allowed_lateness_hours: as in the settings.
        watermark: newest event time of the lake; None: of ``silver``.
    """

    silver: Sequence[Row]
    key: bytes
    allowed_lateness_hours: int = 2
    watermark: datetime | None = None
    _by_day: dict[str, list[Row]] = field(init=False, default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        for row in self.silver:
            self._by_day[row["event_date"]].append(row)
        self.watermark = self.watermark or max((row["event_timestamp"] for row in self.silver), default=None)

    def hourly_stats(self) -> list[Row]:
        """Expected ``gold.hourly_stats``."""
        groups: dict[tuple[str, int, str], list[Row]] = defaultdict(list)
        for row in self.silver:
            groups[row["event_date"], row["event_timestamp"].hour, row["domain"]].append(row)
        return [self._hour(*key, rows) for key, rows in groups.items()]

    def _hour(self, date: str, hour: int, domain: str, rows: list[Row]) -> Row:
        added, removed, average = _bytes(rows)
        types = Counter(row["event_type"] for row in rows)
        bots = sum(row["is_bot"] for row in rows)
        return {
            "stat_date": date,
            "stat_hour": hour,
            "domain": domain,
            "region": REGION.get(domain, "other"),
            "language": language(domain),
            "total_events": len(rows),
            "unique_users": len({row["user_normalized"] for row in rows} - {None}),
            "unique_pages": len({row["title"] for row in rows} - {None}),
            "bytes_added": added,
            "bytes_removed": removed,
            "avg_edit_size": average,
            "bot_edits": bots,
            "human_edits": len(rows) - bots,
            "bot_percentage": 100 * bots / len(rows),
            "anonymous_edits": sum(row["is_anonymous"] for row in rows),
            **{f"type_{name}": types[name] for name in ("edit", "new", "categorize", "log")},
            "large_deletions": sum(row["is_large_deletion"] for row in rows),
            "large_additions": sum(row["is_large_addition"] for row in rows),
            "is_final": self._is_final(date, hour + 1),
            "schema_version": "2",
        }

    def risk_scores(self) -> list[Row]:
        """Expected ``gold.risk_scores``."""
        return [
            self._risk(date, user, events)
            for date, rows in self._by_day.items()
            for user, events in _grouped(rows, lambda row: row["user_normalized"]).items()
            if len(events) >= 5 and not any(event["is_bot"] for event in events)
        ]

    def _risk(self, date: str, user: str, events: list[Row]) -> Row:
        speed = len(events) / len({event["event_timestamp"].hour for event in events})
        deletions = sum(event["is_large_deletion"] for event in events)
        anonymous = 100 * sum(event["is_anonymous"] for event in events) / len(events)
        domains = len({event["domain"] for event in events})
        evidence = {
            "edits_per_hour": {"value": speed, "points": 40 if speed > 50 else 0},
            "large_deletions": {"value": deletions, "points": 30 if deletions > 3 else 0},
            "anonymous_percentage": {"value": anonymous, "points": 20 if anonymous > 50 else 0},
            "domains": {"value": domains, "points": 10 if domains > 5 and speed > 50 else 0},
        }
        score = sum(factor["points"] for factor in evidence.values())
        return {
            "stat_date": date,
            "entity_id": self.pseudonym(user),
            "entity_type": user_kind(user),
            "total_edits": len(events),
            "edits_per_hour_avg": speed,
            "large_deletions": deletions,
            "domains_edited": domains,
            "risk_score": float(score),
            "risk_level": "HIGH" if score >= 70 else "MEDIUM" if score >= 40 else "LOW",
            "evidence": evidence,
            "alert_triggered": score >= 70,
            "is_final": self._is_final(date, 24),
            "schema_version": "2",
        }

    def entity_trends(self) -> list[Row]:
        """Expected ``gold.entity_trends``."""
        names: dict[str, Callable[[Row], str | None]] = {
            "page": lambda row: f"{row['domain']}:{row['title']}" if row["title"] is not None else None,
            "user": lambda row: row["user_normalized"],
            "domain": lambda row: row["domain"],
        }
        shown = {"page": self.page_without_addresses, "user": self.pseudonym, "domain": str}
        return [
            self._trend(
                date, entity_type, shown[entity_type](name), rank, events, bursts.get(name, {}), ranks.get(name)
            )
            for date, rows in self._by_day.items()
            for entity_type, name_of in names.items()
            for bursts in [self._bursts(date) if entity_type == "page" else {}]
            for ranks in [_trend_ranks(bursts)]
            for rank, (name, events) in enumerate(_top(_grouped(rows, name_of), None), start=1)
            if rank <= 100 or name in ranks
        ]

    def _trend(
        self,
        date: str,
        entity_type: str,
        entity_id: str,
        rank: int,
        events: list[Row],
        burst: Row,
        trend_rank: int | None,
    ) -> Row:
        hours = {event["event_timestamp"].hour for event in events}
        return {
            "stat_date": date,
            "entity_type": entity_type,
            "entity_id": entity_id,
            "rank": rank,
            "edits": len(events),
            "edits_per_hour": len(events) / len(hours),
            **{name: burst.get(name) for name in ("trend_ratio", "burst_start", "burst_edits", "burst_editors")},
            "burst_expected": burst.get("burst_expected"),
            "trend_rank": trend_rank,
            "is_final": self._is_final(date, 24),
            "schema_version": "2",
        }

    def _bursts(self, date: str) -> dict[str, Row]:
        """Of each page with an hour of 5 edits by 4 people on that day the hour that stands out most."""
        midnight = datetime.fromisoformat(date).replace(tzinfo=UTC)
        week = [row for row in self.silver if midnight - 7 * _DAY <= row["event_timestamp"] < midnight + _DAY]
        by_wiki = _grouped([row for row in week if _is_article_edit_by_person(row)], lambda row: row["domain"])
        return {
            f"{domain}:{title}": burst
            for domain, wiki in by_wiki.items()
            for title, page in _grouped(wiki, lambda row: row["title"]).items()
            if (burst := _sharpest(midnight, page, wiki))
        }

    def daily_analytics_summary(self) -> list[Row]:
        """Expected ``gold.daily_analytics_summary``."""
        risks = _grouped(self.risk_scores(), lambda row: row["stat_date"])
        return [self._day(date, rows, risks.get(date, [])) for date, rows in self._by_day.items()]

    def _day(self, date: str, rows: list[Row], risks: list[Row]) -> Row:
        total = len(rows)
        added, removed, average = _bytes(rows)
        kinds = Counter(
            "bot" if row["is_bot"] else "anonymous" if row["is_anonymous"] else "registered" for row in rows
        )
        regions = Counter(row["region"] for row in rows)
        levels = Counter(risk["risk_level"] for risk in risks)
        scores = [risk["risk_score"] for risk in risks]
        hours = Counter(row["event_timestamp"].hour for row in rows)
        deletions = sum(row["is_large_deletion"] for row in rows)
        health = 40 * (levels["LOW"] / len(risks) if risks else 1) + 30 * kinds["registered"] / total
        health += (20 if added > removed else 0) + (10 if deletions / total < 0.01 else 0)
        return {
            "summary_date": date,
            "total_events": total,
            "unique_users": len({row["user_normalized"] for row in rows} - {None}),
            "active_domains": len({row["domain"] for row in rows}),
            "unique_pages_edited": len({(row["domain"], row["title"]) for row in rows if row["title"] is not None}),
            "bot_percentage": 100 * kinds["bot"] / total,
            "anonymous_percentage": 100 * kinds["anonymous"] / total,
            "registered_user_percentage": 100 * kinds["registered"] / total,
            "total_bytes_added": added,
            "total_bytes_removed": removed,
            "net_content_change": added - removed,
            "avg_edit_size_bytes": average,
            "new_pages_created": sum(row["event_type"] == "new" for row in rows),
            "large_deletions_count": deletions,
            "large_deletion_rate": 100 * deletions / total,
            **{f"{level.lower()}_risk_user_count": levels[level] for level in ("HIGH", "MEDIUM", "LOW")},
            "platform_avg_risk_score": sum(scores) / len(scores) if scores else 0.0,
            "platform_max_risk_score": max(scores, default=0.0),
            "total_alerts_triggered": sum(risk["alert_triggered"] for risk in risks),
            **{
                f"{region}_percentage": 100 * regions[region] / total
                for region in ("europe", "americas", "asia_pacific", "middle_east", "other")
            },
            "peak_hour_events": max(hours.values()),
            "avg_events_per_hour": total / len(hours),
            "platform_health_score": health,
            "is_final": self._is_final(date, 24),
            "schema_version": "2",
        }

    def pseudonym(self, user: str) -> str:
        """The name Gold shows."""
        return f"ip-{hmac.new(self.key, user.encode(), hashlib.sha256).hexdigest()[:16]}" if _address(user) else user

    def page_without_addresses(self, page: str) -> str:
        """``domain:title`` with pseudonyms in place of the addresses that stand alone in the title."""
        for word in re.findall(r"[0-9A-Za-z.:]+", page):
            name = word.rstrip(".")
            while name and not _address(name):
                name = name.partition(":")[2]
            if name not in ("", "::"):
                page = page.replace(name, self.pseudonym(name))
        return page

    def _is_final(self, date: str, hours: int) -> bool:
        end = datetime.fromisoformat(date).replace(tzinfo=UTC) + timedelta(hours=hours)
        assert self.watermark is not None
        return end + timedelta(hours=self.allowed_lateness_hours) <= self.watermark


def _bytes(rows: Iterable[Row]) -> tuple[int, int, float | None]:
    deltas = [row["length_delta"] for row in rows if row["length_delta"] is not None]
    average = sum(abs(delta) for delta in deltas) / len(deltas) if deltas else None
    return sum(delta for delta in deltas if delta > 0), -sum(delta for delta in deltas if delta < 0), average


def _grouped(rows: Iterable[Row], key_of: Callable[[Row], Hashable]) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        if (key := key_of(row)) is not None:
            groups[key].append(row)
    return groups


def _top(groups: dict[str, list[Row]], count: int | None) -> list[tuple[str, list[Row]]]:
    return sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))[:count]


def _trend_ranks(bursts: dict[str, Row]) -> dict[str, int]:
    trending = [name for name, burst in bursts.items() if burst["trend_ratio"] >= 3]
    trending.sort(key=lambda name: (-round(bursts[name]["trend_ratio"], 9), name))
    return {name: rank for rank, name in enumerate(trending[:100], start=1)}


def _is_article_edit_by_person(row: Row) -> bool:
    known = row["title"] is not None and row["user_normalized"] is not None
    return row["event_type"] in ("edit", "new") and row["namespace"] == 0 and not row["is_bot"] and known


def _sharpest(midnight: datetime, page: list[Row], wiki: list[Row]) -> Row | None:
    """The page's burst with the highest ratio on the day that begins at ``midnight``, the earliest of equal ones.

    Args:
        page: the page's edits on that day and on the seven days before it.
        wiki: those of its whole wiki.
    """
    today = [row for row in page if row["event_timestamp"] >= midnight]
    if len(today) < 5:
        return None
    others = [row for row in wiki if row["title"] != page[0]["title"]]
    best: Row | None = None
    for quarter in range(24 * 4 - 3):
        start = midnight + quarter * timedelta(minutes=15)
        burst = [row for row in today if start <= row["event_timestamp"] < start + _HOUR]
        people = {row["user_normalized"] for row in burst}
        if len(burst) < 5 or len(people) < 4:
            continue
        expected = _expected(start, midnight, Counter(map(_hour_of, page)), others)
        if best is None or round(len(burst) / expected, 9) > round(best["trend_ratio"], 9):
            best = {
                "burst_start": start,
                "burst_edits": len(burst),
                "burst_editors": len(people),
                "burst_expected": expected,
                "trend_ratio": len(burst) / expected,
            }
    return best


def _expected(start: datetime, midnight: datetime, page: Counter[datetime], others: list[Row]) -> float:
    """Edits of a usual hour: one, and what the page usually gets, times how much busier than usual its wiki is."""
    others_by_hour = Counter(map(_hour_of, others))
    seen = page.keys() | others_by_hour.keys()
    touched = {start.replace(minute=0), (start + timedelta(minutes=45)).replace(minute=0)}
    baseline = {hour for hour in seen if hour < min(touched)}
    if len(baseline) < 6:
        baseline = seen - touched
    usual = max(
        _mean([page[hour] for hour in baseline]),
        *(_mean([page[hour] for hour in seen if hour < midnight and hour.hour == same.hour]) for same in touched),
    )
    now = sum(start <= row["event_timestamp"] < start + _HOUR for row in others)
    rise = (now + 10) / (_mean([others_by_hour[hour] for hour in baseline]) + 10)
    return 1 + usual * max(1, rise)


def _hour_of(row: Row) -> datetime:
    happened: datetime = row["event_timestamp"]
    return happened.replace(minute=0, second=0, microsecond=0)


def _mean(figures: list[int]) -> float:
    return sum(figures) / len(figures) if figures else 0.0


# --- Comparison -----------------------------------------------------------------------------------------------------------


def assert_same_rows(actual: Iterable[Row], expected: Iterable[Row], key: Sequence[str]) -> None:
    """Both sides hold the same rows, whatever their order; floats within 1e-9, ``evidence`` as what its JSON says.

    Args:
        actual: what a table holds; ``COLUMNS_OF_THE_RUN`` are ignored. Naive timestamps are taken as UTC.
        expected: what this module computes.
        key: columns that identify a row.
    """
    got, wanted = (_by_key(rows, key) for rows in (actual, expected))
    assert sorted(got.keys() - wanted.keys(), key=repr)[:5] == [], "rows too many"
    assert sorted(wanted.keys() - got.keys(), key=repr)[:5] == [], "rows missing"
    wrong = {name: (got[name], row) for name, row in wanted.items() if not _same(got[name], row)}
    assert not wrong, _first_difference(wrong)


def _by_key(rows: Iterable[Row], key: Sequence[str]) -> dict[tuple[Any, ...], Row]:
    by_key: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        row = {name: _plain(name, value) for name, value in row.items() if name not in COLUMNS_OF_THE_RUN}
        identity = tuple(row[name] for name in key)
        assert identity not in by_key, f"two rows with {dict(zip(key, identity, strict=True))}"
        by_key[identity] = row
    return by_key


def _plain(name: str, value: Any) -> Any:
    if name == "evidence" and isinstance(value, str):
        return json.loads(value)
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return value


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[name], right[name]) for name in left)
    if isinstance(left, float) or isinstance(right, float):
        return left is not None and right is not None and math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-9)
    return type(left) is type(right) and bool(left == right)


def _first_difference(wrong: dict[tuple[Any, ...], tuple[Row, Row]]) -> str:
    name, (got, wanted) = next(iter(wrong.items()))
    columns = sorted(got.keys() | wanted.keys())
    shown = [
        f"{column}: {got.get(column, 'absent')!r}, expected {wanted.get(column, 'absent')!r}"
        for column in columns
        if column not in got or column not in wanted or not _same(got[column], wanted[column])
    ]
    return f"{len(wrong)} rows differ, the first is {name}: {'; '.join(shown)}"
