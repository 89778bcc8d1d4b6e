"""The one typed settings class: every ``WIKISTREAM_*`` variable, its default, its meaning, validated once at start."""

import json
from collections.abc import Mapping
from datetime import date, timedelta
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_settings import NoDecode

from producer.paths import absolute, fault_in
from producer.settings import ProducerSettings
from wikistream_assets.exceptions import ConfigurationError
from wikistream_assets.quality.criteria import DEFAULT_CRITERIA, Criteria, parse_criteria

CRITERIA_FILE: Final = "criteria.toml"
"""What people set of the contracts' figures, in the data directory: there every process that works on it finds the same."""

ALERT_CHANNELS: Final = ("log", "slack", "email", "sns")


class AlertKind(StrEnum):
    """Kind of an alert; ``alerts.kinds`` says what each means. The settings route alerts by it."""

    GATE_FAILED = "gate_failed"
    CHECK_FAILED = "check_failed"
    RUN_FAILED = "run_failed"
    RUN_TIMEOUT = "run_timeout"
    FRESHNESS = "freshness"
    STREAM_RESTARTED = "stream_restarted"
    STREAM_GIVEN_UP = "stream_given_up"
    SOURCE_SILENT = "source_silent"
    SOURCE_GAP = "source_gap"
    LAG = "lag"
    LATENCY = "latency"
    DLQ_RATE = "dlq_rate"
    PRODUCER_CPU = "producer_cpu"
    HIGH_RISK_USER = "high_risk_user"
    TEST = "test"


_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")

_UNUSABLE: Final[Mapping[str, Mapping[str, str]]] = {
    "home": {
        "?": "would end the name of Dagster's database file",
        "\\*": "DuckDB cannot tell from a pattern",
        "\\[": "DuckDB cannot tell from a pattern",
    },
    "cache": {":": "separates the entries of a Java class path"},
}
"""Characters that a path may not contain, or not together, although the file system allows them, by setting."""

_EVEN_MINUTES: Final = (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30)
"""Each N for which the minutes of cron's ``*/N`` are equally far apart, over the full hour too."""

PROFILES: Final[Mapping[str, Mapping[str, object]]] = {
    "local": {},
    "source": {
        "bronze_trigger_seconds": 180,
        "alert_latency_seconds": 240,
        "bronze_fresh_seconds": 180,
        "bronze_stall_seconds": 540,
        "tables_fresh_seconds": 2_100,
        "cycle_first_seconds": 900,
        "cycle_pause_seconds": 600,
        "cycle_after_failed_gate": "stop",
        "step_max_seconds": 1_380,
    },
}
"""Defaults by ``WIKISTREAM_PROFILE``; a setting that is given wins. Those of ``source`` are the times that the original
WikiStream on AWS promises; an event waits up to a trigger's 180 s there, to which the minute is added that is local's limit. Each
of its jobs may work for 15 minutes, and each starts cold, which takes EMR 5 to 8 minutes."""


class Settings(ProducerSettings):
    """All settings. ``WIKISTREAM_<NAME>`` in upper case sets the field ``<name>``; an unknown name is refused."""

    home: Path = Field(
        Path(".wikistream"), validate_default=True, description="folder that holds all that the embedded default writes"
    )
    data: Path = Field(Path("../shared/data"), description="folder of public captures, used by tests only")
    cache: Path = Field(
        Path("~/.cache/wikistream"), validate_default=True, description="folder of fetched jars, shared by all homes"
    )
    kafka_port: int = Field(19092, gt=0, lt=65536, description="the embedded broker's port on loopback")
    kafka_controller_port: int = Field(
        19093, gt=0, lt=65536, description="the embedded broker's controller port on loopback"
    )
    kafka_heap_mb: int = Field(320, ge=128, description="heap of the embedded broker, MiB")
    kafka_partitions: int = Field(3, ge=1, description="partitions of raw-events")
    kafka_retention_hours: int = Field(168, ge=1, description="retention of raw-events and dlq-events, hours")
    source_port: int = Field(
        19094, gt=0, lt=65536, description="port of the project's own EventStreams server on loopback"
    )
    synthetic_events_per_second: float = Field(
        50.0, gt=0, le=5_000, description="rate of the continuous synthetic source; another rate is another stream"
    )
    code_port: int = Field(19095, gt=0, lt=65536, description="port of Dagster's code server on loopback")
    dagster_port: int = Field(3000, gt=0, lt=65536, description="port of the Dagster UI on loopback")
    spark_cores: int = Field(2, ge=1, description="threads of the local Spark session")
    spark_memory_mb: int = Field(1536, ge=512, description="heap of the local Spark session, MiB")
    bronze_trigger_seconds: float = Field(
        1.0, ge=0, description="micro-batch interval of the continuous Bronze stream, seconds"
    )
    bronze_batch_records: int = Field(100_000, ge=1, description="most records one Bronze micro-batch reads")
    dlq_max_attempts: int = Field(
        3, ge=1, description="failed redrives after which a dead letter is given up and only redriven on demand"
    )
    stream_metrics_port: int = Field(
        0, ge=0, lt=65536, description="port of the stream's metrics on loopback; 0 = none"
    )
    metrics_port: int = Field(
        0, ge=0, lt=65536, description="port of the lake's metrics on loopback, which 'make up' serves then; 0 = none"
    )
    allowed_lateness_hours: int = Field(2, ge=0, description="after this many hours a Gold hour or day is final")

    maintenance_every_minutes: int = Field(
        10,
        description="pause between two scheduled maintenances: compaction and expiry, minutes; divides an hour evenly",
    )
    maintenance_target_file_mb: int = Field(256, ge=1, description="size that compaction packs data files to, MiB")
    maintenance_min_input_files: int = Field(
        5, ge=2, description="a partition with fewer small files than this is not compacted"
    )
    maintenance_snapshot_age_hours: float = Field(
        48, ge=0, description="snapshots younger than this are kept, as far as maintenance_max_snapshots allows"
    )
    maintenance_min_snapshots: int = Field(1, ge=1, description="snapshots kept of a table, however old they are")
    maintenance_max_snapshots: int = Field(
        500, ge=1, description="snapshots kept of a table that no reader needs any more, however young they are"
    )
    maintenance_orphan_age_hours: int = Field(
        72,
        ge=24,
        description="files that no snapshot knows are deleted at this age; younger ones may be of a commit under way",
    )
    dagster_history_days: int = Field(
        3,
        ge=1,
        description="Dagster forgets runs, events and check results that are older than this, but the newest of each, days",
    )
    privacy_mask_after_days: int = Field(
        90,
        ge=0,
        description="events this many days old lose user names, IP addresses and free text; 0 keeps them forever",
    )

    alert_routes: Annotated[dict[str, tuple[str, ...]], NoDecode] = Field(
        {"*": ("log",)},
        description='who is told of what, JSON: kind of alert -> channels (log, slack, email, sns); "*" is every kind, what is '
        "named for a kind comes on top",
    )
    alert_repeat_minutes: float = Field(60.0, gt=0, description="an alert that stays open is sent again after so long")
    alert_rate_per_minute: int = Field(
        10, ge=1, description="most messages a minute on each channel; the rest is summed up"
    )
    alert_expiry_hours: int = Field(24, ge=1, description="an alert that could not be sent for so long is given up")
    alert_slack_webhook_url: SecretStr | None = Field(None, description="secret: Slack's incoming webhook, https://..")
    alert_email_to: str | None = Field(None, description="addresses of the channel email, separated by commas")
    alert_email_from: str = Field("wikistream@localhost", description="sender of the channel email")
    alert_smtp_host: str | None = Field(None, description="mail server of the channel email")
    alert_smtp_port: int = Field(587, gt=0, lt=65536, description="its port")
    alert_smtp_starttls: bool = Field(
        True, description="talk to it encrypted (STARTTLS), with a certificate that is checked"
    )
    alert_smtp_user: str | None = Field(None, description="login at the mail server, if it asks for one")
    alert_smtp_password: SecretStr | None = Field(None, description="secret: password of the login")
    alert_sns_topic_arn: str | None = Field(
        None, description="topic of the channel sns, arn:aws:sns:REGION:ACCOUNT:NAME"
    )
    alert_sns_endpoint_url: str | None = Field(None, description="another endpoint than AWS's own, for tests")
    alert_lag_records: int = Field(
        10_000, ge=1, description="alert when more records than this wait in Kafka in two consecutive samples"
    )
    alert_latency_seconds: float = Field(
        60.0,
        gt=0,
        description="events that reach Bronze later than this for five minutes (95th percentile) are an alert",
    )
    alert_dlq_per_minute: float = Field(
        10.0, ge=0, description="alert when more dead letters a minute than this arrive"
    )
    alert_producer_cpu_seconds: float = Field(
        300.0,
        gt=0,
        description="a producer that uses more than 80 % of a processor for so long, twice in a row, is an alert",
    )

    @field_validator("home", "cache")
    @classmethod
    def _usable_path(cls, path: Path, info: ValidationInfo) -> Path:
        resolved = absolute(path)
        fault = fault_in(resolved)
        for characters, reason in _UNUSABLE[info.field_name or ""].items():
            if all(character in str(resolved) for character in characters):
                fault = fault or f"contains {' and '.join(characters)}, which {reason}"
        if fault is not None:
            raise ValueError(f"{str(resolved)!r} {fault}: choose another folder")
        return path

    @field_validator("maintenance_every_minutes")
    @classmethod
    def _divides_an_hour(cls, minutes: int) -> int:
        if minutes not in _EVEN_MINUTES:
            raise ValueError(f"must divide an hour into equal pauses: choose from {', '.join(map(str, _EVEN_MINUTES))}")
        return minutes

    @field_validator("alert_routes", mode="before")
    @classmethod
    def _routes_from_json(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError('is not JSON: write for example {"*": ["log"], "gate_failed": ["slack"]}') from None

    @field_serializer("alert_routes")
    def _routes_to_json(self, value: dict[str, tuple[str, ...]]) -> str:
        return json.dumps(value)

    @field_validator("alert_routes")
    @classmethod
    def _known_routes(cls, routes: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        kinds = ["*", *AlertKind]
        for kind, channels in routes.items():
            if kind not in kinds:
                raise ValueError(f"unknown kind {kind!r}: choose from {', '.join(kinds)}")
            for channel in channels:
                if channel not in ALERT_CHANNELS:
                    raise ValueError(f"unknown channel {channel!r}: choose from {', '.join(ALERT_CHANNELS)}")
        return routes

    @model_validator(mode="after")
    def _routed_channels_have_addresses(self) -> Self:
        # The texts of this validator name settings and never their values: some of them are secrets.
        routed = {channel for channels in self.alert_routes.values() for channel in channels}
        needed: dict[str, dict[str, object]] = {
            "slack": {"ALERT_SLACK_WEBHOOK_URL": self.alert_slack_webhook_url},
            "email": {"ALERT_EMAIL_TO": self.alert_email_to, "ALERT_SMTP_HOST": self.alert_smtp_host},
            "sns": {"ALERT_SNS_TOPIC_ARN": self.alert_sns_topic_arn},
        }
        for channel in sorted(routed & set(needed)):
            for name, value in needed[channel].items():
                if not value:
                    raise ValueError(f"WIKISTREAM_ALERT_ROUTES names {channel}, which needs WIKISTREAM_{name}: set it")
        if self.alert_slack_webhook_url is not None and not _is_safe_url(
            self.alert_slack_webhook_url.get_secret_value()
        ):
            raise ValueError("WIKISTREAM_ALERT_SLACK_WEBHOOK_URL: must be an https:// URL")
        if self.alert_sns_topic_arn is not None and self.alert_sns_topic_arn.count(":") != 5:
            raise ValueError("WIKISTREAM_ALERT_SNS_TOPIC_ARN: must be arn:aws:sns:REGION:ACCOUNT:NAME")
        if self.alert_smtp_password and not self.alert_smtp_starttls and self.alert_smtp_host not in _LOOPBACK:
            raise ValueError(
                "WIKISTREAM_ALERT_SMTP_PASSWORD would travel in the clear: set WIKISTREAM_ALERT_SMTP_STARTTLS=1"
            )
        return self

    profile: Literal["local", "source"] = Field(
        "local",
        description="pace: local is quick, source keeps the times of the original WikiStream on AWS; sets defaults",
    )
    bronze_fresh_seconds: int = Field(
        60, ge=60, description="seconds after a batch was due at which Bronze counts as stale"
    )
    tables_fresh_seconds: int = Field(600, ge=60, description="any other table older than this is stale, seconds")
    bronze_stall_seconds: float = Field(
        60,
        gt=0,
        description="records that wait this long without a commit: the stream is stuck and is restarted, seconds",
    )
    stream_restart_tries: int = Field(
        5, ge=1, description="restarts in a row, further and further apart, before giving up"
    )
    source_silent_seconds: float = Field(
        600, gt=0, description="not even a canary for this long: the source is silent, seconds"
    )
    cycle_first_seconds: float = Field(5, ge=0, description="first cycle after Bronze has got its first rows, seconds")
    cycle_pause_seconds: float = Field(5, ge=0, description="next cycle after one that passed, seconds")
    cycle_blocked_seconds: float = Field(60, ge=0, description="next cycle after one whose gate closed, seconds")
    cycle_after_failed_gate: Literal["continue", "stop"] = Field(
        "continue",
        description="continue: go on auditing, for the gate may be decided; stop: wait for an operator, also after a run that was"
        " killed or cancelled, which is then not started again",
    )
    step_max_seconds: int = Field(
        900, ge=60, description="a step of a run that takes longer than this is ended, and the run fails, seconds"
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_profile(cls, values: dict[str, object]) -> dict[str, object]:
        return {**PROFILES.get(str(values.get("profile", "local")), {}), **values}

    @model_validator(mode="before")
    @classmethod
    def _bootstrap_follows_port(cls, values: dict[str, object]) -> dict[str, object]:
        if "kafka_port" in values and "bootstrap_servers" not in values:
            values["bootstrap_servers"] = f"127.0.0.1:{values['kafka_port']}"
        return values

    @cached_property
    def root(self) -> Path:
        """``home`` as an absolute path, so that it means the same from every working directory of a child process."""
        return absolute(self.home)

    def names_kept_since(self, today: date) -> str:
        """The first day (yyyy-MM-dd) whose names are not to be masked, counted from the UTC date ``today``; "" masks none."""
        days = self.privacy_mask_after_days
        return (today - timedelta(days=days)).isoformat() if days else ""

    @property
    def catalog_db(self) -> Path:
        return self.root / "catalog.db"

    @property
    def warehouse(self) -> Path:
        return self.root / "warehouse"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def kafka_dir(self) -> Path:
        return self.root / "kafka"

    @property
    def dagster_home(self) -> Path:
        return self.root / "dagster"

    @property
    def criteria_file(self) -> Path:
        return self.root / CRITERIA_FILE


def _is_safe_url(url: str) -> bool:
    parts = urlsplit(url)
    return bool(parts.hostname) and (
        parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    )


def load_settings(**given: object) -> Settings:
    """Read the settings from the environment.

    Args:
        given: values of fields that take precedence over it.

    Raises:
        ConfigurationError: one line that names each wrong or unknown setting and what it must be.
    """
    try:
        return Settings(**given)  # type: ignore[arg-type]  # pydantic checks them
    except ValidationError as error:
        raise ConfigurationError("; ".join(_one_line(item) for item in error.errors())) from None


def load_criteria(settings: Settings) -> Criteria:
    """Read ``criteria.toml`` of the data directory; without one, or for what it leaves out, the defaults hold.

    Raises:
        ConfigurationError: it cannot be read, or a figure in it cannot be.
    """
    path = settings.criteria_file
    try:
        return parse_criteria(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        return DEFAULT_CRITERIA
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not UTF-8: save it as UTF-8") from None


def _one_line(item) -> str:  # type: ignore[no-untyped-def]  # pydantic's ErrorDetails is a TypedDict of pydantic_core
    field = ".".join(str(part) for part in item["loc"])
    message = item["msg"].removeprefix("Value error, ")
    return f"WIKISTREAM_{field.upper()}: {message} (got {item['input']!r})" if field else message
