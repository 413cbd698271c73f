"""The command line. Data on stdout, progress and errors on stderr; torch is imported only where it is needed."""

from __future__ import annotations

from typing import Any

import click

import runner
from runner.errors import UserError
from runner.interfaces.cli.calibrate import calibrate
from runner.interfaces.cli.catalogue import datasets, networks, schema
from runner.interfaces.cli.claims import claims
from runner.interfaces.cli.compare import compare, export
from runner.interfaces.cli.inspect import inspect
from runner.interfaces.cli.plan import plan, validate
from runner.interfaces.cli.report import plot, report
from runner.interfaces.cli.run import resume, run
from runner.interfaces.cli.watch import watch


class _Group(click.Group):
    """Prints a `UserError` as it is, without a traceback, and exits with 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(str(error), err=True)
        except BrokenPipeError:
            raise  # click's: the reader of a pipe has had enough
        except OSError as error:  # a full disk, a read-only or missing folder: what was written stands
            click.echo(f"{error.filename or 'storage'}: {error.strerror or error}", err=True)
        return ctx.exit(2)


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    import torch

    click.echo(f"bnbench {runner.__version__} (torch {torch.__version__}, CUDA {torch.version.cuda or 'none'})")
    ctx.exit()


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "BNBENCH"})
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show versions.")
def main() -> None:
    """Does batch normalization help here, by how much, and how sure are we?"""


for command in (
    *(run, resume, plan, validate, watch),
    *(compare, report, plot, export, inspect),
    *(networks, datasets, schema),
    *(claims, calibrate),
):
    main.add_command(command)


if __name__ == "__main__":
    main()
