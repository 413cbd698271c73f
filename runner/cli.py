"""The command line. Data on stdout, progress and errors on stderr; torch is imported only where it is needed."""

from __future__ import annotations

import json
import os
import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

import runner
from runner.calibrate_cli import calibrate
from runner.claims_cli import claims
from runner.errors import UserError

if TYPE_CHECKING:
    from runner.grouping import StackMode
    from runner.sweep import Sweep

FORMATS = ("table", "csv", "json", "md", "latex")


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


_config = click.argument("config", type=click.Path(path_type=Path))
_set = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override, e.g. grid.lr=[0.01,0.1].")
_data_dir = click.option("--data-dir", metavar="DIR", help="Data folder (default: $BNBENCH_DATA_DIR, else ./data).")
_device = click.option("--device", metavar="DEVICE", help="Every run's device: auto, cpu, cuda, cuda:N.")
_stack = click.option(
    "--stack",
    type=click.Choice(["auto", "on", "off"]),
    default="auto",
    show_default=True,
    help="Train runs that differ only in seed, lr, momentum, … as one model: on CUDA (auto), wherever they can, never.",
)


@main.command()
@_config
@_set
@_data_dir
@_device
@_stack
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("results"), show_default=True, help="Results folder."
)
@click.option("--executor", default="process", show_default=True, help="inline or process.")
@click.option(
    "--workers", type=click.IntRange(1, 1024), help="Worker processes (default: what the CPUs have room for)."
)
@click.option("--resume", is_flag=True, help="Finish the sweep that lies there.")
@click.option("--retry", is_flag=True, help="With --resume: train the runs that failed again.")
@click.option("--fresh", is_flag=True, help="Start over where a sweep lies there.")
@click.option("--dry-run", is_flag=True, help="Show the plan and train nothing.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.option("-v", "--verbose", is_flag=True, help="Tracebacks of failed runs too.")
def run(
    config: Path,
    overrides: tuple[str, ...],
    data_dir: str | None,
    device: str | None,
    stack: StackMode,
    out: Path,
    executor: str,
    workers: int | None,
    resume: bool,
    retry: bool,
    fresh: bool,
    dry_run: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Train every run of CONFIG and print the comparison.

    The sweep lies in OUT/<name>/. Exit code: 0, 1 where some runs failed, 2 for a wrong config, 130 or 143 when
    interrupted.
    """
    from runner.config import load

    if resume and fresh:
        raise UserError("--resume and --fresh contradict each other; allowed: one of them")
    if retry and not resume:
        raise UserError("--retry goes with --resume")
    sweep = load(config, overrides, device)
    if dry_run:
        _print_plan(sweep, stack, data_dir)
        return
    from runner.data import data_folder
    from runner.driver import Options, run_sweep

    options = Options(
        out=out,
        root=data_folder(data_dir),
        executor=executor,
        workers=workers,
        existing="resume" if resume else "fresh" if fresh else "refuse",
        retry=retry,
        stack=stack,
        quiet=quiet,
        verbose=verbose,
    )
    code = run_sweep(sweep, options)
    if code in (0, 1):
        _print_comparison([out / sweep.name], "valid_accuracy", "last", (), None, "table")
    sys.exit(code)


@main.command()
@_config
@_set
@_data_dir
@_device
@_stack
def plan(config: Path, overrides: tuple[str, ...], data_dir: str | None, device: str | None, stack: StackMode) -> None:
    """Show every run of CONFIG, its arm, what it is paired with and what it trains with; trains nothing."""
    from runner.config import load

    _print_plan(load(config, overrides, device), stack, data_dir)


def _print_plan(sweep: Sweep, stack: StackMode, data_dir: str | None) -> None:
    from runner.plan import describe, describe_stacks

    for line in chain(describe(sweep), describe_stacks(sweep, stack, data_dir)):
        click.echo(line)


@main.command()
@_config
@_set
@_data_dir
@_device
def validate(config: Path, overrides: tuple[str, ...], data_dir: str | None, device: str | None) -> None:
    """Check CONFIG, its devices and its data; trains nothing, writes nothing but downloaded data."""
    from runner import preflight
    from runner.config import load
    from runner.data import data_folder

    sweep = preflight.check(load(config, overrides, device), data_folder(data_dir))
    click.echo(f"{config}: {len(sweep.runs)} runs, no fault")


def _at(_: click.Context, __: click.Parameter, text: str) -> str | int:
    if text in ("last", "best"):
        return text
    head, _equals, number = text.partition("=")
    if head == "epoch" and number.isdecimal() and int(number) > 0:
        return int(number)
    raise click.BadParameter(f"'{text}'; allowed: last, best, epoch=N")


def _columns(_: click.Context, __: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


@main.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--metric", default="valid_accuracy", show_default=True, help="A column of metrics.csv, or test_accuracy."
)
@click.option("--at", default="last", show_default=True, callback=_at, metavar="last|best|epoch=N", help="Which epoch.")
@click.option(
    "--group-by", callback=_columns, metavar="A,B", help="Cell columns (default: all parameters that differ)."
)
@click.option("--target", type=float, metavar="VALUE", help="Also compare steps and seconds to this value.")
@click.option("--sort", metavar="COLUMN", help="Sort rows by a column; -COLUMN descending.")
@click.option("--format", "style", type=click.Choice(FORMATS), default="table", show_default=True)
def compare(
    results: tuple[Path, ...],
    metric: str,
    at: str | int,
    group_by: tuple[str, ...] | None,
    target: float | None,
    sort: str | None,
    style: str,
) -> None:
    """Compare the arms of one or several RESULTS folders, per cell, against the baseline."""
    _print_comparison(results, metric, at, group_by, sort, style, target)


def _print_comparison(
    folders: Any, metric: str, at: Any, group_by: Any, sort: str | None, style: str, target: float | None = None
) -> None:
    from runner.comparison import compare
    from runner.results import load
    from runner.tables import render

    comparison = compare(
        [load(folder) for folder in folders], metric=metric, at=at, group_by=group_by or None, sort=sort, target=target
    )
    click.echo(render(comparison, cast(Any, style), color=style == "table" and _color()))


def _color() -> bool:
    """On a terminal that has colours, unless NO_COLOR asks for none; FORCE_COLOR asks for them anywhere."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return bool(os.environ.get("FORCE_COLOR")) or sys.stdout.isatty()


@main.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option("--format", "style", type=click.Choice(["tutorial"]), required=True)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Path without suffix (default: RESULTS/tutorial)."
)
def export(results: Path, style: str, output: Path | None) -> None:  # noqa: ARG001
    """Write RESULTS in another tool's format: the tutorial's CSV and JSON, byte for byte."""
    from runner.export import tutorial
    from runner.results import load
    from runner.store import write_atomically

    loaded = load(results)
    base = output or results / "tutorial"
    for suffix, text in zip((".csv", ".json"), tutorial(loaded, loaded.grid_keys), strict=True):
        path = base.with_name(base.name + suffix)
        write_atomically(path, text)
        click.echo(path)


@main.command()
@click.argument("name", required=False)
@click.option("--plugin", "plugins", multiple=True, metavar="FILE", help="A Python file that registers networks.")
@click.option("--set", "arguments", multiple=True, metavar="KEY=VALUE", help="An argument, e.g. norm=batch.")
def networks(name: str | None, plugins: tuple[str, ...], arguments: tuple[str, ...]) -> None:
    """List the networks; with NAME, show its arguments, parameters and layers."""
    from runner import registry
    from runner.catalogue import network_listing, network_page

    registry.load_plugins(plugins)
    for line in network_page(name, arguments) if name else network_listing():
        click.echo(line)


@main.command()
@click.option("--fetch", is_flag=True, help="Download what is missing.")
@click.option("--verify", is_flag=True, help="Check the files against their SHA-256; downloads nothing.")
@click.option("--plugin", "plugins", multiple=True, metavar="FILE", help="A Python file that registers data sets.")
@_data_dir
@click.argument("names", nargs=-1)
def datasets(fetch: bool, verify: bool, plugins: tuple[str, ...], data_dir: str | None, names: tuple[str, ...]) -> None:
    """List the data sets; fetch or verify NAMES (default: all)."""
    from runner import registry
    from runner.catalogue import check_datasets, dataset_listing

    registry.load_plugins(plugins)
    for name in names:
        registry.dataset[name]  # an unknown one is an error, whatever is asked of it
    if not fetch and not verify:
        for line in dataset_listing():
            click.echo(line)
        return
    from runner.data import data_folder

    for line in check_datasets(names or tuple(registry.dataset), data_folder(data_dir), download=fetch):
        click.echo(line)


@main.command()
def schema() -> None:
    """Print the JSON schema of a config, for editors."""
    from runner.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


main.add_command(claims)
main.add_command(calibrate)

if __name__ == "__main__":
    main()
