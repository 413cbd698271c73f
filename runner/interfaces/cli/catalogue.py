"""`bnbench networks`, `datasets`, `configs` and `schema`."""

import json
from itertools import chain

import click

from runner import registry
from runner.config import built_in
from runner.errors import printable
from runner.interfaces.cli.options import data_dir_option, flag, plugin_option
from runner.reporting.catalogue import check_datasets, dataset_page, listing, network_page
from runner.storage.folder import data_folder


@click.command()
@click.argument("name", required=False)
@plugin_option
@click.option("--set", "arguments", multiple=True, metavar="KEY=VALUE", help="An argument of NAME, e.g. norm=batch.")
def networks(name: str | None, arguments: tuple[str, ...]) -> None:
    """List the networks, or show one of them.

    With NAME, the command prints the network's arguments,
    parameter count and layers. FILE.py:NAME is a class or a
    function in a file. --set and --plugin can be repeated.
    """
    if name and (part := registry.plugin_parts(name)[1]):
        registry.load_plugins((name,))
        name = part
    for line in network_page(name, arguments) if name else listing(registry.network):
        click.echo(printable(line))


@click.command()
@flag("--fetch", text="Download missing files.")
@flag("--verify", text="Check the SHA-256 of the files. Nothing is downloaded.")
@plugin_option
@data_dir_option
@click.argument("names", nargs=-1)
def datasets(fetch: bool, verify: bool, data_dir: str | None, names: tuple[str, ...]) -> None:
    """List, download or verify the data sets, or show NAMES.

    With NAMES, the command prints the licence, citation and
    shape of these data sets. With --fetch or --verify, NAMES
    are the data sets to download or verify (default: all of them).
    """
    for name in names:
        registry.dataset[name]  # An unknown name is an error before anything is printed.
    if fetch or verify:
        lines = check_datasets(names or tuple(registry.dataset), data_folder(data_dir), fetch)
    else:
        lines = chain.from_iterable(map(dataset_page, names)) if names else listing(registry.dataset)
    for line in lines:
        click.echo(printable(line))


@click.command()
@click.argument("name", required=False)
def configs(name: str | None) -> None:
    """List the built-in configs, or print one of them.

    Commands that take a CONFIG also take the NAME of a built-in
    config: bnbench run quickstart. If there is a file of this
    name, they take the file, and say so.
    """
    for line in [built_in.text(name).rstrip()] if name else built_in.listing():
        click.echo(line)


@click.command()
def schema() -> None:
    """Print the JSON schema of a config for text editors."""
    from runner.config.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))
