"""What people get wrong in a config → the exact message. The place shows that the right line is blamed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from runner.config.reader import load
from runner.config.run_spec import PARAMETERS
from runner.config.sweep import Config
from runner.errors import UserError, allowed

Write = Callable[[str, str], Path]

LENET = "fixed: {network: lenet}\n"
ALLOWED = f"allowed: {allowed([*PARAMETERS, 'network.norm', 'network.<argument>'])}"
NORMS = (
    "batch, d2l, dyt, frozen, ghost, group, hand_written, instance, layer, none, notebook, precise, renorm, rms, "
    "weight_standardization"
)
DATA_SETS = (
    "cifar10, cifar100, digits, emnist_balanced, emnist_letters, fashion_mnist, kmnist, mnist, mnist_5k, qmnist, svhn"
)
NESTED = "network: expected a name, got a mapping; write each argument as a key beside it: "
EXPONENTS = "logspace takes the first and the last value, not their exponents; write {logspace: "

MISTAKES = [
    # Values of another type
    ("name: 2024\n" + LENET, '1:7: name: must be a text, got 2024; quote it: name: "2024"'),
    ("fixed: {network: lenet, shuffle: yes}", "1:34: shuffle: must be true or false, got 'yes'; write true"),
    (LENET + "grid: {shuffle: [true, Off]}", "2:24: shuffle: must be true or false, got 'Off'; write false"),
    ("save_weights: no\n" + LENET, "1:15: save_weights: must be true or false, got 'no'; write false"),
    ("fixed: {network: lenet, epochs: ten}", "1:33: epochs: must be a whole number, got 'ten'"),
    ("fixed: {network: lenet, lr: '0.1'}", "1:29: lr: must be a number, got '0.1'"),
    ("fixed: {network: lenet, probes: gradients}", "1:33: probes: must be a list, got 'gradients'"),
    ("fixed: {network: mlp, network.hidden: 100}", "1:39: network 'mlp', argument 'hidden': must be a list, got 100"),
    (
        "fixed: {network: lenet, network.norm: batch, network.norm_args.eps: yes}",
        "1:69: norm layer 'batch', argument 'eps': must be a number, got 'yes'",
    ),
    (
        f"{LENET}contrast: network.norm",
        "2:11: contrast: must be a mapping with the keys axis, baseline, smallest_effect, got 'network.norm'",
    ),
    (f"{LENET}shard: 3/16", "2:8: shard: must be a mapping with the keys number, of, stack, got '3/16'"),
    (
        f"{LENET}shard: {{number: 3, of: 2}}",
        "2:8: shard: there is no shard 3 of 2, got {'number': 3, 'of': 2}",
    ),
    (f"{LENET}resources: 3", "2:12: resources: must be a mapping with the keys num_cpus, num_gpus, got 3"),
    (
        f"{LENET}until_decided: true",
        "2:16: until_decided: must be a mapping with the keys max_seeds, first_seeds, got True",
    ),
    (f"{LENET}plugins: mine.py", "2:10: plugins: must be a list, got 'mine.py'"),
    # Values at the wrong place
    (
        "fixed: {network: lenet, lr: [0.1, 0.01]}",
        "1:29: lr: must be a number, got [0.1, 0.01]; several values go under 'grid:'",
    ),
    (
        "fixed: {network: lenet, seed: {range: 3}}",
        "1:31: seed: must be a whole number, got {'range': 3}; several values go under 'grid:'",
    ),
    (
        "fixed: {network: lenet, network.norm: [none, batch]}",
        "1:39: network 'lenet', argument 'norm': must be a text, got ['none', 'batch']; "
        "several values go under 'grid:'",
    ),
    ("fixed:\n  network: {norm: batch}", f"2:12: {NESTED}'network.norm'"),
    ("grid:\n  network: {norm: [none, batch]}", f"2:12: {NESTED}'network.norm'"),
    ("grid:\n  network:\n    norm: [none, batch]", f"3:5: {NESTED}'network.norm'"),
    (
        "fixed:\n  network: {name: lenet, norm_args: {eps: 1}}",
        f"2:12: {NESTED}'network.name', 'network.norm_args.eps'",
    ),
    (LENET + "lr: 0.1", "2:1: unknown key 'lr'; 'lr' is a run parameter: put it under 'fixed:' or 'grid:'"),
    (
        LENET + "seeds: 3",
        "2:1: unknown key 'seeds'; did you mean 'seed'? 'seed' is a run parameter: put it under 'fixed:' or 'grid:'",
    ),
    (LENET + "grid: {lr: {logspace: [-4, -1, 4]}}", f"2:12: {EXPONENTS}[0.0001, 0.1, 4]}}"),
    (LENET + "grid: {lr: {logspace: [-4, 0, 5]}}", f"2:12: {EXPONENTS}[0.0001, 1, 5]}}"),
    # Text that is not YAML
    ("fixed:\n\tnetwork: lenet\n", "2:1: not YAML: a tab; use spaces instead"),
    ("fixed:\n  network: lenet\n\tlr: 0.1\n", "3:1: not YAML: a tab; use spaces instead"),
    ("fixed:\n  network:\tlenet\n", "2:11: not YAML: a tab; use spaces instead"),
    *(
        (text, f"{place}: not YAML: write {what}")
        for text, place, what in (
            ("fixed:\n  network: lenet\n  lr 0.01\n  epochs: 3\n", "3:3", "a colon after the key: 'lr: 0.01'"),
            ("fixed:\n  network: lenet\n  lr 0.01 # low\n\n  epochs: 3\n", "3:3", "a colon after the key: 'lr: 0.01'"),
            ("fixed:\n  network: lenet\n  lr 0.01\n", "3:3", "a colon after the key: 'lr: 0.01'"),
            ("fixed:\n  lr 0.01\n  network: lenet\n", "2:3", "a colon after the key: 'lr: 0.01'"),
            ("name: x\nfixed\n  network: lenet\n", "2:1", "a colon after the key: 'fixed:'"),
            ("fixed:\n  network: lenet\n  lr:0.01\n  epochs: 3\n", "3:3", "a space after the colon: 'lr: 0.01'"),
            ("fixed:\n  network: lenet\n  lr:0.01\n", "3:3", "a space after the colon: 'lr: 0.01'"),
            ("grid:\n  lr:[0.1, 1]\n  seed: [1]\n", "2:3", "a space after the colon: 'lr: [0.1, 1]'"),
        )
    ),
    (
        "fixed:\n  lr:0.01\ngrid: {network: [lenet]}",
        "2:3: fixed: must be a mapping, got 'lr:0.01'; write a space after the colon: 'lr: 0.01'",
    ),
    (
        "fixed: {network: lenet, lr:0.1}",
        "1:25: unknown run parameter 'lr:0.1'; write a space after the colon: 'lr: 0.1'",
    ),
    # Names
    (
        "fixed: {network: lenet, dataset: FashionMNIST}",
        f"1:34: unknown data set 'FashionMNIST'; did you mean 'fashion_mnist'? allowed: {DATA_SETS}",
    ),
    (
        "fixed: {network: lenet, network.norm: BatchNorm}",
        "1:39: network 'lenet', argument 'norm': unknown norm layer 'BatchNorm'; "
        f"did you mean 'batch'? allowed: {NORMS}",
    ),
    *(
        (
            f"fixed: {{network: lenet, {key}: 1}}",
            f"1:25: unknown run parameter '{key}'; did you mean '{meant}'? {ALLOWED}",
        )
        for key, meant in (
            ("learning_rate", "lr"),
            ("batchsize", "batch_size"),
            ("seeds", "seed"),
            ("norm", "network.norm"),
        )
    ),
    # The contrast
    (
        "contrast: {axis: network.nrm, baseline: none}\ngrid: {network: [lenet], network.norm: [none, batch]}",
        "1:18: contrast: unknown grid key 'network.nrm'; did you mean 'network.norm'? allowed: network, network.norm",
    ),
    (
        "contrast: {axs: lr, baseline: 1}\ngrid: {network: [lenet], lr: [1, 2]}",
        "1:12: unknown key 'axs'; did you mean 'axis'? allowed: axis, baseline, smallest_effect",
    ),
    (
        "contrast: {axis: lr}\ngrid: {network: [lenet], lr: [1, 2]}",
        "1:11: contrast.baseline: is missing",
    ),
    (
        "contrast: {axis: lr, baseline: 1}\ngrid: {network: [lenet], learning_rate: [1, 2]}",
        f"2:26: unknown run parameter 'learning_rate'; did you mean 'lr'? {ALLOWED}",
    ),
    (
        "contrast: {axis: network.norm, baseline: none}\ngrid: {network: [lenet], network.nrm: [none, batch]}",
        "2:40: network 'lenet': unknown argument 'nrm'; did you mean 'norm'? "
        "allowed: activation, norm, norm_args, pool",
    ),
    (
        "contrast: {axis: lr, baseline: 1}\nfixed: {network: lenet, lr: 1}\ngrid: {seed: [0, 1]}",
        "1:18: contrast: lr has one value, under 'fixed'; an axis has several, under 'grid:'",
    ),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_a_mistake_is_one_message_that_says_what_to_write(write: Write, text: str, message: str) -> None:
    path = write("c.yaml", text)
    with pytest.raises(UserError) as caught:
        load(path)
    assert [str(fault).partition("\n     ")[0] for fault in caught.value.faults] == [f"{path}:{message}"]


@pytest.mark.parametrize("key", Config.model_fields)
@pytest.mark.parametrize("value", ["3/16", "{a: 1}", "[[1]]", "-1"])
def test_a_wrong_value_of_any_key_is_a_message(write: Write, key: str, value: str) -> None:
    """Whatever the value is, nothing else is raised. Some values are right for some keys."""
    path = write("c.yaml", f"{LENET if key != 'fixed' else ''}{key}: {value}\n")
    with suppress(UserError):
        load(path)
