"""The command line. Data on stdout, progress and errors on stderr; torch is imported only where it is needed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

import runner
from runner.errors import UserError, unknown
from runner.interfaces.cli.calibrate import calibrate
from runner.interfaces.cli.claims import claims
from runner.interfaces.cli.inspect import inspect
from runner.interfaces.cli.report import plot, report

if TYPE_CHECKING:
    from runner.config.jobs import StackMode
    from runner.config.sweep import Sweep
    from runner.execution.driver import Existing
    from runner.storage.checkpoints import Every

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


def _every(_: click.Context, __: click.Parameter, text: str) -> Every:
    from runner.storage.checkpoints import Every

    number, seconds = (text[:-1], True) if text.endswith("s") else (text, False)
    if not number.isdecimal() or not 0 < int(number) < 10**9:
        raise click.BadParameter(f"'{text}'; allowed: epochs, such as 5, or seconds, such as 60s")
    return Every(seconds=float(number)) if seconds else Every(epochs=int(number))


def _finite(_: click.Context, __: click.Parameter, seconds: float | None) -> float | None:
    if seconds != seconds:  # NaN is in every range
        raise click.BadParameter("'nan'; allowed: seconds")
    return seconds


def _statuses(_: click.Context, __: click.Parameter, text: str | None) -> tuple[str, ...]:
    from runner.storage.store import RETRYABLE

    chosen = tuple(word.strip() for word in (text or "").split(",") if word.strip())
    if unknown := [word for word in chosen if word not in RETRYABLE]:
        raise click.BadParameter(f"'{unknown[0]}'; allowed, separated by commas: {', '.join(RETRYABLE)}")
    return chosen


def _execution(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a command that trains; they reach it as `how`, the fields of `Options`."""
    for option in reversed(
        [
            _data_dir,
            _stack,
            click.option("--executor", default="process", show_default=True, help="inline, process or ray."),
            click.option(
                "--ray-address",
                metavar="ADDRESS",
                help="Of a Ray cluster: auto, HOST:PORT, ray://…, or local: one on this machine (default).",
            ),
            click.option(
                "--workers",
                type=click.IntRange(1, 1024),
                help="Worker processes (default: what the CPUs, or the cluster, have room for).",
            ),
            click.option(
                "--checkpoint-every",
                "every",
                default="60s",
                show_default=True,
                callback=_every,
                metavar="EPOCHS|SECONDSs",
                help="How much training an interruption may cost.",
            ),
            click.option(
                "--run-timeout",
                type=click.FloatRange(min=0, min_open=True, max=1e9),
                callback=_finite,
                metavar="SECONDS",
                help="Give up a run that takes longer.",
            ),
            click.option("--fail-fast", is_flag=True, help="Stop at the first run that fails."),
            click.option(
                "--retry",
                is_flag=False,
                flag_value="failed,oom,timeout",
                callback=_statuses,
                metavar="STATUS,…",
                help="When resuming, train runs of these statuses again (without any: failed,oom,timeout).",
            ),
            click.option(
                "--allow-changed", is_flag=True, help="Resume although code, data or packages changed; recorded."
            ),
            click.option(
                "--track",
                multiple=True,
                metavar="TRACKER",
                help="Tell tensorboard or mlflow too; can be given more than once.",
            ),
            click.option("-q", "--quiet", is_flag=True, help="No progress."),
            click.option("-v", "--verbose", is_flag=True, help="Tracebacks of failed runs too."),
        ]
    ):
        command = option(command)
    return command


@main.command()
@_config
@_set
@_device
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("results"), show_default=True, help="Results folder."
)
@click.option("--resume", is_flag=True, help="Finish the sweep that lies there.")
@click.option("--fresh", is_flag=True, help="Start over where a sweep lies there.")
@click.option("--dry-run", is_flag=True, help="Show the plan and train nothing.")
@_execution
def run(
    config: Path,
    overrides: tuple[str, ...],
    device: str | None,
    out: Path,
    resume: bool,
    fresh: bool,
    dry_run: bool,
    data_dir: str | None,
    **how: Any,
) -> None:
    """Train every run of CONFIG and print the comparison.

    The sweep lies in OUT/<name>/. Exit code: 0, 1 where some runs failed, 2 for a wrong config, 130 or 143 when
    interrupted.
    """
    from runner.config.reader import load

    if resume and fresh:
        raise UserError("--resume and --fresh contradict each other; allowed: one of them")
    for option in ("retry", "allow_changed"):
        if how[option] and not resume:
            raise UserError(f"--{option.replace('_', '-')} goes with --resume")
    sweep = load(config, overrides, device)
    if dry_run:
        _print_plan(sweep, how["stack"], data_dir, how["workers"], out / sweep.name)
        return
    _train(sweep, out, "resume" if resume else "fresh" if fresh else "refuse", data_dir, how)


@main.command()
@click.argument("results", type=click.Path(path_type=Path))
@_execution
def resume(results: Path, data_dir: str | None, **how: Any) -> None:
    """Finish the sweep in RESULTS, from the config that lies there, and print the comparison."""
    from runner.config.reader import load
    from runner.storage.store import CONFIG, sole_writer

    if results.is_dir():
        with sole_writer(results):
            pass  # a plugin may import torch: be turned away before
    sweep = load(results / CONFIG, (), None)
    if sweep.name != results.resolve().name:
        raise UserError(f"{results}: its config is of a sweep named '{sweep.name}'; the folder must bear that name")
    _train(sweep, results.resolve().parent, "resume", data_dir, how)


def _train(sweep: Sweep, out: Path, existing: Existing, data_dir: str | None, how: dict[str, Any]) -> None:
    from runner.execution.driver import Options, run_sweep
    from runner.storage.folder import data_folder

    code = run_sweep(sweep, Options(out=out, root=data_folder(data_dir), existing=existing, **how))
    if code in (0, 1) and not how["fail_fast"]:
        _print_comparison([out / sweep.name], "valid_accuracy", "last", (), None, "table")
    sys.exit(code)


@main.command()
@_config
@_set
@_data_dir
@_device
@_stack
@click.option("--workers", type=click.IntRange(1, 1024), help="Expect so many (default: what the CPUs have room for).")
@click.option(
    "--measured",
    type=click.Path(path_type=Path),
    metavar="RESULTS",
    help="A sweep of such runs, whose epochs say how long these take (default: results/<name>).",
)
def plan(
    config: Path,
    overrides: tuple[str, ...],
    data_dir: str | None,
    device: str | None,
    stack: StackMode,
    workers: int | None,
    measured: Path | None,
) -> None:
    """Show every run of CONFIG, its arm, what it is paired and trains with, and how long it takes; trains nothing."""
    from runner.config.reader import load

    if measured is not None and not measured.is_dir():
        raise UserError(f"--measured {measured}: no such results folder")
    sweep = load(config, overrides, device)
    _print_plan(sweep, stack, data_dir, workers, measured or Path("results") / sweep.name)


def _print_plan(sweep: Sweep, stack: StackMode, data_dir: str | None, workers: int | None, measured: Path) -> None:
    from runner.execution import forecast as schedule
    from runner.execution.driver import default_workers
    from runner.execution.plan import describe, describe_stacks

    workers = workers or default_workers(sweep.runs)
    time = schedule.describe(sweep, stack, workers, measured)
    for line in chain(describe(sweep), describe_stacks(sweep, stack, data_dir), time):
        click.echo(line)


@main.command()
@_config
@_set
@_data_dir
@_device
def validate(config: Path, overrides: tuple[str, ...], data_dir: str | None, device: str | None) -> None:
    """Check CONFIG, its devices and its data; trains nothing, writes nothing but downloaded data."""
    from runner.config.reader import load
    from runner.execution import preflight
    from runner.storage.folder import data_folder

    sweep = preflight.check(load(config, overrides, device), data_folder(data_dir))
    click.echo(f"{config}: {len(sweep.runs)} runs, no fault")


@main.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1, max=1e6),
    callback=_finite,
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to look.",
)
@click.option("--once", is_flag=True, help="Show the state and leave.")
def watch(results: Path, interval: float, once: bool) -> None:
    """Show the sweep that another process trains in RESULTS; writes nothing.

    Exit code: 0 when the sweep is finished, 1 when its process is gone before that, 130 after Ctrl-C.
    """
    from runner.monitoring.watch import follow, glance

    try:
        if once:
            click.echo("\n".join(glance(results)))
        elif not follow(results, interval):
            sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _at(_: click.Context, __: click.Parameter, text: str) -> str | int:
    if text in ("last", "best"):
        return text
    head, _equals, number = ("epoch", "", text) if text.isdecimal() else text.partition("=")
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
    from runner.analysis.comparison import compare
    from runner.reporting.tables import render
    from runner.storage.results import load

    comparison = compare(
        [load(folder) for folder in folders], metric=metric, at=at, group_by=group_by or None, sort=sort, target=target
    )
    color = style == "table" and _color()
    click.echo(render(comparison, cast(Any, style), color=color), color=color or None)  # click strips it in a pipe


def _color() -> bool:
    """On a terminal that has colours, unless NO_COLOR asks for none; FORCE_COLOR asks for them anywhere."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return bool(os.environ.get("FORCE_COLOR")) or sys.stdout.isatty()


@main.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option("--format", "style", required=True, metavar="FORMAT", help="tutorial, tensorboard or mlflow.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="tutorial: path without suffix (default: RESULTS/tutorial); else a folder (default: where --track writes).",
)
def export(results: Path, style: str, output: Path | None) -> None:
    """Write RESULTS in another tool's format: the tutorial's CSV and JSON, byte for byte, or a tracker's."""
    from runner.monitoring import trackers  # noqa: F401  registers them
    from runner.registry import tracker

    if style not in ("tutorial", *tracker):
        raise UserError(unknown("format", style, ["tutorial", *tracker]))
    opener = None if style == "tutorial" else tracker[style]()  # an absent package is told before anything is read
    from runner.monitoring.trackers.replay import export as replay
    from runner.storage.results import load
    from runner.storage.store import write_atomically

    loaded = load(results)
    if opener:
        click.echo(replay(loaded, opener, output))
        return
    from runner.interfaces.tutorial_files import tutorial

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
    from runner.reporting.catalogue import network_listing, network_page

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
    from runner.reporting.catalogue import check_datasets, dataset_listing

    registry.load_plugins(plugins)
    for name in names:
        registry.dataset[name]  # an unknown one is an error, whatever is asked of it
    if not fetch and not verify:
        for line in dataset_listing():
            click.echo(line)
        return
    from runner.storage.folder import data_folder

    for line in check_datasets(names or tuple(registry.dataset), data_folder(data_dir), download=fetch):
        click.echo(line)


@main.command()
def schema() -> None:
    """Print the JSON schema of a config, for editors."""
    from runner.config.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


main.add_command(claims)
main.add_command(calibrate)
main.add_command(report)
main.add_command(plot)
main.add_command(inspect)

if __name__ == "__main__":
    main()
