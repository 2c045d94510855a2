"""Philox 4x32-10: random numbers that depend on a key and a counter alone, on every device the same.

    (x₀, x₁, x₂, x₃) ← (hi(M₁x₂) ⊕ x₁ ⊕ k₀,  lo(M₁x₂),  hi(M₀x₀) ⊕ x₃ ⊕ k₁,  lo(M₀x₀));   k ← k + W,   ten times

x starts as the counter, four words of 32 bits, and ends as four random ones; k is the key. There is no state from one
number to the next: every thread of a kernel computes its own, and where a stream stands is a single integer.

Source: Salmon, Moraes, Dror & Shaw 2011, "Parallel Random Numbers: As Easy as 1, 2, 3".
"""

from __future__ import annotations

import functools
from typing import Any

from tinyrnn.backends.base import DType

M = (0xD2511F53, 0xCD9E8D57)
W = (0x9E3779B9, 0xBB67AE85)
LOW = 0xFFFFFFFF

KINDS = {  # dtype: the words that make a number, those bits of them that fit its mantissa, and 2 to the number of these
    DType.float16: (1, "x[w] >> 21", 2.0**11),
    DType.float32: (1, "x[w] >> 8", 2.0**24),
    DType.float64: (2, "(unsigned long long)x[2 * w] << 21 ^ x[2 * w + 1] >> 11", 2.0**53),
}


def words(counter: tuple[Any, Any, Any, Any], key: tuple[int, int]) -> tuple[Any, Any, Any, Any]:
    """Return four random words for each counter.

    Args: counter, four words, each an int or an array of uint64; key, two words.

    >>> [hex(word) for word in words((0, 0, 0, 0), (0, 0))]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    (x0, x1, x2, x3), (k0, k1) = counter, key
    for _ in range(10):
        a, b = M[0] * x0, M[1] * x2
        x0, x1, x2, x3 = b >> 32 ^ x1 ^ k0, b & LOW, a >> 32 ^ x3 ^ k1, a & LOW
        k0, k1 = (k0 + W[0]) & LOW, (k1 + W[1]) & LOW
    return x0, x1, x2, x3


def uniform(xp: Any, seed: int, first: int, n: int, dtype: DType) -> Any:
    """Draw n numbers from [0, 1), each a multiple of 2⁻¹¹, 2⁻²⁴ or 2⁻⁵³, as many bits as the mantissa has.

    Args:
        xp: the array library, NumPy or one like it.
        seed: the key; its low 64 bits count.
        first: the block of four words that the numbers begin with; they take `blocks(n, dtype)` of them.
    """
    at = xp.arange(blocks(n, dtype), dtype="uint64") + first
    x = xp.stack(words((at & LOW, at >> 32, 0, 0), (seed & LOW, seed >> 32 & LOW)), axis=1).reshape(-1)
    x = x[0::2] << 21 ^ x[1::2] >> 11 if dtype is DType.float64 else x >> (21 if dtype is DType.float16 else 8)
    return x[:n].astype(dtype.value) * (1 / KINDS[dtype][2])


def blocks(n: int, dtype: DType) -> int:
    """Return how many blocks of four words n numbers take."""
    return -(-n * KINDS[dtype][0] // 4)


@functools.cache
def source(dtype: DType, kind: str) -> str:
    """Return `uniform` as CUDA C++, (key, first, n, y), a block of words for each thread; `kind` is its type there.

    The key is in the device's memory: a graph that is launched again finds another one there.
    """
    each, bits, scale = 4 // KINDS[dtype][0], KINDS[dtype][1], KINDS[dtype][2]
    working = "double" if dtype is DType.float64 else "float"
    return f"""{"#include <cuda_fp16.h>" if dtype is DType.float16 else ""}
extern "C" __global__ void philox_uniform(
    const unsigned long long* __restrict__ key, const unsigned long long first, const long long n,
    {kind}* __restrict__ y) {{
    const long long stride = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i * {each} < n; i += stride) {{
        const unsigned long long at = first + i;
        unsigned int x[4] = {{(unsigned int)at, (unsigned int)(at >> 32), 0, 0}};
        unsigned int k0 = (unsigned int)key[0], k1 = (unsigned int)(key[0] >> 32);
        for (int round = 0; round < 10; ++round) {{
            const unsigned long long a = {M[0]}ull * x[0], b = {M[1]}ull * x[2];
            x[0] = (unsigned int)(b >> 32) ^ x[1] ^ k0;
            x[1] = (unsigned int)b;
            x[2] = (unsigned int)(a >> 32) ^ x[3] ^ k1;
            x[3] = (unsigned int)a;
            k0 += {W[0]}u;
            k1 += {W[1]}u;
        }}
        for (int w = 0; w < {each} && i * {each} + w < n; ++w) {{
            y[i * {each} + w] = ({working})({bits}) * ({working}){1 / scale!r};
        }}
    }}
}}
"""
