"""Settings of the producer, read from ``WIKISTREAM_*`` environment variables and checked once at start."""

import os
from typing import Literal

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

ENV_PREFIX = "WIKISTREAM_"


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
        "https://github.com/wikistream/wikistream",
        description="who runs this, for the User-Agent that Wikimedia's policy asks for: a URL or an e-mail address",
    )
    domains: str = Field(
        "default", description="'default' (18 wikis), '*' for all, or a comma-separated list of domains"
    )
    max_event_bytes: int = Field(1_000_000, gt=0, description="larger events go to the dead-letter topic, bytes")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: dict[str, object]) -> dict[str, object]:
        known = {f"{ENV_PREFIX}{name}".upper() for name in cls.model_fields}
        unknown = sorted(
            name for name in os.environ if name.upper().startswith(ENV_PREFIX) and name.upper() not in known
        )
        if unknown:
            raise ValueError(
                f"unknown setting {', '.join(unknown)}: unset it or correct its name (known: {', '.join(sorted(known))})"
            )
        return values
