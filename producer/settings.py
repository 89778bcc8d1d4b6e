"""Settings of the producer, read from ``WIKISTREAM_*`` environment variables and checked once at start."""

import os
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from producer.exceptions import ProducerConfigError
from producer.wikis import parse_domains

ENV_PREFIX = "WIKISTREAM_"

OTHER_SETTINGS = frozenset(
    {
        *("HOME", "DATA", "CACHE", "KAFKA_PORT", "KAFKA_CONTROLLER_PORT", "KAFKA_HEAP_MB", "KAFKA_PARTITIONS"),
        *("KAFKA_RETENTION_HOURS", "DAGSTER_PORT", "SPARK_CORES", "SPARK_MEMORY_MB", "BRONZE_TRIGGER_SECONDS"),
        *("SOURCE_PORT", "SYNTHETIC_EVENTS_PER_SECOND", "CODE_PORT"),
        *("BRONZE_BATCH_RECORDS", "ALLOWED_LATENESS_HOURS", "DLQ_MAX_ATTEMPTS"),
        *("ALERT_ROUTES", "ALERT_REPEAT_MINUTES", "ALERT_RATE_PER_MINUTE", "ALERT_EXPIRY_HOURS"),
        *("ALERT_SLACK_WEBHOOK_URL", "ALERT_EMAIL_TO", "ALERT_EMAIL_FROM", "ALERT_SMTP_HOST"),
        *("ALERT_SMTP_PORT", "ALERT_SMTP_STARTTLS", "ALERT_SMTP_USER", "ALERT_SMTP_PASSWORD"),
        *("ALERT_SNS_TOPIC_ARN", "ALERT_SNS_ENDPOINT_URL", "ALERT_LAG_RECORDS", "ALERT_LATENCY_SECONDS"),
        *("ALERT_DLQ_PER_MINUTE", "ALERT_PRODUCER_CPU_SECONDS"),
        *("STREAM_METRICS_PORT", "METRICS_PORT", "PROFILE", "BRONZE_FRESH_SECONDS", "TABLES_FRESH_SECONDS"),
        *("BRONZE_STALL_SECONDS", "STREAM_RESTART_TRIES", "SOURCE_SILENT_SECONDS", "CYCLE_FIRST_SECONDS"),
        *("CYCLE_PAUSE_SECONDS", "CYCLE_BLOCKED_SECONDS", "CYCLE_AFTER_FAILED_GATE", "STEP_MAX_SECONDS"),
        *("MAINTENANCE_EVERY_MINUTES", "MAINTENANCE_TARGET_FILE_MB", "MAINTENANCE_MIN_INPUT_FILES"),
        *("MAINTENANCE_SNAPSHOT_AGE_HOURS", "MAINTENANCE_MIN_SNAPSHOTS", "MAINTENANCE_MAX_SNAPSHOTS"),
        *("MAINTENANCE_ORPHAN_AGE_HOURS", "DAGSTER_HISTORY_DAYS", "PRIVACY_MASK_AFTER_DAYS"),
    }
)
"""Names that the lakehouse's settings add. A shell may export them for both; to the producer they mean nothing."""


class ProducerSettings(BaseSettings):
    """What the producer needs to know; ``wikistream_assets.settings.Settings`` adds the lakehouse's part.

    An unknown ``WIKISTREAM_*`` variable is an error: a misspelt setting that is silently ignored is found too late.
    """

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    env: Literal["local", "dev", "staging", "prod"] = "local"
    bootstrap_servers: str = Field("127.0.0.1:19092", description="Kafka bootstrap servers, host:port[,host:port]")
    stream_url: str = Field(
        "https://stream.wikimedia.org/v2/stream/recentchange", description="the EventStreams endpoint of SOURCE=live"
    )
    contact: str = Field(
        "",
        max_length=200,
        description="who runs this, for the User-Agent that Wikimedia's policy asks for: your e-mail address or a URL; "
        "SOURCE=live needs it",
    )
    domains: str = Field(
        "default", description="'default' (18 wikis), '*' for all, or a comma-separated list of domains"
    )
    max_event_bytes: int = Field(
        1_000_000, gt=0, le=4_000_000, description="larger events go to the dead-letter topic, bytes"
    )  # le: quoted into the envelope it must still fit into topics.MAX_MESSAGE_BYTES
    producer_metrics_port: int = Field(
        0, ge=0, lt=65536, description="port of the producer's metrics on loopback; 0 = none"
    )
    producer_batch_events: int = Field(5_000, gt=0, description="most received events in one Kafka transaction")
    producer_batch_seconds: float = Field(
        0.2, gt=0, description="longest time that a received event waits for its transaction"
    )
    producer_connect_attempts: int = Field(
        10, ge=1, description="connections refused in a row before the producer gives up"
    )
    producer_backoff_seconds: float = Field(5.0, gt=0, description="least wait after a refused connection")
    producer_backoff_max_seconds: float = Field(60.0, gt=0, description="longest wait after a refused connection")
    producer_read_timeout_seconds: float = Field(
        60.0, gt=0, description="a connection that is silent for so long, keep-alives included, is given up"
    )
    producer_gap_tolerance_seconds: float = Field(
        60.0,
        ge=0,
        description="a longer silence between the events around a resume is reported as a gap (ids with timestamps)",
    )
    failpoint: str = Field(
        "",
        pattern=r"^([a-z_]+\.[a-z_]+(@[1-9][0-9]*)?)?$",
        description="for fault tests: where a process kills itself, NAME or NAME@N for the Nth time; refused in prod",
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: dict[str, object]) -> dict[str, object]:
        known = {f"{ENV_PREFIX}{name}".upper() for name in cls.model_fields}
        elsewhere = {f"{ENV_PREFIX}{name}" for name in OTHER_SETTINGS}
        given = {name for name in os.environ if name.upper().startswith(ENV_PREFIX)}
        unknown = sorted(name for name in given if name.upper() not in known | elsewhere)
        if unknown:
            raise ValueError(
                f"unknown setting {', '.join(unknown)}: unset it or correct its name (known: {', '.join(sorted(known))})"
            )
        return values

    @model_validator(mode="after")
    def _no_failpoint_in_prod(self) -> Self:
        if self.failpoint and self.env == "prod":
            raise ValueError(
                "a failpoint kills the process on purpose: unset WIKISTREAM_FAILPOINT when WIKISTREAM_ENV is prod"
            )
        return self

    @field_validator("contact")
    @classmethod
    def _fits_into_a_header(cls, contact: str) -> str:
        if not (contact.isascii() and contact.isprintable()):
            raise ValueError(
                "must be plain ASCII on one line, for it is sent in a header: an e-mail address or a URL (other letters in a "
                "URL are written %C3%BC, in a host's name xn--..)"
            )
        return contact.strip()

    @field_validator("stream_url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            sound = False
        if not (sound and url.isascii() and url.isprintable() and " " not in url):
            raise ValueError("must be an address that begins with https:// or http://, in plain ASCII")
        return url

    @field_validator("domains")
    @classmethod
    def _names_domains(cls, domains: str) -> str:
        parse_domains(domains)
        return domains

    @property
    def followed(self) -> frozenset[str] | None:
        """The domains that pass the filter; None lets all pass."""
        return parse_domains(self.domains)

    def require_contact(self) -> None:
        """Refuse to turn to a server of others without saying who we are.

        Raises:
            ProducerConfigError: there is no contact.
        """
        if not self.contact:
            raise ProducerConfigError(
                "WIKISTREAM_CONTACT is not set: put your e-mail address or a URL there, which a live stream is told with each "
                "request, as Wikimedia's User-Agent policy asks (e.g. WIKISTREAM_CONTACT=you@example.org)"
            )


def child_environment(settings: ProducerSettings) -> dict[str, str]:
    """The environment of a producer's process: its settings as they are here, and no other ``WIKISTREAM_*``."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(ENV_PREFIX)}
    return kept | {
        f"{ENV_PREFIX}{name.upper()}": str(getattr(settings, name)) for name in ProducerSettings.model_fields
    }
