"""Devices: choice of the device, kernels, memory, and transfer of small values to it and back.

Functions with a Triton kernel check the device of their tensors with :func:`has_kernels`. Triton comes with
the CUDA builds of PyTorch. Otherwise they take the plain path, which is also the reference in tests of the
kernels.
"""

import ctypes
import functools
import importlib.util
import logging
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from zipformer.errors import UserError

logger = logging.getLogger(__name__)

# Parameters of mallopt, from glibc's malloc.h.
MALLOPT_TRIM_THRESHOLD, MALLOPT_TOP_PAD, MALLOPT_MMAP_MAX = -1, -2, -4

_enabled = True


def choose_device(name: str) -> torch.device:
    """The device with a name; ``auto`` means CUDA if available, otherwise CPU.

    Raises:
        UserError: there is no device with that name, or no CUDA device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device={name}, but torch sees no CUDA device here; use device=cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device={name} is not known; use auto, cpu, cuda or cuda:1") from error


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next tensor, if it is glibc.

    By default glibc returns large blocks to the system, which clears every page again for the next step: half
    of the time of a convolution on the CPU. With this setting, memory in use stays at its peak.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(MALLOPT_MMAP_MAX, 0)
    libc.mallopt(MALLOPT_TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(MALLOPT_TOP_PAD, 64 << 20)


def has_kernels(device: torch.device) -> bool:
    """Whether functions should call kernels on a device: it is a CUDA device, and Triton is installed.

    If only Triton is missing, the log says so once.
    """
    return _enabled and device.type == "cuda" and _triton_is_installed()


@contextmanager
def plain_pytorch() -> Iterator[None]:
    """Context without kernels, to measure their effect or to look for an error."""
    global _enabled
    before, _enabled = _enabled, False
    try:
        yield
    finally:
        _enabled = before


@functools.cache
def _triton_is_installed() -> bool:
    """Whether Triton 3.3 (the version of PyTorch 2.7) or later is installed, whose kernels can gather."""
    installed = importlib.util.find_spec("triton") is not None
    usable = installed and hasattr(importlib.import_module("triton.language"), "gather")
    if not usable:
        missing = "Triton is older than 3.3" if installed else "Triton is not installed"
        logger.warning("%s: training on this GPU uses plain PyTorch, which is slower", missing)
    return usable


def on_host(tensor: Tensor) -> bool:
    """Whether reading a value of the tensor needs no synchronisation with a device."""
    return tensor.is_cpu


class HostCopy:
    """Copy of a tensor to the host that does not wait: values after all work queued so far, to be read later.

    Args:
        values: tensor on any device.
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
        """The values as numbers. Waits for work queued before the copy, not for later work."""
        if self._ready is not None:
            self._ready.synchronize()
        return self._values.tolist()

    def __deepcopy__(self, memo: dict[int, Any]) -> "HostCopy":
        self.read()
        return HostCopy(self._values)


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a host tensor to a device through pinned memory, so that the host does not wait."""
    if device.type == "cuda" and tensor.is_cpu:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
