"""The heads that a model can have: one module of this package each.

A head is a subclass of :class:`zipformer.heads.head.Head` and a dataclass of its settings::

    @dataclass
    class MyHeadConfig:
        dim: int = 64

    @register_head("mine", MyHeadConfig)
    class MyHead(Head):
        loss_names = ("mine",)
        ...

Saved as a file of this package, that is all: the module is found by itself. ``+model.heads.mine={}`` gives a
model the head, and ``+model.heads.mine.dim=32`` one with another setting. Checkpoints, model directories, the
trainer and the log need to know nothing of it.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import lru_cache

from zipformer.heads.head import RegisteredHead, registered


@lru_cache(maxsize=1)
def heads() -> Mapping[str, RegisteredHead]:
    """All heads by name; imports every module of this package on the first call."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return registered
