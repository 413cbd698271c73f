"""`bnbench networks`, `datasets` and `schema`."""

from __future__ import annotations

import json

import click

from runner.interfaces.cli.options import data_dir_option


@click.command()
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


@click.command()
@click.option("--fetch", is_flag=True, help="Download what is missing.")
@click.option("--verify", is_flag=True, help="Check the files against their SHA-256; downloads nothing.")
@click.option("--plugin", "plugins", multiple=True, metavar="FILE", help="A Python file that registers data sets.")
@data_dir_option
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


@click.command()
def schema() -> None:
    """Print the JSON schema of a config, for editors."""
    from runner.config.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))
