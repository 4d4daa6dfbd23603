"""The heads of models, each in a module of this package.

A head is a subclass of :class:`zipformer.heads.head.Head` and a dataclass of its settings::

    @dataclass
    class MyHeadConfig:
        dim: int = 64

    @register_head("mine", MyHeadConfig)
    class MyHead(Head):
        loss_names = ("mine",)
        ...

A file with this code in this package is enough: the module is found automatically. ``+model.heads.mine={}``
adds the head to a model, ``+model.heads.mine.dim=32`` changes its setting. Checkpoints, model directories,
the trainer and the log need no changes.
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
