"""What the guard finds in a training step, without a GPU, and that bnbench's own networks have nothing of it."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from runner import registry
from runner.config.run_spec import RunSpec
from runner.training.cuda_guard import Guard, findings
from runner.training.data.datasets import Split
from runner.training.data.preprocessing import RunData
from runner.training.learners.stack import Stack
from tests.experiments.test_networks import CASES as NETWORKS

IMAGES = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([3, 1, 0, 9])

every_network = pytest.mark.parametrize(("name", "arguments"), NETWORKS, ids=str)


class Layer(nn.Module):
    """A layer that computes a function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def around(layer: nn.Module) -> nn.Module:
    """A network whose layer '1' this is. The layer's input [4, 2, 28, 28] is trained."""
    network = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), layer, nn.Flatten(), nn.LazyLinear(10))
    network(IMAGES)
    return network


def volume(layer: nn.Module) -> nn.Module:
    return Layer(lambda x: layer(x.unsqueeze(2).expand(-1, -1, 3, -1, -1)))


def embedding(mode: str) -> nn.Module:
    bag = nn.EmbeddingBag(8, 5, mode=mode)
    return Layer(lambda x: bag(torch.zeros(len(x), 3, dtype=torch.long)) + x.mean((1, 2, 3)).unsqueeze(1))


def sequence_loss(x: Tensor) -> Tensor:
    steps = F.log_softmax(x.flatten(1, 2).transpose(0, 1), dim=2)
    lengths = torch.full((4,), 3)
    return x + F.ctc_loss(steps, torch.ones(4, 3, dtype=torch.long), torch.full((4,), 56), lengths)


def pixel_loss(x: Tensor) -> Tensor:
    return x + F.nll_loss(x, torch.zeros(4, 28, 28, dtype=torch.long))


def unpooled(x: Tensor) -> Tensor:
    values, indices = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(values, indices, (2, 2))


def scattered(reduce: str) -> nn.Module:
    return Layer(lambda x: x + torch.zeros_like(x).scatter_reduce(0, torch.zeros_like(x).long(), x.detach(), reduce))


REFUSED: dict[str, nn.Module] = {
    "torch.nn.AvgPool3d": volume(nn.AvgPool3d((1, 2, 2))),
    "torch.nn.AdaptiveAvgPool2d": nn.AdaptiveAvgPool2d(3),
    "torch.nn.AdaptiveAvgPool3d": volume(nn.AdaptiveAvgPool3d((1, 3, 3))),
    "torch.nn.AdaptiveMaxPool2d": nn.AdaptiveMaxPool2d(3),
    "torch.nn.FractionalMaxPool2d": nn.FractionalMaxPool2d(2, output_size=9),
    "torch.nn.FractionalMaxPool3d": volume(nn.FractionalMaxPool3d(2, output_size=(1, 9, 9))),
    "torch.nn.MaxUnpool1d": Layer(lambda x: unpooled(x.unsqueeze(2).flatten(2, 3))),
    "torch.nn.MaxUnpool2d": Layer(unpooled),
    "torch.nn.MaxUnpool3d": Layer(
        lambda x: F.max_unpool3d(*F.max_pool3d(x.unsqueeze(2), (1, 2, 2), return_indices=True), (1, 2, 2))
    ),
    "torch.nn.functional.interpolate": nn.Upsample(scale_factor=2, mode="bicubic"),
    "torch.nn.ReflectionPad1d": Layer(nn.Sequential(nn.Flatten(2), nn.ReflectionPad1d(1))),
    "torch.nn.ReflectionPad2d": nn.ReflectionPad2d(1),
    "torch.nn.ReflectionPad3d": volume(nn.ReflectionPad3d((1, 1, 1, 1, 0, 0))),
    "torch.nn.NLLLoss": Layer(pixel_loss),
    "torch.nn.CTCLoss": Layer(sequence_loss),
    "torch.nn.EmbeddingBag": embedding("max"),
    "torch.Tensor.put_": Layer(lambda x: x.clone().put_(torch.tensor([1]), x[0, 0, 0, :1])),
    "torch.histc": Layer(lambda x: x + torch.histc(x.detach(), 28)),
    "torch.bincount": Layer(
        lambda x: x + torch.bincount(torch.arange(28), weights=x.detach()[0, 0, 0]).to(torch.float32)
    ),
    "torch.median": Layer(lambda x: x.median(dim=1).values),
    "torch.nn.functional.grid_sample": Layer(lambda x: F.grid_sample(x, torch.zeros(4, 5, 5, 2), align_corners=False)),
    "torch.Tensor.scatter_reduce": scattered("prod"),
}
"""A layer for each entry of torch's list of operations that raise where results must be deterministic."""

OTHERS: dict[str, nn.Module] = {
    "linear resizing": nn.Upsample(scale_factor=2, mode="linear"),
    "resizing without aliases": Layer(lambda x: F.interpolate(x, 9, mode="bilinear", antialias=True)),
    "a convolution that pads": nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"),
    "pooling without a layer": Layer(lambda x: F.adaptive_avg_pool2d(x, 3)),
    "adaptive pooling of rows": Layer(nn.Sequential(nn.Flatten(2), nn.AdaptiveAvgPool1d(4))),
}
OTHERS["linear resizing"] = Layer(nn.Sequential(nn.Flatten(2), OTHERS["linear resizing"]))

ALLOWED: dict[str, nn.Module] = {
    "even pooling": nn.AdaptiveAvgPool2d(7),
    "even maximum pooling": nn.AdaptiveMaxPool2d((4, 14)),
    "global pooling": nn.AdaptiveAvgPool2d(1),
    "pooling": nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(3)),
    "zeros": nn.ZeroPad2d(1),
    "repeated borders": nn.ReplicationPad2d(1),
    "circular": nn.CircularPad2d(1),
    "bilinear resizing": nn.Upsample(scale_factor=2, mode="bilinear"),
    "nearest resizing": nn.Upsample(scale_factor=2, mode="nearest"),
    "median": Layer(lambda x: x + x.median()),
    "scattered sums": scattered("sum"),
    "an index": Layer(lambda x: x[:, torch.arange(2, device=x.device)]),
    "where": Layer(lambda x: torch.where(x > 0, x, 0.1 * x)),
    "masked_fill": Layer(lambda x: x.masked_fill(x > 0, 0.5)),
    "a tensor on the input's device": Layer(lambda x: x + torch.ones(28, device=x.device)),
    "a single number": Layer(lambda x: x * torch.tensor(2.0)),
    "dropout": nn.Dropout(0.5),
    "cumsum": Layer(lambda x: x.cumsum(1)),
}

WAITING: dict[str, tuple[nn.Module, str]] = {
    "item": (Layer(lambda x: x * x.mean().item()), "reads a value"),
    "condition": (Layer(lambda x: x if x.sum() > 0 else -x), "reads a value"),
    "float": (Layer(lambda x: x + float(x.detach().max())), "reads a value"),
    "equal": (Layer(lambda x: x if torch.equal(x, x) else -x), "reads a value"),
    "mean of all batches": (nn.BatchNorm2d(2, momentum=None), "reads a value"),
    "nonzero": (Layer(lambda x: x + len(x.nonzero())), "depends on values"),
    "where": (Layer(lambda x: x + len(torch.where(x > 0)[0])), "depends on values"),
    "mask": (Layer(lambda x: x + x[x > 0.1].sum()), "depends on values"),
    "masked_select": (Layer(lambda x: x + x.masked_select(x > 0.1).sum()), "depends on values"),
    "new tensor": (Layer(lambda x: x + torch.ones(28)), "on the CPU"),
    "copy": (Layer(lambda x: x + torch.ones(28).to(x.device)), "on the CPU"),
    "list": (Layer(lambda x: x * x.tolist()[0][0][0][0]), "on the CPU"),
    "to the CPU and back": (Layer(lambda x: x.cpu().to(x.device)), "on the CPU"),
}


def test_every_operation_of_torchs_list_has_a_case() -> None:
    text = torch.use_deterministic_algorithms.__doc__ or ""
    listed = text.partition("operations will throw a")[2].partition("In addition")[0]
    names = set(re.findall(r"\* :\w+:`([\w.]+)`", listed))
    assert len(names) > 15
    assert names - {"torch.Tensor.resize_"} == set(REFUSED)  # resize_ is for quantized tensors


@pytest.mark.parametrize("name", [*REFUSED, *OTHERS])
def test_what_is_not_deterministic_is_found_with_its_layer(name: str) -> None:
    layer = {**REFUSED, **OTHERS}[name]
    found = [finding for finding in findings(around(layer), IMAGES, LABELS) if finding.refused]
    assert {finding.layer.split(".")[0] for finding in found} == {"1"}
    assert all(finding.kind == type(layer).__name__ for finding in found if finding.layer == "1")
    assert all(str(finding).endswith("set deterministic: false") for finding in found)


@pytest.mark.parametrize("name", ALLOWED)
def test_what_is_no_problem_is_not_found(name: str) -> None:
    assert findings(around(ALLOWED[name]), IMAGES, LABELS) == []


@pytest.mark.parametrize("name", WAITING)
def test_what_no_graph_can_record_is_found_with_its_layer(name: str) -> None:
    layer, reason = WAITING[name]
    found = [finding for finding in findings(around(layer), IMAGES, LABELS) if reason in finding.problem]
    assert [(finding.layer, finding.kind, finding.refused) for finding in found] == [("1", type(layer).__name__, False)]


def test_a_backward_operation_belongs_to_the_layer_that_made_it() -> None:
    inner = nn.Sequential(nn.ReLU(), nn.ReflectionPad2d(1), nn.Sigmoid())
    network = nn.Sequential(nn.ReflectionPad2d(2), nn.Conv2d(1, 2, 3), inner, nn.Flatten(), nn.LazyLinear(10))
    network(IMAGES)
    # No gradient passes the first padding, so it is no problem.
    assert [finding.layer for finding in findings(network, IMAGES, LABELS)] == ["2.1"]


def test_an_operation_between_two_layers_belongs_to_neither() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 2, 3), nn.Linear(18, 10)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.head(F.adaptive_max_pool2d(self.conv(x), 3).flatten(1))
            return logits

    (found,) = findings(Net(), IMAGES, LABELS)
    assert str(found).startswith(
        "its own forward (Net): it is not deterministic on CUDA (adaptive_max_pool2d_backward)"
    )


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_a_step_that_raises_is_an_error_of_the_check(error: type[BaseException]) -> None:
    def fail(_: Tensor) -> Tensor:
        raise error

    with pytest.raises(error):
        findings(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReflectionPad2d(1), Layer(fail)), IMAGES, LABELS)


def test_what_cannot_be_checked_on_the_meta_device_is_said() -> None:
    def only_here(x: Tensor) -> Tensor:
        if x.is_meta:
            raise NotImplementedError("no such kernel")
        return x

    (found,) = findings(nn.Sequential(nn.Flatten(), nn.Linear(784, 10), Layer(only_here)), IMAGES, LABELS)
    assert "not checked for tensors on the CPU (NotImplementedError on the meta device)" in str(found)
    assert not found.refused


def test_the_network_and_the_random_numbers_are_as_before() -> None:
    network = around(nn.Sequential(nn.BatchNorm2d(2), nn.Dropout(), nn.AdaptiveAvgPool2d(4)))
    before, text = copy.deepcopy(network.state_dict()), repr(network)
    state = torch.get_rng_state()
    findings(network, IMAGES, LABELS)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert repr(network) == text
    assert not any(module._forward_hooks for module in network.modules())
    assert all(parameter.grad is None and parameter.device.type == "cpu" for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@every_network
def test_the_projects_networks_have_nothing_of_it(name: str, arguments: dict[str, Any]) -> None:
    torch.manual_seed(0)
    assert findings(registry.network[name](**arguments), IMAGES, LABELS) == []


@every_network
def test_nor_does_a_stack_of_them(name: str, arguments: dict[str, Any]) -> None:
    torch.manual_seed(0)
    networks = [registry.network[name](**arguments) for _ in range(2)]
    split = Split(IMAGES, LABELS)
    data = RunData(split, split, split, 10, split, (0.0,), (1.0,))
    runs = [RunSpec(network=name, optimizer="sgd", momentum=0.9, seed=seed) for seed in range(2)]
    stack = Stack(runs, networks, data)
    guard = Guard(nn.Identity(), {"": "Stack"})
    stack.begin_epoch(1)
    with guard:
        stack.step(torch.arange(4).repeat(2, 1))
    assert list(guard.found) == []
    assert stack.reading()[0, 2] == 4


@every_network
def test_forward_passes_work_with_cuda_tensors(name: str, arguments: dict[str, Any]) -> None:
    """torch's fake tensors have a device and a shape, but no values; they need no driver."""
    network = registry.network[name](**arguments)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
        network.to_empty(device="cuda")
        for training in (True, False):
            logits = network.train(training)(torch.empty(4, 1, 28, 28))
            assert (logits.device.type, logits.shape) == ("cuda", (4, 10))


def test_fake_cuda_tensors_find_a_tensor_on_the_cpu() -> None:
    with FakeTensorMode(), torch.device("cuda"), pytest.raises(RuntimeError, match="device"):
        Layer(lambda x: x + torch.ones(28, device="cpu"))(torch.empty(4, 1, 28, 28))


def test_torch_resizes_linearly_in_a_deterministic_way_where_it_must() -> None:
    """The guard trusts this. The meta device takes CUDA's route through `F.interpolate`."""

    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(func.overloadpacket.__name__)
            return func(*args, **kwargs or {})

    for deterministic, uses_the_kernel in ((False, True), (True, False)):
        seen: list[str] = []
        torch.use_deterministic_algorithms(deterministic)
        try:
            with Names():  # type: ignore[no-untyped-call]
                x = torch.rand(4, 2, 7, 7, device="meta", requires_grad=True)
                F.interpolate(x, scale_factor=2, mode="bilinear").sum().backward()
        finally:
            torch.use_deterministic_algorithms(False)
        assert ("upsample_bilinear2d_backward" in seen) is uses_the_kernel
