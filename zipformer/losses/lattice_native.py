"""Sums over the transducer lattice on the CPU, compiled, utterances in parallel.

The same numbers as `zipformer.losses.lattice`, where the lattice is described. Both lattices are seen here as
rows of nodes. From a node one arc leads *along* its row, to the next column, and one leads *down* to the same
column of the next row:

    full lattice: row = symbols emitted, column = frame;  along = blank, down = label
    band:         row = frame, column = symbols emitted;  along = label, down = blank

so that in both cases the scores of a row lie side by side in memory. Row r has nodes at the columns
``starts[r], starts[r] + 1, ...``; the last node of the lattice is in its last row.

Sums of path probabilities leave the range of a float within a few hundred frames, and the usual remedy,
logarithms, costs two transcendental functions an addition. Here a probability is a pair (m, e) that stands
for m * 2**(512 e). Neighbouring nodes mostly have the same e, and then their sum is one addition. A normal
pair has 2**-256 <= m <= 2**256; a product of two normal pairs is brought back to a normal one, and of two
normal pairs whose e differ by more than 1 the smaller is lost in the rounding of the larger, so that nothing
else has to be distinguished. Exponential functions are taken once an arc, logarithms once an utterance.
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
NONE = -1e15  # e of a probability of zero; far below that of any other

# A thread is woken for so many nodes: about a third of a millisecond.
_NODES_OF_A_THREAD = 40_000


@cache
def _log_once(message: str) -> None:
    logger.info(message)


def _compiled(function: _Function) -> _Function:
    """Compile when first called; the machine code is kept beside the source or in the user's cache folder."""
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
    """The pair for exp(x), x < inf.

    The library's exponential function would keep the compiler from taking several x at a time, and cost as
    much as everything else together. With x = n ln 2 + f, exp(x) is 2**n times the exponential series of f,
    of which the terms up to f**13 are exact to float64.
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
    """The pairs for a row of scores; returns whether all are less than inf, and numbers."""
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
    """Sum of two normal pairs; up to twice the largest normal one, which `_times` can take."""
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
        along, down: (rows or more, C) scores; of down, the last row is not looked at.
        starts: (rows or more,) column of the first node of a row, non-decreasing.
        rows: rows of the lattice.
        last: column of the last node.
        exit_score: score of the arc that leaves the last node.
        along_occupation, down_occupation: of the shapes of the scores, zero.
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

    # The sum of the paths that lead to a node.
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

    # The sum of the paths that lead on from a node, as a share of the total.
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
    """The float of a normal pair that is at most 1. The smallest would be denormal, and slow, in float32."""
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
        ValueError: a length is negative or more than the scores have.
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
        ValueError: a length is negative or more than the scores have, or the band goes back.
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
    # The compiled code does not hold Python's lock, so plain threads run it side by side. Numba's own threads
    # would not do: their usual implementation ends the process where two threads of it call at once.
    waiting = deque(range(N))
    threads = min(torch.get_num_threads(), N, blank.numel() // _NODES_OF_A_THREAD)
    helpers = [_workers(os.getpid()).submit(_work, kernel, arrays, waiting) for _ in range(1, threads)]
    _work(kernel, arrays, waiting)
    for helper in helpers:
        if not helper.cancel():  # one that has not begun by now is not needed
            helper.result()
    return result


def _work(kernel: Callable[..., None], arrays: tuple[Any, ...], waiting: deque[int]) -> None:
    """Take utterances from those that wait until there are none."""
    while True:
        try:
            utterance = waiting.popleft()
        except IndexError:
            return
        kernel(*arrays, utterance)


@cache
def _workers(process: int) -> ThreadPoolExecutor:
    """Threads of this process: those of a parent do not live on in a forked child."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="lattice")
