"""The choice of a backend, and k2's against plain PyTorch."""

import importlib
import sys

import pytest
import torch

from zipformer.losses import lattice, lattice_native
from zipformer.losses.backend import BACKENDS, backend_problem, lattice_sums


def test_native_is_compiled_and_plain_is_not() -> None:
    cpu = torch.device("cpu")
    assert lattice_sums("native", cpu) is lattice_native
    assert lattice_sums("plain", cpu) is lattice
    assert backend_problem("native") is None


def test_what_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no backend 'fast': choose one of native, k2, plain"):
        lattice_sums("fast", torch.device("cpu"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert BACKENDS == ("native", "k2", "plain")
    with pytest.raises(ValueError, match="k2, which is not installed: install it, or choose native"):
        lattice_sums("k2", torch.device("cpu"))


@pytest.mark.parametrize("package", ["k2", "fast_rnnt"])
def test_k2_gives_the_same_sums(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """fast_rnnt is k2's recursion in a package of its own."""
    module = pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.setitem(sys.modules, "k2", module)
    monkeypatch.delitem(sys.modules, "zipformer.losses.lattice_k2", raising=False)
    sums = lattice_sums("k2", torch.device("cpu"))

    random = torch.Generator().manual_seed(0)
    N, T, U, R = 4, 20, 6, 3
    lengths = torch.tensor([20, 14, 9, 20]), torch.tensor([6, 3, 5, 0])
    label = torch.randn(N, U, T, generator=random, dtype=torch.float64)
    blank = torch.randn(N, U + 1, T, generator=random, dtype=torch.float64)
    for actual, expected in zip(
        sums.full_occupation(label, blank, *lengths),
        lattice.full_occupation(label, blank, *lengths),
        strict=True,
    ):
        torch.testing.assert_close(actual, expected)

    starts = torch.arange(T).mul(U - R + 1).div(T, rounding_mode="floor").expand(N, T).clone()
    starts[2] = torch.arange(T).div(3, rounding_mode="floor").clamp(max=3)
    starts[3] = 0
    band = (*(torch.randn(N, T, R, generator=random, dtype=torch.float64) for _ in range(2)), starts)
    for actual, expected in zip(
        sums.band_occupation(*band, *lengths, U), lattice.band_occupation(*band, *lengths, U), strict=True
    ):
        torch.testing.assert_close(actual, expected)
