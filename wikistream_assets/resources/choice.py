"""The resources of each environment: one map, chosen once by ``WIKISTREAM_ENV``, no fallback."""

from typing import Any

from wikistream_assets.exceptions import ConfigurationError
from wikistream_assets.resources.local import LOCAL_RESOURCES
from wikistream_assets.settings import Settings


def resources_for(settings: Settings) -> dict[str, Any]:
    """The resources of the environment that ``settings`` name.

    Raises:
        ConfigurationError: an environment that runs on AWS; its EMR Serverless, MSK and S3 Tables resources are not built yet.
    """
    if settings.env != "local":
        raise ConfigurationError(
            f"WIKISTREAM_ENV={settings.env} runs on AWS, whose resources this version does not have: use WIKISTREAM_ENV=local"
        )
    return dict(LOCAL_RESOURCES)
