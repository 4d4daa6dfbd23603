"""Sums over the transducer lattice by k2's recursion.

k2 has only the full lattice; a band is embedded in one, with impossible scores around it.
"""

import math

import k2
import torch
import torch.nn.functional as F
from torch import Tensor

from zipformer.losses.lattice import Occupation


def full_occupation(
    label: Tensor, blank: Tensor, frame_lengths: Tensor, symbol_lengths: Tensor
) -> Occupation:
    """Sum over all alignments; see `zipformer.losses.lattice.full_occupation`.

    Returns:
        log-probability and occupations in the type of the scores, at least float32.
    """
    N, _, T = blank.shape
    dtype = torch.promote_types(blank.dtype, torch.float32)
    # k2 has label arcs after the last frame as well.
    absent = torch.arange(T, device=blank.device) >= frame_lengths.view(N, 1, 1)
    label = F.pad(label.to(dtype).masked_fill(absent, -math.inf), (0, 1), value=-math.inf)
    origin = torch.zeros_like(frame_lengths)
    boundary = torch.stack([origin, origin, symbol_lengths, frame_lengths], dim=1)
    total, (label_occupation, blank_occupation) = k2.mutual_information_recursion(
        label.contiguous(), blank.to(dtype).contiguous(), boundary, return_grad=True
    )
    total = total.masked_fill(frame_lengths < 1, -math.inf)
    without_path = (total == -math.inf).view(N, 1, 1)
    return Occupation(
        total,
        label_occupation[:, :, :T].masked_fill(without_path, 0.0),
        blank_occupation.masked_fill(without_path, 0.0),
    )


def band_occupation(
    label: Tensor,
    blank: Tensor,
    starts: Tensor,
    frame_lengths: Tensor,
    symbol_lengths: Tensor,
    max_symbols: int,
) -> Occupation:
    """Sum over the alignments inside a band; see `zipformer.losses.lattice.band_occupation`.

    Returns:
        log-probability and occupations in the type of the scores, at least float32.
    """
    N, T, R = blank.shape
    symbol = starts.unsqueeze(2) + torch.arange(R, device=blank.device)  # (N, T, R)
    outside = blank.new_full((N, T, max_symbols + 1), -math.inf)
    # The last label arc of a frame leaves the band.
    label_scores = outside.scatter(2, symbol[:, :, :-1], label[:, :, :-1])[:, :, :max_symbols]
    blank_scores = outside.scatter(2, symbol, blank)
    total, label_occupation, blank_occupation = full_occupation(
        label_scores.transpose(1, 2), blank_scores.transpose(1, 2), frame_lengths, symbol_lengths
    )
    return Occupation(
        total,
        F.pad(label_occupation, (0, 0, 0, 1)).transpose(1, 2).gather(2, symbol),
        blank_occupation.transpose(1, 2).gather(2, symbol),
    )
