"""Three ways to run kernels written in Triton: on a GPU, in its interpreter, and through its compiler alone.

The interpreter must be asked for before Triton is imported, by TRITON_INTERPRET=1. So tests of kernels are
written once, for ``DEVICE``; without a GPU they skip, and one more test of their file runs the file again in
another process, in the interpreter.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"

runs_kernels = pytest.mark.skipif(
    not INTERPRETED and not torch.cuda.is_available(),
    reason="no CUDA device; test_in_the_interpreter runs this without one",
)
on_gpu = pytest.mark.skipif(INTERPRETED or not torch.cuda.is_available(), reason="no CUDA device")
not_interpreted = pytest.mark.skipif(INTERPRETED, reason="in the interpreter already, nothing to compile")

if INTERPRETED:
    from triton.runtime import interpreter

    _patch_lang_tensor = interpreter._patch_lang_tensor

    def _patch(tensor: Any, scope: Any) -> None:
        """Numbers of Triton 3.6 are arrays of one element, which NumPy 2.4 does not take for loop bounds."""
        _patch_lang_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = _patch


def _skip_without_gather() -> None:
    if not hasattr(pytest.importorskip("triton.language"), "gather"):
        pytest.skip("the kernels need Triton 3.3, which PyTorch 2.7 and later bring")


def run_in_the_interpreter(test_file: str) -> None:
    """Run a file of tests in another process, on the CPU."""
    _skip_without_gather()
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("PYTEST_ADDOPTS", None)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", test_file],
        cwd=Path(__file__).resolve().parents[1],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout, result.stdout


@contextmanager
def compiling_for_a_gpu() -> Iterator[list[Any]]:
    """Launches of kernels only compile them, for an H100 down to machine code, which needs no GPU.

    Everything else of a launch is as on a GPU: which arguments a kernel gets, and what of them it is compiled
    for. Results are whatever was in memory.

    Yields:
        the list to which every launch adds its compiled kernel.
    """
    _skip_without_gather()
    from triton.backends.compiler import GPUTarget
    from triton.backends.driver import DriverBase
    from triton.runtime import JITFunction, driver

    class NoDriver(DriverBase):
        def is_active(self) -> bool:
            return True

        def map_python_to_cpp_type(self, ty: str) -> str:
            raise NotImplementedError

        def get_current_target(self) -> Any:
            return GPUTarget("cuda", 90, 32)  # compute capability 9.0, warps of 32

        def get_current_device(self) -> int:
            return -1  # kernels of real devices are kept under other numbers

        def get_current_stream(self, device: int) -> int:
            return 0

        def get_active_torch_device(self) -> torch.device:
            return torch.device("cpu")

        def get_benchmarker(self) -> Any:
            raise NotImplementedError

    compiled: list[Any] = []
    run = JITFunction.run

    def compile_only(self: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> None:
        kernel = run(self, *arguments, grid=grid, warmup=True, **options)
        assert len(kernel.asm["cubin"]) > 0
        compiled.append(kernel)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JITFunction, "run", compile_only)
        patch.setattr(driver, "_active", NoDriver())
        yield compiled
