"""How the checks fared: pass rates from ``dq_audit.quality_results``, without a JVM."""

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Final

from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.query import open_views
from wikistream_assets.tables.dq_audit import QUALITY_RESULTS

_PERIOD: Final = """
    create temp table verdicts as select * from dq_audit.quality_results
    where run_date::date > (select max(run_date)::date - ?::integer from dq_audit.quality_results)
"""

_RATES: Final = """
    select {key}, count(*) filter (status != 'SKIPPED') as judged, count(*) filter (status = 'PASSED') as passed,
      count(*) filter (status = 'WARNING') as warnings, count(*) filter (status in ('FAILED', 'ERROR')) as failed,
      count(*) filter (status = 'SKIPPED') as skipped, 100 * passed / nullif(judged, 0) as pass_rate{more}
    from verdicts group by all order by {order}
"""

# Of the newest day on which any gate ran, against all days before it.
_CHANGE: Final = """,
      100 * count(*) filter (status = 'PASSED' and run_date = (select max(run_date) from verdicts))
        / nullif(count(*) filter (status != 'SKIPPED' and run_date = (select max(run_date) from verdicts)), 0)
      - 100 * count(*) filter (status = 'PASSED' and run_date < (select max(run_date) from verdicts))
        / nullif(count(*) filter (status != 'SKIPPED' and run_date < (select max(run_date) from verdicts)), 0) as change"""

_NEWEST_BREACH: Final = """,
      max(run_timestamp) filter (status not in ('PASSED', 'SKIPPED')) as last_breach,
      arg_max(message, run_timestamp) filter (status not in ('PASSED', 'SKIPPED')) as last_message"""


@dataclass(frozen=True)
class QualityReport:
    """Pass rates of some days.

    A rate is PASSED verdicts / ``judged`` verdicts in percent; SKIPPED ones are not judged, ``failed`` ones are FAILED and ERROR.
    It is None where nothing was judged. Each list holds dicts with judged, passed, warnings, failed, skipped and pass_rate.

    Attributes:
        days: by run_date, newest first; ``change`` is against the day before in the list, percentage points.
        tables: by table_name, lowest rate first; ``change`` is the newest day's rate less that of all days before.
        checks: by table_name and check_name, lowest rate first; ``change`` as for tables, and ``last_breach`` (time) and
            ``last_message`` of the newest verdict that was not PASSED.
    """

    days: list[dict[str, Any]]
    tables: list[dict[str, Any]]
    checks: list[dict[str, Any]]

    @property
    def worst(self) -> list[dict[str, Any]]:
        """The checks that did not always pass."""
        return [check for check in self.checks if check["passed"] < check["judged"]]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def quality_report(lake: Lakehouse, days: int) -> QualityReport:
    """Sum up the verdicts of the ``days`` calendar days (UTC) that end with the newest verdict; empty where no gate has run."""
    with open_views(lake, (QUALITY_RESULTS,)) as connection:
        connection.execute(_PERIOD, [days])

        def rows(key: str, order: str, more: str = "") -> list[dict[str, Any]]:
            result = connection.execute(_RATES.format(key=key, order=order, more=more))
            names = [column[0] for column in result.description]
            return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

        by_day = [{**day, "change": None} for day in rows("run_date", "run_date desc")]
        for day, before in pairwise(by_day):
            if day["pass_rate"] is not None and before["pass_rate"] is not None:
                day["change"] = day["pass_rate"] - before["pass_rate"]
        worst_first = "pass_rate nulls last, failed desc, warnings desc"
        return QualityReport(
            by_day,
            rows("table_name", f"{worst_first}, table_name", _CHANGE),
            rows("table_name, check_name", f"{worst_first}, table_name, check_name", _CHANGE + _NEWEST_BREACH),
        )
