# SPDX-License-Identifier: BSD-2-Clause
"""The hot loops of numerics.py, compiled by numba: same bits, which tests/test_fastmath.py checks against the plain definitions.

`numerics` uses this module where numba is installed. Compiled code is kept by numba (beside this file, or in the user's cache).
Rows are spread over threads (numba's code runs without Python's lock) where that is worth it.
"""

from concurrent.futures import ThreadPoolExecutor
import functools
import os

import numba
import numpy as np

from .config import BLOCK
from .image import Q4_0

GUARD     = 8         # As numerics.GUARD, which is built upon this module.
PART_OPS  = 1 << 23   # Multiplications of a part: on a busy machine handing over less costs more than it saves.
MANY      = 16        # Columns from which on a loop over columns is the faster one.
F32_MIN   = np.float32(2.0**-126)
F32_MAX   = np.finfo(np.float32).max

_compile = numba.njit(nogil=True, cache=True, error_model="numpy", boundscheck=False)


@functools.cache
def _pool():
    """Threads that help, and their number."""
    n = min(len(os.sched_getaffinity(0)), 8) - 1
    return (ThreadPoolExecutor(n, thread_name_prefix="litellama") if n else None), n


# Row accumulators ---------------------------------------------------------------------------------

def _spread(work, rows, n_parts):
    """Call work(first, last) for parts of range(rows), here and on other threads, whoever comes first."""
    pool, n = _pool()
    edges   = np.linspace(0, rows, n_parts + 1).astype(int).tolist()
    parts   = iter(list(zip(edges[:-1], edges[1:])))
    def run():
        for first, last in parts:
            work(first, last)
    helpers = [pool.submit(run) for _ in range(min(n, n_parts - 1))]
    run()
    for h in helpers:
        if not h.cancel():   # It had not even begun.
            h.result()


@_compile
def _align(p, scale, exponent, shift):
    """numerics.accumulate of one term."""
    e, f = (scale >> 10) & 31, np.int64(scale & 1023)
    mant = f + 1024 if e > 0 else f
    if scale >> 15:
        mant = -mant
    return ((p*mant) << GUARD) >> min(exponent - (max(e, 1) - 25) + shift, 63)


@_compile
def _rows(q, offset, d, m, mant, sums, shift, exponent, acc, first, last):
    """acc[:, first:last] of accumulate_rows. offset: subtracted from each weight. m: (0, 0) if there is none."""
    columns, blocks = mant.shape[0], mant.shape[1]
    p = np.empty(blocks, np.int32)
    for row in range(first, last):
        for t in range(columns):
            for j in range(blocks):
                s = np.int32(0)
                for k in range(BLOCK):
                    s += np.int32(q[row, j, k])*np.int32(mant[t, j, k])
                p[j] = s
            total = np.int64(0)
            for j in range(blocks):
                total += _align(np.int64(p[j]) - offset*sums[t, j], np.int64(d[row, j]), exponent, shift[t, j])
            if m.shape[0]:
                for j in range(blocks):
                    total += _align(sums[t, j], np.int64(m[row, j]), exponent, shift[t, j])
            acc[t, row] = total


@_compile
def _rows_of_many(q, offset, d, m, mant, sums, shift, exponent, acc, first, last):
    """As _rows, for many columns: mant int32 (blocks, 32, T), sums and shift (blocks, T), acc (rows, T)."""
    blocks, columns = sums.shape
    p     = np.empty(columns, np.int32)
    total = np.empty(columns, np.int64)
    for row in range(first, last):
        total[:] = 0
        for j in range(blocks):
            p[:] = 0
            for k in range(0, BLOCK, 4):   # Four at a time: p is loaded and stored a quarter as often.
                a, b, c, e = (np.int32(q[row, j, k]), np.int32(q[row, j, k + 1]), np.int32(q[row, j, k + 2]),
                    np.int32(q[row, j, k + 3]))
                for t in range(columns):
                    p[t] += (a*mant[j, k, t] + b*mant[j, k + 1, t]) + (c*mant[j, k + 2, t] + e*mant[j, k + 3, t])
            scale = np.int64(d[row, j])
            for t in range(columns):
                total[t] += _align(np.int64(p[t]) - offset*sums[j, t], scale, exponent, shift[j, t])
            if m.shape[0]:
                scale = np.int64(m[row, j])
                for t in range(columns):
                    total[t] += _align(sums[j, t], scale, exponent, shift[j, t])
        acc[row] = total


def accumulate_rows(w, x, exponent):
    """numerics.accumulate_rows."""
    mant   = np.ascontiguousarray(x.mant, np.int16)
    sums   = mant.sum(-1, dtype=np.int64)
    shift  = (x.emax[:, None] - x.exp).astype(np.int64)
    q      = np.ascontiguousarray(w.q).view(np.int8)
    d      = np.ascontiguousarray(w.d)
    m      = np.zeros((0, 0), np.uint16) if w.m is None else np.ascontiguousarray(w.m)
    offset = np.int64(8 if w.type == Q4_0 else 0)
    many   = len(mant) >= MANY
    if many:
        mant, sums, shift = (np.ascontiguousarray(np.moveaxis(a, 0, -1), t)
            for a, t in ((mant, np.int32), (sums, np.int64), (shift, np.int64)))
    acc    = np.empty((w.rows, len(x.mant)) if many else (len(mant), w.rows), np.int64)
    kernel = _rows_of_many if many else _rows
    parts  = min(acc.size*w.blocks*BLOCK//PART_OPS + 1, w.rows, 32)
    _spread(lambda first, last: kernel(q, offset, d, m, mant, sums, shift, np.int64(exponent), acc, first, last), w.rows, parts)
    return acc.T if many else acc


# Sum of squares -----------------------------------------------------------------------------------

@_compile
def _add(a, b):
    """numerics.fadd of two numbers."""
    r = a + b
    if abs(r) < F32_MIN:
        return np.float32(0)
    return min(max(r, -F32_MAX), F32_MAX)


@_compile
def _square(a):
    """numerics.fmul(a, a)."""
    exact = np.float64(a)*np.float64(a)
    if exact < F32_MIN:
        return np.float32(0)
    return min(np.float32(exact), F32_MAX)


@_compile
def _sums_of_squares(x, n, out):
    acc = np.empty(n, np.float32)
    for row in range(x.shape[0]):
        acc[:] = 0
        for i in range(0, x.shape[1], n):
            for k in range(n):
                acc[k] = _add(acc[k], _square(x[row, i + k]))
        half = n//2
        while half:
            for k in range(half):
                acc[k] = _add(acc[k], acc[k + half])
            half //= 2
        out[row] = acc[0]


def sum_of_squares(x, partials):
    """numerics.sum_of_squares, for the last axis of x fp32 (..., n)."""
    flat = np.ascontiguousarray(x, np.float32).reshape(-1, x.shape[-1])
    out  = np.empty(len(flat), np.float32)
    _sums_of_squares(flat, partials, out)
    return out.reshape(x.shape[:-1])
