"""The training tasks for ``fangyan train task=NAME``, each in a module of this package.

A task is a subclass of :class:`zipformer.training.task.Task` and a config dataclass that extends
:class:`zipformer.training.config.TrainConfig`::

    @dataclass
    class MyConfig(TrainConfig):
        task: str = "mine"
        model: AsrModelConfig = field(default_factory=AsrModelConfig)

    @register_task("mine", MyConfig)
    class Mine(Task):
        ...

A file with this code in this package is enough: the module is found automatically, and ``task=mine`` works.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import lru_cache

from zipformer.errors import UserError
from zipformer.training.task import RegisteredTask, registered


@lru_cache(maxsize=1)
def tasks() -> Mapping[str, RegisteredTask]:
    """All tasks by name; imports every module of this package on the first call."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return registered


def task_named(name: str) -> RegisteredTask:
    """The task with a name.

    Raises:
        UserError: there is no such task.
    """
    if name not in tasks():
        raise UserError(f"task={name} is not known: choose one of {', '.join(sorted(tasks()))}")
    return tasks()[name]
