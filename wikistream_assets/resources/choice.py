"""The resources of each environment: one map, chosen once by ``WIKISTREAM_ENV``, no fallback."""

from collections.abc import Mapping
from typing import Any, Final

from wikistream_assets.environment.choice import environment_of
from wikistream_assets.resources.local import LOCAL_RESOURCES
from wikistream_assets.settings import Settings

_RESOURCES: Final[Mapping[str, Mapping[str, Any]]] = {"local": LOCAL_RESOURCES}


def resources_for(settings: Settings) -> dict[str, Any]:
    """The resources of the environment that ``settings`` name.

    Raises:
        ConfigurationError: as ``environment_of``.
    """
    environment_of(settings)
    return dict(_RESOURCES[settings.env])
