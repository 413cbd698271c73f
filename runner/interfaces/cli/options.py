"""Options and arguments that several commands share. Each is declared once."""

import functools
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast, get_args

import click

from runner import registry
from runner.config import built_in
from runner.config.jobs import StackMode
from runner.config.reader import load
from runner.errors import UserError, printable, short
from runner.execution.options import EVERY_MINUTE, Options
from runner.storage.checkpoints import Every
from runner.storage.folder import data_folder
from runner.storage.rows import RETRYABLE
from runner.training.options import Kernels, TrainingOptions

Command = Callable[..., None]

PATH = click.Path(path_type=Path)

results_argument = click.argument("results", type=PATH)


def flag(*names: str, text: str) -> Callable[[Command], Command]:
    """An option without a value."""
    return click.option(*names, is_flag=True, help=text)


def out_option(default: str, text: str) -> Callable[[Command], Command]:
    """`--out`, the folder that a command writes to."""
    return click.option("--out", type=PATH, default=Path(default), help=text)


def format_option(*styles: str) -> Callable[[Command], Command]:
    """`--format`, passed to the command as `style`."""
    kind = click.Choice(styles)
    return click.option("--format", "style", type=kind, default="table", help="Output format.")


def put(style: str, record: object, lines: Iterable[str]) -> None:
    """Print what a command has found: its record with `--format json`, else lines of text that fit the terminal."""
    from runner.reporting.as_json import json_text
    from runner.reporting.text_table import fitted_lines

    if style == "json":
        click.echo(json_text(record), nl=False)
    else:
        for line in lines:
            click.echo(fitted_lines(printable(line)))


def together(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator."""
    return lambda command: functools.reduce(lambda result, option: option(result), reversed(options), command)


def reads_config(command: Command) -> Command:
    """Add CONFIG, `--set` and `--device`. The command receives the sweep that they describe as its argument `sweep`.

    CONFIG is a file, or the name of a built-in config.
    """

    @click.argument("config", type=PATH)
    @click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Change a value of the config, e.g. grid.lr=[0.01,0.1].",
    )
    @click.option("--device", metavar="DEVICE", help="Train on this device: auto, cpu, cuda or cuda:N.")
    @functools.wraps(command)
    def with_sweep(config: Path, overrides: tuple[str, ...], device: str | None, **options: Any) -> None:
        path, said = built_in.find(config)
        if said:
            click.echo(said, err=True)
        command(sweep=load(path, overrides, device), **options)

    return with_sweep


def not_nan(_: click.Context, __: click.Parameter, seconds: float | None) -> float | None:
    """A callback that refuses NaN, which click's ranges accept."""
    if seconds is not None and math.isnan(seconds):
        raise click.BadParameter("'nan'; allowed: seconds")
    return seconds


def words(text: str) -> tuple[str, ...]:
    """The words of a comma-separated list.

    >>> words("lr, batch_size")
    ('lr', 'batch_size')
    """
    return tuple(word.strip() for word in text.split(",") if word.strip())


def whole_number(text: str) -> int | None:
    """A number from 1 to 999,999,999; None where the text is none. (`int` takes other scripts' digits, and signs.)

    >>> whole_number("007"), whole_number("0"), whole_number("٣")
    (7, None, None)
    """
    return int(text[-9:]) or None if re.fullmatch("0*[0-9]{1,9}", text) else None


def _every(text: str) -> Every:
    number = whole_number(text.removesuffix("s"))
    if number is None:
        raise click.BadParameter(f"{short(text)}; allowed: epochs, such as 5, or seconds, such as 60s")
    return Every(seconds=float(number)) if text.endswith("s") else Every(epochs=number)


def _statuses(text: str) -> tuple[str, ...]:
    chosen = words(text)
    if unknown := [word for word in chosen if word not in RETRYABLE]:
        raise click.BadParameter(f"{short(unknown[0])}; allowed, separated by commas: {', '.join(RETRYABLE)}")
    return chosen


plugin_option = click.option(
    "--plugin",
    multiple=True,
    metavar="FILE",
    expose_value=False,
    callback=lambda _context, _option, files: registry.load_plugins(files),
    help="Import this Python file first. It can register networks, data sets and claims.",
)


def existing_folder(data_dir: str | None) -> str | None:
    """The data folder that was named. Errors: UserError where there is none. (Only `datasets --fetch` makes one.)"""
    if data_dir is not None and not Path(data_dir).is_dir():
        raise UserError(f"data folder {data_dir}: no such folder")
    return data_dir


def _data_dir(check: Callable[[str | None], str | None]) -> Callable[[Command], Command]:
    text = "Data folder (default: $BNBENCH_DATA_DIR, else ./data)."
    return click.option("--data-dir", metavar="DIR", help=text, callback=lambda _, __, folder: check(folder))


data_dir_option = _data_dir(existing_folder)
new_data_dir_option = _data_dir(lambda folder: folder)


def _stack(text: str) -> StackMode:
    if text in ("auto", "on", "off"):
        return cast(StackMode, text)
    number = whole_number(text)
    if number is None:
        raise click.BadParameter(f"{short(text)}; allowed: auto, on, off, or the number of runs in a stack")
    return number


stack_option = click.option(
    "--stack",
    type=_stack,
    default="auto",
    metavar="auto|on|off|N",
    help="Train runs that differ only in seed, lr, … at the same time, as one batched model. "
    "Results stay separate. auto: on CUDA only. N: in stacks of at most N runs. "
    "When a sweep is resumed, this is only for runs that are not in its stacks.json yet.",
)

workers_option = click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    help="Number of worker processes (default: as many as the CPUs or the cluster can run).",
)

KERNELS = click.Choice(get_args(Kernels))

training_options = together(
    data_dir_option,
    click.option(
        "--kernels",
        type=KERNELS,
        default="auto",
        help="What computes the layers on a CPU: native is bnbench's own code, which is faster and rounds differently; "
        "auto is native where it was compiled. A resumed sweep goes on with the kernels it began with.",
    ),
    click.option("--executor", default="process", help="Where runs train: inline (in this process), process or ray."),
    click.option(
        "--ray-address",
        metavar="ADDRESS",
        help="Ray cluster: auto, HOST:PORT, ray://… or local "
        "(default: $RAY_ADDRESS, else a new cluster on this machine).",
    ),
    workers_option,
    flag("-q", "--quiet", text="Show no progress."),
)
"""The options of every command that trains. The command passes their values to `options_of`."""

execution_options = together(
    training_options,
    stack_option,
    click.option(
        "--checkpoint-every",
        default="60s",
        type=_every,
        metavar="N|Ns",
        help="5 = a checkpoint every 5 epochs, 60s = every 60 seconds. "
        "After an interruption, a run repeats at most the training of one such interval plus one epoch.",
    ),
    click.option(
        "--run-timeout",
        type=click.FloatRange(min=0, min_open=True, max=1e9),
        callback=not_nan,
        metavar="SECONDS",
        help="Stop a run that takes longer than this. A stack of R runs may take R times as long.",
    ),
    flag("--fail-fast", text="Stop the sweep at the first run that fails."),
    click.option(
        "--retry",
        is_flag=False,
        flag_value="failed,oom,timeout",
        default="",
        show_default=False,
        type=_statuses,
        metavar="STATUS,…",
        help="When resuming, also train runs with these statuses again (--retry without a value: failed,oom,timeout).",
    ),
    flag("--allow-changed", text="Resume although code, data or packages changed. This is recorded."),
    click.option(
        "--track", multiple=True, metavar="TRACKER", help="Also send results to tensorboard, mlflow, wandb or trackio."
    ),
    flag("-v", "--verbose", text="Also show tracebacks of failed runs."),
)
"""The options of a command that trains one sweep. The command passes their values to `options_of`."""


def options_of(
    *,
    data_dir: str | None,
    checkpoint_every: Every = EVERY_MINUTE,
    run_timeout: float | None = None,
    kernels: Kernels = "auto",
    **others: Any,
) -> Options:
    """The driver's options. `others` are fields of `Options`.

    >>> options_of(data_dir="data", workers=2).workers
    2
    """
    training = TrainingOptions(
        data_folder(data_dir),
        checkpoint_every=checkpoint_every,
        run_timeout=run_timeout,
        kernels=kernels,
    )
    return Options(training=training, **others)
