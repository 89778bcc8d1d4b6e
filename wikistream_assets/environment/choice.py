"""The choice by ``WIKISTREAM_ENV``: one map, no fallback."""

from collections.abc import Callable, Mapping
from typing import Final

from wikistream_assets.environment.local import LocalEnvironment
from wikistream_assets.environment.ports import Environment
from wikistream_assets.exceptions import ConfigurationError
from wikistream_assets.settings import Settings

_ENVIRONMENTS: Final[Mapping[str, Callable[[Settings], Environment]]] = {"local": LocalEnvironment}


def environment_of(settings: Settings) -> Environment:
    """The environment that ``settings`` name.

    Raises:
        ConfigurationError: one that runs on AWS; its EMR Serverless, MSK and S3 Tables are not built yet.
    """
    try:
        return _ENVIRONMENTS[settings.env](settings)
    except KeyError:
        raise ConfigurationError(
            f"WIKISTREAM_ENV={settings.env} runs on AWS, whose resources this version does not have: use WIKISTREAM_ENV=local"
        ) from None
