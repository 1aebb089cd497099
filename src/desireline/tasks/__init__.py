"""The four jobs over one model, each a task of the same shape."""

from desireline.tasks.anomaly.task import Anomaly
from desireline.tasks.churn.task import Churn
from desireline.tasks.interface import Task
from desireline.tasks.next_event import NextEvent
from desireline.tasks.recommend import Recommend

TASKS: dict[str, Task] = {"next_event": NextEvent(), "recommend": Recommend(), "churn": Churn(), "anomaly": Anomaly()}

__all__ = ["TASKS", "Anomaly", "Churn", "NextEvent", "Recommend", "Task"]
