"""The one change of authority that the shield takes in a period, gathered from orders that go together."""

from __future__ import annotations

from ..shield import Mode
from .order import Order


class Asked:
    """``mode`` and ``reset`` for ``assets`` (None: all).

    ``stopped``: a stop was ordered in this period; ``waits``: what comes now is for the next one.
    """

    def __init__(self) -> None:
        self.mode: Mode | None = None
        self.reset = False
        self.assets: frozenset[str] | None = None
        self.stopped = self.waits = False

    @property
    def is_event(self) -> bool:
        return self.mode is not None or self.reset

    def fits(self, order: Order) -> bool:
        """Whether it can be followed together with what was asked before it."""
        assets = None if order.assets is None else frozenset(order.assets)
        if not self.is_event or (order.kind == "reset" and self.mode is None and assets == self.assets):
            return True
        if order.kind != "mode":
            return False
        return assets == self.assets or (not self.reset and order.mode == self.mode)

    def put(self, mode: Mode | None, reset: bool, assets: frozenset[str] | None) -> None:
        if not self.is_event or assets == self.assets:
            self.assets = assets
        elif self.assets is not None:
            self.assets = None if assets is None else self.assets | assets
        self.mode = self.mode if mode is None else mode
        self.reset = self.reset or reset
