"""A run as a frozen value: everything that decides what is trained, and nothing about where."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

ProbeName = Literal[
    "gradients", "activations", "norms", "precise", "batch_statistics", "train", "curvature", "histograms"
]


class RunSpec(BaseModel):
    """One point of a sweep. The fields, their types and their limits are the schema of `fixed:` and `grid:`."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    network: Annotated[str, Field(description="a registered network; `bnbench networks` lists them")]
    network_args: Annotated[Mapping[str, Any], Field(exclude=True)] = {}
    dataset: Annotated[str, Field(description="a registered data set; `bnbench datasets` lists them")] = "fashion_mnist"
    trainset: Annotated[
        Literal["normal", "not_normal", "half"],
        Field(description="pixels standardised by the training set's mean and SD; raw 0..1; or (x - 0.5) / 0.5"),
    ] = "normal"
    validate_on: Annotated[
        Literal["held_out", "test"],
        Field(description="held_out: a sixth of the training set, test set read once at the end; test: the test set"),
    ] = "held_out"
    train_samples: Annotated[
        int | None, Field(gt=0, description="train on the first so many of the (kept) training samples; null: all")
    ] = None
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False, description="learning rate")] = 0.01
    batch_size: Annotated[int, Field(gt=0, description="samples per optimizer step")] = 1000
    shuffle: Annotated[bool, Field(description="a new batch order each epoch; false: the data set's own order")] = True
    drop_last: Annotated[bool, Field(description="leave out the last training batch where it is smaller")] = False
    num_workers: Annotated[
        int,
        Field(ge=0, le=64, description="0: data held on the device; n: a DataLoader with n worker processes"),
    ] = 0
    device: Annotated[
        str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto (CUDA where there is one), cpu, cuda, cuda:N")
    ] = "auto"
    threads: Annotated[int, Field(gt=0, le=1024, description="CPU threads of one run; part of its arithmetic")] = 1
    optimizer: Annotated[Literal["sgd", "adam", "adamw"], Field(description="SGD, Adam or AdamW")] = "adam"
    momentum: Annotated[float, Field(ge=0, lt=1, description="of SGD")] = 0.0
    weight_decay: Annotated[
        float, Field(ge=0, allow_inf_nan=False, description="L2 (sgd, adam) or decoupled (adamw)")
    ] = 0.0
    lr_schedule: Annotated[
        Literal["none", "step", "cosine"],
        Field(description="by epoch: constant; times lr_gamma every lr_step epochs; cosine to 0 at the last epoch"),
    ] = "none"
    lr_step: Annotated[int, Field(gt=0, description="epochs between two drops of the step schedule")] = 10
    lr_gamma: Annotated[float, Field(gt=0, le=1, description="factor of one drop of the step schedule")] = 0.1
    epochs: Annotated[int, Field(gt=0, le=100_000, description="passes over the training set")] = 10
    evaluations_per_epoch: Annotated[
        int, Field(gt=0, le=1000, description="validation readings an epoch; more than one fills curves.csv")
    ] = 1
    probes: Annotated[
        tuple[ProbeName, ...],
        Field(strict=False, description="what is measured inside the network at each reading, into probes.csv"),
    ] = ()
    precision: Annotated[
        Literal["fp32", "tf32", "bf16"],
        Field(description="of matrix products: float32; TF32 (CUDA); bfloat16 by autocast, weights stay float32"),
    ] = "fp32"
    share_batches: Annotated[
        bool, Field(description="every seed sees seed 0's batch order: faster in a stack, but seeds are then coupled")
    ] = False
    seed: Annotated[int, Field(ge=0, lt=2**63, description="of starting weights, batch order and dropout")] = 0

    @property
    def parameters(self) -> dict[str, Any]:
        """Every parameter by its config name: the fields in order, `network.<kwarg>` right after `network`."""
        values = self.__dict__  # not model_dump(): of 100,000 runs it is most of a plan's time
        arguments = {f"network.{key}": value for key, value in self.network_args.items()}
        return {"network": self.network, **arguments, **{name: values[name] for name in PARAMETERS[1:]}}

    @cached_property
    def run_id(self) -> str:
        """A hash of what is trained: 12 hex digits. Equal ids mean equal runs, in any sweep, folder or order."""
        canonical = json.dumps(self.parameters, sort_keys=True, default=list)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def changed(self, **fields: Any) -> RunSpec:
        """A copy with other values. (Not `model_copy`, which would keep the old run's id.)"""
        return RunSpec(**{name: getattr(self, name) for name in RunSpec.model_fields} | fields)

    @property
    def factory_kwargs(self) -> dict[str, Any]:
        """What the network's factory is called with: `network.norm_args.eps` becomes `norm_args={"eps": …}`."""
        kwargs: dict[str, Any] = {}
        for dotted, value in self.network_args.items():
            *outer, last = dotted.split(".")
            inner = kwargs
            for key in outer:
                inner = inner.setdefault(key, {})
            inner[last] = copy.deepcopy(value)  # a factory may change what it is given; the config's value is shared
        return kwargs


PARAMETERS = tuple(name for name in RunSpec.model_fields if name != "network_args")


def conflict(run: RunSpec) -> tuple[str, str] | None:
    """A parameter that another one makes meaningless: (name, what is wrong); None where all fit."""
    if run.momentum and run.optimizer != "sgd":
        return "momentum", f"momentum is SGD's; optimizer '{run.optimizer}' has none (give it its own entry of grids:)"
    if run.lr_schedule != "step" and (run.lr_step, run.lr_gamma) != (10, 0.1):
        name = "lr_step" if run.lr_step != 10 else "lr_gamma"
        return name, f"{name} belongs to lr_schedule 'step', and this run's is '{run.lr_schedule}'"
    return None
