"""The kernel for SeqSim against the plain function."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from triton_runs import (
    DEVICE,
    INTERPRETED,
    compiling_for_a_gpu,
    not_interpreted,
    on_gpu,
    run_in_the_interpreter,
    runs_kernels,
)

from retrieval.similarity.seqsim import Packed, pack, precision_and_recall, seqsim_packed

seqsim_cuda = pytest.importorskip(
    "retrieval.similarity.seqsim_cuda", reason="Triton comes with the CUDA builds of PyTorch"
)


def draw(lengths: list[int], D: int, seed: int) -> Tensor:
    """Packed frames on the grid of float16, so that both sides start from the same numbers."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(sum(lengths), D, generator=random)


def plain(x: Tensor, x_lengths: list[int], y: Tensor, y_lengths: list[int]) -> tuple[Tensor, Tensor]:
    padded = [
        pad_sequence(list(frames.double().split(lengths)), batch_first=True)
        for frames, lengths in ((x, x_lengths), (y, y_lengths))
    ]
    precision, recall = precision_and_recall(
        padded[0], torch.tensor(x_lengths), padded[1], torch.tensor(y_lengths)
    )
    return precision.float(), recall.float()


# Of 5 to 20 utterances, and some longer than the frames of a tile (16 of x, 8 of y).
CASES = [
    ([1], [1], 3),
    ([5, 1, 17], [9, 40, 2, 8, 8], 64),
    ([3, 16, 33, 16, 1, 2, 15, 18, 20, 4], [7, 9, 25, *range(1, 18)], 70),
]


@runs_kernels
@pytest.mark.parametrize(("x_lengths", "y_lengths", "D"), CASES)
@pytest.mark.parametrize("num_programs", [1, 3])
def test_all_pairs(x_lengths: list[int], y_lengths: list[int], D: int, num_programs: int) -> None:
    x, y = draw(x_lengths, D, 1), draw(y_lengths, D, 2)
    found = seqsim_cuda.packed_precision_and_recall(
        x.to(DEVICE),
        torch.tensor(x_lengths),
        y.to(DEVICE),
        torch.tensor(y_lengths),
        num_programs=num_programs,
    )
    for one, other in zip(found, plain(x, x_lengths, y, y_lengths), strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=0, atol=1e-3)


@runs_kernels
def test_pairs_of_one_set_in_both_directions() -> None:
    lengths = [4, 30, 7, 7, 2, 19, 1, 12, 9, 25, 3, 5, 16, 8, 6, 11, 10, 14, 40]
    x = draw(lengths, 24, 3)
    precision, recall = seqsim_cuda.packed_precision_and_recall(
        x.to(DEVICE), torch.tensor(lengths), num_programs=2
    )
    assert torch.equal(precision, recall.T)
    for one, other in zip((precision, recall), plain(x, lengths, x, lengths), strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=0, atol=1e-3)
    torch.testing.assert_close(precision.diagonal().cpu(), torch.ones(len(lengths)), rtol=0, atol=1e-3)


@runs_kernels
def test_values_by_hand() -> None:
    # cosines [[1], [0]]: P = 1/2, R = 1
    x, y = torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([[5.0, 0.0]])
    precision, recall = seqsim_cuda.packed_precision_and_recall(
        x.to(DEVICE), torch.tensor([2]), y.to(DEVICE), torch.tensor([1]), num_programs=1
    )
    assert precision.item() == pytest.approx(0.5, abs=1e-3)
    assert recall.item() == pytest.approx(1.0, abs=1e-3)


@runs_kernels
def test_no_utterances() -> None:
    nothing, lengths = torch.zeros(0, 4, device=DEVICE), torch.zeros(0, dtype=torch.int64)
    some = torch.ones(3, 4, device=DEVICE)
    precision, _ = seqsim_cuda.packed_precision_and_recall(
        nothing, lengths, some, torch.tensor([1, 2]), num_programs=1
    )
    assert precision.shape == (0, 2)
    _, recall = seqsim_cuda.packed_precision_and_recall(
        some, torch.tensor([1, 2]), nothing, lengths, num_programs=1
    )
    assert recall.shape == (2, 0)


@runs_kernels
def test_wrong_shapes_are_named() -> None:
    x = torch.ones(3, 4, device=DEVICE)
    with pytest.raises(ValueError, match="add up to 2"):
        seqsim_cuda.packed_precision_and_recall(x, torch.tensor([1, 1]), num_programs=1)
    with pytest.raises(ValueError, match="same D"):
        seqsim_cuda.packed_precision_and_recall(
            x, torch.tensor([3]), torch.ones(1, 5, device=DEVICE), torch.tensor([1]), num_programs=1
        )


@runs_kernels
def test_frames_in_half_precision_are_for_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    if INTERPRETED:  # where no GPU tells how many programs it can run
        one = SimpleNamespace(multi_processor_count=1)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: one)
    x, y = (pack(list(draw([5, 1, 17], 64, seed).split([5, 1, 17]))) for seed in (1, 2))
    half_x, half_y = (Packed(packed.frames.half().to(DEVICE), packed.offsets) for packed in (x, y))
    for found, expected in (
        (seqsim_packed(half_x), seqsim_packed(x)),
        (seqsim_packed(half_x, half_y), seqsim_packed(x, y)),
    ):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-3)


def test_half_precision_needs_a_gpu() -> None:
    with pytest.raises(ValueError, match="half_precision=false"):
        pack([torch.ones(2, 3)]).half()


@on_gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_benchmark_of_many_utterances(dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(0)
    lengths = torch.randint(5, 180, (300,), generator=random).tolist()
    x = draw(lengths, 768, 4)
    precision, recall = seqsim_cuda.packed_precision_and_recall(x.cuda(), torch.tensor(lengths), dtype=dtype)
    for one, other in zip((precision, recall), plain(x, lengths, x, lengths), strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=0, atol=2e-3)


@not_interpreted
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_kernel_compiles_for_a_gpu(dtype: torch.dtype) -> None:
    with compiling_for_a_gpu() as compiled:
        seqsim_cuda.packed_precision_and_recall(
            draw([4, 5], 768, 5), torch.tensor([4, 5]), dtype=dtype, num_programs=1
        )
    (kernel,) = compiled
    assert "wgmma" in kernel.asm["ptx"]  # the matrix units of an H100
    assert kernel.metadata.maxnreg == seqsim_cuda.MAX_REGISTERS
    assert kernel.metadata.shared * seqsim_cuda.PROGRAMS_A_MULTIPROCESSOR <= 227 * 1024


@not_interpreted
def test_in_the_interpreter() -> None:
    run_in_the_interpreter(__file__)
