"""A step: what is to be done to a stream, as a value that can be written down and carried out anywhere.

``python -m wikistream_assets.engine.step JSON [JSON ..]`` carries out steps one after the other in this process. A job on EMR
Serverless runs the same command, and so do the fault tests. What a step did stands in the lake (see ``reports``). What it says
about itself, one JSON line on standard output, is for people.

Exit code 0: carried out, whatever its gate has decided; 1: failed, with one line on standard error; 2: no step.
"""

import argparse
import importlib
import inspect
import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final, Self

from wikistream_assets.engine.context import JobContext
from wikistream_assets.environment.choice import environment_of
from wikistream_assets.environment.ports import Environment
from wikistream_assets.exceptions import ConfigurationError, WikistreamError
from wikistream_assets.settings import load_settings
from wikistream_assets.streams.registry import STREAMS


class Action(StrEnum):
    """What a step does; each is a function of this name in the ``actions`` of its room."""

    DRAIN = "drain"
    """Bring everything into Bronze that is in Kafka now."""
    GATE = "gate"
    """Audit what is new in Bronze and tag it."""
    PUBLISH = "publish"
    """Build, audit and publish a layer."""
    RECOMPUTE = "recompute"
    """Compute days of Gold again."""
    MAINTAIN = "maintain"
    """Compact and expire the tables of a layer."""
    MASK = "mask"
    """Hide the names in a layer's old rows."""
    DECIDE = "decide"
    """Check an operator's decision against the failure it is about, and record it."""


_ACTIONS: Final[Mapping[Action, str]] = {
    Action.DRAIN: "wikistream_assets.engine.actions",
    Action.GATE: "wikistream_assets.engine.actions",
    Action.PUBLISH: "wikistream_assets.engine.actions",
    Action.DECIDE: "wikistream_assets.engine.actions",
    Action.RECOMPUTE: "wikistream_assets.upkeep.actions",
    Action.MAINTAIN: "wikistream_assets.upkeep.actions",
    Action.MASK: "wikistream_assets.upkeep.actions",
}
"""By name: a step loads what it runs, and the engine knows nothing of what is done besides."""


@dataclass(frozen=True)
class Step:
    """One thing to do.

    Attributes:
        stream: the declared stream it is done to.
        action: what is done.
        run_id: the Dagster run, or the command, on whose behalf; recorded with verdicts and in snapshots.
        arguments: of the action, as JSON knows them.
    """

    stream: str
    action: Action
    run_id: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.stream not in STREAMS:
            raise ConfigurationError(f"stream: no stream {self.stream!r} is declared; known: {', '.join(STREAMS)}")
        if self.action not in list(Action):
            raise ConfigurationError(f"action: {self.action!r} is none of {', '.join(Action)}")
        object.__setattr__(self, "action", Action(self.action))
        try:
            inspect.signature(self.body).bind(None, **self.arguments)
        except TypeError as error:
            raise ConfigurationError(f"arguments: {self.action}: {error}") from None

    @property
    def body(self) -> Any:
        """The function that carries it out: takes a ``JobContext`` and the arguments, returns what it says about itself."""
        return getattr(importlib.import_module(_ACTIONS[self.action]), self.action.value)

    def as_json(self) -> str:
        """The step as ``from_json`` reads it. Keys sorted: equal steps, equal text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a step.

        Raises:
            ConfigurationError: the text is no step; names the field.
        """
        try:
            known = json.loads(text)
            return cls(**known)
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"no step: {error}") from None


def execute(step: Step, environment: Environment) -> Mapping[str, Any]:
    """Carry the step out in this process.

    Returns:
        What it says about itself, as JSON knows it; nothing is decided by that.

    Raises:
        WikistreamError: as the action says.
    """
    said: Mapping[str, Any] = step.body(JobContext(environment, step.run_id, STREAMS[step.stream]), **step.arguments)
    return said


def main(arguments: list[str] | None = None) -> int:
    """Carry out the steps that are given; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m wikistream_assets.engine.step", description=__doc__)
    parser.add_argument("steps", nargs="+", metavar="JSON", help="stream, action, run_id, arguments")
    given = parser.parse_args(arguments).steps
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("py4j").setLevel(logging.WARNING)
    try:
        steps = [Step.from_json(text) for text in given]
    except ConfigurationError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    try:
        environment = environment_of(load_settings())
        for step in steps:
            sys.stdout.write(json.dumps(execute(step, environment)) + "\n")
            sys.stdout.flush()
    except WikistreamError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
