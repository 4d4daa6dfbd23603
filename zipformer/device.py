"""Devices: which one to use, its kernels, its memory, and small values on their way to it and back.

Functions that have a kernel in Triton ask :func:`has_kernels` about the device of their tensors. Triton comes
with the CUDA builds of PyTorch. Everywhere else they take the plain path, which is also the reference that
the kernels are tested against.
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
    """The device of a name, where ``auto`` means CUDA if there is one and CPU otherwise.

    Raises:
        UserError: no device has that name, or it says CUDA where there is none.
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
    """Let glibc keep freed memory for the next tensor, where the C library is glibc.

    By default it returns large blocks to the system, which clears every page again when the next step asks
    for it: half of the time of a convolution on the CPU. Memory in use then stays at its peak.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(MALLOPT_MMAP_MAX, 0)
    libc.mallopt(MALLOPT_TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(MALLOPT_TOP_PAD, 64 << 20)


def has_kernels(device: torch.device) -> bool:
    """Whether functions of tensors on a device should call kernels: it is a CUDA device, with Triton.

    Where only Triton is missing, the log says so, once.
    """
    return _enabled and device.type == "cuda" and _triton_is_installed()


@contextmanager
def plain_pytorch() -> Iterator[None]:
    """No kernels inside this context: to measure what they bring, or to look for an error."""
    global _enabled
    before, _enabled = _enabled, False
    try:
        yield
    finally:
        _enabled = before


@functools.cache
def _triton_is_installed() -> bool:
    """Whether there is a Triton whose kernels can gather: 3.3, which PyTorch 2.7 came with, or later."""
    installed = importlib.util.find_spec("triton") is not None
    usable = installed and hasattr(importlib.import_module("triton.language"), "gather")
    if not usable:
        missing = "Triton is older than 3.3" if installed else "Triton is not installed"
        logger.warning("%s: training on this GPU uses plain PyTorch, which is slower", missing)
    return usable


def on_host(tensor: Tensor) -> bool:
    """Whether looking at a value of the tensor makes nobody wait."""
    return tensor.is_cpu


class HostCopy:
    """A tensor's values as they are when all work queued so far is done, wanted on the host some time later.

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
