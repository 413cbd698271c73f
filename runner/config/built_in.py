"""The configs that come with bnbench, by their names: the path in `configs/`, without the ending."""

from collections.abc import Iterator
from pathlib import Path

import runner
from runner.config.yaml_source import file_text
from runner.errors import UserError, cut, unknown

# In the repository, this folder is a link to configs/. In an installation, it has the files.
FOLDER = Path(runner.__file__).parent.parent / "bnbench/configs"


def names() -> list[str]:
    """The names of all built-in configs.

    >>> names()[-3:]
    ['tutorial', 'unit_orders', 'variance']
    """
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in _files())


def text(name: str) -> str:
    """The text of a built-in config. Errors: UserError for a name that does not exist."""
    return file_text(_path(name))


def find(given: Path) -> tuple[Path, str]:
    """The file that a command's CONFIG means: a file of this name, else a built-in config.

    Also returns a sentence that says which one was taken; "" where no built-in config has the name.
    Errors: UserError where there is neither. (A name with an ending, such as `x.yaml`, is always a file.)

    >>> path, said = find(Path("claims/eps"))
    >>> path.name, said
    ('eps.yaml', "config: 'claims/eps', which is built in")
    """
    name = given.as_posix()
    is_file = given.exists() and not given.is_dir()
    if given.suffix or (is_file and name not in names()):
        return given, ""
    if is_file:
        return given, f"config: the file {given}, not the built-in config of this name"
    return _path(name), f"config: '{name}', which is built in"


def summary(name: str) -> str:
    """The beginning of a built-in config's first comment."""
    return cut(text(name).splitlines()[0].removeprefix("# "), 90)


def _files() -> Iterator[Path]:
    return (path for pattern in ("*.yaml", "*/*.yaml") for path in FOLDER.glob(pattern))


def _path(name: str) -> Path:
    if name not in names():
        raise UserError(f"{cut(name)}: no such file, and {unknown('built-in config', name, names())}")
    return FOLDER / f"{name}.yaml"
