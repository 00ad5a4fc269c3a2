"""The MQTT connector: what a Sparkplug B edge node last told, and commands that it must answer."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ...envs.errors import PlantError
from ...envs.nameplate import Nameplate
from . import mqtt_address as address
from .command_fault import command_fault
from .contract import Capabilities, Listener, Outcome, Peer, Readings, Subscription, WriteStatus
from .mqtt_identity import Identity
from .mqtt_session import HostSession
from .polling import Polling
from .sparkplug_site import SparkplugSite


class MqttConnector(HostSession):
    """Keeps the :class:`~.contract.Connector` contract over MQTT 5 and Sparkplug B; connects on first use.

    Without a ``nameplate`` the one in the node's birth is taken; a plant with another one is refused. ``identity``: who
    we are to the broker, by default what the environment says. Who only reads is an observer to Sparkplug; with the
    first command or heartbeat we become its host application ``identity.host_id``, and stay so. ``timeout_s`` is what
    one call may take; by default one period of the plant's on the wall, from 0.1 s to 4 s.
    """

    def __init__(
        self,
        endpoint: str = address.DEFAULT_ENDPOINT,
        nameplate: Nameplate | None = None,
        identity: Identity | None = None,
        *,
        timeout_s: float | None = None,
        keep_alive_s: int = 5,
    ) -> None:
        super().__init__(endpoint, nameplate, identity, timeout_s=timeout_s, keep_alive_s=keep_alive_s)

    @property
    def endpoint(self) -> str:
        return self._endpoint

    @property
    def nameplate(self) -> Nameplate:
        return self._site().nameplate if self._expected is None else self._expected

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            protocol="MQTT 5, Sparkplug B",
            has_identity=True,
            has_encryption=address.parse(self._endpoint).is_secure,
            has_source_time=True,
            has_quality=True,
            has_atomic_batch=True,
            has_push=True,
        )

    @property
    def peer(self) -> Peer | None:
        with self._turn:
            peer = self._peer
            return None if peer is None else replace(peer, age_s=time.monotonic() - self._moved_at_s)

    def read(self, names: Sequence[str]) -> Readings:
        """What the plant last told as a whole, with its own times and qualities; nothing is asked."""
        with self._calls:
            reading = self._met(self._deadline_s(), as_host=False)
            at = self._places(self._site(), names)
        return Readings(reading.values[at], reading.quality[at], reading.time_s[at])

    def write(self, commands: Mapping[str, float]) -> dict[str, Outcome]:
        """One batch, which the plant takes as one; its answer says what became of each command."""
        with self._calls:
            deadline_s = self._deadline_s()
            self._met(deadline_s, as_host=True)
            points = self._site().of_kind("commanded")
            missing = [name for name in commands if name not in points]
            if missing:
                raise PlantError(f"{self._endpoint}: no command {missing[0]!r} here; see {', '.join(list(points)[:4])}")
            faults = {name: command_fault(points[name].signal, value) for name, value in commands.items()}
            answer = self._command([points[n] for n in commands if not faults[n]], commands, deadline_s)
        found: dict[str, Outcome] = {}
        for name in commands:
            outcome = answer.items.get(name)
            held = answer.held.get(name, math.nan)
            if faults[name]:
                found[name] = Outcome(WriteStatus.NOT_SENT, held, faults[name])
            elif outcome is None:
                raise PlantError(
                    f"{self._endpoint}: the plant's answer says nothing of {name}; it is unknown what it took"
                )
            else:
                found[name] = replace(outcome, held=held)
        return found

    def subscribe(self, names: Sequence[str], listener: Listener, period_s: float) -> Subscription:
        """The plant pushes; the listener is told at its own pace, from what came last."""
        wanted = tuple(names)
        return Polling(lambda: self.read(wanted), listener, period_s).start()

    def heartbeat(self, *, send: bool = True) -> Peer:
        with self._calls:
            deadline_s = self._deadline_s()
            self._met(deadline_s, as_host=send)
            if send:
                self._command([], {}, deadline_s)
        peer = self.peer
        assert peer is not None  # _met has seen it; narrows the type
        return peer

    def close(self) -> None:
        """Sign off and leave the broker; a later call connects again."""
        with self._calls:
            self._leave()

    def _places(self, site: SparkplugSite, wanted: Sequence[str]) -> list[int]:
        """Where signals stand among the points: measured ones, and commanded ones as they are obeyed."""
        first = site.points[0].alias
        known = {**site.of_kind("commanded"), **site.of_kind("measured")}
        missing = [name for name in wanted if name not in known]
        if missing:
            raise PlantError(
                f"{self._endpoint}: no signal {missing[0]!r} here; this site has {', '.join(list(known)[:4])}"
            )
        return [known[name].alias - first for name in wanted]
