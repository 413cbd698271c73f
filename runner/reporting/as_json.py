"""What a command prints with `--format json`."""

import json
from typing import Any


def json_text(value: Any) -> str:
    """A value as JSON, in full precision. JSON has no NaN and no infinity: they become null.

    >>> print(json_text([{"arm": "none", "mean": float("nan")}]), end="")
    [
      {
        "arm": "none",
        "mean": null
      }
    ]
    """
    finite = json.loads(json.dumps(value, default=str), parse_constant=lambda _: None)
    return json.dumps(finite, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
