"""Connectionist temporal classification (Graves et al., ICML 2006, "Connectionist temporal classification:
labelling unsegmented sequence data with recurrent neural networks").

On a CUDA device the sums over the lattice are kernels of this package: PyTorch's loss takes its lengths on
the host and waits for them.
"""

import torch.nn.functional as F
from torch import Tensor

from zipformer.device import has_kernels


def ctc_loss(
    log_probs: Tensor, symbols: Tensor, frame_lengths: Tensor, symbol_lengths: Tensor, *, blank: int
) -> Tensor:
    """Negative log-probability of the symbols, summed over the batch.

    Args:
        log_probs: (N, T, V) float32 or float64, log-softmax over V; its gradient is dense.
        symbols: (N, U) integers, none of them blank within the length of the utterance.
        frame_lengths: (N,) integers in 1..T.
        symbol_lengths: (N,) integers in 0..U.
        blank: id of the blank.
    Returns:
        Scalar loss; infinite if an utterance has too few frames for its symbols.
    """
    if has_kernels(log_probs.device):
        from zipformer.losses import ctc_cuda

        return ctc_cuda.CtcFunction.apply(log_probs, symbols, frame_lengths, symbol_lengths, blank)
    return F.ctc_loss(
        log_probs.transpose(0, 1), symbols, frame_lengths, symbol_lengths, blank=blank, reduction="sum"
    )
