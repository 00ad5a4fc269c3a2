"""How a number lies in 16-bit registers: its encoding, and the order of words and bytes.

The Modbus specification (Application Protocol V1.1b3, 4.2) fixes the bytes inside a register, most significant first,
and says nothing about numbers of two registers; makers do it in four ways, and some swap bytes as well. So the order is
a setting, named by where the bytes A B C D of a number, A the most significant, come on the wire.
"""

from __future__ import annotations

import enum
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from ...envs.nameplate import Signal

_NO_VALUE = -0x8000
_LARGEST = 0x7FFF
_MOST_DECIMALS = 6


class Encoding(enum.StrEnum):
    """``float32`` is IEEE 754 in two registers, NaN for no value. ``int16`` is a scaled integer in one, 0x8000 for no
    value, as SunSpec's models have it.
    """

    FLOAT32 = "float32"
    INT16 = "int16"


class WordOrder(enum.StrEnum):
    """Order on the wire of the bytes A B C D of a number, A the most significant; a register holds two of them."""

    ABCD = "abcd"
    CDAB = "cdab"
    BADC = "badc"
    DCBA = "dcba"

    @property
    def has_swapped_words(self) -> bool:
        return self in (WordOrder.CDAB, WordOrder.DCBA)

    @property
    def has_swapped_bytes(self) -> bool:
        return self in (WordOrder.BADC, WordOrder.DCBA)


@dataclass(frozen=True)
class Codec:
    """Between a number in the nameplate's unit and its registers.

    ``decimals`` is for ``int16`` alone: the register holds the number times ``10 ** decimals``, rounded.
    """

    encoding: Encoding
    order: WordOrder
    decimals: int = 0

    @property
    def n_registers(self) -> int:
        return 2 if self.encoding is Encoding.FLOAT32 else 1

    @property
    def _layout(self) -> str:
        return ("<" if self.order.has_swapped_bytes else ">") + "H" * self.n_registers

    def encode(self, value: float) -> tuple[int, ...]:
        """Registers of a number; NaN becomes "no value". Raises :class:`OverflowError` where it does not fit."""
        if self.encoding is Encoding.FLOAT32:
            data = struct.pack(">f", value)
        elif math.isnan(value):
            data = struct.pack(">h", _NO_VALUE)
        else:
            scaled = value * 10.0**self.decimals
            if not abs(scaled) < _LARGEST + 0.5:
                raise OverflowError(f"{value:g} with {self.decimals} decimals does not fit into a signed register")
            data = struct.pack(">h", max(-_LARGEST, min(_LARGEST, round(scaled))))
        words = struct.unpack(self._layout, data)
        return words[::-1] if self.order.has_swapped_words else words

    def decode(self, words: Sequence[int]) -> float:
        """Number in registers; NaN for "no value"."""
        ordered = tuple(words)[::-1] if self.order.has_swapped_words else tuple(words)
        data = struct.pack(self._layout, *ordered)
        if self.encoding is Encoding.FLOAT32:
            return float(struct.unpack(">f", data)[0])
        raw = int(struct.unpack(">h", data)[0])
        if raw == _NO_VALUE:
            return math.nan
        # Dividing by a power of ten gives the double nearest to the decimal number: 0.35, not 0.35000000000000003.
        return raw / 10**self.decimals if self.decimals >= 0 else float(raw * 10**-self.decimals)


def codec_for(signal: Signal, encoding: Encoding, order: WordOrder) -> Codec:
    """Codec of a signal; ``int16`` gets as many decimals, up to six, as its range leaves room for."""
    if encoding is Encoding.FLOAT32:
        return Codec(encoding, order)
    widest = max(abs(signal.minimum), abs(signal.maximum))
    decimals = _MOST_DECIMALS
    while widest * 10.0**decimals > _LARGEST:
        decimals -= 1
    return Codec(encoding, order, decimals)
