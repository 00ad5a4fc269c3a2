"""Registers of a site, derived from its nameplate; both ends of a Modbus wire use it.

*Holding registers* are what a client may write: its heartbeat, the sequence number that holds a batch together, then
all commands. *Input registers* are read-only: a header (:class:`Header`), all measured signals, the commands that the
equipment obeys (the echo), and the header's reading number once more, so that a reading of several requests that was
torn by the plant's next period shows. From :data:`PLATE_AT` on stands the nameplate itself, so that a client needs the
address alone. Addresses count from 0, as on the wire; the "4xxxxx" and "3xxxxx" numbers of manuals are one higher.
"""

from __future__ import annotations

import enum
import itertools
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from ...envs.errors import ConfigurationError, NameplateError, PlantError
from ...envs.nameplate import Nameplate, Signal, digest
from .word_order import Codec, Encoding, WordOrder, codec_for

MOST_READ = 125
"""Registers a read request may ask for (Modbus Application Protocol V1.1b3, 6.3)."""
MOST_WRITTEN = 123
"""Registers a write request may carry (6.12)."""

MAGIC = 0x5457
LAYOUT = 1
PLATE_AT = 50_000
"""Input register of the nameplate's length in bytes, two words, before its zlib-compressed JSON."""
_PLATE_BYTES_LIMIT = 1 << 24
_LAST = 0xFFFF

HEARTBEAT = 0
"""Holding register: the client's heartbeat. Only the number after the echoed one is taken."""
SEQUENCE = 1
"""Holding register: odd while a batch of several requests is under way, even when it is whole."""
FIRST_COMMAND = 2


class Header(enum.IntEnum):
    """Input registers before the values; numbers of several words have the most significant first, whatever the map's
    word order, so that a client can learn that order from them.
    """

    MAGIC = 0
    LAYOUT = 1
    FORMAT = 2
    MAP_HASH = 3  # 4 words: the first 64 bits of the map's hash
    STATUS = 7
    HEARTBEAT = 8  # of the plant: grows by one a period
    ECHO = 9  # the client's heartbeat, as last accepted
    TAKEN = 10  # the sequence number with which commands were last taken
    PERIOD_MS = 11  # 2 words: a period on the wall; 0 for a plant that is stepped
    CLOCK_US = 13  # 4 words: the plant's clock, microseconds UTC; 0 for a plant without one
    READING = 17  # number of the reading; stands behind the last value once more
    SIZE = 18


class Status(enum.IntFlag):
    """Bits of the header's status word."""

    WATCHDOG_TRIPPED = 1
    PLANT_FAILED = 2
    BATCH_OPEN = 4


Kind = Literal["measured", "commanded", "obeyed"]


@dataclass(frozen=True)
class MapSettings:
    """``encoding`` of values, ``order`` of their words and bytes, and the Modbus ``unit`` that answers."""

    encoding: Encoding = Encoding.FLOAT32
    order: WordOrder = WordOrder.ABCD
    unit: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.unit <= 247:
            raise ConfigurationError(f"Modbus unit {self.unit}: a server's address is from 1 to 247")

    @property
    def word(self) -> int:
        """Encoding and order in one register."""
        return list(Encoding).index(self.encoding) | list(WordOrder).index(self.order) << 4

    @staticmethod
    def of_word(word: int, unit: int) -> MapSettings:
        """Inverse of :attr:`word`; raises :class:`PlantError` for a format that is unknown here."""
        try:
            return MapSettings(list(Encoding)[word & 0xF], list(WordOrder)[word >> 4], unit)
        except IndexError as error:
            raise PlantError(f"Modbus format word {word:#06x} is unknown here; update twinloop") from error


@dataclass(frozen=True)
class Entry:
    """One signal of one asset: where it stands in the arrays, and in the registers."""

    name: str
    group: str
    row: int
    column: int
    kind: Kind
    signal: Signal
    register: int
    codec: Codec

    @property
    def end(self) -> int:
        """First register after it."""
        return self.register + self.codec.n_registers

    def number(self, words: Sequence[int]) -> float:
        """What its registers say; the limits, neutral and levels as declared: 0.35, not the float32 nearest to it."""
        exact = self._exact.get(tuple(words))
        return self.codec.decode(words) if exact is None else exact

    @cached_property
    def _exact(self) -> dict[tuple[int, ...], float]:
        signal = self.signal
        declared = (signal.neutral, signal.minimum, signal.maximum, *(signal.levels or ()))
        return {self.codec.encode(number): number for number in declared}


@dataclass(frozen=True)
class Block:
    """Registers that one request reads or writes, with what lies in them."""

    register: int
    count: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class RegisterMap:
    """All registers of a site; raises :class:`NameplateError` for one with more signals than there are registers."""

    nameplate: Nameplate
    settings: MapSettings = MapSettings()

    def __post_init__(self) -> None:
        if self.n_input > PLATE_AT or self.n_holding > _LAST + 1:
            raise NameplateError(
                f"site {self.nameplate.site!r}: {self.n_input} input and {self.n_holding} holding registers do not fit "
                f"into {PLATE_AT} and {_LAST + 1}; take the encoding int16, or split the site over several servers"
            )

    @cached_property
    def commanded(self) -> tuple[Entry, ...]:
        """What the holding registers hold from :data:`FIRST_COMMAND` on, in the order of the arrays."""
        return self._entries("commanded", FIRST_COMMAND)

    @cached_property
    def measured(self) -> tuple[Entry, ...]:
        return self._entries("measured", Header.SIZE)

    @cached_property
    def obeyed(self) -> tuple[Entry, ...]:
        """The echo of the commands, in input registers behind the measured signals."""
        return self._entries("obeyed", self.measured[-1].end if self.measured else Header.SIZE)

    @property
    def tail(self) -> int:
        """Input register of the second copy of the reading's number."""
        last = (*self.measured, *self.obeyed)[-1:]
        return last[0].end if last else int(Header.SIZE)

    @property
    def n_input(self) -> int:
        return self.tail + 1

    @property
    def n_holding(self) -> int:
        return self.commanded[-1].end if self.commanded else FIRST_COMMAND

    @cached_property
    def hash(self) -> str:
        """SHA-256 of all that both ends must agree on: registers, encodings, units, limits and the period."""
        rows = [
            [e.name, e.kind, e.register, str(e.codec.encoding), e.codec.decimals, e.signal.unit, *_limits(e.signal)]
            for e in (*self.commanded, *self.measured, *self.obeyed)
        ]
        return digest([LAYOUT, str(self.settings.order), self.nameplate.site, self.nameplate.period_s, rows])

    @property
    def hash_words(self) -> list[int]:
        """The first 64 bits of the hash, most significant word first."""
        return [int(self.hash[at : at + 4], 16) for at in (0, 4, 8, 12)]

    def table(self) -> str:
        """The map as text, one line a register or number, for whoever sets up the other end."""
        rows = [
            ("holding", HEARTBEAT, "uint16", "", "heartbeat of the client"),
            ("holding", SEQUENCE, "uint16", "", "sequence of the client, odd while a batch is under way"),
            *((("holding", e.register, *_described(e))) for e in self.commanded),
            *_header_rows(),
            *((("input", e.register, *_described(e))) for e in self.measured),
            *((("input", e.register, *_described(e))) for e in self.obeyed),
            ("input", self.tail, "uint16", "", "header: reading, once more"),
            ("input", PLATE_AT, "bytes", "", "nameplate: length (2 words), then zlib-compressed JSON"),
        ]
        heading = (
            f"{self.nameplate.site}: encoding {self.settings.encoding}, order {self.settings.order}, unit "
            f"{self.settings.unit}, map {self.hash[:16]}"
        )
        widths = [max(len(str(row[k])) for row in rows) for k in range(4)]
        return "\n".join(
            [heading, *("  ".join([*(str(c).ljust(w) for c, w in zip(r, widths, strict=False)), r[4]]) for r in rows)]
        )

    def _entries(self, kind: Kind, register: int) -> tuple[Entry, ...]:
        found: list[Entry] = []
        for group in self.nameplate.groups:
            signals = group.measured if kind == "measured" else group.commanded
            codecs = [codec_for(s, self.settings.encoding, self.settings.order) for s in signals]
            for row, asset in enumerate(group.assets):
                for column, (signal, codec) in enumerate(zip(signals, codecs, strict=True)):
                    name = f"{group.name}/{asset}/{signal.name}"
                    found.append(Entry(name, group.name, row, column, kind, signal, register, codec))
                    register += codec.n_registers
        return tuple(found)


def _header_rows() -> list[tuple[str, int, str, str, str]]:
    fields = list(Header)
    return [
        ("input", int(field), f"uint{16 * (after - field)}", "", f"header: {field.name.lower()}")
        for field, after in itertools.pairwise(fields)
    ]


def _limits(signal: Signal) -> tuple[float | list[float], ...]:
    return signal.minimum, signal.maximum, signal.neutral, list(signal.levels or ())


def _described(entry: Entry) -> tuple[str, str, str]:
    signal, codec = entry.signal, entry.codec
    how = codec.encoding if codec.encoding is Encoding.FLOAT32 else f"int16 x 1e{-codec.decimals}"
    what = f"{entry.name}, as obeyed" if entry.kind == "obeyed" else entry.name
    return str(how), f"[{signal.minimum:g}, {signal.maximum:g}] {signal.unit}".rstrip(), what


def read_blocks(register_map: RegisterMap, entries: Iterable[Entry]) -> tuple[Block, ...]:
    """Cover the header and these entries of the input registers with as few reads as one pass gives.

    Registers between two entries are read along; no number is split between requests. With more than one request the
    second copy of the reading's number is read last.
    """
    blocks: list[Block] = []
    start, end, inside = 0, int(Header.SIZE), list[Entry]()
    for entry in sorted(entries, key=lambda e: e.register):
        if entry.end - start > MOST_READ:
            blocks.append(Block(start, end - start, tuple(inside)))
            start, end, inside = entry.register, entry.register, []
        end = max(end, entry.end)
        inside.append(entry)
    after = register_map.tail + 1
    if not blocks:
        return (Block(start, end - start, tuple(inside)),)
    if after - start <= MOST_READ:
        return (*blocks, Block(start, after - start, tuple(inside)))
    return (*blocks, Block(start, end - start, tuple(inside)), Block(register_map.tail, 1, ()))


def write_blocks(entries: Sequence[Entry]) -> tuple[Block, ...]:
    """Cover exactly these entries: a write may not touch what lies between."""
    blocks: list[Block] = []
    inside: list[Entry] = []
    for entry in sorted(entries, key=lambda e: e.register):
        if inside and (entry.register != inside[-1].end or entry.end - inside[0].register > MOST_WRITTEN):
            blocks.append(Block(inside[0].register, inside[-1].end - inside[0].register, tuple(inside)))
            inside = []
        inside.append(entry)
    if inside:
        blocks.append(Block(inside[0].register, inside[-1].end - inside[0].register, tuple(inside)))
    return tuple(blocks)


def words_of(number: int, n_words: int) -> list[int]:
    """A whole number as words, the most significant first."""
    return [number >> 16 * k & 0xFFFF for k in reversed(range(n_words))]


def number_of(words: Sequence[int]) -> int:
    """Inverse of :func:`words_of`."""
    number = 0
    for word in words:
        number = number << 16 | word
    return number


def plate_words(nameplate: Nameplate) -> list[int]:
    """The nameplate as it stands from :data:`PLATE_AT` on; raises :class:`NameplateError` where it does not fit."""
    data = zlib.compress(json.dumps(nameplate.to_dict()).encode(), 9)
    padded = data + b"\0" * (len(data) % 2)
    words = [*words_of(len(data), 2), *(int.from_bytes(padded[k : k + 2], "big") for k in range(0, len(padded), 2))]
    if PLATE_AT + len(words) > _LAST + 1:
        raise NameplateError(f"site {nameplate.site!r}: its nameplate of {len(data)} bytes does not fit into registers")
    return words


def plate_of_words(words: Sequence[int], n_bytes: int) -> Nameplate:
    """Inverse of :func:`plate_words`, without its length; raises :class:`PlantError` for anything that is none."""
    data = b"".join(word.to_bytes(2, "big") for word in words)[:n_bytes]
    try:
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(data, _PLATE_BYTES_LIMIT)
        if not unpacker.eof:
            raise PlantError("the nameplate in the server's registers is cut off, or too long")
        return Nameplate.from_dict(json.loads(text))
    except (zlib.error, ValueError) as error:
        raise PlantError(f"the server's registers hold no nameplate ({error})") from error
