"""`bnbench calibrate`. Nothing heavy is imported before the command runs."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from runner.interfaces.cli.options import options_of


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("results"),
    show_default=True,
    help="Sweeps and tables go to OUT/calibration/.",
)
@click.option("--data-dir", metavar="DIR", help="Data folder; the embedded digits need none.")
@click.option("--executor", default="process", show_default=True, help="inline or process.")
@click.option(
    "--workers", type=click.IntRange(1, 1024), help="Worker processes (default: what the CPUs have room for)."
)
@click.option("--format", "style", type=click.Choice(["table", "csv"]), default="table", show_default=True)
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def calibrate(out: Path, data_dir: str | None, executor: str, workers: int | None, style: str, quiet: bool) -> None:
    """Whether the harness can be trusted: arms that do not differ, and effects planted to be caught.

    Exit code: 0 where every check passes, 1 where one does not, 130 or 143 when interrupted; the same command goes on.
    """
    from runner.analysis import calibration
    from runner.execution.driver import run_sweeps
    from runner.reporting.claim_table import as_table

    folder = out / "calibration"
    options = options_of(data_dir=data_dir, out=folder, executor=executor, workers=workers, quiet=quiet)
    code = run_sweeps(calibration.sweeps(), options, lambda line: None if quiet else click.echo(line, err=True))
    if code not in (0, 1):
        sys.exit(code)
    checks = calibration.judge(folder)
    click.echo(calibration.as_csv(checks) if style == "csv" else as_table(checks), nl=False)
    sys.exit(0 if code == 0 and all(check.passed for check in checks) else 1)
