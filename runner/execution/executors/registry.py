"""The executors by name."""

from runner.execution.executors.executor import Executor, inline
from runner.execution.executors.process import process
from runner.execution.executors.ray_executor import ray
from runner.registry import Registry

executor: Registry[Executor] = Registry("executor")
executor("inline")(inline)
executor("process")(process)
executor("ray")(ray)
