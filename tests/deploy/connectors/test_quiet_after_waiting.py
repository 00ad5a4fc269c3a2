"""A peer that was waited for in vain is not waited for again at once; one that refuses is asked as before."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from tests.deploy.audit.pumps import PUMPS
from tests.deploy.presses import until

from twinloop.deploy.connectors.connected_plant import ConnectedPlant
from twinloop.deploy.connectors.contract import Capabilities, Listener, Outcome, Peer, Readings, Subscription
from twinloop.envs.errors import PlantError

PERIOD_S = 1.0


class Mute:
    """A peer which answers nothing after ``takes_s``."""

    endpoint, nameplate = "mute://here", PUMPS

    def __init__(self, takes_s: float, period_s: float = PERIOD_S) -> None:
        self.takes_s = takes_s
        self.peer: Peer | None = Peer(1, 0.0, 0.0, 0.0, period_s, False, False)
        self.asked = 0

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities("mute", False, False, False, False, False, False)

    def read(self, names: Sequence[str]) -> Readings:
        self._answer()
        raise AssertionError

    def write(self, commands: Mapping[str, float]) -> dict[str, Outcome]:
        self._answer()
        raise AssertionError

    def heartbeat(self, *, send: bool = True) -> Peer:
        self._answer()
        raise AssertionError

    def subscribe(self, names: Sequence[str], listener: Listener, period_s: float) -> Subscription:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is open."""

    def _answer(self) -> None:
        self.asked += 1
        time.sleep(self.takes_s)
        raise PlantError("no answer")


def all_calls(plant: ConnectedPlant) -> None:
    """All that a loop's period asks."""
    commands = {g.name: np.zeros((g.n_assets, len(g.commanded))) for g in PUMPS.groups}
    with pytest.raises(PlantError):
        plant.read()
    with pytest.raises(PlantError):
        plant.write(commands)
    with pytest.raises(PlantError):
        plant.advance()


def test_a_period_waits_once_for_a_peer_that_is_silent() -> None:
    peer = Mute(0.3)
    plant = ConnectedPlant(peer)
    all_calls(plant)
    assert peer.asked == 1
    with pytest.raises(PlantError, match="silent; asked again by the next reading"):
        plant.read()
    assert until(lambda: _asks(plant, peer), 10.0)  # and is asked again by itself


def test_how_long_the_work_between_two_calls_takes_makes_no_second_wait() -> None:
    peer = Mute(0.5, period_s=2.0)
    plant = ConnectedPlant(peer)
    commands = {g.name: np.zeros((g.n_assets, len(g.commanded))) for g in PUMPS.groups}
    with pytest.raises(PlantError):
        plant.advance()
    assert peer.asked == 1
    with pytest.raises(PlantError):
        plant.read()
    time.sleep(1.1)  # a decision that takes long, on a busy machine
    with pytest.raises(PlantError):
        plant.write(commands)
    assert peer.asked == 1
    with pytest.raises(PlantError):
        plant.read()
    assert peer.asked == 2  # the second reading asks again
    time.sleep(1.1)
    all_calls(plant)
    assert peer.asked == 2  # the third, with which the fallback comes, does not


def test_a_peer_that_refuses_at_once_is_asked_each_time() -> None:
    peer = Mute(0.0)
    all_calls(ConnectedPlant(peer))
    assert peer.asked >= 3


def _asks(plant: ConnectedPlant, peer: Mute) -> bool:
    before = peer.asked
    with pytest.raises(PlantError):
        plant.read()
    return peer.asked > before
