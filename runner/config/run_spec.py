"""A run as a frozen value: everything that decides what is trained, and nothing about where it is stored."""

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, with_config
from typing_extensions import TypedDict

from runner import registry

ProbeName = Literal[
    "gradients", "activations", "norms", "precise", "batch_statistics", "train", "curvature", "histograms"
]

AugmentName = Literal["flip", "crop"]

Stream = Literal["weights", "batches", "dropout", "split", "subset"]
"""What is random in a run. Each stream can have a seed of its own: `seed_weights` and so on."""

SEEDS = ("seed", *(f"seed_{stream}" for stream in get_args(Stream)))
"""The run parameters that are seeds."""

StreamSeed = Annotated[int | None, Field(ge=0, lt=2**63)]

MOST = 10**9
"""The most samples or epochs that a run parameter can name: more would be too large for torch."""

DEVICE = r"^(auto|cpu|cuda(:([0-9]|[1-9][0-9]|1[01][0-9]|12[0-7]))?)$"
"""torch numbers at most 128 GPUs."""


class Strict(BaseModel, strict=True, extra="forbid", use_attribute_docstrings=True):
    """A part of a config. The text below a field is its description in the JSON schema."""


@with_config(ConfigDict(extra="forbid", strict=True))
class InsertNorm(TypedDict):
    """After which layers norm layers are put: after each layer of these kinds that the network calls.

    `skip_last` leaves out the network's last layer, whose outputs are the logits.
    """

    after: Annotated[list[Literal["Conv1d", "Conv2d", "Conv3d", "Linear"]], Field(min_length=1)]
    skip_last: bool


def _with_default(value: Any) -> Any:
    return {"skip_last": True, **value} if isinstance(value, dict) else value


_NONE_GIVEN: frozenset[str] = frozenset()


class RunSpec(Strict, frozen=True):
    """One point of a sweep. The fields, their types and their limits are the schema of `fixed:` and `grid:`.

    >>> run = RunSpec(network="lenet", network_args={"norm": "batch"}, lr=0.1)
    >>> run.parameters["network.norm"], run.parameters["lr"], run.parameters["epochs"]
    ('batch', 0.1, 10)
    >>> run.run_id == run.changed(seed=0).run_id != run.changed(seed=1).run_id
    True
    """

    network: str
    """A registered network; `bnbench networks` lists them."""
    network_args: Mapping[str, Any] = Field({}, exclude=True)
    swap_norm: str = "keep"
    """keep, or the norm layer that replaces every norm layer of the network; bnbench networks lenet lists them."""
    swap_norm_args: Mapping[str, Any] = Field({})
    """Arguments of the norm layers that swap_norm names, such as {groups: 4}: each gets those that it has."""
    swap_norm_bias: bool = True
    """With swap_norm none, a layer that has no bias because a norm layer followed receives one that starts at 0."""
    insert_norm: Annotated[InsertNorm | None, BeforeValidator(_with_default)] = None
    """Put the norm layer of swap_norm after such layers: {after: [Conv2d, Linear], skip_last: true}."""
    dataset: str = "fashion_mnist"
    """A registered data set; `bnbench datasets` lists them."""
    trainset: Literal["normal", "not_normal", "half", "imagenet"] = "normal"
    """Pixels, per channel: normal: standardised by the training set; not_normal: 0..1; half: (x - 0.5) / 0.5;
    imagenet: standardised by ImageNet's mean and SD (3 channels)."""
    validate_on: Literal["held_out", "test"] = "held_out"
    """held_out: a sixth of the training set (the test set is read once, at the end); test: the test set."""
    train_samples: int | None = Field(None, gt=0, le=MOST)
    """Train on n of the training samples that are not held out (see subset); null: on all."""
    lr: float = Field(0.01, gt=0, allow_inf_nan=False)
    """Learning rate."""
    batch_size: int = Field(1000, gt=0, le=MOST)
    """Samples per optimizer step."""
    shuffle: bool = True
    """A new batch order each epoch; false: the data set's own order."""
    drop_last: bool = False
    """Leave out the last training batch if it is smaller."""
    augment: tuple[AugmentName, ...] = Field((), strict=False)
    """Random changes of the training images: flip (left and right), crop (after padding with black pixels)."""
    crop_padding: int = Field(4, gt=0, le=1000)
    """Pixels on each side that augment 'crop' pads an image with."""
    num_workers: int = Field(0, ge=0, le=64)
    """0: all data is held on the device; n: a DataLoader with n worker processes."""
    device: str = Field("auto", pattern=DEVICE)
    """auto (CUDA if there is one), cpu, cuda, cuda:0 … cuda:127."""
    threads: int = Field(1, gt=0, le=1024)
    """CPU threads of one run; they can change the last bits."""
    optimizer: Literal["sgd", "adam", "adamw"] = "adam"
    """SGD, Adam or AdamW."""
    momentum: float = Field(0.0, ge=0, lt=1)
    """Momentum of SGD."""
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Weight decay: an L2 penalty (sgd, adam), or decoupled (adamw)."""
    lr_schedule: Literal["none", "step", "cosine"] = "none"
    """none: constant; step: times lr_gamma every lr_step epochs; cosine: falls to 0 at the last epoch."""
    lr_step: int = Field(10, gt=0, le=MOST)
    """Epochs between two drops of the step schedule."""
    lr_gamma: float = Field(0.1, gt=0, le=1)
    """The step schedule multiplies the learning rate by this factor."""
    epochs: int = Field(10, gt=0, le=100_000)
    """Passes over the training set."""
    evaluations_per_epoch: int = Field(1, gt=0, le=1000)
    """Validation readings per epoch; more than one fills curves.csv."""
    probes: tuple[ProbeName, ...] = Field((), strict=False)
    """What is measured inside the network at each reading; the values go to probes.csv."""
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """Precision of matrix products: float32; TF32 (CUDA); bfloat16 by autocast (weights stay float32)."""
    deterministic: bool = True
    """Refuse operations that are not deterministic on CUDA; false: allow them, results may differ from run to run."""
    share_batches: bool = False
    """Every seed uses seed 0's batch order: faster in a stack, but seeds are not independent."""
    split: Literal["fixed", "drawn"] = "fixed"
    """Which samples are held out. fixed: the same ones in every run; drawn: by the run's seed."""
    subset: Literal["first", "drawn"] = "first"
    """Which samples train_samples takes. first: the first ones; drawn: by the run's seed."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of each random stream that has no seed of its own below."""
    seed_weights: StreamSeed = None
    """Seed of the starting weights; null: seed."""
    seed_batches: StreamSeed = None
    """Seed of the batch order and of augment's changes; null: seed."""
    seed_dropout: StreamSeed = None
    """Seed of dropout; null: seed."""
    seed_split: StreamSeed = None
    """Seed of which samples are held out, with split 'drawn'; null: seed."""
    seed_subset: StreamSeed = None
    """Seed of which samples train_samples takes, with subset 'drawn'; null: seed."""

    def model_post_init(self, _: Any) -> None:
        """Forget which fields were given. Nothing asks for it, and in 100,000 runs it takes 200 MB."""
        object.__setattr__(self, "__pydantic_fields_set__", _NONE_GIVEN)

    def seed_of(self, stream: Stream) -> int:
        """The seed of one stream: its own one, or else `seed`.

        >>> run = RunSpec(network="lenet", seed=3, seed_weights=7)
        >>> run.seed_of("weights"), run.seed_of("batches")
        (7, 3)
        """
        own: int | None = getattr(self, f"seed_{stream}")
        return self.seed if own is None else own

    @property
    def parameters(self) -> dict[str, Any]:
        """Every parameter by its config name: the fields in order, `network.<kwarg>` right after `network`."""
        arguments = {f"network.{key}": value for key, value in self.network_args.items()}
        # model_dump() would take most of the time of a plan of 100,000 runs.
        values = {"network": self.network, **arguments, **vars(self)}
        del values["network_args"]
        values.pop("run_id", None)  # It is there once it has been computed.
        return values

    @cached_property
    def run_id(self) -> str:
        """A hash of what is trained: 12 hex digits. Equal ids mean equal runs, in any sweep, folder or order."""
        hashed = self.parameters
        for name, default in LATER.items():
            if hashed[name] == default:
                del hashed[name]
        return hashlib.sha256(_canonical(hashed).encode()).hexdigest()[:12]

    @property
    def on_cuda(self) -> bool:
        """Whether the run's device is a GPU. (`auto` is not known before the sweep starts.)"""
        return self.device.startswith("cuda")

    def changed(self, **fields: Any) -> Self:
        """A copy with other values. (`model_copy` would keep the id of the old run.)"""
        return type(self)(**{name: getattr(self, name) for name in RunSpec.model_fields} | fields)

    @property
    def factory_kwargs(self) -> dict[str, Any]:
        """The arguments of the network's factory: `network.norm_args.eps` becomes `norm_args={"eps": …}`."""
        kwargs: dict[str, Any] = {}
        for dotted, value in self.network_args.items():
            *outer, last = dotted.split(".")
            inner = kwargs
            for key in outer:
                inner = inner.setdefault(key, {})
            # The factory may change the value, and the config shares it.
            inner[last] = copy.deepcopy(value)
        return kwargs


@dataclass(frozen=True)
class Parameters(Mapping[str, Mapping[str, Any]]):
    """Run id → the run's parameters by name. They are put together when they are asked for: kept, they take 1 kB."""

    runs: Mapping[str, RunSpec]

    def __getitem__(self, run_id: str) -> Mapping[str, Any]:
        return self.runs[run_id].parameters

    def __iter__(self) -> Iterator[str]:
        return iter(self.runs)

    def __len__(self) -> int:
        return len(self.runs)


PARAMETERS = tuple(name for name in RunSpec.model_fields if name != "network_args")

_canonical = json.JSONEncoder(sort_keys=True, default=list).encode

SWAP = ("swap_norm", "swap_norm_args", "swap_norm_bias", "insert_norm")
"""The parameters that change the norm layers of a finished network."""

_LATER = ("deterministic", *SWAP, "augment", "crop_padding", "split", "subset", *SEEDS[1:])

LATER = {name: RunSpec.model_fields[name].default for name in _LATER}
"""Run parameters that were added after sweeps were published, with their defaults.

A run's id leaves them out where they have their default, so a parameter that is added here changes no old id. In an
older folder they have their default.
"""


def conflicts(run: RunSpec) -> Iterator[tuple[str, str]]:
    """The parameters that another one makes meaningless, as (name, message)."""
    if run.momentum and run.optimizer != "sgd":
        yield "momentum", f"momentum is SGD's; optimizer '{run.optimizer}' has none (use grids:)"
    if run.lr_schedule != "step" and (run.lr_step, run.lr_gamma) != (10, 0.1):
        name = "lr_step" if run.lr_step != 10 else "lr_gamma"
        yield name, f"{name} belongs to lr_schedule 'step'; this run has '{run.lr_schedule}'"
    if run.crop_padding != 4 and "crop" not in run.augment:
        yield "crop_padding", "crop_padding belongs to augment 'crop'; this run does not crop"
    if list(run.augment) != [name for name in ("flip", "crop") if name in run.augment]:
        yield "augment", "augment: write each once, in this order: [flip, crop]"
    if run.augment and run.num_workers:
        yield "num_workers", "augment changes images on the device; a DataLoader (num_workers above 0) does not; use 0"
    if run.split == "drawn" and run.validate_on != "held_out":
        yield "split", "split 'drawn' belongs to validate_on 'held_out'; this run holds out no samples"
    if run.subset == "drawn" and run.train_samples is None:
        yield "subset", "subset 'drawn' needs train_samples: how many samples are drawn"
    if run.seed_split is not None and run.split != "drawn":
        yield "seed_split", "seed_split belongs to split 'drawn'; this run has split 'fixed'"
    if run.seed_subset is not None and run.subset != "drawn":
        yield "seed_subset", "seed_subset belongs to subset 'drawn'; this run has subset 'first'"
    if run.seed_batches is not None and run.share_batches:
        yield "seed_batches", "with share_batches, every run uses seed 0's batch order; remove seed_batches"
    if run.trainset == "imagenet" and (channels := registry.dataset.shape(run.dataset).channels) != 3:
        yield "trainset", f"trainset 'imagenet' needs images of 3 channels; data set '{run.dataset}' has {channels}"
