"""A station's folder that hangs keeps neither the plant nor a stop waiting, and costs no order."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tests.deploy.presses import until

from twinloop.agents.controllers.reference import RandomPolicy
from twinloop.deploy.desk_link import BLIND_S, DeskLink
from twinloop.deploy.journal import Journal, read
from twinloop.deploy.runtime import Period, Runtime, RuntimeSettings
from twinloop.deploy.shield import Mode, Shield, ShieldState
from twinloop.deploy.shield.orders import Orders
from twinloop.envs.constraint import declare
from twinloop.envs.nameplate import Nameplate
from twinloop.training.benchmarks.arbitration_site import KETTLES, KettlePlant

PLATE: Nameplate = KETTLES
STATE = Shield(declare(PLATE)).start()


class Hanging:
    """A desk whose folder hangs while ``goes_on`` is clear; ``says`` is what is ordered, once each."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.says: list[Orders] = []
        self.pressed = ""
        self.asked = 0

    @property
    def is_pressed(self) -> bool:
        return bool(self.pressed)

    def stop(self, by: str) -> None:
        self.pressed = by

    def orders(self, number: int, now_s: float, state: ShieldState) -> Orders:
        self.asked += 1
        said = self.says.pop(0) if self.says else Orders()
        self.goes_on.wait(60.0)
        return said if not self.pressed else Orders(stop=True)

    def rows(self) -> Sequence[Mapping[str, Any]]:
        return [{"kind": "order", "n": self.asked}]


def test_orders_that_came_late_are_given_once_and_all_is_told() -> None:
    desk = Hanging()
    link = DeskLink(desk, 2.0)
    limits = {"power": (None, 5.0)}
    desk.says = [Orders(limits=limits), Orders(mode=Mode.SHADOW, limits=limits), Orders(reset=True)]
    assert link.orders(1, 0.0, STATE) == Orders(limits=limits)
    desk.goes_on.clear()
    begun_s = time.monotonic()
    assert link.orders(2, 0.0, STATE) == Orders(limits=limits)  # what stood stands, and nothing is ordered anew
    assert link.orders(3, 0.0, STATE) == Orders(limits=limits)
    assert time.monotonic() - begun_s < 30.0  # not for as long as the folder hangs
    desk.goes_on.set()
    assert until(lambda: link._leash._finished == link._leash._asked, 10.0)
    found = link.orders(4, 0.0, STATE)
    assert isinstance(found, Orders)
    assert (found.mode, found.reset) == (Mode.SHADOW, True)
    assert link.orders(5, 0.0, STATE) == Orders()
    assert [row["n"] for row in link.rows] == [1, 2, 3, 4]
    link.close()


def test_a_signal_stops_while_the_folder_hangs_and_a_late_reset_does_not_undo_it() -> None:
    desk = Hanging()
    link = DeskLink(desk, 1.0)
    desk.goes_on.clear()
    desk.says = [Orders(reset=True)]
    assert link.orders(1, 0.0, STATE) == Orders()
    desk.stop("signal")
    assert link.orders(2, 0.0, STATE) == Orders(stop=True)
    desk.goes_on.set()
    link.close()


def test_a_folder_that_hangs_for_long_is_a_stop_and_ends_approvals() -> None:
    desk, clock_s = Hanging(), [0.0]
    link = DeskLink(desk, 0.5, monotonic_s=lambda: clock_s[0])
    desk.says = [Orders(approved=frozenset({"kettle/K1"}))]
    assert until(lambda: link.orders(1, 0.0, STATE) == Orders(approved=frozenset({"kettle/K1"})), 10.0)
    desk.goes_on.clear()
    assert link.orders(2, 0.0, STATE) == Orders(approved=frozenset({"kettle/K1"}))
    clock_s[0] = 0.9 * BLIND_S
    assert not desk.pressed
    clock_s[0] = 1.1 * BLIND_S
    assert link.orders(3, 0.0, STATE) == Orders(stop=True, approved=frozenset())
    assert "has not answered for 5.5 s" in desk.pressed
    desk.goes_on.set()
    link.close()


def test_control_goes_on_while_the_folder_hangs_and_a_stop_acts_in_the_next_period(tmp_path: Path) -> None:
    desk, periods = Hanging(), list[Period]()

    def act(period: Period) -> None:
        periods.append(period)
        if period.number == 2:
            desk.goes_on.clear()
        elif period.number == 4:
            desk.stop("signal")

    begun_s = time.monotonic()
    with Journal(tmp_path / "j") as journal:
        settings = RuntimeSettings(retry_wait_s=0.0, hand_back_periods=0)
        plant, policy = KettlePlant(), RandomPolicy(PLATE)
        Runtime(plant, policy, Shield(PLATE), journal, settings, desk=desk, wall_period_s=2.0).run(6, act)
    desk.goes_on.set()
    assert time.monotonic() - begun_s < 50.0
    assert [p.number for p in periods] == [1, 2, 3, 4, 5, 6]
    assert [set(p.decision.mode.values()) for p in periods[2:]] == [{Mode.AUTONOMOUS}] * 2 + [{Mode.TRIPPED}] * 2
    assert all(np.isfinite(c).all() for c in periods[-1].decision.commands.values())
    assert sum(row["kind"] == "decision" for row in read(tmp_path / "j")) == 6
