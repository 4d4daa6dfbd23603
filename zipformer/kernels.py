"""Which tensors go to the kernels written in Triton, and which to plain PyTorch.

Triton comes with the CUDA builds of PyTorch. A function that has a kernel asks :func:`has_kernels` about the
device of its tensors. Everywhere else it takes the plain path, which is also the reference that the kernels
are tested against.
"""

import functools
import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch

logger = logging.getLogger(__name__)

_enabled = True


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
    installed = importlib.util.find_spec("triton") is not None
    if not installed:
        logger.warning("Triton is not installed: training on this GPU goes by plain PyTorch, which is slower")
    return installed
