"""What becomes of a client's write: who may command, one at a time, and what; the rest is refused item by item."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from collections.abc import Callable, Mapping
from typing import Any

from asyncua import ua as _typed_ua
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.address_space import AddressSpace, AttributeService

from ...envs.nameplate import Signal
from . import opcua_address as address
from .opcua_access import RefusalLog

ua: Any = _typed_ua  # asyncua annotates with OPC UA's types, and takes and gives Python's


class Control:
    """Who commands: one user at a time, until he has been silent for ``watchdog_periods``."""

    def __init__(self, watchdog_periods: int) -> None:
        self._watchdog_periods = watchdog_periods
        self._holder: str | None = None
        self.silent_periods = 0

    @property
    def is_silent(self) -> bool:
        """Whether nobody commands any more."""
        return self.silent_periods >= self._watchdog_periods

    def take(self, name: str | None) -> bool:
        """Let a user command, who lives by that; False while another one does."""
        is_held = self._holder is not None and not self.is_silent
        if is_held and self._holder != name:
            return False
        self._holder, self.silent_periods = name, 0
        return True


class WriteJudge:
    """Judges each write. ``index``: number of our namespace; ``limits``: the signals that can be commanded, by node."""

    def __init__(
        self,
        index: int,
        limits: Mapping[str, Signal],
        control: Control,
        may_write: Callable[[User], bool],
        refused: RefusalLog,
    ) -> None:
        self._index = index
        self._limits = limits
        self._control = control
        self._may_write = may_write
        self._refused = refused

    def verdict(self, node_id: Any, value: Any, user: User) -> int | None:
        """Status to refuse a client's write with, or None to let it pass; a refusal is recorded."""
        found = self._judge(node_id, value, user)
        if found is not None:
            given = value.Value.Value if value.Value is not None else None
            status = ua.StatusCode(found).name
            self._refused.tell(
                what="write", user=user.name, node=str(node_id.Identifier)[:100], value=repr(given)[:50], status=status
            )
        return found

    def _judge(self, node_id: Any, value: Any, user: User) -> int | None:
        """Who may; then what. A write of a controller says that he lives, whatever its value."""
        signal = self._limits.get(node_id.Identifier) if node_id.NamespaceIndex == self._index else None
        is_heartbeat = node_id.NamespaceIndex == self._index and node_id.Identifier == address.CLIENT_HEARTBEAT
        if not self._may_write(user):
            return int(ua.StatusCodes.BadUserAccessDenied)
        if signal is None and not is_heartbeat:
            return None  # its access level is for asyncua to judge
        if not self._control.take(user.name):
            return int(ua.StatusCodes.BadLocked)
        wanted = ua.VariantType.UInt32 if signal is None else ua.VariantType.Double
        if value.Value is None or value.Value.VariantType != wanted or value.Value.is_array:
            return int(ua.StatusCodes.BadTypeMismatch)
        if value.StatusCode is not None and not value.StatusCode.is_good():
            return int(ua.StatusCodes.BadWriteNotSupported)
        if signal is None:
            return None
        number = value.Value.Value
        fits = math.isfinite(number) and signal.minimum <= number <= signal.maximum
        if not fits or (signal.levels is not None and number not in signal.levels):
            return int(ua.StatusCodes.BadOutOfRange)
        return None


class LimitedWrites(AttributeService):
    """asyncua's write service with a verdict for each item before it; its own hooks can only fail a whole request."""

    def __init__(self, aspace: AddressSpace, judge: Callable[[ua.NodeId, Any, User], int | None]) -> None:
        super().__init__(aspace)
        self._judge = judge

    async def write(self, params: Any, user: User | None = None) -> list[Any]:
        writer = User(role=UserRole.Admin) if user is None else user
        results: list[Any] = []
        for item in params.NodesToWrite:
            verdict = None
            if user is not None and user.role != UserRole.Admin and item.AttributeId == ua.AttributeIds.Value:
                verdict = self._judge(item.NodeId, item.Value, user)
                # A client's clock is not the source's: the time of a command is when it came.
                stamped = dataclasses.replace(item.Value, SourceTimestamp=dt.datetime.now(dt.UTC))
                item = dataclasses.replace(item, Value=stamped)
            if verdict is not None:
                results.append(ua.StatusCode(verdict))
                continue
            results += await super().write(ua.WriteParameters(NodesToWrite=[item]), writer)
        return results
