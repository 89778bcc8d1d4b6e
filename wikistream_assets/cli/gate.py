"""``wikistream gate``: what the gates say, and the way out when one blocks."""

import getpass
from typing import Annotated, Literal

import typer

from wikistream_assets.cli.console import job_context, open_lake, printable

app = typer.Typer(
    no_args_is_help=True, help="See what blocks, and accept or reject it with a reason. Gates run in Dagster's jobs."
)

_Table = Annotated[str, typer.Argument(help="audited table, e.g. silver.cleaned_events")]
_Check = Annotated[str, typer.Argument(help="failed check, as shown by: wikistream gate status")]
_Reason = Annotated[str, typer.Option("--reason", help="why; recorded with the decision")]
_By = Annotated[str | None, typer.Option("--by", help="who decides; default: the login name")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="show what the decision would cover, record nothing")]

_WHERE = "SQL condition that names the rows; docs/RUNBOOK.md says what it may hold"

BLOCKED_EXIT_CODE = 3


@app.command()
def status() -> None:
    """Show for each layer what waits for its gate and which checks block it. Exit code 3 if something is blocked."""
    from wikistream_assets.engine.gate_control import gate_states, rollback_target

    _, lake = open_lake()
    states = gate_states(lake)
    for state in states:
        waiting = "nothing waits" if state.pending.empty else f"waits from {state.pending.start} to {state.pending.end}"
        typer.echo(f"{state.layer:<7} {'BLOCKED' if state.blocked else 'open'}: {waiting}")
        for failure in state.failures:
            typer.echo(
                f"        {failure['status']} {failure['table_name']} {failure['check_name']}"
                f" (attempt {failure['attempt']}, run {failure['run_id']}): {printable(str(failure['message']))}"
            )
        for refusal in state.refusals:
            typer.echo(f"        REFUSED {printable(refusal)}")
    if any(state.blocked for state in states):
        typer.echo(
            "Mend the rule or the data's cause and run the layer again, or decide:\n"
            "  wikistream gate accept TABLE CHECK --reason '...'\n"
            "  wikistream gate reject TABLE CHECK --where 'SQL condition' --reason '...'"
        )
        for raw, target in ((state.stream.raw, target) for state in states if (target := rollback_target(lake, state))):
            typer.echo(
                "Rows written twice: reject with --where true keeps one of each. Or have the records read from Kafka again:\n"
                "  wikistream down\n"
                f"  wikistream rollback {raw.identifier} {target} --reason '...'"
            )
        raise typer.Exit(BLOCKED_EXIT_CODE)


@app.command()
def accept(table: _Table, check: _Check, reason: _Reason, by: _By = None, dry_run: _DryRun = False) -> None:
    """Waive one failed check for the range it failed on; the next run of the layer audits and publishes the range."""
    _decide("accept", table, check, reason, by, dry_run)


@app.command()
def reject(
    table: _Table,
    check: _Check,
    where: Annotated[str, typer.Option("--where", help=_WHERE)],
    reason: _Reason,
    by: _By = None,
    dry_run: _DryRun = False,
) -> None:
    """Send the matching rows of the failed range to quarantine; the next run of the layer audits the rest.

    About a check that looks for repeated rows, one of each repetition stays.
    """
    _decide("reject", table, check, reason, by, dry_run, where)


@app.command()
def correct(
    decision: Annotated[str, typer.Argument(help="id of the decision, as shown by: wikistream gate status")],
    where: Annotated[str, typer.Option("--where", help=_WHERE)],
    reason: _Reason,
    by: _By = None,
    dry_run: _DryRun = False,
) -> None:
    """Give a recorded decision whose condition is refused another condition; 'false' rejects nothing."""
    from wikistream_assets.engine.gate_control import correct as correct_decision

    corrected = correct_decision(
        job_context("wikistream gate"),
        decision,
        where,
        reason=reason,
        decided_by=by or getpass.getuser(),
        dry_run=dry_run,
    )
    typer.echo(
        f"{_said(dry_run)}: decision {corrected.decision_id} on {corrected.table_name}.{corrected.check_name} rejects"
        f" {printable(str(corrected.predicate))}"
    )


def _decide(
    action: Literal["accept", "reject"],
    table: str,
    check: str,
    reason: str,
    by: str | None,
    dry_run: bool,
    where: str | None = None,
) -> None:
    from wikistream_assets.engine.gate_control import decide_on_failure

    preview = decide_on_failure(
        job_context("wikistream gate"),
        action,
        table,
        check,
        reason=reason,
        decided_by=by or getpass.getuser(),
        predicate=where,
        dry_run=dry_run,
    )
    typer.echo(f"{_said(dry_run)}: {printable(preview.text)}")


def _said(dry_run: bool) -> str:
    return "dry run, nothing recorded" if dry_run else "recorded"
