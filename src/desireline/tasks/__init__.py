"""The four jobs over one model, each a task of the same shape; two stand so far."""

from desireline.tasks.interface import Task
from desireline.tasks.next_event import NextEvent
from desireline.tasks.recommend import Recommend

TASKS: dict[str, Task] = {"next_event": NextEvent(), "recommend": Recommend()}

__all__ = ["TASKS", "NextEvent", "Recommend", "Task"]
