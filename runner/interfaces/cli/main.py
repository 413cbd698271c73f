"""The command `bnbench`. Data goes to stdout, progress and errors to stderr."""

import io
import sys
from typing import Any

import click

import runner
from runner.errors import UserError, printable
from runner.execution.leftovers import leave
from runner.interfaces.cli import (
    calibrate,
    catalogue,
    claims,
    compare,
    init,
    inspect,
    plan,
    report,
    run,
    shards,
    try_network,
    variance,
    watch,
)


class _Group(click.Group):
    """A group that prints a `UserError` without a traceback and exits with 2."""

    def invoke(self, ctx: click.Context) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                # A terminal of another encoding than UTF-8 has no sign for "…".
                stream.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(str(error), err=True)
        except BrokenPipeError:
            # Click handles a pipe whose reader has ended.
            raise
        except OSError as error:
            # Such as a full disk or a read-only folder.
            click.echo(printable(f"{error.filename or 'storage'}: {error.strerror or error}"), err=True)
        return ctx.exit(2)


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    import torch

    from runner.training.kernels.library import identity

    cuda = torch.version.cuda or "none"
    click.echo(f"bnbench {runner.__version__} (torch {torch.__version__}, CUDA {cuda}, kernels {identity('auto')})")
    ctx.exit()


CONTEXT = {"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "BNBENCH", "show_default": True}


@click.group(cls=_Group, context_settings=CONTEXT)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show versions.")
def main() -> None:
    """Does batch normalization help here, by how much, and how sure are we?"""


for command in (
    *(run.run, try_network.try_network, run.resume, shards.merge, plan.plan, plan.validate, watch.watch),
    *(compare.compare, variance.variance, report.report, report.plot, compare.export, inspect.inspect),
    *(catalogue.networks, catalogue.datasets, catalogue.configs, catalogue.schema, init.init),
    *(claims.claims, calibrate.calibrate),
):
    main.add_command(command)


def program() -> None:
    """The command as a program. It also ends if a network has left a thread or a process that does not."""
    try:
        main()
    except SystemExit as end:
        leave(end.code if isinstance(end.code, int) else int(end.code is not None))


if __name__ == "__main__":
    program()
