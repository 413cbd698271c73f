"""`bnbench claims`: list, run and judge the claims of the source documents."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner.config.sweep import Sweep
from runner.errors import UserError
from runner.interfaces.cli import options

if TYPE_CHECKING:
    from runner.analysis.claims.claim import Claim

_names = click.argument("names", metavar="[NAME]...", nargs=-1)
_budget = partial(
    click.option,
    "--budget",
    type=click.Choice(["smoke", "small", "full"]),
    default="smoke",
)


@click.group(invoke_without_command=True)
@options.plugin_option
@options.format_option("table", "json")
@click.pass_context
def claims(context: click.Context, style: str) -> None:
    """Test what the source documents claim.

    Without a command, bnbench lists the claims.
    """
    if context.invoked_subcommand is None:
        from runner.analysis.claims.claim import chosen_claims

        chosen = chosen_claims()
        options.put(style, list(map(_record, chosen)), map(_text, chosen))
    elif style != "table":
        command = f"bnbench claims {context.invoked_subcommand}"
        raise UserError(f"--format {style} before the command is for the list of claims; allowed: {command} --format …")


def _record(claim: "Claim") -> dict[str, str]:
    return {
        "name": claim.name,
        "sentence": claim.sentence,
        "source": claim.source,
        "claimed": claim.claimed_effect,
        "reason": claim.reason,
        "budget": claim.document.words,
    }


def _text(claim: "Claim") -> str:
    of = _record(claim)
    return (
        f"{of['name']}\n    {of['sentence']}\n    {of['source']}\n"
        f"    claimed: {of['claimed']}. {of['reason']}\n    budget: {of['budget']}"
    )


@claims.command()
@_names
@_budget(
    help="smoke: a quick test on digits. small: a preview on real data, half an hour on two cores. "
    "full: the configs in configs/claims/ as they are written, two hours on two cores. Only full gives verdicts."
)
@options.out_option("results/claims", "Sweeps are written to OUT/BUDGET/.")
@options.training_options
def run(names: tuple[str, ...], budget: Any, out: Path, **training: Any) -> None:
    """Train the sweeps of claims and print the verdicts.

    NAME is a claim (default: all claims). After an interruption, start the command again:
    finished runs are kept.

    The exit code is 0 if every run succeeded, 1 if some runs failed,
    2 for a wrong name, 130 or 143 if interrupted.
    """
    from runner.analysis.claims import plan
    from runner.analysis.claims.claim import chosen_claims, sweeps_of
    from runner.analysis.claims.judge import evaluate
    from runner.reporting.claim_table import render

    chosen, folder = chosen_claims(names), out / budget
    sweeps = sweeps_of(chosen, budget)
    if budget == "full":
        plan.record_start(folder, sweeps, plan.read_plan(folder))
        said = plan.statement(folder, chosen_claims())
        click.echo("\n".join(said), err=True)
    code = train(sweeps, folder, training)
    if code in (0, 1):
        said = plan.statement(folder, chosen_claims()) if budget == "full" else []
        click.echo(render(evaluate(chosen, folder), "table", said), nl=False)
    sys.exit(code)


@claims.command()
@click.argument("file", type=options.PATH, default=Path("results/claims/full/plan.json"))
def freeze(file: Path) -> None:
    """Write down what decides the verdicts, before the first run.

    FILE (default: results/claims/full/plan.json) is the plan: the configs, the seeds, the measures, the smallest
    effects, the rule and the number of tests of all claims, and a digest of each file of code that decides. bnbench
    claims run --budget full looks for it in the folder of its sweeps, and bnbench claims show names everything that was
    edited since. The wording of a sentence is no edit.
    """
    from runner.analysis.claims.claim import chosen_claims
    from runner.analysis.claims.plan import freeze as write

    chosen = chosen_claims()
    plan = write(chosen, file)
    click.echo(f"{file}: {len(chosen)} claims, frozen {plan['frozen']}, digest {plan['digest']}")


def train(sweeps: Sequence[Sweep], out: Path, training: dict[str, Any]) -> int:
    """Train sweeps one after the other, with the values of `training_options`; returns the exit code."""
    from runner.execution.driver import run_sweeps

    say = (lambda _: None) if training["quiet"] else partial(click.echo, err=True)
    return run_sweeps(sweeps, options.options_of(out=out, **training), say)


@claims.command()
@click.argument("results", type=options.PATH, default=Path("results/claims"))
@_names
@_budget(help="Which budget's sweeps to read.")
@options.format_option("table", "csv", "json", "md")
def show(results: Path, names: tuple[str, ...], budget: str, style: Any) -> None:
    """Print the verdicts of sweeps that are trained already, and every edit since the plan was frozen.

    The sweeps are in RESULTS/BUDGET/, or in RESULTS/ if there
    is no such folder. NAME is a claim (default: all claims).
    """
    from runner.analysis.claims.claim import chosen_claims
    from runner.analysis.claims.judge import evaluate
    from runner.analysis.claims.plan import statement
    from runner.reporting.claim_table import render

    folder = results / budget if (results / budget).is_dir() else results
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; bnbench claims run --budget {budget} makes one")
    said = statement(folder, chosen_claims())
    click.echo(render(evaluate(chosen_claims(names), folder), style, said), nl=False)
    if style in ("csv", "json"):
        click.echo("\n".join(said), err=True)
