"""What a learner asks of CUDA, recorded: device, stream, memory pool, failed captures. No GPU is needed.

A recorded step runs when the graph is replayed and not before, as on a GPU: the recorder takes back what a step changes
while it is captured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from runner.config.run_spec import RunSpec
from runner.training.data.batches import batch_order
from runner.training.data.preprocessing import prepare
from runner.training.learners import cuda_graph, stack_check
from runner.training.learners.cuda_graph import Captured, on_device, rehearse
from runner.training.learners.stack import Stack
from runner.training.networks import build_network
from runner.training.settings import settings_of

FIRST, SECOND = torch.device("cuda:0"), torch.device("cuda:1")
RUN = RunSpec(
    network="mlp",
    network_args={"norm": "batch", "dropout": 0.5},
    dataset="digits",
    device="cpu",
    augment=("flip", "crop"),
)


class There(Tensor):
    """A tensor that says that it is on the second GPU."""

    device = SECOND


def there(*shape: int) -> Tensor:
    return torch.zeros(shape).as_subclass(There)


class Recorder:
    """Stands in for `torch.cuda`. `calls` are what was asked for; `current` is the current device."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.current = FIRST
        self.waits: list[tuple[object, object]] = []
        self.free = 0
        self.cached = 0
        # What the steps change; a capture takes it back.
        self.state: Sequence[Tensor] = ()
        # A graph that was recorded on another device than its step is empty.
        self.empty = False
        self.failure: Exception | None = None
        recorder = self

        class Stream:
            def __init__(self, device: torch.device) -> None:
                self.device = device
                recorder.calls.append(f"new stream on {device}")

            def wait_stream(self, other: Any) -> None:
                recorder.waits.append((self, other))

        class Graph:
            step: Callable[[], object] | None = None

            def pool(self) -> str:
                return f"pool of {id(self)}"

            def replay(self) -> None:
                recorder.calls.append(f"replay on {recorder.current}")
                if not recorder.empty:
                    assert self.step
                    self.step()

        self.default = Stream(torch.device("cpu"))
        self.calls.clear()
        self.capturing: Graph | None = None
        self.captures: list[tuple[Graph, object, Any]] = []

        @contextmanager
        def graph(graph: Graph, pool: object = None, stream: Any = None) -> Iterator[None]:
            recorder.calls.append(f"capture on {recorder.current}")
            recorder.captures.append((graph, pool, stream))
            if recorder.failure:
                raise recorder.failure
            before = [tensor.clone() for tensor in recorder.state]
            recorder.capturing = graph
            yield
            recorder.capturing = None
            for tensor, values in zip(recorder.state, before, strict=True):
                tensor.detach().copy_(values)

        @contextmanager
        def device(device: torch.device) -> Iterator[None]:
            before, recorder.current = recorder.current, device
            try:
                yield
            finally:
                recorder.current = before

        @contextmanager
        def on_stream(stream: Stream) -> Iterator[None]:
            recorder.calls.append(f"stream of {stream.device}")
            yield

        def empty_cache() -> None:
            recorder.free, recorder.cached = recorder.free + recorder.cached, 0

        replaced = {
            "Stream": Stream,
            "CUDAGraph": Graph,
            "graph": graph,
            "device": device,
            "stream": on_stream,
            "current_stream": lambda *_: recorder.default,
            "empty_cache": empty_cache,
            "mem_get_info": lambda device: (recorder.free, 10**10) if device == SECOND else (0, 0),
        }
        for name, value in replaced.items():
            monkeypatch.setattr(torch.cuda, name, value)

    def recordable(self, step: Callable[[Tensor], object]) -> Callable[[Tensor], None]:
        """The step; a graph that is being captured will run it when it is replayed."""

        def recorded(index: Tensor) -> None:
            self.calls.append(f"step on {self.current}")
            if self.capturing:
                self.capturing.step = lambda: step(index)
            step(index)

        return recorded


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    cuda_graph.capture_stream.cache_clear()
    with settings_of(RUN):
        yield Recorder(monkeypatch)
    cuda_graph.capture_stream.cache_clear()


def test_a_capture_is_on_the_device_of_its_step_in_one_stream(recorder: Recorder) -> None:
    weights = torch.zeros(3)
    recorder.state = [weights]
    step = recorder.recordable(lambda _: weights.add_(1))
    first = Captured(step, there(2, 4), [weights])
    second = Captured(step, there(2, 3), [weights], first.pool)
    first(there(2, 4))
    assert {call for call in recorder.calls if "cuda:0" in call} == set()
    streams = {stream for _, _, stream in recorder.captures}
    assert [stream.device for stream in streams] == [SECOND]
    assert recorder.calls.count("stream of cuda:1") == 4  # both rehearsals, and both recordings
    (stream,) = streams
    # The rehearsal comes after what was asked before it, and what follows comes after the rehearsal.
    assert recorder.waits == [(stream, recorder.default), (recorder.default, stream)] * 2
    assert [pool for _, pool, _ in recorder.captures] == [None, first.pool]
    assert second.pool != first.pool
    assert recorder.current == FIRST
    assert weights.tolist() == [1.0] * 3  # one replay: nothing of rehearsals, captures and checks is left


def test_each_device_has_a_stream_of_its_own(recorder: Recorder) -> None:
    streams = [cuda_graph.capture_stream(device) for device in (FIRST, SECOND, FIRST)]
    assert streams[0] is streams[2]
    assert streams[0] is not streams[1]
    assert recorder.calls == ["new stream on cuda:0", "new stream on cuda:1"]


def test_an_empty_recording_is_an_error_and_changes_nothing(recorder: Recorder) -> None:
    weights, others = torch.zeros(3), torch.zeros(2)
    recorder.state, recorder.empty = [weights, others], True

    def step(_: Tensor) -> None:
        weights.add_(1)
        others.add_(2)

    with pytest.raises(RuntimeError, match="the recorded step changes no parameter"):
        Captured(recorder.recordable(step), there(2, 4), [weights, others])
    assert not weights.any()
    assert not others.any()
    assert recorder.current == FIRST


def test_a_step_that_moves_no_parameter_may_be_recorded(recorder: Recorder) -> None:
    """Such as one with a learning rate that is lost in rounding."""
    weights, totals = torch.ones(3), torch.zeros(2)
    recorder.state = [weights, totals]

    def step(_: Tensor) -> None:
        weights.add_(1e-9)
        totals.add_(1)

    Captured(recorder.recordable(step), there(2, 4), [weights, totals])
    assert not totals.any()


def test_a_rehearsal_that_fails_puts_everything_back() -> None:
    weights, totals = torch.ones(3), torch.zeros(2)

    def step(_: Tensor) -> None:
        weights.add_(1)
        totals.add_(1)
        if totals[0] == 2:
            raise ValueError("the second step")

    with pytest.raises(ValueError, match="the second step"):
        rehearse(step, torch.zeros(1), [weights, totals])
    assert weights.tolist() == [1.0] * 3
    assert not totals.any()


def test_on_device_is_for_cuda(recorder: Recorder) -> None:
    with on_device(SECOND):
        assert recorder.current == SECOND
    with on_device(torch.device("cpu")):
        assert recorder.current == FIRST
    assert recorder.calls == []


# A stack


def stack_of(runs: Sequence[RunSpec]) -> Stack:
    data = prepare("digits", Path(), "normal", "held_out", 40, torch.device("cpu"))
    return Stack(runs, [build_network(run) for run in runs], data)


def captured_stack(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """A stack on the CPU that records its steps with the recorder."""
    runs = [RUN.changed(seed=seed) for seed in range(3)]
    stack = stack_of(runs)
    stack.captures, recorder.state = True, stack.moving
    monkeypatch.setattr(stack, "_step", recorder.recordable(stack._step))
    return stack


def orders(stack: Stack, epoch: int) -> Tensor:
    return torch.stack([batch_order(run, 40, epoch) for run in stack.runs])


def trained(stack: Stack) -> Tensor:
    """The readings [2, R, 3] of two epochs of two full batches and a ragged one."""
    readings = []
    for epoch in (1, 2):
        stack.begin_epoch(epoch)
        for index in orders(stack, epoch).split(16, dim=1):
            stack.step(index)
        readings.append(stack.reading())
    return torch.stack(readings)


def test_replays_are_the_plain_steps(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """With batch norm, dropout and crops. Each replay draws new masks. What comes before the first leaves no trace."""
    stack = captured_stack(recorder, monkeypatch)
    plain = stack_of(stack.runs)
    assert torch.equal(trained(stack), trained(plain))
    for name, tensor in plain.tensors.items():
        assert torch.equal(stack.tensors[name], tensor)
    assert sorted(stack.graphs) == [8, 16]
    assert [pool for _, pool, _ in recorder.captures] == [None, stack.graphs[16].pool]


def test_a_rehearsal_changes_nothing() -> None:
    with settings_of(RUN):
        stack = stack_of([RUN.changed(seed=seed) for seed in range(3)])
        stack.begin_epoch(1)
        before = [tensor.clone() for tensor in (*stack.tensors.values(), *stack.moving)]
        assert rehearse(stack._step, torch.arange(30).view(3, 10), stack.moving)
        for tensor, values in zip((*stack.tensors.values(), *stack.moving), before, strict=True):
            assert torch.equal(tensor, values)


@pytest.mark.parametrize("fault", ["capture", "empty"])
def test_a_failed_capture_shows_and_trains_plainly(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.delenv("BNBENCH_STRICT", raising=False)
    stack = captured_stack(recorder, monkeypatch)
    if fault == "capture":
        recorder.failure = RuntimeError("operation not permitted when stream is capturing\nmore")
    recorder.empty = fault == "empty"
    assert torch.equal(trained(stack), trained(stack_of(stack.runs)))
    reason = {
        "capture": "operation not permitted when stream is capturing",
        "empty": "the recorded step changes no parameter",
    }[fault]
    assert stack.how == f"stack of 3, no CUDA graph: {reason}"


@pytest.mark.parametrize("fault", ["capture", "empty"])
def test_a_failed_capture_raises_in_strict_mode(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setenv("BNBENCH_STRICT", "1")
    stack = captured_stack(recorder, monkeypatch)
    recorder.failure = RuntimeError("not permitted") if fault == "capture" else None
    recorder.empty = fault == "empty"
    stack.begin_epoch(1)
    with pytest.raises(RuntimeError, match=r"not permitted|changes no parameter"):
        stack.step(orders(stack, 1))


def test_a_capture_without_memory_is_not_a_fallback(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BNBENCH_STRICT", raising=False)
    stack = captured_stack(recorder, monkeypatch)
    recorder.failure = torch.OutOfMemoryError("no room")
    with pytest.raises(torch.OutOfMemoryError):
        stack.step(orders(stack, 1))


# Memory


def test_free_memory_counts_what_torch_keeps_for_later(recorder: Recorder) -> None:
    recorder.free, recorder.cached = 3_000, 7_000
    assert stack_check.free_memory(SECOND) == 8_000
