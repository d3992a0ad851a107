"""Tasks: which stations of the data meet. One file each, all a `Task`.

* `Proposals`: instances by margin loss and recurrent mean shift.

A configuration names a task by its class: ``config.task.name = "Proposals"``; the other
entries of ``config.task`` are its settings.
"""

from sphemb.tasks._proposals import Proposals
from sphemb.tasks._task import Apply, Batch, Maps, Memory, Task

__all__ = ["Apply", "Batch", "Maps", "Memory", "Proposals", "Task"]
