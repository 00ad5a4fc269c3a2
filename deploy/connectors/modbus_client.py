"""The Modbus TCP connector: batches as blocks of registers, heartbeats, and a peer's silence seen by our own clock."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from ...envs.errors import PlantError
from ...envs.nameplate import Nameplate
from ...envs.plant import Quality
from . import modbus_address as address
from . import modbus_wire as wire
from . import register_map as rm
from .command_fault import command_fault
from .contract import Capabilities, Listener, Outcome, Peer, Readings, Subscription, WriteStatus
from .polling import Polling
from .register_map import Entry, Header, MapSettings, RegisterMap, Status

T = TypeVar("T")

_BACK_OFF_PERIODS = (0.0, 0.5, 1.0, 2.0)
"""Pause after the n-th failure in a row, in periods: short, since a peer that is back must be noticed soon."""
_LONGEST_PAUSE_S = 5.0
_TIMEOUT_PERIODS = 0.5
_TIMEOUTS_S = (0.1, 4.0)
_IN_CONTROL_PERIODS = 3.0
_TEARS = 3


class ModbusConnector:
    """Keeps the :class:`~.contract.Connector` contract over Modbus TCP; connects on first use.

    ``nameplate`` and ``settings`` describe the registers; without a nameplate it is read from the server's registers,
    as a plant served by twinloop has it. A server whose map differs is refused. ``timeout_s`` is what one call may
    take; by default one period of the peer's on the wall, from 0.1 s to 4 s, so that silence shows within three.
    """

    def __init__(
        self,
        endpoint: str = address.DEFAULT_ENDPOINT,
        nameplate: Nameplate | None = None,
        settings: MapSettings | None = None,
        *,
        timeout_s: float | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._settings = MapSettings() if settings is None else settings
        self._expected = nameplate
        self._map: RegisterMap | None = None
        self._timeout_s = timeout_s
        self._wire: wire.Wire | None = None
        self._turn = threading.RLock()
        self._failures = 0
        self._retry_at_s = 0.0
        self._peer: Peer | None = None
        self._moved_at_s = 0.0
        self._echo = 0
        self._beaten_at_s = -math.inf
        self._sequence = 0

    @property
    def endpoint(self) -> str:
        return self._endpoint

    @property
    def nameplate(self) -> Nameplate:
        return self.map.nameplate

    @property
    def map(self) -> RegisterMap:
        """The registers; asks the server for its nameplate when none was given."""
        if self._map is None and self._expected is not None:
            return RegisterMap(self._expected, self._settings)
        if self._map is None:
            self._ask(lambda link: None)
        assert self._map is not None  # _ask has set it, or raised
        return self._map

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            protocol="Modbus TCP",
            has_identity=False,
            has_encryption=False,
            has_source_time=False,
            has_quality=False,
            has_atomic_batch=False,
            has_push=False,
            registers_a_read=rm.MOST_READ,
        )

    @property
    def peer(self) -> Peer | None:
        peer = self._peer
        return None if peer is None else replace(peer, age_s=time.monotonic() - self._moved_at_s)

    def read(self, names: Sequence[str]) -> Readings:
        """One batch; a batch of several requests is read again when the plant's next period fell between them."""
        known = self._entries((*self.map.measured, *self.map.obeyed), names)
        entries = [known[name] for name in names]
        blocks = rm.read_blocks(self.map, entries)

        def question(link: wire.Wire) -> dict[int, int]:
            for _ in range(_TEARS):
                words: dict[int, int] = {}
                for block in blocks:
                    words |= dict(enumerate(link.read_input(block.register, block.count), block.register))
                if words.get(self.map.tail, words[Header.READING]) == words[Header.READING]:
                    return words
            raise PlantError(
                f"{self._endpoint}: {len(blocks)} requests do not fit into one of the plant's periods in {_TEARS} "
                "tries; read fewer signals, or take the encoding int16"
            )

        words = self._ask(question)
        peer = self._met([words[k] for k in range(Header.SIZE)])
        values = np.array([_value(e, words) for e in entries], dtype=np.float64)
        inside = [
            e.signal.minimum <= v <= e.signal.maximum for e, v in zip(entries, values.tolist(), strict=True)
        ]  # False for NaN: there is no value
        quality = np.where(inside, Quality.GOOD, Quality.BAD).astype(np.int8)
        time_s = peer.moved_time_s if peer.clock_s is None else peer.clock_s
        return Readings(values, quality, np.full(len(entries), time_s))

    def write(self, commands: Mapping[str, float]) -> dict[str, Outcome]:
        """One batch with a heartbeat, read back. Several requests are held together by the sequence register."""
        known = self._entries(self.map.commanded, commands)
        faults = {name: command_fault(known[name].signal, value) for name, value in commands.items()}
        sent = sorted((known[name] for name, fault in faults.items() if not fault), key=lambda e: e.register)
        numbers = {entry.register: entry.codec.encode(commands[entry.name]) for entry in sent}
        refused: dict[str, str] = {}

        def question(link: wire.Wire) -> dict[int, int]:
            refused.update(self._send(link, sent, numbers))
            words: dict[int, int] = {}
            for block in rm.write_blocks([known[name] for name in commands]):
                words |= dict(enumerate(link.read_holding(block.register, block.count), block.register))
            return words

        held = self._ask(question)
        found: dict[str, Outcome] = {}
        for name in commands:
            status = WriteStatus.ACCEPTED
            if faults[name] or name in refused:
                status = WriteStatus.NOT_SENT if faults[name] else WriteStatus.REFUSED
            found[name] = Outcome(status, _value(known[name], held), faults[name] or refused.get(name, ""))
        return found

    def subscribe(self, names: Sequence[str], listener: Listener, period_s: float) -> Subscription:
        """Modbus has no push: a thread reads each ``period_s``."""
        wanted = tuple(names)
        return Polling(lambda: self.read(wanted), listener, period_s).start()

    def heartbeat(self, *, send: bool = True) -> Peer:
        def question(link: wire.Wire) -> list[int]:
            if send:
                self._beat(link, [])
            return link.read_input(0, Header.SIZE)

        return self._met(self._ask(question))

    def close(self) -> None:
        """Leave the server; a later call connects again."""
        with self._turn:
            link, self._wire = self._wire, None
            if link is not None:
                link.close()

    def _send(self, link: wire.Wire, sent: list[Entry], numbers: dict[int, tuple[int, ...]]) -> dict[str, str]:
        """Write a batch; the names that the server refused, with its words."""
        blocks = rm.write_blocks(sent)
        self._sequence = (self._sequence | 1) + 1 & 0xFFFF  # the next even number
        first = [w for e in sent for w in numbers[e.register]]
        is_one_request = len(blocks) == 1 and blocks[0].register == rm.FIRST_COMMAND
        if is_one_request and len(first) + rm.FIRST_COMMAND <= rm.MOST_WRITTEN:
            try:
                self._beat(link, [self._sequence, *first])
                return {}
            except wire.RefusalError as refusal:
                if refusal.code != wire.ILLEGAL_VALUE:
                    raise
        refused: dict[str, str] = {}
        self._beat(link, [self._sequence - 1 & 0xFFFF])  # odd: the plant waits for the whole batch
        for block in blocks:
            words = [w for e in block.entries for w in numbers[e.register]]
            try:
                link.write(block.register, words)
            except wire.RefusalError:
                refused |= self._send_singly(link, block.entries, numbers)
        link.write(rm.SEQUENCE, [self._sequence])
        return refused

    @staticmethod
    def _send_singly(link: wire.Wire, entries: Sequence[Entry], numbers: dict[int, tuple[int, ...]]) -> dict[str, str]:
        """A block is refused as a whole; one by one shows which commands the server does not take."""
        refused: dict[str, str] = {}
        for entry in entries:
            try:
                link.write(entry.register, list(numbers[entry.register]))
            except wire.RefusalError as refusal:
                refused[entry.name] = str(refusal)
        return refused

    def _beat(self, link: wire.Wire, more: list[int]) -> None:
        """Write the next heartbeat, and ``more`` right behind it in the same request.

        Who has not been in control of late, such as a watchdog that takes over, goes on from where the count stands;
        who has, and finds that it went on without him, is told that there are two.
        """
        number = (self._echo + 1) & 0xFFFF
        try:
            link.write(rm.HEARTBEAT, [number, *more])
        except wire.RefusalError:
            echo = link.read_input(Header.ECHO, 1)[0]
            if echo == self._echo:
                raise
            if time.monotonic() - self._beaten_at_s < _IN_CONTROL_PERIODS * (self._wall_period_s() or 1.0):
                raise PlantError(
                    f"{self._endpoint}: heartbeat {number} was refused, since somebody else has taken the count to "
                    f"{echo}; only one client may be in control: stop the other"
                ) from None
            number = (echo + 1) & 0xFFFF
            link.write(rm.HEARTBEAT, [number, *more])
        self._echo, self._beaten_at_s = number, time.monotonic()

    def _entries(self, among: Sequence[Entry], names: Sequence[str] | Mapping[str, float]) -> dict[str, Entry]:
        known = {entry.name: entry for entry in among}
        missing = [name for name in names if name not in known]
        if missing:
            raise PlantError(
                f"{self._endpoint}: no signal {missing[0]!r} here; this site has {', '.join(list(known)[:4])} ..."
            )
        return known

    def _ask(self, question: Callable[[wire.Wire], T]) -> T:
        """Connect if needed and ask; whatever goes wrong becomes a :class:`PlantError`, a broken link is dropped."""
        host, port = address.host_and_port(self._endpoint)
        with self._turn:
            wait_s = self._retry_at_s - time.monotonic()
            if self._wire is None and wait_s > 0:
                raise PlantError(f"{self._endpoint}: not connected; trying again in {wait_s:.1f} s")
            timeout_s = self._timeout()
            deadline_s = time.monotonic() + timeout_s
            try:
                if self._wire is None:
                    link = self._wire = wire.Wire(host, port, self._settings.unit, timeout_s)
                    link.ask(lambda: self._meet(link), deadline_s)
                link = self._wire
                answer = link.ask(lambda: question(link), deadline_s)
            except wire.RefusalError as refusal:
                self._drop()
                raise PlantError(f"{self._endpoint}: refused: {refusal}") from refusal
            except PlantError:
                self._drop()
                raise
            except (wire.WireError, TimeoutError) as error:
                self._drop()
                said = str(error) or type(error).__name__
                raise PlantError(
                    f"{self._endpoint}: no answer within {timeout_s:g} s ({said}); is the server running, and the "
                    "address right?"
                ) from error
            self._failures = 0
            return answer

    def _meet(self, link: wire.Wire) -> None:
        """Check that the server's registers are those of the nameplate, and go on counting where its echo stands."""
        header = link.read_input(0, Header.SIZE)
        if header[Header.MAGIC] != rm.MAGIC or header[Header.LAYOUT] != rm.LAYOUT:
            raise PlantError(f"{self._endpoint}: a Modbus server answers, but it holds no twinloop plant")
        if self._map is None:
            plate, settings = self._expected, self._settings
            if plate is None:
                plate = self._plate(link)
                settings = MapSettings.of_word(header[Header.FORMAT], self._settings.unit)
            self._map = RegisterMap(plate, settings)
        if header[Header.MAP_HASH : Header.MAP_HASH + 4] != self._map.hash_words:
            there = MapSettings.of_word(header[Header.FORMAT], self._settings.unit)
            ours = self._map.settings
            self._map = None if self._expected is None else self._map  # a plant that was exchanged is met anew
            raise PlantError(
                f"{self._endpoint}: the server's register map is another one than expected (there {there.encoding} "
                f"{there.order}, here {ours.encoding} {ours.order}; else signals, units or limits differ); nothing was "
                "sent"
            )
        self._echo = header[Header.ECHO]
        self._sequence = link.read_holding(rm.SEQUENCE, 1)[0]

    def _plate(self, link: wire.Wire) -> Nameplate:
        n_bytes = rm.number_of(link.read_input(rm.PLATE_AT, 2))
        start, end = rm.PLATE_AT + 2, rm.PLATE_AT + 2 + (n_bytes + 1) // 2
        if end > 0x10000:
            raise PlantError(f"{self._endpoint}: the server's nameplate of {n_bytes} bytes ends behind its registers")
        words: list[int] = []
        for register in range(start, end, rm.MOST_READ):
            words += link.read_input(register, min(rm.MOST_READ, end - register))
        return rm.plate_of_words(words, n_bytes)

    def _met(self, header: Sequence[int]) -> Peer:
        """Take note of what a header says."""
        with self._turn:
            beat, now_s = header[Header.HEARTBEAT], time.monotonic()
            if self._peer is None or self._peer.beat != beat:
                self._moved_at_s = now_s
            has_moved = self._moved_at_s == now_s
            clock_us = rm.number_of(header[Header.CLOCK_US : Header.CLOCK_US + 4])
            self._peer = Peer(
                beat=beat,
                age_s=now_s - self._moved_at_s,
                moved_time_s=time.time() if has_moved or self._peer is None else self._peer.moved_time_s,
                clock_s=clock_us / 1e6 if clock_us else None,
                period_s=rm.number_of(header[Header.PERIOD_MS : Header.PERIOD_MS + 2]) / 1e3,
                is_tripped=bool(header[Header.STATUS] & Status.WATCHDOG_TRIPPED),
                has_failed=bool(header[Header.STATUS] & Status.PLANT_FAILED),
            )
            return self._peer

    def _wall_period_s(self) -> float | None:
        if self._peer is not None and self._peer.period_s:
            return self._peer.period_s
        return None if self._expected is None else self._expected.period_s

    def _timeout(self) -> float:
        shortest, longest = _TIMEOUTS_S
        if self._timeout_s is not None:
            return self._timeout_s
        period_s = self._wall_period_s()
        return longest if period_s is None else min(max(_TIMEOUT_PERIODS * period_s, shortest), longest)

    def _drop(self) -> None:
        link, self._wire = self._wire, None
        if link is not None:
            link.close()
        pause_s = _BACK_OFF_PERIODS[min(self._failures, len(_BACK_OFF_PERIODS) - 1)] * (self._wall_period_s() or 1.0)
        self._failures += 1
        self._retry_at_s = time.monotonic() + min(pause_s, _LONGEST_PAUSE_S)


def _value(entry: Entry, words: Mapping[int, int]) -> float:
    return entry.number([words[k] for k in range(entry.register, entry.end)])
