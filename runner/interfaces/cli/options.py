"""Options that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from runner.execution.options import Options as ExecutionOptions
    from runner.storage.checkpoints import Every


config_argument = click.argument("config", type=click.Path(path_type=Path))

set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override, e.g. grid.lr=[0.01,0.1]."
)

data_dir_option = click.option(
    "--data-dir", metavar="DIR", help="Data folder (default: $BNBENCH_DATA_DIR, else ./data)."
)

device_option = click.option("--device", metavar="DEVICE", help="Every run's device: auto, cpu, cuda, cuda:N.")

stack_option = click.option(
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


def finite(_: click.Context, __: click.Parameter, seconds: float | None) -> float | None:
    if seconds is not None and math.isnan(seconds):  # click's range lets it pass
        raise click.BadParameter("'nan'; allowed: seconds")
    return seconds


def _statuses(_: click.Context, __: click.Parameter, text: str | None) -> tuple[str, ...]:
    from runner.storage.rows import RETRYABLE

    chosen = tuple(word.strip() for word in (text or "").split(",") if word.strip())
    if unknown := [word for word in chosen if word not in RETRYABLE]:
        raise click.BadParameter(f"'{unknown[0]}'; allowed, separated by commas: {', '.join(RETRYABLE)}")
    return chosen


_EXECUTION = (
    data_dir_option,
    stack_option,
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
        default="60s",
        show_default=True,
        callback=_every,
        metavar="EPOCHS|SECONDSs",
        help="How much training an interruption may cost.",
    ),
    click.option(
        "--run-timeout",
        type=click.FloatRange(min=0, min_open=True, max=1e9),
        callback=finite,
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
    click.option("--allow-changed", is_flag=True, help="Resume although code, data or packages changed; recorded."),
    click.option(
        "--track", multiple=True, metavar="TRACKER", help="Tell tensorboard or mlflow too; can be given more than once."
    ),
    click.option("-q", "--quiet", is_flag=True, help="No progress."),
    click.option("-v", "--verbose", is_flag=True, help="Tracebacks of failed runs too."),
)


def execution_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a command that trains. The command passes them to `options_of`."""
    for option in reversed(_EXECUTION):
        command = option(command)
    return command


def options_of(
    *,
    data_dir: str | None,
    checkpoint_every: Every | None = None,
    run_timeout: float | None = None,
    **others: Any,
) -> ExecutionOptions:
    """The options of a command that trains, as the driver takes them; `others` are fields of its `Options`."""
    from runner.execution.options import EVERY_MINUTE, Options
    from runner.storage.folder import data_folder
    from runner.training.options import TrainingOptions

    every = checkpoint_every or EVERY_MINUTE
    training = TrainingOptions(data_folder(data_dir), checkpoint_every=every, run_timeout=run_timeout)
    return Options(training=training, **others)
