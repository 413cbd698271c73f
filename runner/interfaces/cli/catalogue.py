"""`bnbench networks`, `datasets`, `configs` and `schema`."""

import json
from collections.abc import Mapping
from itertools import chain
from typing import Any

import click

from runner import registry
from runner.config import built_in
from runner.interfaces.cli.options import flag, format_option, new_data_dir_option, plugin_option, put
from runner.reporting import catalogue
from runner.storage.folder import data_folder


@click.command()
@click.argument("name", required=False)
@plugin_option
@click.option("--set", "arguments", multiple=True, metavar="KEY=VALUE", help="An argument of NAME, e.g. norm=batch.")
@format_option("table", "json")
def networks(name: str | None, arguments: tuple[str, ...], style: str) -> None:
    """List the networks, or show one of them.

    With NAME, the command prints the network's arguments,
    parameter count and layers. FILE.py:NAME is a class or a
    function in a file. --set and --plugin can be repeated.
    """
    if name and (part := registry.plugin_parts(name)[1]):
        registry.load_plugins((name,))
        name = part
    if name:
        record = catalogue.network_record(name, arguments)
        put(style, record, catalogue.network_page(record))
    else:
        put_listing(style, registry.network)


def put_listing(style: str, named: Mapping[str, Any]) -> None:
    """Print each name with the first line of its docstring."""
    entries = catalogue.entries(named)
    put(style, entries, catalogue.listing(entries))


@click.command()
@flag("--fetch", text="Download missing files.")
@flag("--verify", text="Check the SHA-256 of the files. Nothing is downloaded.")
@plugin_option
@new_data_dir_option
@format_option("table", "json")
@click.argument("names", nargs=-1)
def datasets(fetch: bool, verify: bool, data_dir: str | None, names: tuple[str, ...], style: str) -> None:
    """List, download or verify the data sets, or show NAMES.

    With NAMES, the command prints the licence, citation and
    shape of these data sets. With --fetch or --verify, NAMES
    are the data sets to download or verify (default: all of them).
    """
    for name in names:
        registry.dataset[name]  # An unknown name is an error before anything is printed.
    if fetch or verify:
        checked = catalogue.check_datasets(names or tuple(registry.dataset), data_folder(data_dir), fetch)
        # JSON is printed when all are checked, text as it comes.
        records = list(checked) if style == "json" else checked
        put(style, records, map(catalogue.checked_line, records))
    elif names:
        pages = [catalogue.dataset_record(name) for name in names]
        put(style, pages, chain.from_iterable(map(catalogue.dataset_page, pages)))
    else:
        put_listing(style, registry.dataset)


@click.command()
@click.argument("name", required=False)
@format_option("table", "json")
def configs(name: str | None, style: str) -> None:
    """List the built-in configs, or print one of them.

    Commands that take a CONFIG also take the NAME of a built-in
    config: bnbench run quickstart. If there is a file of this
    name, they take the file, and say so.
    """
    if name:
        put(style, {"name": name, "text": built_in.text(name)}, built_in.text(name).splitlines())
    else:
        found = [{"name": each, "summary": built_in.summary(each)} for each in built_in.names()]
        put(style, found, catalogue.listing(found))


@click.command()
def schema() -> None:
    """Print the JSON schema of a config for text editors."""
    from runner.config.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))
