"""Numbers in registers, held to the bytes that ``struct`` makes of them."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinloop.deploy.connectors.word_order import Codec, Encoding, WordOrder, codec_for
from twinloop.envs.nameplate import Signal

ORDERS = st.sampled_from(list(WordOrder))
FLOATS = st.floats(width=32, allow_nan=False)


def on_the_wire(words: tuple[int, ...]) -> bytes:
    """A register's bytes go most significant first, whatever the order (Application Protocol V1.1b3, 4.2)."""
    return b"".join(word.to_bytes(2, "big") for word in words)


@pytest.mark.parametrize(
    ("order", "words"),
    [("abcd", (0x449A, 0x522B)), ("cdab", (0x522B, 0x449A)), ("badc", (0x9A44, 0x2B52)), ("dcba", (0x2B52, 0x9A44))],
)
def test_each_order_puts_the_bytes_where_its_name_says(order: str, words: tuple[int, int]) -> None:
    codec = Codec(Encoding.FLOAT32, WordOrder(order))
    assert codec.encode(1234.5677) == words  # 0x449A522B is 1234.5677 in IEEE 754
    assert codec.decode(words) == pytest.approx(1234.5677, abs=1e-4)


@given(FLOATS, ORDERS)
def test_a_float_is_the_bytes_of_struct_in_the_order_named(value: float, order: WordOrder) -> None:
    codec = Codec(Encoding.FLOAT32, order)
    lettered = dict(zip("abcd", struct.pack(">f", value), strict=True))
    words = codec.encode(value)
    assert on_the_wire(words) == bytes(lettered[letter] for letter in order)
    assert codec.decode(words) == value


@given(st.integers(-32767, 32767), st.integers(-4, 6), ORDERS)
def test_a_scaled_integer_is_the_bytes_of_struct_and_comes_back_as_the_decimal_number(
    raw: int, decimals: int, order: WordOrder
) -> None:
    codec = Codec(Encoding.INT16, order, decimals)
    value = float(f"{raw}e{-decimals}")
    words = codec.encode(value)
    lettered = dict(zip("ab", struct.pack(">h", raw), strict=True))
    assert on_the_wire(words) == bytes(lettered[letter] for letter in order if letter in "ab")
    assert codec.decode(words) == value


@given(st.floats(-32767.0, 32767.0), ORDERS)
def test_rounding_is_at_most_half_a_step(value: float, order: WordOrder) -> None:
    codec = Codec(Encoding.INT16, order)
    assert abs(codec.decode(codec.encode(value)) - value) <= 0.5


@pytest.mark.parametrize("order", list(WordOrder))
@pytest.mark.parametrize("encoding", list(Encoding))
def test_no_value_travels_as_no_value(encoding: Encoding, order: WordOrder) -> None:
    codec = Codec(encoding, order)
    assert math.isnan(codec.decode(codec.encode(math.nan)))
    assert all(codec.encode(v) != codec.encode(math.nan) for v in (0.0, -32767.0, 32767.0))


@pytest.mark.parametrize("value", [32767.6, -32767.6, math.inf, 1e9])
def test_what_does_not_fit_into_a_register_is_no_other_number(value: float) -> None:
    with pytest.raises(OverflowError):
        Codec(Encoding.INT16, WordOrder.ABCD).encode(value)


@pytest.mark.parametrize(
    ("minimum", "maximum", "decimals"),
    [(-40.0, 40.0, 2), (0.1, 1.0, 4), (0.0, 5000.0, 0), (0.0, 32767.0, 0), (0.0, 32768.0, -1), (-1e-3, 0.0, 6)],
)
def test_a_range_gets_as_many_decimals_as_fit(minimum: float, maximum: float, decimals: int) -> None:
    codec = codec_for(Signal("x", "kW", minimum, maximum), Encoding.INT16, WordOrder.ABCD)
    assert codec.decimals == decimals
