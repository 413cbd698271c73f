"""Contract tests over every registered norm layer, and what each is equal to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from experiments.norms import NormName, build_norm
from runner import factories, registry
from runner.errors import UserError
from runner.training.norm_trace import is_norm

NAMES = [name for name, factory in registry.norm.items() if factory.__module__.startswith("experiments.")]
IMAGES_ONLY = {"instance"}
SHAPES = {1: (8, 6), 2: (4, 6, 5, 3)}
CASES = [(name, dims) for name in NAMES for dims in SHAPES if not (dims == 1 and name in IMAGES_ONLY)]


def sample(dims: int) -> Tensor:
    return torch.randn(SHAPES[dims], generator=torch.Generator().manual_seed(1)) * 3 + 2


def test_all_are_registered() -> None:
    expected = {"none", "batch", "layer", "group", "instance", "rms", "hand_written", "notebook", "d2l"}
    expected |= {"ghost", "frozen", "renorm", "precise", "dyt"}
    assert expected <= set(NAMES)


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_keeps_the_shape_in_training_and_evaluation(name: str, dims: int) -> None:
    layer, x = build_norm(name, 6, dims), sample(dims)
    for training in (True, False):
        layer.train(training)
        y = layer(x)
        assert y.shape == x.shape
        assert y.dtype == x.dtype
        assert y.isfinite().all()


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_state_dict_round_trip(name: str, dims: int) -> None:
    torch.manual_seed(1)
    trained, x = build_norm(name, 6, dims), sample(dims)
    trained(x)
    for parameter in trained.parameters():
        nn.init.normal_(parameter)
    torch.manual_seed(2)
    fresh = build_norm(name, 6, dims)
    fresh.load_state_dict(trained.state_dict())
    with torch.no_grad():
        assert_close(fresh.eval()(x), trained.eval()(x), rtol=0, atol=0)


@pytest.mark.parametrize(("name", "dims"), [*CASES, ("random", 1)])
def test_draws_nothing_from_the_global_stream(name: str, dims: int) -> None:
    before = torch.get_rng_state()
    if name == "random":
        build_norm("hand_written", 6, dims, {"init": "normal"})
    else:
        build_norm(name, 6, dims)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", NAMES)
def test_is_documented_and_known_as_a_norm(name: str) -> None:
    assert len(factories.summary(registry.norm[name])) > 20
    assert is_norm(build_norm(name, 6, 2)) == (name != "none")


@pytest.mark.parametrize("name", [name for name in NAMES if name not in {"none", "notebook", "dyt"}])
def test_normalises_images(name: str) -> None:
    """At the start and in training, every norm takes the input's scale out; all but RMS its mean too."""
    x = sample(2)
    y, scaled = (build_norm(name, 6, 2)(values) for values in (x, 10 * x))
    assert_close(y, scaled, rtol=1e-3, atol=1e-3)
    assert abs(y.pow(2).mean() - 1) < 0.01
    assert (abs(y.mean()) < 1e-5) == (name != "rms")


def torchs(name: str) -> dict[int, Callable[[Tensor], Tensor]]:
    """What a norm is equal to before training, by dims: torch's functions, or arithmetic."""
    table: dict[str, dict[int, Callable[[Tensor], Tensor]]] = {
        "none": {1: torch.clone, 2: torch.clone},
        "batch": {1: nn.BatchNorm1d(6), 2: nn.BatchNorm2d(6)},
        "layer": {1: lambda x: F.layer_norm(x, [6]), 2: lambda x: F.layer_norm(x, [6, 5, 3])},
        "group": {1: two_groups, 2: two_groups},
        "weight_standardization": {1: two_groups, 2: two_groups},
        "instance": {2: lambda x: F.layer_norm(x, [5, 3])},
        "dyt": {1: lambda x: torch.tanh(x / 2), 2: lambda x: torch.tanh(x / 2)},
        "rms": {1: lambda x: F.rms_norm(x, [6], eps=1e-5), 2: lambda x: F.rms_norm(x, [6, 5, 3], eps=1e-5)},
    }
    return table["batch" if name in {"hand_written", "d2l", "ghost", "frozen", "renorm", "precise"} else name]


def two_groups(x: Tensor) -> Tensor:
    groups = x.reshape(len(x), 2, -1)
    return F.layer_norm(groups, groups.shape[2:]).view_as(x)


@pytest.mark.parametrize(("name", "dims"), [case for case in CASES if case[0] != "notebook"])
def test_equals_torchs_at_the_start(name: str, dims: int) -> None:
    x = sample(dims)
    assert_close(build_norm(name, 6, dims)(x), torchs(name)[dims](x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("batch", {"eps": 0.5}),
        ("layer", {"eps": 0.5}),
        ("group", {"eps": 0.5}),
        ("group", {"groups": 3}),
        ("instance", {"eps": 0.5}),
        ("rms", {"eps": 0.5}),
        ("hand_written", {"eps": 0.5}),
        ("hand_written", {"init": "normal"}),
        ("notebook", {"eps": 0.5}),
        ("d2l", {"eps": 0.5}),
        ("ghost", {"eps": 0.5}),
        ("ghost", {"size": 2}),
        ("frozen", {"eps": 0.5}),
        ("renorm", {"eps": 0.5}),
        ("precise", {"eps": 0.5}),
        ("dyt", {"alpha": 1.0}),
    ],
)
def test_argument_changes_the_output(name: str, arguments: dict[str, object]) -> None:
    x = sample(2)
    torch.manual_seed(1)
    assert not torch.allclose(build_norm(name, 6, 2, arguments)(x), build_norm(name, 6, 2)(x), atol=1e-3)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("batch", {"momentum": 0.5}),
        ("batch", {"momentum": None}),
        ("batch", {"track_running_stats": False}),
        ("instance", {"track_running_stats": True}),
        ("hand_written", {"momentum": 0.5}),
        ("hand_written", {"momentum": None}),
        ("hand_written", {"track_running_stats": False}),
        ("hand_written", {"convention": "notebook"}),
        ("hand_written", {"initial_var": 0.0}),
        ("notebook", {"momentum": 0.5}),
        ("d2l", {"keep_statistics": True}),
        ("ghost", {"momentum": 0.5}),
        ("ghost", {"momentum": None}),
        ("frozen", {"momentum": 0.5}),
        ("frozen", {"momentum": None}),
        ("renorm", {"momentum": 0.5}),
        ("renorm", {"momentum": None}),
    ],
    ids=str,
)
def test_argument_changes_evaluation_only(name: str, arguments: dict[str, object]) -> None:
    x = sample(2)
    torch.manual_seed(1)
    given, default = build_norm(name, 6, 2, arguments), build_norm(name, 6, 2)
    assert_close(given(x), default(x), rtol=0, atol=0)
    with torch.no_grad():
        assert not torch.allclose(given.eval()(x), default.eval()(x), atol=1e-3)


def test_d2l_momentum_counts_once_statistics_are_kept() -> None:
    layer, x = build_norm("d2l", 6, 1, {"keep_statistics": True, "momentum": 0.25}), sample(1)
    layer(x)
    assert_close(layer.running_mean, 0.75 * x.mean(0))


@pytest.mark.parametrize(("name", "dims"), [case for case in CASES if case[0] not in {"none", "notebook", "d2l"}])
def test_affine_is_one_gamma_per_feature_or_none(name: str, dims: int) -> None:
    own = [(1,)] if name == "dyt" else []  # α
    parameters = [parameter.shape for parameter in build_norm(name, 6, dims).parameters()]
    assert parameters == own + [(6,)] * (1 if name == "rms" else 2)
    assert [parameter.shape for parameter in build_norm(name, 6, dims, {"affine": False}).parameters()] == own


def test_none_ignores_any_argument() -> None:
    x = sample(1)
    assert build_norm("none", 6, 1, {"momentum": 0.5, "groups": "many"})(x) is x


@pytest.mark.parametrize(
    ("name", "dims", "arguments", "message"),
    [
        ("group", 2, {"groups": 4}, "6 features do not divide into 4 groups"),
        ("group", 1, {"groups": 6}, "hold one value each"),
        ("instance", 1, {}, r"needs \[N, C, H, W\]"),
    ],
)
def test_impossible_sizes_are_refused(name: str, dims: int, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_norm(name, 6, dims, arguments)


def test_every_wrong_argument_is_told_at_once() -> None:
    with pytest.raises(UserError) as caught:
        build_norm("batch", 6, 1, {"eps": -1.0, "momentun": 0.5, "affine": True})
    assert [fault.message for fault in caught.value.faults] == [
        "norm 'batch', argument 'eps': must be greater than 0, got -1.0",
        "norm 'batch': unknown argument 'momentun'; did you mean 'momentum'? "
        "allowed: affine, eps, momentum, track_running_stats",
    ]


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("batch", "eps", 0),
        ("batch", "eps", "1"),
        ("batch", "eps", float("nan")),
        ("batch", "momentum", 1.5),
        ("batch", "momentum", True),
        ("batch", "affine", "no"),
        ("batch", "affine", 1),
        ("group", "groups", 0),
        ("group", "groups", 2.0),
        ("hand_written", "convention", "keras"),
        ("hand_written", "initial_var", -1.0),
        ("notebook", "momentum", None),
        ("d2l", "keep_statistics", "true"),
        ("ghost", "size", 1),
        ("ghost", "size", 32.0),
        ("frozen", "after", 0),
        ("renorm", "r_max", 0.5),
        ("renorm", "d_max", -1.0),
        ("renorm", "warm_up", -1),
        ("renorm", "ramp", 0),
        ("precise", "momentum", 0.1),
        ("dyt", "alpha", 0.0),
    ],
)
def test_wrong_values_are_faults(name: str, key: str, value: object) -> None:
    assert key in (factories.kwarg_fault("norm", name, registry.norm[name], key, value) or "")


@pytest.mark.parametrize(("key", "value"), [("momentum", None), ("momentum", 1), ("eps", 1), ("affine", False)])
def test_right_values_are_not(key: str, value: object) -> None:
    assert factories.kwarg_fault("norm", "batch", registry.norm["batch"], key, value) is None


def test_norm_name_is_checked_against_the_registry_at_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter: TypeAdapter[str] = TypeAdapter(NormName)
    assert adapter.validate_python("batch") == "batch"
    with pytest.raises(ValidationError) as caught:
        adapter.validate_python("mines")
    assert caught.value.errors()[0]["msg"].startswith("unknown norm layer 'mines'; allowed: batch, d2l")

    def mine(features: int, dims: int, *, scale: float = 2.0) -> nn.Module:
        assert (features, dims) == (6, 1)
        return nn.Threshold(0.0, scale)

    monkeypatch.setitem(registry.norm, "mine", mine)
    assert adapter.validate_python("mine") == "mine"
    with pytest.raises(ValidationError, match="unknown norm layer 'mines'; did you mean 'mine'"):
        adapter.validate_python("mines")
    layer: Any = build_norm("mine", 6, 1, {"scale": 7.0})
    assert layer.value == 7.0


def test_unknown_norm_is_a_user_error() -> None:
    with pytest.raises(UserError, match="did you mean 'batch'"):
        build_norm("bach", 6, 1)


def test_listing_and_planning_need_no_torch() -> None:
    code = (
        "import sys, experiments.norms, experiments.networks\n"
        "from runner import factories, registry\n"
        "for kind in (registry.norm, registry.network):\n"
        "    for factory in kind.values(): factories.signature(factory)\n"
        "assert len(registry.network) > 5\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
