"""Dropout masks from a counter-based generator: the same mask on every engine and device.

Philox4x32-10 (Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", SC'11) turns a counter
and a key into four 32-bit words with integer arithmetic alone, so any element of any mask can be computed anywhere, in
any order, on its own.  One element of a mask is addressed by

    key      (seed, low and high word)
    counter  (element // 4, time step, mask_id, call)      word element % 4

where `mask_id` tells the masks of a model apart (layer, direction, purpose), `call` counts the training forward passes
and the element runs over one time step, row-major.  An element is kept when its word is at least `rate * 2**32`; the
comparison is between integers, so it does not depend on the dtype of the model.  Where several processes share a batch,
rows are counted in the whole of it, so each of them draws its rows of one mask.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from gpulstm.arrays import native
from gpulstm.arrays.backend import Array, Backend
from gpulstm.arrays.threads import get_num_threads


def host_generator(seed: int, *purpose: int) -> np.random.Generator:
    """A NumPy generator for what is drawn on the host: initial weights, the order of the data.

    The same `(seed, *purpose)` gives the same numbers on every machine and device (Philox, a counter-based generator).
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, *purpose))))


_MULTIPLIER_0, _MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
_WEYL_0, _WEYL_1 = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10
_WORD = 0xFFFFFFFF


class Purpose(IntEnum):
    """What a mask is for; part of its number, so no two masks of a layer are ever the same."""

    BETWEEN_LAYERS = 0
    RECURRENT = 1
    ZONEOUT_H = 2
    ZONEOUT_C = 3


@dataclass(frozen=True)
class MaskKey:
    """Names one mask: the model's seed, the number of the training pass, and which mask of the model.

    Args:
        seed: any integer; its low 64 bits are the key.
        call: the count of training forward passes before this one; while a CUDA graph is recorded, a `(1,)` uint32
            array on the device that holds it.
        layer: layer times directions plus direction.
        purpose: what the mask is for.
        first_row: of the whole batch, where a mask of shape `(T, B, units)` begins with another than its row 0.
    """

    seed: int
    call: int | Array
    layer: int
    purpose: Purpose
    first_row: int = 0

    @property
    def words(self) -> tuple[int, int, int, Any]:
        """Key words 0 and 1, then counter words 2 (mask_id) and 3 (call)."""
        return (
            self.seed & _WORD,
            (self.seed >> 32) & _WORD,
            (self.layer * 16 + int(self.purpose)) & _WORD,
            self.call & _WORD if isinstance(self.call, int) else self.call,
        )

    def first_element(self, shape: tuple[int, ...]) -> int:
        """Where a mask of this shape begins within a time step of the whole batch."""
        return self.first_row * math.prod(shape[2:])


def philox(xp: Any, counter: tuple[Array, Array, Array, Array], key: tuple[int, int]) -> tuple[Array, ...]:
    """Four words per counter: Philox4x32-10 on uint64 arrays that hold 32-bit values.

    Args:
        xp: the array namespace.
        counter: four uint64 arrays of one (or broadcastable) shape, each value below 2**32.
        key: two integers below 2**32.

    Returns:
        Four uint64 arrays of the broadcast shape, each value below 2**32.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        product_0, product_1 = c0 * _MULTIPLIER_0, c2 * _MULTIPLIER_1
        c0, c1, c2, c3 = (product_1 >> 32) ^ c1 ^ k0, product_1 & _WORD, (product_0 >> 32) ^ c3 ^ k1, product_0 & _WORD
        k0, k1 = (k0 + _WEYL_0) & _WORD, (k1 + _WEYL_1) & _WORD
    return c0, c1, c2, c3


def threshold(rate: float) -> int:
    """The smallest word that is kept under a dropout `rate`."""
    return min(int(rate * 2.0**32), _WORD)


def keep(xp: Any, rate: float, shape: tuple[int, ...], key: MaskKey, first_step: int = 0) -> Array:
    """Which elements a dropout of `rate` keeps.

    Args:
        xp: the array namespace.
        rate: probability of dropping, in [0, 1).
        shape: `(T, ...)`; the first axis is time, the rest is one step.
        key: which mask.
        first_step: time step of row 0, so that a part of a sequence gets its part of the mask.

    Returns:
        Boolean array of `shape`.
    """
    steps, size, first = shape[0], math.prod(shape[1:]), key.first_element(shape)
    begin, end = first // 4, -(-(first + size) // 4)
    k0, k1, mask_id, call = key.words
    element = xp.arange(begin, end, dtype=xp.uint64)[None, :] + xp.zeros((steps, 1), dtype=xp.uint64)
    step = xp.arange(first_step, first_step + steps, dtype=xp.uint64)[:, None] + xp.zeros_like(element)
    words = philox(xp, (element, step, xp.full_like(element, mask_id), xp.full_like(element, call)), (k0, k1))
    drawn = xp.reshape(xp.stack(words, axis=2), (steps, (end - begin) * 4))[:, first % 4 : first % 4 + size]
    return xp.reshape(drawn >= threshold(rate), shape)


def dropout_mask(
    backend: Backend, rate: float, shape: tuple[int, ...], dtype: Any, key: MaskKey, first_step: int = 0
) -> Array:
    """The factor of inverted dropout: `1 / (1 - rate)` where kept, zero elsewhere (Srivastava et al. 2014, section 10).

    Returns:
        Array of `shape` and `dtype` on the backend's device; the arguments are those of `keep`.
    """
    kept = keep_mask(backend, rate, shape, key, first_step)
    return kept.astype(dtype) * backend.xp.asarray(1.0 / (1.0 - rate), dtype=dtype)


def keep_mask(backend: Backend, rate: float, shape: tuple[int, ...], key: MaskKey, first_step: int = 0) -> Array:
    """`keep` on a backend: native code on the CPU (array code without it), one kernel on a GPU."""
    if not backend.is_cuda:
        module = native.load() if backend.xp is np else None
        if module is None:
            return keep(backend.xp, rate, shape, key, first_step)
        kept = np.empty(shape, np.bool_)
        k0, k1, mask_id, call = key.words
        part = {"first": key.first_element(shape)} if key.first_row else {}
        module.keep(kept, first_step, k0, k1, mask_id, int(call), threshold(rate), get_num_threads(), **part)
        return kept
    size, first = math.prod(shape[1:]), key.first_element(shape)
    with backend.activate():
        kept = backend.xp.empty(shape, dtype=backend.xp.bool_)
        if kept.size:
            blocks = -(-(first + size) // 4) - first // 4
            on_host = isinstance(key.call, int)
            kernel = backend.elementwise(  # type: ignore[attr-defined]
                "gpulstm_keep_mask",
                "int64 blocks, int64 first, int64 size, uint32 first_step, uint32 k0, uint32 k1, uint32 mask_id,"
                f" {'' if on_host else 'raw '}uint32 call, uint32 least",
                "raw bool kept",
                _KEEP_BODY.replace("CALL", "call" if on_host else "call[0]"),
                headers=("equations/philox.h",),
            )
            kernel(blocks, first, size, first_step, *key.words, threshold(rate), kept, size=shape[0] * blocks)
    return kept


_KEEP_BODY = """
    long long step = i / blocks, block = i % blocks + first / 4;
    unsigned int word[4];
    gl_philox((unsigned int)block, first_step + (unsigned int)step, mask_id, CALL, k0, k1, word);
    for (int w = 0; w < 4; ++w) {
        long long element = block * 4 + w - first;
        if (element >= 0 && element < size) kept[step * size + element] = word[w] >= least;
    }
"""
