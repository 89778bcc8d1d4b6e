"""Steps as values: written down, read back, refused with the field that is wrong."""

import json

import pytest

from wikistream_assets.engine.step import Action, Step, main
from wikistream_assets.exceptions import ConfigurationError
from wikistream_assets.streams.edits.stream import EDITS

pytestmark = pytest.mark.unit

STEPS = [
    Step(EDITS.name, Action.DRAIN, "r1"),
    Step(EDITS.name, Action.GATE, "r1"),
    Step(EDITS.name, Action.PUBLISH, "r1", {"layer": "silver"}),
    Step(EDITS.name, Action.RECOMPUTE, "r1", {"dates": ["2026-03-01"]}),
    Step(EDITS.name, Action.MAINTAIN, "r1", {"layer": "gold", "orphans": True}),
    Step(EDITS.name, Action.MASK, "r1", {"layer": "gold", "today": "2026-03-01"}),
    Step(
        EDITS.name,
        Action.DECIDE,
        "r1",
        {"action": "accept", "table": "a.b", "check": "c", "reason": "d", "decided_by": "e"},
    ),
]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: str(step.action))
def test_a_step_is_what_is_read_back(step: Step) -> None:
    assert Step.from_json(step.as_json()) == step
    assert json.loads(step.as_json())["action"] == step.action.value


def test_every_action_is_among_them() -> None:
    assert {step.action for step in STEPS} == set(Action)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "no step"),
        ("[]", "no step"),
        ('"drain"', "no step"),
        ('{"stream": "edits", "action": "drain"}', "run_id"),
        ('{"stream": "edits", "action": "drain", "run_id": "r", "more": 1}', "more"),
        ('{"stream": "devices", "action": "drain", "run_id": "r"}', "stream: no stream 'devices' is declared"),
        ('{"stream": "edits", "action": "drop", "run_id": "r"}', "action: 'drop' is none of"),
        ('{"stream": "edits", "action": "publish", "run_id": "r"}', "missing a required argument: 'layer'"),
        ('{"stream": "edits", "action": "gate", "run_id": "r", "arguments": {"layer": "gold"}}', "unexpected keyword"),
    ],
)
def test_what_is_no_step_is_refused_by_its_field(text: str, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigurationError, match=named.replace("(", r"\(")):
        Step.from_json(text)
    assert main([text]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert said.out == ""
