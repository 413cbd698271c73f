"""`bnbench networks` and `bnbench schema`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from click.testing import Result

Bnbench = Callable[..., Result]


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
