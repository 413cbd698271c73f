"""A run's network: built, counted, hashed."""

import hashlib

import torch
from torch import nn

from runner import factories, registry
from runner.config.run_spec import RunSpec
from runner.errors import UserError
from runner.training.data.seeding import seed_generators
from runner.training.learners.learner import wrong_shape
from runner.training.norm_swap import Change, follow, swap_norms
from runner.training.norm_trace import is_norm, trace_of


def resolve_device(name: str) -> torch.device:
    """The device of this name; `auto` is CUDA where there is one. Errors: UserError where it does not exist here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        names = ", ".join(["auto", "cpu", *(f"cuda:{index}" for index in range(count))])
        hint = "" if count else "; 'bnbench plan CONFIG --device cuda' checks the networks for CUDA without a GPU"
        raise UserError(f"device '{name}' is not on this machine; allowed here: {names}{hint}")
    return device


class SpoiledProcessError(UserError):
    """This process must not train further runs.

    `reason` says why, such as "'cuda' has failed: ...". With the executor `process`, a new worker takes the next task.
    """

    def __init__(self, reason: str) -> None:
        remedy = "--executor process would start a new one"
        super().__init__(f"this process must not train further runs, because {reason}; {remedy}")
        self.reason = reason


def raise_if_lost(run: RunSpec) -> None:
    """Errors: SpoiledProcessError where the run's GPU has failed for good, such as after an assertion in a kernel."""
    if run.on_cuda:
        try:
            torch.cuda.synchronize(run.device)
        except RuntimeError as error:
            first_line = str(error).partition("\n")[0]
            raise SpoiledProcessError(f"device '{run.device}' has failed: {first_line}") from None


def build_network(run: RunSpec) -> nn.Module:
    """The run's network on the CPU, with starting weights from torch's generator, seeded with the seed of its weights.

    The tutorial does the same: after `torch.manual_seed(50)` it has the weights that seed 50 has here. The data set's
    shape is filled in where the factory asks for it (`factories.FILLED_IN`).
    Errors: TypeError where the factory returns no module, every error of the factory, and those of `swap_norms` and
    `follow`.

    >>> registry.load_plugins()
    >>> network = build_network(RunSpec(network="notebook_mlp", seed=50))
    >>> parameter_count(network)
    79510
    """
    network, _ = _build(run)
    return network


def change_norms(run: RunSpec) -> Change:
    """What `swap_norm` and `insert_norm` do to the run's network.

    Errors: those of `build_network`, and those of the network with its new layers, for two images of zeros.
    """
    network, change = _build(run)
    shape = registry.dataset.shape(run.dataset)
    image = shape.channels, shape.height, shape.width
    if hidden := [place for place in trace_of(network, image).functions if place not in change.left]:
        places = ", ".join(hidden)
        raise ValueError(
            f"the network still calls old norm layers ({places}): it holds them in a list or a variable, too"
        )
    for mode in (True, False):
        with torch.no_grad():
            logits = network.train(mode)(torch.zeros(2, *image))
        if reason := wrong_shape(logits, 2, shape.classes):
            raise ValueError(reason)
    return change


def _build(run: RunSpec) -> tuple[nn.Module, Change]:
    seed = run.seed_of("weights")
    seed_generators(seed, "weights")
    # As in the tutorial: torch's generator starts from the plain seed.
    torch.manual_seed(seed)
    factory = registry.network[run.network]
    asked = factories.filled_in(factory)
    shape = registry.dataset.shape(run.dataset)
    network = factory(**run.factory_kwargs, **{name: shape.arguments[name] for name in asked})
    if not isinstance(network, nn.Module):
        raise TypeError(f"network '{run.network}' returned a {type(network).__name__}, not a torch.nn.Module")
    change, image = Change(), (shape.channels, shape.height, shape.width)
    if run.swap_norm != "keep":
        bias, insert = run.swap_norm_bias, run.insert_norm
        network, change = swap_norms(network, image, run.swap_norm, run.swap_norm_args, bias=bias, insert=insert)
    follow(network, image)
    return network, change


def trainable(network: nn.Module) -> list[nn.Parameter]:
    """The parameters that an optimizer moves, in the network's order."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def parameter_count(network: nn.Module) -> int:
    """How many trainable numbers the network has."""
    return sum(parameter.numel() for parameter in trainable(network))


def weights_hash(network: nn.Module) -> str:
    """A digest of the parameters outside normalization layers, in their order: 16 hex digits.

    Two arms with equal digests start from the same shared weights. A bias that `swap_norm` has added does not count.

    >>> linear = nn.Linear(4, 2)
    >>> weights_hash(nn.Sequential(linear)) == weights_hash(nn.Sequential(linear, nn.BatchNorm1d(2)))
    True
    """
    digest = hashlib.sha256()
    for module in network.modules():
        if is_norm(module):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if name == "bias" and getattr(module, "added_bias", False):
                continue
            values = parameter.detach().cpu().flatten().view(torch.uint8)
            digest.update(str(tuple(parameter.shape)).encode() + values.numpy().tobytes())
    return digest.hexdigest()[:16]
