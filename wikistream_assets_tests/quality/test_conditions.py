"""The grammar of conditions: what it lets through means the same to Spark, all else is refused in one line that names it."""

from datetime import UTC, datetime

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as sf

from wikistream_assets.exceptions import ConditionError
from wikistream_assets.quality.conditions import MAX_DEPTH, MAX_LENGTH, checked
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, RAW_EVENTS
from wikistream_assets.tables.spec import TableSpec

COLUMNS = ("title", "user", "namespace", "kafka_offset", "event_timestamp", "event_date", "is_bot")


@pytest.mark.unit
@pytest.mark.parametrize("spec", [RAW_EVENTS, CLEANED_EVENTS], ids=lambda spec: spec.identifier)
def test_every_column_may_be_named_in_any_case(spec: TableSpec) -> None:
    for name in spec.column_names:
        for written in (name, name.upper(), f"`{name}`"):
            assert checked(f"{written} is null", spec.column_names) == f"(`{name}` IS NULL)"


@pytest.mark.unit
@pytest.mark.parametrize(
    ("condition", "written"),
    [
        ("user = 'x' or title = 'y' and not is_bot", "((`user` = 'x') OR ((`title` = 'y') AND (NOT `is_bot`)))"),
        ("namespace in (0, -1)", "(`namespace` IN (0, (-1)))"),
        ("kafka_offset = -9223372036854775808", "(`kafka_offset` = (-9223372036854775808))"),
        ('user = "O\'Neill"', r"(`user` = 'O\'Neill')"),
        (r"title rlike r'\d+'", r"(`title` RLIKE '\\d+')"),
        ("title = 'a\nb\x00\u2028'", r"(`title` = 'a\u000ab\u0000" + "\u2028')"),
        ("title not like '10!%' escape '!'", "(`title` NOT LIKE '10!%' ESCAPE '!')"),
        ("event_date = date '2026-03-01'", "(`event_date` = DATE '2026-03-01')"),
        ("event_timestamp < timestamp '2026-03-01T10:00Z'", "(`event_timestamp` < TIMESTAMP '2026-03-01 10:00:00+00:00')"),
        ("cast(title as decimal(10, 2)) > 1.5e3", "(CAST(`title` AS DECIMAL(10, 2)) > 1.5e3)"),
        ("substr(title, 1, 2) <=> null", "(SUBSTRING(`title`, 1, 2) <=> NULL)"),
    ],
)  # fmt: skip
def test_what_is_executed_is_written_from_the_tree(condition: str, written: str) -> None:
    assert checked(condition, COLUMNS) == written
    assert checked(written, COLUMNS) == written


@pytest.mark.unit
@pytest.mark.parametrize(
    ("condition", "named"),
    [
        ("reflect('java.lang.System', 'getProperty', 'user.home') is not null", "the function reflect"),
        ("java_method('java.lang.System', 'getenv', 'HOME') is not null", "the function java_method"),
        ("title = lower(reflect('a', 'b'))", "the function reflect"),
        ("`reflect`('java.lang.System', 'exit', '0') is null", "the function 'reflect'"),
        ("assert_true(false) is null", "the function assert_true"),
        ("current_user = user", "the function CURRENT_USER"),
        ("count(*) > 1", "the function count"),
        ("trim(both 'x' from title) = ''", "POSITION"),
        ("lower(title) over () = ''", "WINDOW"),
        ("title in (select user from bronze.raw_events)", "a subquery"),
        ("exists (select 1)", "a subquery"),
        ("(select true)", "a subquery"),
        ("titel = 'x'", "'titel'; did you mean title?"),
        ("payload = 'x'", "'payload'"),
        ("raw_events.user = 'x'", "'user' has a dot before it"),
        ("title[0] = 'x'", "[..]"),
        ("title:x = 1", "does not parse"),
        ("title -> '$.x' = 1", "'->'"),
        ("case when is_bot then true end", "CASE"),
        ("title || 'x' = 'yx'", "||"),
        ("namespace & 1 = 1", "&"),
        ("event_timestamp > event_timestamp - interval 1 day", "INTERVAL"),
        ("cast(title as array<string>) is null", "ARRAY<STRING>"),
        ("event_date = date '2026-02-30'", "'2026-02-30' is no DATE"),
        ("x'41' = title", "a hexadecimal literal"),
        (":title = title", "a parameter"),
        ("${title} = title", "a parameter"),
        ("(title, user) = ('a', 'b')", "a list of values outside of IN"),
        ("namespace in ()", "IN needs a list"),
        ("title rlike user", "RLIKE takes its pattern as a string"),
        ("user = 'it''s'", "two strings stand side by side"),
        ("true; drop table bronze.raw_events", "';'"),
        ("is_bot -- and more", "comments"),
        ("is_bot /* and more */", "comments"),
        ("/*+ broadcast(a) */ is_bot", "comments"),
        ("-- nothing else", "comments"),
        ("drop table bronze.raw_events", "does not parse"),
        ("title = ", "something is missing (line 1, column 7)"),
        ("title = 'x", "does not parse"),
        ("title = 'x' limit 1", "does not parse"),
        (" \n", "it is empty"),
        ("title = '\udcff'", "UTF-8"),
        ("title = '" + "x" * MAX_LENGTH + "'", f"at most {MAX_LENGTH:,}"),
        ("(" * 9_000 + "true" + ")" * 9_000, "nested too deeply"),
        ("(" * 10_000 + "true" + ")" * 9_996, "nested too deeply"),
        ("not " * 4_000 + "true", "nested too deeply"),
        ("(" * MAX_DEPTH + "true" + ")" * MAX_DEPTH, "nested too deeply"),
        ("title" + "::int" * 3_000 + " = 1", "nested too deeply"),
    ],
    ids=lambda text: text[:24].encode("unicode_escape").decode(),
)
def test_all_else_is_refused_in_one_line_that_names_it(condition: str, named: str) -> None:
    with pytest.raises(ConditionError) as refused:
        checked(condition, COLUMNS)
    message = str(refused.value)
    assert named in message
    assert len(message.splitlines()) == 1
    assert len(message) < 200


@pytest.mark.unit
def test_what_is_within_the_bounds_passes_wherever_it_is_asked() -> None:
    """Also deep in somebody's call stack: what one process records, another one must be able to read."""
    deepest = "(" * (MAX_DEPTH - 1) + "true" + ")" * (MAX_DEPTH - 1)

    def called_from(frames: int) -> str:
        return called_from(frames - 1) if frames else checked(deepest, COLUMNS)

    assert called_from(500) == "TRUE"
    many = " or ".join(["namespace = 1"] * 1_000)
    assert checked(many, COLUMNS) == "(" + " OR ".join(["(`namespace` = 1)"] * 1_000) + ")"


SAME = (
    r"title = 'O\'Neill'",
    'title = "O\'Neill"',
    r"title = 'back\\slash'",
    r"title = '\u00fc\U0001F600'",
    "title = 'ü😀'",
    r"title = 'tab\tline\nend'",
    r"title like '10\%'",
    r"title like '10|%' escape '|'",
    r"title like 'back\\\\slash'",
    "title not like '%e%'",
    r"title rlike '^\\d+%$'",
    r"title rlike r'^\d+%$'",
    r"title rlike '^d+'",
    r"title rlike '\d'",
    "title not rlike '[0-9]'",
    "title regexp 'N(ei|ie)ll'",
    "not namespace = 1 and is_bot or kafka_offset > 5",
    "not (namespace = 1 and is_bot) or kafka_offset > 50",
    "namespace = 0 or namespace = 1 and kafka_offset = 7",
    "kafka_offset - 2 - 3 = 2",
    "kafka_offset - (2 - 3) = 8",
    "kafka_offset / 2 * 3 = 10.5",
    "-kafka_offset % 4 = -3",
    "- -namespace = 1",
    "-1 < namespace",
    "kafka_offset = 7L",
    "kafka_offset = 7.0",
    "kafka_offset > .5e1",
    "namespace is null",
    "(namespace is not null) = is_bot",
    "(namespace <=> null) = true",
    "namespace <> 1",
    "namespace != 1",
    "namespace == 1",
    "is_bot is not true",
    "is_bot is false",
    "namespace in (1, null)",
    "coalesce(namespace not in (1, null), true)",
    "namespace not between 1 and 3",
    "kafka_offset between 5 and 9",
    "lower(title) = 'tablog' or upper(trim(user)) = 'ADA'",
    "length(title) > 9",
    "length(user) = 5",
    "substring(title, 1, 2) = '10'",
    "substr(title, -4) = 'eill'",
    "abs(namespace - 2) = 1",
    "coalesce(namespace, -1) = -1",
    "cast(title as int) is null",
    "try_cast('12' as bigint) = 12",
    "cast(kafka_offset as string) like '7'",
    "cast(kafka_offset as decimal(10, 2)) = 7.00",
    "int('12') = 12",
    "event_date = '2026-03-01'",
    "event_date < date '2026-03-02'",
    "event_timestamp = timestamp '2026-03-01 10:00:00Z'",
    "event_timestamp = timestamp '2026-03-01 11:00:00+01:00'",
    "event_timestamp > timestamp '2026-03-01'",
    "event_timestamp < cast('2026-03-02' as timestamp)",
    "`user` = ' Ada '",
    "USER = ' Ada '",
    "true",
)


@pytest.mark.spark
def test_to_spark_it_means_the_same(spark: SparkSession) -> None:
    ten, later = datetime(2026, 3, 1, 10, tzinfo=UTC), datetime(2026, 3, 4, 10, tzinfo=UTC)
    rows = [
        ("O'Neill", " Ada ", 1, 7, ten, "2026-03-01", True),
        ("back\\slash", "Grace", None, 7, later, "2026-03-04", False),
        ("ü😀", "Ada", 4, 1, ten, "2026-03-01", None),
        ("tab\tline\nend", None, 0, 99, later, "2026-03-04", False),
        ("10%", "x", -3, -5, ten, "2026-03-01", True),
        ("10x", "x", 2, 6, ten, "2026-03-01", True),
        ("dd", "tablog", 3, 0, later, "2026-03-04", None),
    ]
    schema = (
        "title string, user string, namespace int, kafka_offset long, event_timestamp timestamp, event_date string,"
        " is_bot boolean"
    )
    frame = spark.createDataFrame(rows, schema)
    asked = frame.select(*(sf.expr(condition) for condition in SAME)).collect()
    executed = frame.select(*(sf.expr(checked(condition, COLUMNS)) for condition in SAME)).collect()
    for number, condition in enumerate(SAME):
        expected = [row[number] for row in asked]
        assert [row[number] for row in executed] == expected, condition
        assert True in expected, f"{condition} holds for no row: it shows nothing"
