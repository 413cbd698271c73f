"""`bnbench calibrate`."""

import sys
from pathlib import Path
from typing import Any

import click

from runner.interfaces.cli.claims import train
from runner.interfaces.cli.options import format_option, out_option, training_options


@click.command()
@out_option("results", "Sweeps and tables are written to OUT/calibration/.")
@training_options
@format_option("table", "csv")
def calibrate(out: Path, style: str, **training: Any) -> None:
    """Check that bnbench itself can be trusted.

    The command compares identical networks: about 5% of
    these comparisons should report a difference.
    It also compares networks with a large known difference.
    The data set is digits, which needs no download.

    The exit code is 0 if every check passes, 1 if one does not,
    130 or 143 if interrupted. After an interruption,
    start the command again: finished runs are kept.
    """
    from runner.analysis import calibration
    from runner.reporting.claim_table import as_table

    folder = out / "calibration"
    code = train(calibration.sweeps(), folder, training)
    if code not in (0, 1):
        sys.exit(code)
    checks = calibration.judge(folder)
    click.echo(calibration.as_csv(checks) if style == "csv" else as_table(checks), nl=False)
    sys.exit(0 if code == 0 and all(check.passed for check in checks) else 1)
