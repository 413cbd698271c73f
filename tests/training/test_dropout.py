"""Dropout masks: SplitMix64 to the bit, fair, independent, and a run's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from runner.training.learners.dropout import SeededDropout, advance, dropped, epoch_keys, kept, seed_dropout

WORD = 2**64

PUBLISHED = [
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
]
"""The first numbers of SplitMix64 from seed 1234567, as many implementations have them in their tests."""


def splitmix64(seed: int, n: int) -> int:
    """Number n (from 1) of the sequence, in Python's integers."""
    z = (seed + n * 0x9E3779B97F4A7C15) % WORD
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    return z ^ (z >> 31)


def key(seed: int = 0, epoch: int = 1, step: int = 0) -> Tensor:
    keys = epoch_keys([seed], epoch)
    for _ in range(step):
        advance(keys)
    return keys


def mask(keys: Tensor, layer: int = 0, keep: float = 0.7, shape: tuple[int, ...] = (500, 1, 400)) -> NDArray[np.bool_]:
    return kept(keys, layer, torch.Size(shape), keep)[:, 0].numpy()


def test_the_reference_is_splitmix64() -> None:
    assert [splitmix64(1234567, n) for n in range(1, 6)] == PUBLISHED


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_a_mask_is_that_sequence_below_a_bound(keep: float) -> None:
    """The number is read as a signed one. Layers and steps are 2³² and 2⁴⁴ numbers apart."""
    seeds, layer, steps = (1234567, 2**63 - 1), 3, 5
    keys = torch.tensor(seeds)
    for _ in range(steps):
        advance(keys)
    found = kept(keys, layer, torch.Size((40, 2, 5, 3)), keep)
    assert found.shape == (40, 2, 5, 3)
    for run, seed in enumerate(seeds):
        numbers = [splitmix64(seed, n + layer * 2**32 + steps * 2**44) for n in range(1, 601)]
        signed = [number - WORD if number >= WORD // 2 else number for number in numbers]
        assert found[:, run].flatten().tolist() == [number / WORD < keep - 0.5 for number in signed]


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.5, 0.8, 0.99])
def test_values_are_kept_with_the_probability(keep: float) -> None:
    for seed in range(3):
        found = mask(key(seed), keep=keep)
        assert stats.binomtest(int(found.sum()), found.size, keep).pvalue > 1e-3
        # Each feature's count over the samples is binomial, too.
        counts = found.sum(axis=0)
        expected = stats.binom(len(found), keep)
        edges = expected.ppf([0.2, 0.4, 0.6, 0.8])
        below = np.diff([0, *((counts <= edge).sum() for edge in edges), len(counts)])
        share = np.diff([0, *expected.cdf(edges), 1])
        assert stats.chisquare(below, share * len(counts)).pvalue > 1e-3


def test_masks_are_independent() -> None:
    """Of the next feature, the next sample, other steps, layers, epochs and seeds: χ² of the 2×2 tables."""
    base = mask(key())
    pairs = {
        "next feature": (base[:, :-1], base[:, 1:]),
        "next sample": (base[:-1], base[1:]),
        **{f"step {step}": (base, mask(key(step=step))) for step in (1, 2, 3, 64)},
        **{f"layer {layer}": (base, mask(key(), layer)) for layer in (1, 2, 16)},
        **{f"epoch {epoch}": (base, mask(key(epoch=epoch))) for epoch in (2, 3)},
        **{f"seed {seed}": (base, mask(key(seed))) for seed in (1, 2, 50)},
        "a step and a layer": (mask(key(), 1), mask(key(step=1), 0)),
    }
    values = {}
    for name, (ours, theirs) in pairs.items():
        table = [[int(((ours == a) & (theirs == b)).sum()) for b in (False, True)] for a in (False, True)]
        values[name] = stats.chi2_contingency(table, correction=False).pvalue
    assert min(values.values()) > 0.05 / len(values), values


def test_dropout_keeps_the_mean() -> None:
    x = torch.ones(500, 1, 400)
    for p in (0.1, 0.5, 0.8):
        y = dropped(x, p, 0, key())
        assert set(y.unique().tolist()) == {0.0, float(torch.tensor(1 / (1 - p)))}
        assert stats.ttest_1samp(y.flatten().numpy(), 1).pvalue > 0.01
    assert torch.equal(dropped(x, 0.0, 0, key()), x)
    assert not dropped(x, 1.0, 0, key()).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_runs_mask_is_its_own_whatever_its_stack(dtype: torch.dtype) -> None:
    """Also the gradient: the mask, scaled."""
    x = torch.randn(20, 5, 4, 3, 3).to(dtype).requires_grad_()
    keys = torch.cat([key(seed) for seed in range(5)])
    together = dropped(x, 0.3, 2, keys)
    (gradient,) = torch.autograd.grad(together.sum(), x)
    assert together.dtype == dtype
    for run in range(5):
        alone = SeededDropout(0.3, 2, keys[run : run + 1])(x[:, run])
        assert torch.equal(together[:, run], alone)
        assert torch.equal(gradient[:, run] == 0, alone == 0)
    pair = dropped(x[:, [3, 1]], 0.3, 2, keys[[3, 1]])
    assert torch.equal(pair, together[:, [3, 1]])


class Count(TorchDispatchMode):
    operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        return func(*args, **(kwargs or {}))


def test_a_stack_takes_as_many_kernels_as_a_run() -> None:
    counts = []
    for runs in (1, 3, 50):
        with Count() as count:  # type: ignore[no-untyped-call]
            dropped(torch.ones(4, runs, 6), 0.5, 0, torch.arange(runs))
        counts.append(count.operations)
    assert counts == [counts[0]] * 3


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    dropped(torch.ones(4, 1, 6), 0.5, 0, key())
    assert torch.equal(torch.get_rng_state(), before)


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.mul(self.drop(x), self.drop(x))


class Other(nn.Dropout):
    pass


def test_what_gets_masks_of_its_own() -> None:
    hooked, shared, block = nn.Dropout(0.5), nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5))
    hooked.register_forward_hook(lambda *_: None)
    parts = [nn.Dropout(0.1), hooked, shared, nn.Sequential(shared), Own(), Other(0.5), nn.Dropout2d(0.5), block]
    network = nn.Sequential(*parts, nn.Sequential(nn.Sequential(nn.ReLU(), nn.Dropout(0.2))), nn.Sequential(block))
    keys = key()
    seed_dropout(network, keys)
    found = {name: module for name, module in network.named_modules() if isinstance(module, SeededDropout)}
    assert {name: module.p for name, module in found.items()} == {"0": 0.1, "8.0.1": 0.2}
    assert all(module.keys is keys for module in found.values())
    assert len({module.layer for module in found.values()}) == 2


def test_a_norm_layer_changes_no_mask() -> None:
    plain = nn.Sequential(nn.Dropout(), nn.Linear(3, 3), nn.Dropout())
    normed = nn.Sequential(nn.Dropout(), nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout())
    numbers = []
    for network in (plain, normed):
        seed_dropout(network, key())
        numbers.append([module.layer for module in network if isinstance(module, SeededDropout)])
    assert numbers == [[0, 1], [0, 1]]


def test_evaluation_drops_nothing() -> None:
    network = nn.Sequential(nn.Dropout(0.5))
    seed_dropout(network, key())
    x = torch.randn(5, 4)
    assert torch.equal(network.eval()(x), x)
    assert not torch.equal(network.train()(x), x)
