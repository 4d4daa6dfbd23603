"""Chooses the implementation of the sums over the transducer lattice.

=======  =================================================================================================
native   compiled for the device of the scores: the default
k2       the recursion of k2, if installed: https://k2-fsa.github.io/k2
plain    PyTorch only, on every device; slow, the reference in tests of the others
=======  =================================================================================================
"""

import importlib.util
from typing import Protocol

import torch
from torch import Tensor

from zipformer.device import has_kernels
from zipformer.errors import UserError
from zipformer.losses.lattice import Occupation

BACKENDS = ("native", "k2", "plain")


class LatticeSums(Protocol):
    """Interface of the implementations, described in `zipformer.losses.lattice`."""

    def full_occupation(
        self, label: Tensor, blank: Tensor, frame_lengths: Tensor, symbol_lengths: Tensor, /
    ) -> Occupation: ...

    def band_occupation(
        self,
        label: Tensor,
        blank: Tensor,
        starts: Tensor,
        frame_lengths: Tensor,
        symbol_lengths: Tensor,
        max_symbols: int,
        /,
    ) -> Occupation: ...


def backend_problem(backend: str) -> str | None:
    """Reason why a backend cannot be used; None if it can."""
    if backend not in BACKENDS:
        return f"there is no backend {backend!r}: choose one of {', '.join(BACKENDS)}"
    if backend == "k2" and importlib.util.find_spec("k2") is None:
        return "the backend k2 needs the package k2, which is not installed: install it, or choose native"
    return None


def lattice_sums(backend: str, device: torch.device) -> LatticeSums:
    """The implementation of a backend for scores on a device.

    Raises:
        UserError: there is no such backend, or a package that it needs is not installed.
    """
    if problem := backend_problem(backend):
        raise UserError(problem)
    # Imported only when needed: programs that only decode do not wait until a compiler is loaded.
    if backend == "k2":
        from zipformer.losses import lattice_k2

        return lattice_k2
    if backend == "native" and device.type == "cpu":
        from zipformer.losses import lattice_native

        return lattice_native
    if backend == "native" and has_kernels(device):
        from zipformer.losses import lattice_cuda

        return lattice_cuda
    from zipformer.losses import lattice

    return lattice
