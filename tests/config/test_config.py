"""A config → runs: order, helpers, exclusions, and every fault at once with its line."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner import RunBuilder
from runner.config.grid import MAX_RUNS
from runner.config.reader import from_mapping, load
from runner.config.sweep import Sweep
from runner.config.yaml_source import dump
from runner.errors import UserError

Write = Callable[[str, str], Path]

BASE = {"fixed": {"network": "batch_norm"}}


def faults(path: Path) -> list[str]:
    with pytest.raises(UserError) as caught:
        load(path)
    return [str(fault) for fault in caught.value.faults]


def grid(**lists: Any) -> Sweep:
    return from_mapping({**BASE, "grid": lists})


def test_the_order_is_the_files_and_the_last_key_is_fastest() -> None:
    lists: dict[str, list[float]] = {"seed": [3, 1], "lr": [0.1, 0.01, 1.0], "batch_size": [64, 10]}
    runs = grid(**lists).runs
    assert [(run.seed, run.lr, run.batch_size) for run in runs] == list(itertools.product(*lists.values()))


def test_grids_follow_one_another_and_fixed_holds_for_all() -> None:
    sweep = from_mapping(
        {
            "fixed": {"epochs": 2},
            "grids": [
                {"network": ["batch_norm"], "lr": [0.1, 0.2]},
                {"network": ["lenet"], "network.norm": ["none", "batch"]},
            ],
        }
    )
    assert [(run.network, run.lr, run.network_args.get("norm"), run.epochs) for run in sweep.runs] == [
        ("batch_norm", 0.1, None, 2),
        ("batch_norm", 0.2, None, 2),
        ("lenet", 0.01, "none", 2),
        ("lenet", 0.01, "batch", 2),
    ]
    assert sweep.grid_keys == ("network", "lr", "network.norm")


def test_zip_advances_its_lists_together_at_its_place_in_the_order() -> None:
    sweep = from_mapping({**BASE, "grid": {"seed": [0, 1], "zip": {"lr": [0.1, 0.2], "batch_size": [64, 128]}}})
    assert [(run.seed, run.lr, run.batch_size) for run in sweep.runs] == [
        (0, 0.1, 64),
        (0, 0.2, 128),
        (1, 0.1, 64),
        (1, 0.2, 128),
    ]


def test_helpers_make_lists() -> None:
    assert [run.seed for run in grid(seed={"range": 3}).runs] == [0, 1, 2]
    assert [run.seed for run in grid(seed={"range": [5, 8]}).runs] == [5, 6, 7]
    decades = [run.lr for run in grid(lr={"logspace": [1e-3, 10, 9]}).runs]
    assert decades[::2] == [0.001, 0.01, 0.1, 1.0, 10.0]
    assert decades[1] == pytest.approx(10**-2.5, rel=1e-11)


def test_exclude_drops_matching_runs_and_must_match_some() -> None:
    config = {**BASE, "grid": {"lr": [0.1, 0.2, 0.3], "seed": [0, 1]}}
    sweep = from_mapping({**config, "exclude": [{"lr": [0.1, 0.2], "seed": 1}]})
    assert [(run.lr, run.seed) for run in sweep.runs] == [(0.1, 0), (0.2, 0), (0.3, 0), (0.3, 1)]
    with pytest.raises(UserError, match="matches no run"):
        from_mapping({**config, "exclude": [{"lr": 0.4}]})
    with pytest.raises(UserError, match="every run is excluded"):
        from_mapping({**config, "exclude": [{"seed": [0, 1]}]})
    with pytest.raises(UserError, match="unknown grid key 'sed'; did you mean 'seed'"):
        from_mapping({**config, "exclude": [{"sed": 1}]})


def test_network_arguments_reach_the_factory_nested() -> None:
    sweep = from_mapping(
        {
            "fixed": {"network": "lenet", "network.norm": "batch"},
            "grid": {"network.norm_args.eps": [1e-5, 1e-3], "network.norm_args.momentum": [0.2]},
        }
    )
    assert sweep.runs[1].factory_kwargs == {"norm": "batch", "norm_args": {"eps": 0.001, "momentum": 0.2}}
    assert "network.norm_args.eps" in sweep.columns
    assert "network.norm" in sweep.columns


def test_a_runs_id_is_what_is_trained_whatever_the_sweep() -> None:
    one = grid(seed=[0, 1], lr=[0.1]).runs[1]
    other = from_mapping({"fixed": {"network": "batch_norm", "seed": 1}, "grid": {"lr": [0.3, 0.1]}}).runs[1]
    assert one.run_id == other.run_id
    assert one.run_id != one.changed(threads=2).run_id
    assert one.changed(threads=2).threads == 2


def test_the_resolved_config_gives_the_same_runs(write: Write) -> None:
    sweep = load(
        write(
            "a.yaml",
            "fixed: {dataset: digits}\n"
            "contrast: {axis: network.norm, baseline: none}\n"
            "grid:\n  network: [lenet, notebook_mlp]\n  network.norm: [none, batch]\n"
            "  zip: {lr: {logspace: [0.1, 1, 3]}, batch_size: [1, 2, 3]}\n  seed: {range: 2}\n"
            "exclude: [{lr: 0.1, seed: 1}]\n",
        )
    )
    again = load(write("b.yaml", dump(sweep.resolved)))
    assert again.runs == sweep.runs
    assert (again.name, again.axis, again.columns) == (sweep.name, sweep.axis, sweep.columns)


def test_overrides_and_device_replace_what_the_file_says(write: Write) -> None:
    path = write("a.yaml", "fixed: {network: batch_norm}\ngrid: {lr: [0.1], device: [cuda]}\n")
    sweep = load(path, ["grid.lr=[0.01,0.1]", "fixed.epochs=3"], device="cpu")
    assert [(run.lr, run.epochs, run.device) for run in sweep.runs] == [(0.01, 3, "cpu"), (0.1, 3, "cpu")]


def test_every_fault_of_a_file_is_reported_at_once_with_its_place(write: Write) -> None:
    path = write(
        "bad.yaml",
        "name: ../x\n"
        "contrast: {axis: network, baseline: batchnorm}\n"
        "fixd: {}\n"
        "fixed:\n"
        "  dataset: minst\n"
        "  optimizer: sdg\n"
        '  epochs: "3"\n'
        "  weight_decay: -1\n"
        "grid:\n"
        "  network: [no_batch_norm, batch_nom]\n"
        "  batch_size: []\n"
        "  seed: 3\n"
        "  lr: [0.1, -0.1, .inf]\n"
        "  moment: [1]\n",
    )
    found = [fault.partition("\n")[0].removeprefix(str(path)) for fault in faults(path)]
    assert [fault.split(": ")[0] for fault in found] == [
        *(":1:7", ":2:37", ":3:1", ":5:12", ":6:14", ":7:11", ":8:17"),
        *(":10:28", ":11:15", ":12:9", ":13:13", ":13:19", ":14:3"),
    ]
    text = "\n".join(found)
    for expected in (
        "beginning with a letter or digit; got '../x'",
        "unknown key 'fixd'; did you mean 'fixed'?",
        "unknown data set 'minst'; did you mean 'mnist'?",
        "unknown optimizer 'sdg'; did you mean 'sgd'? allowed: adam, adamw, sgd",
        "epochs: must be a whole number, got '3'",
        "weight_decay: must be greater than or equal to 0, got -1",
        "unknown network 'batch_nom'; did you mean 'batch_norm'?",
        "batch_size: an empty list",
        "seed: expected a list",
        "lr: must be greater than 0, got -0.1",
        "unknown run parameter 'moment'; did you mean 'momentum'?",
        "unknown value of network 'batchnorm'; did you mean 'no_batch_norm'?",
    ):
        assert expected in text


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("fixed: {network: lenet, network.nrm: batch}", ":1:38", "unknown argument 'nrm'; did you mean 'norm'?"),
        ("fixed: {network: batch_norm, network.norm: batch}", ":1:44", "'batch_norm' takes no arguments"),
        ("fixed: {network: lenet, network.norm: bach}", ":1:39", "did you mean 'batch'?"),
        ("fixed: {network: lenet, network.norm: batch, network.norm_args.eps: -1}", ":1:69", "greater than 0"),
        ("fixed: {network: lenet, network.norm: layer, network.norm_args.momentum: 1}", ":1:74", "'layer'"),
        ("fixed: {network: lenet, network.foo.eps: 1}", ":1:42", "no argument 'foo.eps'"),
        ("fixed: {lr: 0.1}", ":1:1", "no network; allowed: "),
        ("grids: [{network: [lenet]}, {seed: [1, 2]}]", ":1:29", "no network; allowed: "),
        ("fixed: {network: batch_norm, lr: 1}\ngrid: {lr: [1]}", ":2:8", "is under 'fixed' as well"),
        ("grid: {network: [batch_norm], zip: {lr: [1], seed: [1, 2]}}", ":1:31", "equally long; lr has 1, seed has 2"),
        ("grid: {network: [batch_norm], lr: [1, 1.0, 2, 1]}", ":1:47", "1 is listed twice"),
        ("grid: {network: [batch_norm], lr: {rnge: 3}}", ":1:35", "expected {range: n}"),
        ("grid: {network: [batch_norm], seed: {range: [3, 1]}}", ":1:37", "expected {range: n}"),
        ("grid: {network: [batch_norm]}\ngrids: []", ":2:1", "'grid' and 'grids'"),
        ("grids: [{network: [lenet]}, {network: [lenet]}]", ":1:29", "run 2 is run 1 again"),
        ("fixed: {network: batch_norm, momentum: 0.9}", ":1:40", "momentum is SGD's"),
        ("fixed: {network: batch_norm, lr_gamma: 0.5}", ":1:40", "belongs to lr_schedule 'step'"),
        (
            "fixed: {network: batch_norm}\ngrid: {seed: {range: 1000}, lr: {logspace: [1, 2, 1000]}}",
            ":2:7",
            "1,000,000 runs",
        ),
        ("fixed: {network: batch_norm}\nplugins: [nowhere.py]", ":2:11", "No such file"),
        ("[1, 2]", ":1:1", "a config is a mapping"),
        ("grid: {network: [batch_norm], seed: [1]}\ncontrast: {axis: seed, baseline: 1}", ":2:18", "paired by seed"),
        ("fixed: {network: lenet, network.norm_args: {eps: 1}}", ":1:44", "'network.norm_args.eps: 1e-3'"),
        ("fixed: {network: lenet, network.norm: {a: 1}}", ":1:39", "one by one"),
        ("grid: {network: [batch_norm], zip: {lr: [1]}}\ncontrast: {axis: zip, baseline: lr}", ":2:18", "below zip"),
        (f"fixed: {{network: lenet}}\ngrid: {{lr: {{logspace: [1, 1{'0' * 400}, 3]}}}}", ":2:12", "expected {range"),
        ("fixed: {network: batch_norm}\nplugins: [" + "x" * 5000 + ".py]", ":2:11", "File name too long"),
        ("contrast: {axis: lr}\nfixed: {network: batch_norm}", ":1:11", "baseline"),
        (
            "fixed: {network: batch_norm, probes: [gradient]}",
            ":1:39",
            "'gradient'; did you mean 'gradients'? allowed: a",
        ),
        ("grid: {network: [batch_norm], probes: [gradients]}", ":1:40", "probes: must be a list"),
        (f"fixed: {{network: batch_norm, batch_size: 1{'0' * 25}}}", ":1:42", "less than or equal to 1000000000"),
        *(
            (f"fixed: {{network: batch_norm, device: '{device}'}}", ":1:38", "device: allowed: auto (CUDA if")
            for device in ("cuda:٣", "cuda:128", "cuda:01", "cuda:99999999999999999999", "cpu\\n")
        ),
        *(
            (text, place, "has a control character or a surrogate")
            for text, place in (
                ('fixed: {network: mlp, network.init: "a\\x1b[31m"}', ":1:37"),
                ('fixed: {network: batch_norm, "network.\\u2028": 1}', ":1:30"),
                ('fixed: {network: batch_norm}\nplugins: ["a\\0b.py"]', ":2:11"),
                ('fixed: {network: batch_norm}\nplugins: ["\\ud800.py"]', ":2:11"),
                ('fixed: {network: batch_norm}\nname: "\\ud800"', ":2:7"),
            )
        ),
        *(
            (
                f"grid: {{lr: [0.1, 1]}}\nfixed: {{network: batch_norm}}\n"
                f"contrast: {{axis: lr, baseline: 1, smallest_effect: {effect}}}",
                ":3:52",
                f"contrast.smallest_effect: must be {rule}",
            )
            for effect, rule in (
                ("0", "greater than 0"),
                (".nan", "less than 1"),
                ("1", "less than 1"),
                ("a", "a number"),
            )
        ),
    ],
)
def test_a_fault_names_its_place_and_what_is_allowed(write: Write, text: str, place: str, message: str) -> None:
    path = write("c.yaml", text)
    found = faults(path)
    assert any(fault.startswith(f"{path}{place}: ") and message in fault for fault in found), found


def test_a_smallest_effect_is_kept_where_one_was_fixed() -> None:
    values = {"grid": {"network": ["batch_norm"], "lr": [0.1, 1.0]}, "contrast": {"axis": "lr", "baseline": 1.0}}
    without = from_mapping(values)
    assert without.smallest_effect is None
    assert without.resolved["contrast"] == {"axis": "lr", "baseline": 1.0}  # as before there was such a thing
    fixed = from_mapping({**values, "contrast": {**values["contrast"], "smallest_effect": 0.005}})
    assert fixed.smallest_effect == 0.005
    assert from_mapping(fixed.resolved).smallest_effect == 0.005
    assert [run.run_id for run in fixed.runs] == [run.run_id for run in without.runs]


def test_a_plugin_that_does_not_import_is_a_fault_with_its_reason(write: Write) -> None:
    write("mine.py", "import nonsense_module\n")
    path = write("c.yaml", "fixed: {network: batch_norm}\nplugins: [mine.py]\n")
    (fault,) = faults(path)
    assert f"{path}:2:11" in fault
    assert "ModuleNotFoundError: No module named 'nonsense_module'" in fault


def test_without_its_plugin_a_network_is_not_called_unknown(write: Write) -> None:
    path = write("c.yaml", "fixed: {network: mine}\nplugins: [nowhere.py]\n")
    (fault,) = faults(path)
    assert "No such file" in fault


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("class Odd(BaseException): ...\nraise Odd('x')", "Odd: x"),
        ("from runner import network\nnetwork('m')(object())", "must be a function, not a object"),
        ("from runner import network\n@network\ndef m(): ...", "takes a name in brackets"),
        ("from runner import network\n@network('batch_norm')\ndef m(): ...", "two networks are called 'batch_norm'"),
    ],
)
def test_a_plugin_that_misbehaves_is_a_fault(write: Write, module: str, message: str) -> None:
    write("mine.py", module)
    path = write("c.yaml", "fixed: {network: batch_norm}\nplugins: [mine.py]\n")
    (fault,) = faults(path)
    assert f"{path}:2:11" in fault
    assert message in fault


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert "No such file" in faults(tmp_path / "none.yaml")[0]
    (tmp_path / "latin.yaml").write_bytes(b"name: \xff\n")
    assert "not UTF-8" in faults(tmp_path / "latin.yaml")[0]


def test_the_cap_is_on_the_runs_not_on_the_memory_they_would_take() -> None:
    with pytest.raises(UserError, match=f"1,000,000,000 runs; at most {MAX_RUNS:,}"):
        grid(seed={"range": 1000}, batch_size={"range": [1, 1001]}, epochs={"range": [1, 1001]})


def test_the_tutorials_run_builder() -> None:
    params = OrderedDict(lr=[0.01, 0.001], batch_size=[1000, 10000])
    runs = RunBuilder.get_runs(params)
    assert runs[1].lr == 0.01
    assert runs[1].batch_size == 10000
    assert repr(runs[0]) == "Run(lr=0.01, batch_size=1000)"
    assert len(runs) == 4
    with pytest.raises(UserError, match=r"network\.norm"):
        RunBuilder.get_runs({"network.norm": ["none"]})


def test_device_replaces_every_list_of_devices(write: Write) -> None:
    grids = write("g.yaml", "fixed: {network: batch_norm}\ngrids:\n  - {device: [cuda], seed: [0]}\n  - {seed: [1]}\n")
    zipped = write("z.yaml", "fixed: {network: batch_norm}\ngrid: {zip: {device: [cuda, auto], seed: [0, 1]}}\n")
    assert [run.device for run in load(grids, device="cpu").runs] == ["cpu", "auto"]
    assert [run.device for run in load(zipped, device="cpu").runs] == ["cpu", "cpu"]


def test_two_spellings_of_a_value_are_one_run() -> None:
    mlp: dict[str, Any] = {"fixed": {"network": "mlp", "network.init": "normal", "network.norm": "batch"}}
    for grid_key, values in (
        ("network.std", [1, 1.0]),
        ("network.norm_args.eps", [1, 1.0]),
        ("weight_decay", [0.0, -0.0]),
    ):
        with pytest.raises(UserError, match="run 2 is run 1 again"):
            from_mapping({**mlp, "grid": {grid_key: values}})


def test_a_contrast_that_could_never_be_compared_is_refused_before_it_is_trained() -> None:
    lists = {"network": ["batch_norm", "no_batch_norm"], "seed": [0]}
    contrast = {"axis": "network", "baseline": "no_batch_norm"}
    with pytest.raises(UserError, match="every run of the baseline is excluded"):
        from_mapping({"contrast": contrast, "grid": lists, "exclude": [{"network": "no_batch_norm"}]})
    with pytest.raises(UserError, match="the baseline is the only arm"):
        from_mapping({"contrast": contrast, "grid": lists, "exclude": [{"network": "batch_norm"}]})


def test_many_faults_are_not_a_flood() -> None:
    with pytest.raises(UserError) as caught:
        grid(seed={"range": [-300, 0]})
    assert len(caught.value.faults) == 1  # one place, one message
    with pytest.raises(UserError, match="… and 250 more"):
        grid(seed=list(range(-300, 0)))
