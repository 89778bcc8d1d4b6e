"""The one typed settings class: every ``WIKISTREAM_*`` variable, its default, its meaning, validated once at start."""

from functools import cached_property
from pathlib import Path

from pydantic import Field, ValidationError, model_validator

from producer.settings import ProducerSettings
from wikistream_assets.exceptions import ConfigurationError


class Settings(ProducerSettings):
    """All settings. ``WIKISTREAM_<NAME>`` in upper case sets the field ``<name>``; an unknown name is refused."""

    home: Path = Field(Path(".wikistream"), description="folder that holds all that the embedded default writes")
    data: Path = Field(Path("../shared/data"), description="folder of public captures, used by tests only")
    cache: Path = Field(Path("~/.cache/wikistream"), description="folder of fetched jars, shared by all homes")
    kafka_port: int = Field(19092, gt=0, lt=65536, description="the embedded broker's port on loopback")
    kafka_controller_port: int = Field(
        19093, gt=0, lt=65536, description="the embedded broker's controller port on loopback"
    )
    kafka_heap_mb: int = Field(320, ge=128, description="heap of the embedded broker, MiB")
    kafka_partitions: int = Field(3, ge=1, description="partitions of raw-events")
    kafka_retention_hours: int = Field(168, ge=1, description="retention of raw-events and dlq-events, hours")
    dagster_port: int = Field(3000, gt=0, lt=65536, description="port of the Dagster UI on loopback")
    spark_cores: int = Field(2, ge=1, description="threads of the local Spark session")
    spark_memory_mb: int = Field(1536, ge=512, description="heap of the local Spark session, MiB")
    bronze_trigger_seconds: float = Field(
        1.0, ge=0, description="micro-batch interval of the continuous Bronze stream, seconds"
    )
    bronze_batch_records: int = Field(50_000, ge=1, description="most records one Bronze micro-batch reads")
    allowed_lateness_hours: int = Field(2, ge=0, description="after this many hours a Gold hour or day is final")

    @model_validator(mode="before")
    @classmethod
    def _bootstrap_follows_port(cls, values: dict[str, object]) -> dict[str, object]:
        if "kafka_port" in values and "bootstrap_servers" not in values:
            values["bootstrap_servers"] = f"127.0.0.1:{values['kafka_port']}"
        return values

    @cached_property
    def root(self) -> Path:
        """``home`` as an absolute path, so that it means the same from every working directory of a child process."""
        return self.home.expanduser().resolve()

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


def load_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        ConfigurationError: one line that names each wrong or unknown setting and what it must be.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise ConfigurationError("; ".join(_one_line(item) for item in error.errors())) from None


def _one_line(item) -> str:  # type: ignore[no-untyped-def]  # pydantic's ErrorDetails is a TypedDict of pydantic_core
    field = ".".join(str(part) for part in item["loc"])
    message = item["msg"].removeprefix("Value error, ")
    return f"WIKISTREAM_{field.upper()}: {message} (got {item['input']!r})" if field else message
