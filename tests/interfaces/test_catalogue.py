"""`bnbench networks` and `bnbench schema`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import Result

Bnbench = Callable[..., Result]
Write = Callable[[str, str], Path]


def test_the_schema_accepts_every_config_of_the_project_and_refuses_a_typo(bnbench: Bnbench) -> None:
    schema: dict[str, Any] = json.loads(bnbench("schema").stdout)
    assert schema["properties"]["fixed"]["properties"]["lr"]["exclusiveMinimum"] == 0
    assert "lr" in schema["properties"]["grid"]["properties"]
    assert schema["properties"]["grid"]["additionalProperties"] is False


def test_networks_lists_every_network(bnbench: Bnbench) -> None:
    listing = bnbench("networks").stdout
    for name in ("no_batch_norm", "batch_norm", "notebook_mlp", "notebook_cnn", "lenet", "vgg", "conv_unit", "mlp"):
        assert re.search(rf"^{name} +\w", listing, re.MULTILINE)
    page = bnbench("networks", "lenet", "--set", "norm=batch").stdout
    assert "parameters: 44,878" in page
    assert "BatchNorm2d(6" in page
    wrong = bnbench("networks", "lenet", "--set", "nrm=batch")
    assert wrong.exit_code == 2
    assert "did you mean 'norm'" in wrong.stderr


def test_a_network_of_the_user_lists_only_what_its_factory_takes(bnbench: Bnbench, write: Write) -> None:
    """Not the arguments of norm layers where it has none, and no norm layers where `norm` is a choice of its own."""
    plugin = write(
        "zoo.py",
        """
from typing import Literal
from runner import network
from torch import nn

@network("by_name")
def by_name(*, norm: str = "none") -> nn.Module:
    return nn.Flatten()

@network("of_its_own")
def of_its_own(*, norm: Literal["first", "second"] = "first") -> nn.Module:
    return nn.Flatten()
""",
    )
    shown = bnbench("networks", "by_name", "--plugin", plugin).stdout
    assert "norm layers (network.norm):" in shown
    assert "norm_args" not in shown
    assert "norm layers" not in bnbench("networks", "of_its_own", "--plugin", plugin).stdout
