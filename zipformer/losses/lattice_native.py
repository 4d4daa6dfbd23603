"""Sums over the transducer lattice on the CPU, compiled, utterances in parallel.

Results equal those of `zipformer.losses.lattice`, which describes the lattice. Here both lattices are rows of
nodes. From a node one arc leads *along* the row, to the next column, and one leads *down* to the same column
of the next row:

    full lattice: row = symbols emitted, column = frame;  along = blank, down = label
    band:         row = frame, column = symbols emitted;  along = label, down = blank

so that in both cases the scores of a row are adjacent in memory. Row r has nodes at the columns
``starts[r], starts[r] + 1, ...``; the last node of the lattice is in the last row.

Sums of path probabilities leave the range of a float within a few hundred frames, and the usual remedy,
logarithms, costs two transcendental functions for each addition. Here a probability is a pair (m, e) with the
value m * 2**(512 e). Neighbouring nodes mostly have the same e, and then their sum is one addition. A normal
pair has 2**-256 <= m <= 2**256. A product of two normal pairs is normalised again; if the e of two normal
pairs differ by more than 1, the smaller is less than the rounding error of the larger. So there are no other
cases. Exponentials are computed once for each arc, logarithms once for each utterance.
"""

import logging
import math
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

import numba
import numpy as np
import torch
from torch import Tensor

from zipformer.losses.lattice import Occupation

logger = logging.getLogger(__name__)

_Function = TypeVar("_Function", bound=Callable[..., Any])

LN_2 = math.log(2.0)
SERIES = tuple(1.0 / math.factorial(k) for k in range(14))
UP, DOWN = 2.0**512, 2.0**-512
LARGEST, SMALLEST = 2.0**256, 2.0**-256
NONE = -1e15  # e of a probability of zero; far below any other e

# Number of nodes for which a thread is woken: about a third of a millisecond of work.
_NODES_OF_A_THREAD = 40_000


@cache
def _log_once(message: str) -> None:
    logger.info(message)


def _compiled(function: _Function) -> _Function:
    """Compile at the first call; the code is cached beside the source or in the user's cache folder."""
    # Multiplication and addition may be contracted; nothing else is reordered.
    options: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
    try:
        compiled: _Function = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither folder can be written
        _log_once(
            "The lattice sums are compiled anew in every process, for some seconds: set NUMBA_CACHE_DIR to a "
            "folder that can be written"
        )
        compiled = numba.njit(**options)(function)
    return compiled


@_compiled
def _from_log(x):  # type: ignore[no-untyped-def]
    """Pair for exp(x), x < inf.

    With the exponential function of the library, the compiler could not vectorise, and it would cost as much
    as everything else together. With x = n ln 2 + f, exp(x) is 2**n times the exponential series of f; the
    terms up to f**13 are exact to float64.
    """
    n = np.floor(x / LN_2 + 0.5)
    f = x - n * LN_2
    series = SERIES[13]
    for k in range(12, -1, -1):
        series = series * f + SERIES[k]
    e = np.floor(n / 512.0 + 0.5)
    power = np.int64((np.int64(n - 512.0 * e) + 1023) << 52).view(np.float64)  # 2**(n - 512 e), by its bits
    zero = x == -math.inf
    return (0.0 if zero else series * power), (NONE if zero else e)


@_compiled
def _from_logs(scores, m, e):  # type: ignore[no-untyped-def]
    """Pairs for a row of scores; returns whether all scores are less than inf and not NaN."""
    number = True
    for k in range(scores.shape[0]):
        number &= scores[k] < math.inf
        m[k], e[k] = _from_log(float(scores[k]))
    return number


@_compiled
def _times(m1, e1, m2, e2):  # type: ignore[no-untyped-def]
    """Normal product of two normal pairs."""
    m, e = m1 * m2, e1 + e2
    if m > LARGEST:
        return m * DOWN, e + 1.0
    if m < SMALLEST:
        return m * UP, e - 1.0
    return m, e


@_compiled
def _plus(m1, e1, m2, e2):  # type: ignore[no-untyped-def]
    """Sum of two normal pairs; may be up to twice the largest normal pair, which `_times` accepts."""
    if e1 == e2:
        return m1 + m2, e1
    if e1 > e2:
        return (m1 + m2 * DOWN if e1 == e2 + 1.0 else m1), e1
    return (m2 + m1 * DOWN if e2 == e1 + 1.0 else m2), e2


@_compiled
def _sum_paths(  # type: ignore[no-untyped-def]
    along, down, starts, rows, last, exit_score, along_occupation, down_occupation
):
    """Log-probability of one utterance; writes the occupations of the arcs between its nodes.

    Args:
        along, down: scores (rows or more, C); the last row of ``down`` is not used.
        starts: column of the first node of each row, non-decreasing (rows or more,).
        rows: number of rows of the lattice.
        last: column of the last node.
        exit_score: score of the arc that leaves the last node.
        along_occupation, down_occupation: output arrays with the shapes of the scores, initially zero.
    """
    C = along.shape[1]
    if rows < 1 or starts[0] != 0 or not 0 <= last - starts[rows - 1] < C:
        return -math.inf
    along_m, along_e = np.empty((rows, C)), np.empty((rows, C))
    down_m, down_e = np.empty((rows, C)), np.empty((rows, C))
    number = exit_score < math.inf
    for r in range(rows):
        width = min(C, last - starts[r] + 1)
        number &= _from_logs(along[r, : width - 1], along_m[r], along_e[r])
        if r + 1 < rows:
            number &= _from_logs(down[r, :width], down_m[r], down_e[r])
    if not number:
        along_occupation[:rows] = math.nan
        down_occupation[:rows] = math.nan
        return math.nan

    # Sum over the paths to a node.
    alpha_m, alpha_e = np.empty((rows, C)), np.empty((rows, C))
    for r in range(rows):
        m, e = 0.0, NONE
        shift = starts[r] - starts[r - 1] if r > 0 else C
        for k in range(min(C, last - starts[r] + 1)):
            if k > 0:
                m, e = _times(m, e, along_m[r, k - 1], along_e[r, k - 1])
            elif r == 0:
                m, e = 1.0, 0.0
            above = k + shift
            if above < C:
                from_above = _times(
                    alpha_m[r - 1, above], alpha_e[r - 1, above], down_m[r - 1, above], down_e[r - 1, above]
                )
                m, e = _plus(m, e, *from_above)
            alpha_m[r, k], alpha_e[r, k] = m, e
    exit_m, exit_e = _from_log(float(exit_score))
    total_m, total_e = _times(m, e, exit_m, exit_e)
    if total_m == 0.0:
        return -math.inf

    # Sum over the paths from a node to the end, as a share of the total.
    beta_m, beta_e = np.zeros(C), np.full(C, NONE)
    m, e = _times(exit_m, exit_e, 1.0 / total_m, -total_e)
    for r in range(rows - 1, -1, -1):
        width = min(C, last - starts[r] + 1)
        shift = starts[r + 1] - starts[r] if r + 1 < rows else C
        for k in range(width - 1, -1, -1):
            if k + 1 < width:
                m, e = _times(m, e, along_m[r, k], along_e[r, k])
                along_occupation[r, k] = _share(*_times(alpha_m[r, k], alpha_e[r, k], m, e))
            elif r + 1 < rows:
                m, e = 0.0, NONE
            if k >= shift:
                m2, e2 = _times(beta_m[k - shift], beta_e[k - shift], down_m[r, k], down_e[r, k])
                down_occupation[r, k] = _share(*_times(alpha_m[r, k], alpha_e[r, k], m2, e2))
                m, e = _plus(m, e, m2, e2)
            beta_m[k], beta_e[k] = m, e
    return math.log(total_m) + total_e * 512.0 * LN_2


@_compiled
def _share(m, e):  # type: ignore[no-untyped-def]
    """Float value of a normal pair that is at most 1; tiny values, denormal and slow in float32, are 0."""
    return m if e == 0.0 and m > 1e-30 else 0.0


@_compiled
def _full(  # type: ignore[no-untyped-def]
    label, blank, frame_lengths, symbol_lengths, log_probability, label_occupation, blank_occupation, n
):
    """Utterance n of a batch of full lattices."""
    U, last = symbol_lengths[n], frame_lengths[n] - 1
    starts = np.zeros(U + 1, dtype=np.int64)
    log_probability[n] = _sum_paths(
        blank[n], label[n], starts, U + 1, last, blank[n, U, last], blank_occupation[n], label_occupation[n]
    )
    if log_probability[n] > -math.inf:
        blank_occupation[n, U, last] = 1.0


@_compiled
def _band(  # type: ignore[no-untyped-def]
    label,
    blank,
    starts,
    frame_lengths,
    symbol_lengths,
    log_probability,
    label_occupation,
    blank_occupation,
    n,
):
    """Utterance n of a batch of bands."""
    T, U = frame_lengths[n], symbol_lengths[n]
    place = min(max(U - starts[n, T - 1], 0), blank.shape[2] - 1)
    exit_score = blank[n, T - 1, place]
    log_probability[n] = _sum_paths(
        label[n], blank[n], starts[n], T, U, exit_score, label_occupation[n], blank_occupation[n]
    )
    if log_probability[n] > -math.inf:
        blank_occupation[n, T - 1, place] = 1.0


def full_occupation(
    label: Tensor, blank: Tensor, frame_lengths: Tensor, symbol_lengths: Tensor
) -> Occupation:
    """Sum over all alignments; see `zipformer.losses.lattice.full_occupation`.

    Returns:
        log-probability in float64, occupations in the type of the scores, at least float32.
    Raises:
        ValueError: a length is negative or larger than the scores allow.
    """
    U, T = label.shape[1], blank.shape[2]
    return _occupation(_full, label, blank, (), frame_lengths, symbol_lengths, T, U)


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
        log-probability in float64, occupations in the type of the scores, at least float32.
    Raises:
        ValueError: a length is negative or larger than the scores allow, or the band moves backwards.
    """
    if (starts.diff(dim=1) < 0).any():
        raise ValueError("the band goes back: starts must not fall along the frames")
    return _occupation(
        _band, label, blank, (starts,), frame_lengths, symbol_lengths, blank.shape[1], max_symbols
    )


def _occupation(
    kernel: Callable[..., None],
    label: Tensor,
    blank: Tensor,
    place: tuple[Tensor, ...],
    frame_lengths: Tensor,
    symbol_lengths: Tensor,
    T: int,
    U: int,
) -> Occupation:
    N = blank.shape[0]
    for name, lengths, longest in (("frame", frame_lengths, T), ("symbol", symbol_lengths, U)):
        if N and not (lengths.min() >= 0 and lengths.max() <= longest):
            raise ValueError(f"{name} lengths {lengths.tolist()} are not all between 0 and {longest}")
    dtype = torch.promote_types(blank.dtype, torch.float32)
    result = Occupation(
        blank.new_empty(N, dtype=torch.float64),
        label.new_zeros(label.shape, dtype=dtype),
        blank.new_zeros(blank.shape, dtype=dtype),
    )
    scores = (x.detach().to(dtype).contiguous().numpy() for x in (label, blank))
    indices = (x.contiguous().numpy() for x in (*place, frame_lengths, symbol_lengths))
    arrays = (*scores, *indices, *(x.numpy() for x in result))
    # The compiled code releases the Python lock, so plain threads run it in parallel. Numba's own threads are
    # unsuitable: their default implementation ends the process if two threads call it at once.
    waiting = deque(range(N))
    threads = min(torch.get_num_threads(), N, blank.numel() // _NODES_OF_A_THREAD)
    helpers = [_workers(os.getpid()).submit(_work, kernel, arrays, waiting) for _ in range(1, threads)]
    _work(kernel, arrays, waiting)
    for helper in helpers:
        if not helper.cancel():  # a helper that has not started yet is not needed
            helper.result()
    return result


def _work(kernel: Callable[..., None], arrays: tuple[Any, ...], waiting: deque[int]) -> None:
    """Process waiting utterances until there are none."""
    while True:
        try:
            utterance = waiting.popleft()
        except IndexError:
            return
        kernel(*arrays, utterance)


@cache
def _workers(process: int) -> ThreadPoolExecutor:
    """Thread pool of this process: threads of the parent do not exist in a forked child."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="lattice")
