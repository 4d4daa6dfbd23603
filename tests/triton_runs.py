"""Three ways to run kernels written in Triton: on a GPU, in its interpreter, and through its compiler alone.

The interpreter must be asked for before Triton is imported, by TRITON_INTERPRET=1. So tests of kernels are
written once, for ``DEVICE``; without a GPU they skip, and one more test of their file runs the file again in
another process, in the interpreter.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
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

# Compute capability 9.0 (H100, H200), warps of 32.
TARGET = ("cuda", 90, 32)


def run_in_the_interpreter(test_file: str) -> None:
    """Run a file of tests in another process, on the CPU."""
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


def compile_kernel(
    kernel: Any, arguments: Mapping[str, str], constants: Mapping[str, Any], **options: Any
) -> Any:
    """Compile a kernel for an H100 down to machine code, which needs no GPU.

    Args:
        kernel: what ``triton.jit`` made.
        arguments: types of its run-time arguments, e.g. ``*fp32``, ``i32``; ``i32!`` is a multiple of 16,
            which the launcher would find out.
        constants: values of all others.
        options: num_warps, num_stages, maxnreg.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = {name: "constexpr" if name in constants else arguments[name] for name in kernel.arg_names}
    multiples = {
        (index,): [["tt.divisibility", 16]]
        for index, (name, kind) in enumerate(signature.items())
        if kind.startswith("*") or kind.endswith("!")
    }
    source = ASTSource(
        fn=kernel,
        signature={name: kind.rstrip("!") for name, kind in signature.items()},
        constexprs=dict(constants),
        attrs=multiples,
    )
    compiled = triton.compile(source, target=GPUTarget(*TARGET), options=options)
    assert len(compiled.asm["cubin"]) > 0
    return compiled
