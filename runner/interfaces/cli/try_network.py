"""`bnbench try`: a comparison of norm layers in any network, without a config."""

import re
import sys
from pathlib import Path
from typing import Any

import click

from runner.config import reader
from runner.errors import UserError
from runner.interfaces.cli.options import execution_options, flag, out_option, words
from runner.interfaces.cli.run import existing_of, train
from runner.registry import plugin_parts
from runner.storage import folder


@click.command("try")
@click.argument("network")
@click.option("--dataset", default="fashion_mnist", help="The data set; bnbench datasets lists them.")
@click.option(
    "--norms",
    default="none,batch",
    metavar="NORM,…",
    help="The norm layers to compare; the first one is the baseline. keep: the network as it is.",
)
@click.option("--seeds", type=click.IntRange(1, 10_000), default=6, help="How many seeds each norm layer gets.")
@click.option("--epochs", type=click.IntRange(1, 100_000), default=3, help="Passes over the training set.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change the config, e.g. fixed.network.width=8."
)
@click.option(
    "--plugin", "plugins", multiple=True, metavar="FILE", help="A Python file with a data set or norm layers."
)
@click.option("--device", metavar="DEVICE", help="Train on this device: auto, cpu, cuda or cuda:N.")
@out_option("results", "The sweep is written to OUT/try-NAME/.")
@flag("--resume", text="Continue the sweep in OUT/try-NAME/.")
@flag("--fresh", text="Delete the sweep in OUT/try-NAME/ and start over.")
@execution_options
def try_network(
    network: str,
    dataset: str,
    norms: str,
    seeds: int,
    epochs: int,
    overrides: tuple[str, ...],
    plugins: tuple[str, ...],
    device: str | None,
    out: Path,
    resume: bool,
    fresh: bool,
    **options: Any,
) -> None:
    """Compare norm layers in any network, without a config.

    NETWORK is FILE.py:NAME, where NAME is a class or a function of the file that makes the network,
    or the name of a registered network. All norm layers of the network are replaced by each of --norms.
    The config is written to the results folder, so bnbench run and resume can use it.
    """
    _, name = plugin_parts(network)
    if not name and not re.fullmatch(r"\w+", network):
        raise UserError(f"'{network}' is neither FILE.py:NAME nor the name of a network (bnbench networks)")
    arms = words(norms)
    if len(arms) < 2 or len(set(arms)) < len(arms):
        raise UserError(f"--norms {norms}: give two different norm layers or more, such as none,batch")
    values = {
        "name": f"try-{name or network}",
        "plugins": [*([network] if name else []), *plugins],
        "contrast": {"axis": "swap_norm", "baseline": arms[0]},
        "fixed": {"network": name or network, "dataset": dataset, "epochs": epochs},
        "grid": {"swap_norm": list(arms), "seed": {"range": seeds}},
    }
    sweep = reader.from_mapping(values, Path.cwd(), overrides, device, origin="bnbench try")
    code = train(sweep, out, existing_of(resume, fresh, options), options)
    click.echo(f"the config of this comparison: {out / sweep.name / folder.CONFIG}", err=True)
    sys.exit(code)
