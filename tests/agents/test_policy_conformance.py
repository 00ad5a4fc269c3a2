"""check_policy passes policies that keep the contract and names what breaks it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from tests.linear_site import Thermostat, tank_nameplate

from twinloop.agents.conformance import check_policy
from twinloop.agents.controllers.reference import NeutralPolicy, RandomPolicy
from twinloop.agents.controllers.wind_farm import Greedy
from twinloop.agents.policy import Commands, Memory
from twinloop.envs.errors import ContractError
from twinloop.envs.nameplate import Nameplate
from twinloop.envs.registry import load_site
from twinloop.envs.twin import Observation

PLATE = tank_nameplate(3)


def test_a_policy_that_keeps_the_contract_passes() -> None:
    check_policy(Thermostat(PLATE), PLATE)


@pytest.mark.parametrize("policy", [NeutralPolicy, RandomPolicy, Greedy])
def test_the_wind_farms_simple_policies_keep_the_contract(policy: type[NeutralPolicy]) -> None:
    site = load_site("wind_farm")
    plate = site.nameplate(site.config_model())
    check_policy(policy(plate), plate)


class StateInside(Thermostat):
    calls = 0

    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        self.calls += 1
        commands, after = super().act(observation, memory)
        return {"tank": np.clip(commands["tank"] + 0.01 * self.calls, 0.0, 20.0)}, after


class LastRowCount(Thermostat):
    """Remembers only the size of the last batch; asked twice alike, it answers alike."""

    seen: int | None = None

    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        commands, after = super().act(observation, memory)
        n = len(observation.measured["tank"])
        bias, self.seen = (0.0 if self.seen in (None, n) else 0.5), n
        return {"tank": np.clip(commands["tank"] + bias, 0.0, 20.0)}, after


class Dice(Thermostat):
    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        commands, after = super().act(observation, memory)
        return {"tank": np.random.default_rng().uniform(0.0, 20.0, commands["tank"].shape)}, after


class BatchMean(Thermostat):
    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        commands, after = super().act(observation, memory)
        mean = commands["tank"].mean(axis=0)
        return {"tank": np.clip(0.99 * commands["tank"] + 0.01 * mean, 0.0, 20.0)}, after


class Overdrives(Thermostat):
    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        commands, after = super().act(observation, memory)
        return {"tank": commands["tank"] + 1.0}, after


class NanWhenHot(Thermostat):
    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        commands, after = super().act(observation, memory)
        hot = observation.measured["tank"][..., :1] >= 100.0
        return {"tank": np.where(hot, np.nan, commands["tank"])}, after


class ForgetsAGroup(Thermostat):
    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        return {}, super().act(observation, memory)[1]


class OneCommandForAll(Thermostat):
    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        commands, after = super().act(observation, memory)
        return {"tank": commands["tank"][:, :1]}, after


class MemoryInPlace(Thermostat):
    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        commands, after = super().act(observation, memory)
        memory["integral"][:] = after["integral"]
        return commands, memory


class ObservationInPlace(Thermostat):
    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        observation.measured["tank"][..., 1] = 0.0
        return super().act(observation, memory)


class MemoryByBatch(Thermostat):
    """One integral for all rows."""

    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        commands, after = super().act(observation, memory)
        return commands, {"integral": np.broadcast_to(after["integral"].mean(axis=0), after["integral"].shape).copy()}


class MemoryWithoutRows(Thermostat):
    def start(self, n_rows: int) -> Memory:
        return {"integral": np.zeros(3)}


class OtherSite(Thermostat):
    def __init__(self, nameplate: Nameplate) -> None:
        super().__init__(tank_nameplate(3, pump=True))


BROKEN: Mapping[type[Thermostat], tuple[str, str]] = {
    OtherSite: ("declaration", r"made for another site: pump: unexpected group"),
    MemoryWithoutRows: ("memory", r"start\(1\)\['integral'\] has shape \(3,\)"),
    ForgetsAGroup: ("shapes", r"commands of call 0 have groups \[\], the nameplate has \['tank'\]"),
    OneCommandForAll: ("shapes", r"commands\['tank'\] of call 0 is \(5, 1, 1\), expected \(5, 3, 1\)"),
    Overdrives: (
        "range",
        r"tank/T1/heater_kw of replica 0 of call 0: 21.0 kW is outside the nameplate's \[0.0, 20.0\]",
    ),
    NanWhenHot: ("range", r"tank/T1/heater_kw of replica 1 of call 0: nan"),
    MemoryInPlace: ("ownership", r"act changed memory 'integral'"),
    ObservationInPlace: ("ownership", r"act changed measured\['tank'\]"),
    Dice: ("determinism", r"tank/T1/heater_kw of row 0: asked again"),
    StateInside: ("determinism", r"tank/T\d/heater_kw of row \d: asked again"),
    LastRowCount: ("no state", r"with others in between"),
    BatchMean: ("rows", r"tank/T1/heater_kw of row \d: row 0 alone"),
    MemoryByBatch: ("rows", r"tank/T\d/heater_kw of row \d: "),
}


@pytest.mark.parametrize("policy", BROKEN, ids=lambda p: p.__name__)
def test_a_broken_policy_is_caught(policy: type[Thermostat]) -> None:
    check, words = BROKEN[policy]
    with pytest.raises(ContractError, match=f"(?s)check '{check}': .*{words}"):
        check_policy(policy(PLATE), PLATE)


def test_the_users_own_observations_are_used() -> None:
    shown: list[int] = []

    def observations(n_rows: int, seed: int) -> Observation:
        shown.append(seed)
        measured = np.full((n_rows, 3, 2), 40.0) + np.arange(n_rows)[:, None, None]
        return Observation(
            {"tank": measured}, {"tank": np.ones((n_rows, 3, 1))}, {"tank": np.ones((n_rows, 3), bool)}, 10.0
        )

    check_policy(Thermostat(PLATE), PLATE, observations=observations)
    assert shown
