"""What is learned from a dataset, by name: `tasks.build("static", store, ...)`.

A task turns stored fields into batches and says what a batch costs; see `operators.tasks.protocol.Task`.
"""

from operators.tasks.linear_system import LinearSystemTask
from operators.tasks.mixture import MixtureTask
from operators.tasks.protocol import Examples, Loss, Task
from operators.tasks.static import StaticTask
from operators.tasks.time_pairs import TimePairsTask
from solvers.registry import Registry

tasks: Registry = Registry("task")
tasks.register("static")(StaticTask)
tasks.register("time_pairs")(TimePairsTask)
tasks.register("linear_system")(LinearSystemTask)

__all__ = ["Examples", "LinearSystemTask", "Loss", "MixtureTask", "StaticTask", "Task", "TimePairsTask", "tasks"]
