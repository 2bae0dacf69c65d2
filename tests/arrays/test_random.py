"""Masks: Philox against its published answers and a plain rewriting, the same bits on every library and device."""

from __future__ import annotations

import math

import array_api_strict
import numpy as np
import pytest

import gpulstm as gl
from gpulstm.arrays import random
from gpulstm.arrays.backend import Backend
from gpulstm.arrays.devices import resolve, to_host
from gpulstm.arrays.random import MaskKey, Purpose, host_generator

# Random123 1.14, tests/kat_vectors, lines "philox4x32 10": counter, key, result.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
KEY = MaskKey(seed=(7 << 40) + 5, call=3, layer=2, purpose=Purpose.ZONEOUT_H)


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def plain_philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 on Python integers, after section 3.3 of the paper."""
    for _ in range(10):
        high_0, low_0 = divmod(0xD2511F53 * counter[0], 2**32)
        high_1, low_1 = divmod(0xCD9E8D57 * counter[2], 2**32)
        counter = [high_1 ^ counter[1] ^ key[0], low_1, high_0 ^ counter[3] ^ key[1], low_0]
        key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
    return counter


@pytest.mark.parametrize("xp", [np, array_api_strict], ids=["numpy", "strict"])
@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers(xp, counter: str, key: str, expected: str) -> None:
    arrays = tuple(xp.asarray([word], dtype=xp.uint64) for word in words(counter))
    results = random.philox(xp, arrays, tuple(words(key)))
    assert [int(word[0]) for word in results] == words(expected)
    assert plain_philox(words(counter), words(key)) == words(expected)


def test_an_element_is_addressed_as_documented() -> None:
    """Counter (element // 4, time step, stream, call), key the seed's two words, word element % 4."""
    steps, rows, units, rate = 3, 2, 5, 0.4
    kept = random.keep(np, rate, (steps, rows, units), KEY).reshape(steps, -1)
    stream = 2 * 16 + int(Purpose.ZONEOUT_H)
    for step in range(steps):
        for element in range(rows * units):
            drawn = plain_philox([element // 4, step, stream, 3], [5, 7 << 8])
            assert kept[step, element] == (drawn[element % 4] >= rate * 2**32)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 5), (4, 8), (2, 3, 0), (0, 2, 3), (5, 7, 33)])
def test_same_bits_on_every_device(shape: tuple[int, ...], backend: Backend) -> None:
    kept = random.keep_mask(backend, 0.3, shape, KEY, 11)
    assert backend.owns(kept)
    assert kept.shape == shape
    assert kept.dtype == np.bool_
    np.testing.assert_array_equal(to_host(kept), random.keep(np, 0.3, shape, KEY, 11))
    np.testing.assert_array_equal(
        random.keep(array_api_strict, 0.3, shape, KEY, 11), random.keep(np, 0.3, shape, KEY, 11)
    )


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_kept_elements_are_scaled_up(dtype: str, backend: Backend) -> None:
    mask = to_host(random.dropout_mask(backend, 0.2, (4, 3, 5), dtype, KEY))
    assert mask.dtype == dtype
    np.testing.assert_array_equal(mask, random.keep(np, 0.2, (4, 3, 5), KEY) * np.asarray(1 / 0.8, dtype))


def test_a_part_of_a_sequence_has_its_part_of_the_mask(backend: Backend) -> None:
    whole = to_host(random.keep_mask(backend, 0.5, (10, 3, 7), KEY))
    for first, last in ((0, 10), (0, 1), (4, 7), (9, 10)):
        part = random.keep_mask(backend, 0.5, (last - first, 3, 7), KEY, first)
        np.testing.assert_array_equal(to_host(part), whole[first:last])


def test_a_row_of_a_larger_step_is_not_the_same() -> None:
    """The element is counted over the whole time step: another batch size is another mask beyond the first row."""
    small, large = (random.keep(np, 0.5, (6, rows, 9), KEY) for rows in (2, 4))
    np.testing.assert_array_equal(small, large[:, :2])


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.3, 0.5, 0.95])
def test_share_that_is_kept(rate: float) -> None:
    size = 1_000_000
    kept = random.keep(np, rate, (100, size // 100), KEY)
    assert abs(kept.mean() - (1 - rate)) <= 5 * math.sqrt(rate * (1 - rate) / size)


@pytest.mark.parametrize(
    "other",
    [
        MaskKey(KEY.seed + 1, KEY.call, KEY.layer, KEY.purpose),
        MaskKey(KEY.seed ^ (1 << 32), KEY.call, KEY.layer, KEY.purpose),
        MaskKey(KEY.seed, KEY.call + 1, KEY.layer, KEY.purpose),
        MaskKey(KEY.seed, KEY.call, KEY.layer + 1, KEY.purpose),
        MaskKey(KEY.seed, KEY.call, KEY.layer, Purpose.ZONEOUT_C),
    ],
    ids=["seed", "high-word-of-seed", "call", "layer", "purpose"],
)
def test_every_part_of_the_key_makes_another_mask(other: MaskKey) -> None:
    """Of two independent masks at rate 1/2, half of the elements agree."""
    first, second = (random.keep(np, 0.5, (100, 1000), key) for key in (KEY, other))
    assert abs((first == second).mean() - 0.5) < 5 * 0.5 / math.sqrt(100_000)


def test_steps_and_elements_are_independent() -> None:
    kept = random.keep(np, 0.5, (100, 1000), KEY)
    for shifted in (kept[1:] == kept[:-1], kept[:, 1:] == kept[:, :-1], kept[:, 4:] == kept[:, :-4]):
        assert abs(shifted.mean() - 0.5) < 5 * 0.5 / math.sqrt(shifted.size)


def masks(stack: gl.LSTM, x: np.ndarray) -> list[np.ndarray]:
    """All masks of one training pass, on the host."""
    tape = stack.forward(gl.to_device(x, stack.backend))[2]
    saved = [scan.saved for group in tape.scans for scan in group]
    results = [mask for each in saved for mask in each.masks if mask is not None]
    for task in (task for each in saved for task in each.tasks):
        results += [task.recurrent_mask, task.keep_h, task.keep_c]
    return [to_host(mask) for mask in results]


def test_a_model_draws_the_same_masks_on_every_device(backend: Backend, rng: np.random.Generator) -> None:
    """Passes one after another: the masks of each pass are those of the CPU, and no two passes share theirs."""
    options = {
        "bidirectional": True,
        "dropout": 0.5,
        "recurrent_dropout": 0.4,
        "zoneout": (0.3, 0.2),
        "seed": 2**33 + 1,
    }
    x = rng.normal(size=(4, 3, 2)).astype("float32")
    here, host = (gl.LSTM(2, 7, 2, device=device, **options) for device in (backend, resolve("cpu")))
    first, second = masks(here, x), masks(here, x)
    assert len(first) == 2 + 3 * 4
    np.testing.assert_array_equal(first[0], first[1])  # both directions of a layer read the same dropped input
    for results, expected in zip(first + second, masks(host, x) + masks(host, x), strict=True):
        np.testing.assert_array_equal(results, expected)
    assert not any(np.array_equal(one, other) for one, other in zip(first, second, strict=True))
    here.calls = 0
    for results, expected in zip(masks(here, x), first, strict=True):
        np.testing.assert_array_equal(results, expected)


def test_inference_draws_no_masks_and_counts_no_call(rng: np.random.Generator) -> None:
    stack = gl.LSTM(2, 4, 2, device="cpu", dropout=0.5, recurrent_dropout=0.5, zoneout=0.5)
    x = rng.normal(size=(5, 2, 2))
    np.testing.assert_array_equal(stack(x)[0], stack(x)[0])
    assert stack.calls == 0
    stack.forward(x)
    assert stack.calls == 1


def test_native_masks_are_those_of_array_code() -> None:
    backend = resolve("cpu")
    for shape, first in [((5, 3, 7), 2), ((0, 3), 0), ((4, 1), 9), ((3, 0, 2), 0), ((300, 40, 33), 2**31)]:
        for rate in (0.0, 0.3, 0.999999):
            results = random.keep_mask(backend, rate, shape, KEY, first)
            assert np.array_equal(results, random.keep(np, rate, shape, KEY, first))


def test_generators_repeat_and_differ_by_stream() -> None:
    first, again, other = (host_generator(7, *stream).random(4) for stream in ((1, 2), (1, 2), (2, 1)))
    np.testing.assert_array_equal(first, again)
    assert not np.any(first == other)
