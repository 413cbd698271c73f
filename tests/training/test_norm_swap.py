"""Norm layers that are replaced in, or put into, a network that somebody else wrote."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close
from torchvision.models import get_model

from runner import factories, registry
from runner.config.jobs import Job
from runner.config.reader import from_mapping
from runner.config.run_spec import RunSpec
from runner.errors import UserError
from runner.execution.preflight import norm_changes
from runner.storage.rows import EpochRow, RunResult
from runner.training.networks import build_network, change_norms, weights_hash
from runner.training.norm_adapters import Reshaped
from runner.training.norm_swap import swap_norms
from runner.training.norm_trace import is_norm
from runner.training.options import TrainingOptions
from runner.training.train import train

Bnbench = Callable[..., Result]
Write = Callable[[str, str], Path]

registry.load_plugins()
SIZE = (1, 28, 28)
WITH_NORM = sorted(
    name
    for name, factory in registry.network.items()
    if "norm" in factories.signature(factory) and factory.__module__.startswith("experiments.")
)
RUN = RunSpec(network="", dataset="digits", device="cpu", batch_size=64, lr=0.01)


def first_losses(run: RunSpec) -> list[float]:
    """The training loss of each of the first 5 steps, by a loop of its own."""
    network = build_network(run).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(5):
        images, labels = torch.randn(16, *SIZE, generator=generator), torch.arange(16) % 10
        loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", WITH_NORM)
@pytest.mark.parametrize(("written", "swapped"), [("batch", "none"), ("group", "batch"), ("layer", "rms")])
def test_a_swapped_network_is_the_one_that_is_written_with_the_norm(name: str, written: str, swapped: str) -> None:
    theirs = RUN.changed(network=name, network_args={"norm": swapped})
    ours = RUN.changed(network=name, network_args={"norm": written}, swap_norm=swapped)
    networks = [build_network(run) for run in (ours, theirs)]
    for mine, other in zip(*(network.parameters() for network in networks), strict=True):
        assert torch.equal(mine, other)
    assert weights_hash(networks[0]) == weights_hash(networks[1])
    assert first_losses(ours) == first_losses(theirs)


@pytest.mark.parametrize("name", [name for name in registry.norm if registry.norm[name].__module__.startswith("exp")])
@pytest.mark.parametrize("network", [*WITH_NORM, "torchvision", "timm"])
def test_every_network_learns_with_every_norm(network: str, name: str) -> None:
    arguments = {"norm": "batch"} if network in WITH_NORM else {}
    plain = RUN.changed(network=network, network_args=arguments)
    swapped = plain.changed(swap_norm=name)
    if name == "instance" and network not in ("conv_unit", "notebook_cnn", "vgg"):
        with pytest.raises(ValueError, match=r"norm .instance. needs|more than 1 spatial element"):
            change_norms(swapped)
        return
    learner = build_network(swapped).train()
    generator = torch.Generator().manual_seed(0)
    F.cross_entropy(learner(torch.randn(8, *SIZE, generator=generator)), torch.arange(8)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learner.parameters())
    assert weights_hash(learner) == weights_hash(build_network(plain))


@pytest.mark.parametrize("model", ["resnet18", "densenet121", "mobilenet_v3_small"])
@pytest.mark.parametrize("name", ["none", "group"])
def test_all_norm_layers_of_torchvisions_models_are_replaced(model: str, name: str) -> None:
    network = get_model(model, weights=None)
    before, hashed = sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules()), weights_hash(network)
    swapped, change = swap_norms(network, (3, 32, 32), name, {})
    assert len(change.replaced) == before > 0
    assert not change.left
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in swapped.modules())
    assert weights_hash(swapped) == hashed


def test_a_swapped_resnet_is_torchvisions_with_this_norm_layer() -> None:
    torch.manual_seed(3)
    theirs: Any = get_model(
        "resnet18", weights=None, num_classes=10, norm_layer=lambda features: nn.GroupNorm(2, features)
    )
    torch.manual_seed(3)
    plain = get_model("resnet18", weights=None, num_classes=10)
    ours: Any = swap_norms(plain, (3, 32, 32), "group", {})[0]
    for name, parameter in theirs.named_parameters():
        assert torch.equal(parameter, ours.get_parameter(name))
    images = torch.randn(4, 3, 32, 32)
    for network in (theirs, ours):
        network(images).square().sum().backward()
    assert torch.equal(theirs(images), ours(images))
    assert torch.equal(theirs.conv1.weight.grad, ours.conv1.weight.grad)


def test_a_network_whose_batch_norms_are_replaced_by_batch_norms_stays_as_it_is() -> None:
    network = get_model("mobilenet_v3_small", weights=None)
    layers = list(network.modules())
    swapped, _ = swap_norms(network, (3, 32, 32), "batch", {})
    assert all(layer is other for layer, other in zip(layers, swapped.modules(), strict=True))
    changed, _ = swap_norms(network, (3, 32, 32), "batch", {"momentum": 0.3})
    kept = [(layer.eps, layer.momentum) for layer in changed.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert set(kept) == {(0.001, 0.3)}


def test_a_layer_that_had_no_bias_gets_one_only_where_nothing_normalises() -> None:
    def network() -> nn.Module:
        torch.manual_seed(0)
        layers = nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, bias=False)
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * 24 * 24, 10))

    plain = network()
    for name, bias, expected in (("none", True, True), ("none", False, False), ("group", True, False)):
        swapped, change = swap_norms(network(), SIZE, name, {}, bias=bias)
        assert (swapped[0].bias is not None) == (change.biases == ["0"]) == expected  # type: ignore[index]
        assert swapped[3].bias is None  # type: ignore[index]
        assert weights_hash(swapped) == weights_hash(plain)
    assert torch.equal(swap_norms(network(), SIZE, "none", {})[0][0].bias, torch.zeros(4))  # type: ignore[index]


@pytest.mark.parametrize(("features", "asked", "groups"), [(24, 32, 8), (6, 4, 2), (7, 4, 1), (4, 2, 2)])
def test_the_number_of_groups_is_a_common_divisor(features: int, asked: int, groups: int) -> None:
    network = nn.Sequential(nn.Conv2d(1, features, 3), nn.BatchNorm2d(features, eps=0.1, affine=False))
    swapped, _ = swap_norms(network, SIZE, "group", {"groups": asked})
    layer = swapped[1]  # type: ignore[index]
    assert (layer.num_groups, layer.num_channels, layer.eps, layer.affine) == (groups, features, 0.1, False)


def test_layers_over_tokens_normalise_each_feature() -> None:
    """[N, L, F]: the batch norm of a LayerNorm's place is over N and L."""
    network = nn.Sequential(nn.Flatten(2), nn.Linear(784, 6), nn.LayerNorm(6), nn.Flatten(), nn.Linear(6, 10))
    swapped, _ = swap_norms(network, SIZE, "batch", {})
    x = torch.randn(8, 5, 6)
    found = swapped[2](x)  # type: ignore[index]
    assert_close(found, (x - x.mean((0, 1))) / (x.var((0, 1), correction=0) + 1e-5).sqrt(), rtol=1e-4, atol=1e-5)
    volume = Reshaped(nn.BatchNorm2d(3), last=False)
    x = torch.randn(4, 3, 2, 2, 2)
    assert_close(volume(x), nn.BatchNorm3d(3)(x))


class Own(nn.Module):
    """A network with norms of several kinds, some of which cannot be replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.unused = nn.BatchNorm2d(4)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.scripted = torch.jit.script(nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()))
        self.mine = MyNorm()

    def forward(self, x: Tensor) -> Tensor:
        x = self.mine(self.scripted(self.bn(self.conv(x))))
        return F.layer_norm(x.flatten(1), (4 * 26 * 26,))[:, :10]


class MyNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / x.std()


def test_what_cannot_be_replaced_is_named() -> None:
    before = torch.get_rng_state()
    _, change = swap_norms(Own(), SIZE, "none", {})
    assert change.replaced == ["bn"]
    assert str(change) == (
        "replaced 1 norm layer; not replaced: layer 'unused' (the network does not call it), "
        "layer 'scripted.0' (in a scripted or compiled module), layer 'mine' (MyNorm: no 'is_norm = True'), "
        "layer_norm in the network"
    )
    torch.manual_seed(3)
    build_network(RUN.changed(network="lenet", network_args={"norm": "batch"}))
    drawn = torch.get_rng_state()
    torch.manual_seed(3)
    build_network(RUN.changed(network="lenet", network_args={"norm": "batch"}, swap_norm="group"))
    assert torch.equal(torch.get_rng_state(), drawn)
    assert before is not None


@pytest.mark.parametrize(
    ("plain", "after", "written"),
    [
        (("lenet", {}), ["Conv2d", "Linear"], ("lenet", {"norm": "batch"})),
        (("notebook_mlp", {}), ["Linear"], ("notebook_mlp", {"norm": "batch"})),
        (("conv_unit", {"norm": "none"}), ["Conv2d"], ("conv_unit", {"norm": "batch"})),
    ],
)
def test_a_plain_network_with_norms_put_in_is_the_one_with_norms(
    plain: tuple[str, dict[str, Any]], after: list[str], written: tuple[str, dict[str, Any]]
) -> None:
    insert = {"after": after, "skip_last": True}
    ours = RUN.changed(network=plain[0], network_args=plain[1], swap_norm="batch", insert_norm=insert)
    theirs = RUN.changed(network=written[0], network_args=written[1])
    assert weights_hash(build_network(ours)) == weights_hash(build_network(theirs))
    assert first_losses(ours) == first_losses(theirs)
    count = sum(map(is_norm, build_network(theirs).modules()))
    every = RUN.changed(**{**vars_of(ours), "insert_norm": {"after": ["Conv2d", "Linear"], "skip_last": False}})
    assert sum(map(is_norm, build_network(every).modules())) > count


def vars_of(run: RunSpec) -> dict[str, Any]:
    return {name: getattr(run, name) for name in RunSpec.model_fields}


def test_weights_are_standardized_per_output() -> None:
    run = RUN.changed(network="conv_unit", network_args={"norm": "batch"})
    network: Any = build_network(run.changed(swap_norm="weight_standardization"))
    written: Any = build_network(run.changed(network_args={"norm": "weight_standardization"}))
    assert weights_hash(network) == weights_hash(build_network(run)) == weights_hash(written)
    x = torch.randn(4, *SIZE, dtype=torch.float64)
    conv = network[0].double()
    weight = conv.weight.detach()
    by_hand = (weight - weight.mean((1, 2, 3), keepdim=True)) / (
        weight.var((1, 2, 3), correction=0, keepdim=True) + 1e-5
    ).sqrt()
    assert_close(conv(x), F.conv2d(x, by_hand, conv.bias.double(), padding=1))
    assert type(written[0]) is type(conv)
    assert isinstance(network[1], nn.GroupNorm)


@pytest.mark.parametrize("name", ["group", "weight_standardization", "batch"])
def test_a_stack_of_swapped_networks_is_its_runs(name: str) -> None:
    runs = [
        RUN.changed(
            network="conv_unit", network_args={"width": 4}, swap_norm=name, seed=seed, epochs=2, train_samples=256
        )
        for seed in (0, 1)
    ]
    together = list(train(Job(tuple(runs), "grouped"), TrainingOptions(kernels="torch")))
    alone = [event for run in runs for event in train(Job((run,)), TrainingOptions(kernels="torch"))]
    for run in runs:
        losses = [
            [event.train_loss for event in events if isinstance(event, EpochRow) and event.run_id == run.run_id]
            for events in (together, alone)
        ]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)
        hashes = {e.weights_hash for e in [*together, *alone] if isinstance(e, RunResult) and e.run_id == run.run_id}
        assert len(hashes) == 1


def sweep(**fixed: Any) -> Any:
    values = {"network": "conv_unit", "dataset": "digits", "device": "cpu", **fixed}
    return from_mapping({"name": "swap", "fixed": values, "grid": {"swap_norm": ["keep", "none", "group"]}})


def test_a_sweep_says_what_is_replaced_before_it_trains() -> None:
    lines = norm_changes(sweep(**{"network.width": 4}))
    assert lines == [
        "network conv_unit width=4, swap_norm none: replaced 2 norm layers",
        "network conv_unit width=4, swap_norm group: replaced 2 norm layers",
    ]
    with pytest.raises(
        UserError, match=r"swap_norm group: the network has no norm layer that can be replaced; fixed\.insert_n"
    ):
        norm_changes(sweep(network="no_batch_norm"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"swap_norm_args": {"grops": 2}}, "norm layer 'group': unknown argument 'grops'; did you mean 'groups'"),
        ({"swap_norm_args": {"groups": "2"}}, "norm layer 'group', argument 'groups': must be a whole number"),
        ({"insert_norm": {"after": ["Conv"]}}, "unknown insert_norm 'Conv'; did you mean 'Conv"),
        ({"insert_norm": {"after": []}}, "insert_norm: must have at least 1 item"),
        ({"insert_norm": {"skip_last": True}}, "insert_norm: is missing"),
        ({"insert_norm": ["Conv2d"]}, "insert_norm: must be a mapping"),
    ],
)
def test_wrong_values_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        sweep(**changes)


def test_each_norm_layer_gets_the_arguments_that_it_has() -> None:
    values = {"network": "conv_unit", "network.norm": "batch", "swap_norm_args": {"groups": 4, "eps": 1}}
    made = from_mapping({"name": "a", "fixed": values, "grid": {"swap_norm": ["none", "batch", "group"]}})
    layers: list[Any] = [build_network(run)[1] for run in made.runs]  # type: ignore[index]
    assert isinstance(layers[0], nn.Identity)
    assert (type(layers[1]), layers[1].eps) == (nn.BatchNorm2d, 1.0)
    assert (layers[2].num_groups, layers[2].eps) == (4, 1.0)


def test_what_needs_a_norm_layer_is_refused_without_one() -> None:
    with pytest.raises(UserError, match="insert_norm needs a norm layer: set swap_norm, too"):
        from_mapping({"name": "a", "fixed": {"network": "lenet", "insert_norm": {"after": ["Linear"]}}})
    with pytest.raises(UserError, match="unknown norm layer 'bach'; did you mean 'batch'"):
        from_mapping({"name": "a", "fixed": {"network": "lenet", "swap_norm": "bach"}})


def test_from_a_config_to_a_table_and_back(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    config = write(
        "swapped.yaml",
        "contrast: {axis: swap_norm, baseline: none}\n"
        "fixed: {network: no_batch_norm, dataset: digits, device: cpu, epochs: 1, batch_size: 250,\n"
        "  insert_norm: {after: [Conv2d]}, swap_norm_args: {eps: 1}}\n"
        "grid: {swap_norm: [none, batch], seed: {range: 2}}\n",
    )
    done = bnbench("run", config, "--out", tmp_path, "--executor", "inline")
    assert done.exit_code == 0, done.stderr
    assert "network no_batch_norm, swap_norm batch: put 2 norm layers in" in done.stderr
    row = next(line for line in done.stdout.splitlines() if line.startswith("batch "))
    assert row.endswith("yes")
    again = bnbench("resume", tmp_path / "swapped")
    assert (again.exit_code, "4 of 4 runs are there already" in again.stderr) == (0, True)
