"""torch's settings inside a run, and after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from runner.config.run_spec import RunSpec
from runner.training.settings import float32_precision, settings_of

RUN = RunSpec(network="batch_norm")

BACKENDS: Any = torch.backends

SETTINGS: dict[str, Callable[[], Any]] = {
    "convolutions": lambda: BACKENDS.cudnn.conv.fp32_precision,
    "recurrent layers": lambda: BACKENDS.cudnn.rnn.fp32_precision,
    "matrix products": lambda: BACKENDS.cuda.matmul.fp32_precision,
    "matrix products on the CPU": lambda: BACKENDS.mkldnn.matmul.fp32_precision,
}
FLAGS: dict[str, Callable[[], Any]] = {
    "cuDNN": lambda: BACKENDS.cudnn.allow_tf32,
    "cuBLAS": lambda: BACKENDS.cuda.matmul.allow_tf32,
    "products": torch.get_float32_matmul_precision,
}


def read(which: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    return {name: value() for name, value in which.items()}


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    """Where a test leaves other settings, torch's own are set again."""
    yield
    torch.set_float32_matmul_precision("highest")
    BACKENDS.cudnn.allow_tf32 = True
    BACKENDS.cuda.matmul.fp32_precision = BACKENDS.mkldnn.matmul.fp32_precision = "none"


@pytest.mark.parametrize(("run", "is_tf32"), [("fp32", False), ("bf16", False), ("tf32", True)])
def test_every_product_has_the_runs_precision(run: str, is_tf32: bool) -> None:
    with settings_of(RUN.changed(precision=run)):
        assert set(read(SETTINGS).values()) == {"tf32" if is_tf32 else "ieee"}


@pytest.mark.parametrize(("precision", "flags"), [("ieee", [False, False, "highest"]), ("tf32", [True, True, "high"])])
def test_the_older_flags_can_be_read_and_say_the_same(precision: str, flags: list[object]) -> None:
    with float32_precision(precision):
        assert list(read(FLAGS).values()) == flags


@pytest.mark.parametrize("precision", ["ieee", "tf32"])
@pytest.mark.parametrize("before", ["highest", "high", "medium"])
@pytest.mark.parametrize("cudnn", [True, False])
def test_settings_and_flags_are_as_before_afterwards(precision: str, before: Any, cudnn: bool) -> None:
    torch.set_float32_matmul_precision(before)
    BACKENDS.cudnn.allow_tf32 = cudnn
    settings, flags = read(SETTINGS), read(FLAGS)
    with pytest.raises(ZeroDivisionError), float32_precision(precision):
        raise ZeroDivisionError
    assert (read(SETTINGS), read(FLAGS)) == (settings, flags)


def test_a_process_that_set_one_part_alone_has_it_again() -> None:
    torch.set_float32_matmul_precision("high")
    BACKENDS.cudnn.rnn.fp32_precision = "ieee"
    settings = read(SETTINGS)
    with pytest.raises(RuntimeError, match="cuDNN"):  # torch cannot say one thing of two parts that differ
        FLAGS["cuDNN"]()
    with float32_precision("ieee"):
        assert set(read(SETTINGS).values()) == {"ieee"}
        read(FLAGS)
    assert read(SETTINGS) == settings
    assert torch.get_float32_matmul_precision() == "high"


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("before", [True, False])
def test_a_run_is_deterministic_unless_it_says_otherwise(deterministic: bool, before: bool) -> None:
    torch.use_deterministic_algorithms(before)
    try:
        with settings_of(RUN.changed(deterministic=deterministic)):
            assert torch.are_deterministic_algorithms_enabled() is deterministic
        assert torch.are_deterministic_algorithms_enabled() is before
    finally:
        torch.use_deterministic_algorithms(False)
