"""What is learned from a dataset, by name: `tasks.build("static", store, ...)`.

A task turns stored fields into batches and says what a batch costs; see `operators.tasks.protocol.Task`.
"""

from operators.tasks.protocol import Examples, Loss, Task
from operators.tasks.static import StaticTask
from solvers.registry import Registry

tasks: Registry = Registry("task")
tasks.register("static")(StaticTask)

__all__ = ["Examples", "Loss", "StaticTask", "Task", "tasks"]
