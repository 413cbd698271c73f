"""The forms of a stack, and a stack in one of them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, get_args

from torch import nn

from runner.config import jobs
from runner.config.run_spec import RunSpec
from runner.training.data.preprocessing import RunData
from runner.training.learners.stack import Stack

FORMS: tuple[str, ...] = get_args(getattr(jobs, "Form", None)) or ("grouped",)


def stack_in_form(form: str, runs: Sequence[RunSpec], networks: list[nn.Module], data: RunData) -> Stack:
    """A stack whose convolutions have this form."""
    chosen: Any = {"form": form} if "form" in inspect.signature(Stack.__init__).parameters else {}
    return Stack(runs, networks, data, **chosen)
