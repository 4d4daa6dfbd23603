"""Small values on their way between the host and a GPU, without one waiting for the other."""

from typing import Any

import torch
from torch import Tensor


def on_host(tensor: Tensor) -> bool:
    """Whether looking at a value of the tensor makes nobody wait."""
    return tensor.is_cpu


class HostCopy:
    """A tensor's values as they are when all work queued so far is done, wanted on the host some time later.

    Args:
        values: on any device.
    """

    def __init__(self, values: Tensor) -> None:
        self._ready: torch.cuda.Event | None = None
        if values.is_cuda:
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._ready = torch.cuda.Event()
            self._ready.record()
        else:
            self._values = values.to("cpu", copy=True)

    def read(self) -> list[Any]:
        """The values as numbers. Waits for what was queued before the copy, not for what came after."""
        if self._ready is not None:
            self._ready.synchronize()
        return self._values.tolist()

    def __deepcopy__(self, memo: dict[int, Any]) -> "HostCopy":
        self.read()
        return HostCopy(self._values)


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """A host tensor on a device; through pinned memory, as a copy out of any other makes the host wait."""
    if device.type == "cuda" and tensor.is_cpu:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
