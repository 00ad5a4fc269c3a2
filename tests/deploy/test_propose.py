from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from twinloop.__main__ import main
from twinloop.deploy.commands import proposals as proposals_command
from twinloop.deploy.live_twin import LiveTwin, LiveTwinSettings
from twinloop.deploy.proposals.folder import ProposalFolder, proposal_ids
from twinloop.deploy.proposals.futures import Follow, Hold, RollOut, simulate
from twinloop.deploy.proposals.proposal import Proposal
from twinloop.deploy.proposals.propose import Change, RollOutSettings, Today, check_writes, propose, state_hash
from twinloop.deploy.proposals.recheck import recheck, rechecked
from twinloop.deploy.shield import Shield
from twinloop.deploy.station.folder import StationFolder, write_whole
from twinloop.deploy.station.people import People
from twinloop.envs.constraint import Declaration, RangeConstraint, declaration_of_site, declare
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.estimation.settings import SignalError
from twinloop.envs.plant import Arrays, Telemetry
from twinloop.envs.registry import load_site
from twinloop.envs.wind_farm.config import Dynamics, Inflow, NamedLayout, WindFarmConfig
from twinloop.envs.wind_farm.twin import WindFarmTwin

DT_S, MEMBERS = 20.0, 16
CONFIG = WindFarmConfig(
    layout=NamedLayout(name="row3_5d"),
    dt_s=DT_S,
    inflow=Inflow(wind_speed_mps=(8.0, 10.0), wind_direction_deg=(268.0, 272.0), speed_drift_std_mps=0.3),
    dynamics=Dynamics(kind="dynamic"),
)
SIGNALS = {
    "turbine/power_kw": SignalError(noise=20.0),
    "turbine/wind_speed_mps": SignalError(noise=0.1),
    "turbine/wind_direction_deg": SignalError(noise=1.0),
}
SETTINGS: dict[str, Any] = {"window": 3, "nis_band": (0.0, 1e9), "coverage_band": (0.0, 1.0)}
LIMIT = {"turbine/WT01/power_limit_pu": 0.2}
ROOT, ANNA, BERT = "the root's password", "anna's password", "bert's password"


@pytest.fixture(scope="module")
def declaration() -> Declaration:
    return declaration_of_site(load_site("wind_farm"), CONFIG)


@pytest.fixture(scope="module")
def neutral(declaration: Declaration) -> Arrays:
    return Shield(declaration).start().applied


@pytest.fixture(scope="module")
def live(neutral: Arrays) -> LiveTwin:
    torch.set_num_threads(1)
    twin = LiveTwin(WindFarmTwin(CONFIG, MEMBERS, dtype=torch.float64), LiveTwinSettings(signals=SIGNALS, **SETTINGS))
    truth = WindFarmTwin(CONFIG, 1, dtype=torch.float64)
    truth.reset(torch.tensor([3]))
    twin.start(0.0)
    for k in range(1, 16):
        read = truth.step({"turbine": torch.from_numpy(neutral["turbine"])[None]}).measured["turbine"][0].numpy()
        twin.advance(neutral, k * DT_S)
        twin.assimilate(Telemetry({"turbine": read}, {"turbine": np.full(read.shape, k * DT_S)},
                                  {"turbine": np.zeros(read.shape, np.int8)}, k * DT_S, k))  # fmt: skip
    return twin


def proposed(live: LiveTwin, declaration: Declaration, neutral: Arrays, writes: Mapping[str, float]) -> Proposal:
    return propose(
        live, declaration, Today(neutral), Change(writes), RollOutSettings(stage_s=60.0, measure_s=200.0),
        id="proposal-1", by="anna", reason="a test", now_utc_s=1000.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def limited(live: LiveTwin, declaration: Declaration, neutral: Arrays) -> Proposal:
    return proposed(live, declaration, neutral, LIMIT)


def test_the_live_twin_stands_where_it_stood(live: LiveTwin, declaration: Declaration, neutral: Arrays) -> None:
    before = state_hash(live)
    found = proposed(live, declaration, neutral, LIMIT)
    assert state_hash(live) == before == found.twin.state_sha256


def test_a_change_that_changes_nothing_gains_exactly_nothing(
    live: LiveTwin, declaration: Declaration, neutral: Arrays
) -> None:
    gain = proposed(live, declaration, neutral, {"turbine/WT01/power_limit_pu": 1.0}).gain
    assert (gain.surely_low, gain.surely_high) == (0.0, 0.0)
    assert gain.low < 0.0 < gain.high


def test_a_limited_turbine_costs_power_and_its_promise_holds_more_than_the_gain_alone(limited: Proposal) -> None:
    gain = limited.gain
    assert gain.surely_high < 0.0
    assert gain.low < gain.surely_low
    assert gain.high > gain.surely_high
    assert gain.today > 2000.0


def test_what_the_change_touches_is_no_reference(limited: Proposal) -> None:
    references = {r.signal: r.agents for r in limited.gain.references}
    assert "turbine/power_kw" not in references  # upstream it is limited, downstream the wake is another
    assert "turbine/WT01" in references["turbine/wind_speed_mps"]
    assert "turbine/WT02" not in references["turbine/wind_speed_mps"]


def test_a_proposal_says_how_to_go_back_and_what_each_limit_has_left(
    limited: Proposal, declaration: Declaration
) -> None:
    assert limited.rollback == {"turbine/WT01/power_limit_pu": 1.0}
    assert set(limited.margins) == {c.name for c in declaration.constraints}
    assert min(limited.margins.values()) >= -1e-9
    assert limited.hash == Proposal.model_validate_json(limited.model_dump_json()).hash


def test_the_hash_tells_numbers_apart_that_differ_in_the_last_bit(limited: Proposal) -> None:
    name, value = next(iter(limited.writes.items()))
    for other in (float(np.nextafter(value, 1.0)), -value):
        assert limited.model_copy(update={"writes": {name: other}}).hash != limited.hash
    zero = limited.model_copy(update={"writes": {name: 0.0}})
    assert zero.hash != limited.model_copy(update={"writes": {name: -0.0}}).hash


def test_both_futures_go_through_the_shield(live: LiveTwin, declaration: Declaration, neutral: Arrays) -> None:
    change = Hold({"turbine": np.tile([np.nan, 0.2], (3, 1))})
    stages = (("turbine/WT01",), ("turbine/WT02",))
    with live.replicas() as (twin, readings):
        rolled = RollOut(declaration.nameplate, Hold(neutral), change, stages, 2)
        found = simulate(twin, readings, rolled, Shield(declaration), neutral, 4)
    limits = found.commands["turbine"][:, 0, :, 1]
    rate = 0.05 * DT_S  # a share of rated power a second
    assert limits[:, 0] == pytest.approx([max(1.0 - rate, 0.2), 0.2, 0.2, 0.2])
    assert limits[:2, 1] == pytest.approx([1.0, 1.0])
    assert limits[2, 1] == pytest.approx(max(1.0 - rate, 0.2))
    assert (limits[:, 2] == 1.0).all()


def test_a_policy_that_says_what_stands_gains_nothing(
    live: LiveTwin, declaration: Declaration, neutral: Arrays
) -> None:
    from twinloop.agents.controllers.reference import NeutralPolicy

    policy = NeutralPolicy(declaration.nameplate)
    with live.replicas() as (twin, readings):
        a = simulate(twin, readings, Follow(policy), Shield(declaration), neutral, 3)
    with live.replicas() as (twin, readings):
        b = simulate(twin, readings, Hold(neutral), Shield(declaration), neutral, 3)
    assert np.array_equal(a.measured["turbine"], b.measured["turbine"])


def test_a_closed_gate_refuses_in_its_own_words(
    live: LiveTwin, declaration: Declaration, neutral: Arrays, limited: Proposal
) -> None:
    live.objection = "the live twin is 12 periods behind"
    try:
        with pytest.raises(ConfigurationError, match="12 periods behind"):
            proposed(live, declaration, neutral, LIMIT)
        assert "12 periods behind" in rechecked(limited, live, declaration, Today(neutral)).verdict
    finally:
        live.objection = ""


@pytest.mark.parametrize(
    ("writes", "said"),
    [
        ({"turbine/WT1/power_limit_pu": 0.5}, "did you mean"),
        ({"turbine/WT01/power_limit_pu": 1.5}, "allowed is 0.1 to 1"),
        ({"turbine/WT01/yaw_offset_deg": float("nan")}, "allowed is -40 to 40"),
    ],
)
def test_writes_that_the_site_does_not_have_or_allow_are_refused(
    declaration: Declaration, writes: dict[str, float], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        check_writes(declaration.nameplate, writes)


def test_a_recheck_at_the_same_state_agrees_to_the_bit(
    live: LiveTwin, declaration: Declaration, neutral: Arrays, limited: Proposal
) -> None:
    found = rechecked(limited, live, declaration, Today(neutral))
    assert found.verdict == ""
    assert (found.mean, found.low, found.high) == (limited.gain.mean, limited.gain.low, limited.gain.high)
    assert len(found.windows) == len(limited.stages) + 1


def test_a_recheck_says_what_does_not_hold_any_more(
    live: LiveTwin, declaration: Declaration, neutral: Arrays, limited: Proposal
) -> None:
    def verdict(proposal: Proposal, under: Declaration = declaration) -> str:
        return rechecked(proposal, live, under, Today(neutral)).verdict

    tighter = declare(declaration.nameplate, (RangeConstraint("turbine", "power_limit_pu", 0.5, 1.0, "pu"),))
    assert verdict(limited, tighter) == "it is for other limits than the twin's"
    assert "hold runs now" in verdict(limited.model_copy(update={"today": "artifact-1"}))
    better = limited.gain.model_copy(update={"low": 100.0, "high": 200.0})
    assert "outside of 100 to 200" in verdict(limited.model_copy(update={"gain": better}))


PLANT = f"""\
site:
  kind: wind_farm
  layout: {{kind: named, name: row3_5d}}
  dt_s: {DT_S}
  inflow: {{wind_speed_mps: [8, 10], wind_direction_deg: [268, 272], speed_drift_std_mps: 0.3}}
  dynamics: {{kind: dynamic}}
live_twin:
  members: {MEMBERS}
  window: 3
  nis_band: [0.0, 1.0e9]
  coverage_band: [0.0, 1.0]
"""


@pytest.fixture
def station(tmp_path: Path, declaration: Declaration, neutral: Arrays) -> StationFolder:
    """A station whose live twin and control have told how things stand."""
    from twinloop.deploy.twin_plan import describe

    (tmp_path / "plant.yaml").write_text(PLANT)
    (tmp_path / "writes.yaml").write_text("turbine/WT01/power_limit_pu: 0.5\n")
    station = StationFolder(tmp_path / "station")
    station.make()
    live = describe(tmp_path / "plant.yaml").make()
    live.start(0.0)
    power = np.full((3, 8), np.nan)
    for k in range(1, 5):
        live.advance(neutral, k * DT_S)
        read = live.prediction.values["turbine"]
        live.assimilate(Telemetry({"turbine": read}, {"turbine": np.full(power.shape, k * DT_S)},
                                  {"turbine": np.zeros(power.shape, np.int8)}, k * DT_S, k))  # fmt: skip
    live.save(station.twin / "state.npz")
    write_whole(station.twin / "verdict.json", {"utc_s": time.time(), "stale_after_s": 1e6, "objection": ""})
    write_whole(station.control, {"policy": {"name": "greedy", "path": None}})
    commands = {
        s.name: neutral["turbine"][:, k] for k, s in enumerate(declaration.nameplate.group("turbine").commanded)
    }
    agents = dict.fromkeys(declaration.nameplate.agents, "approved")
    write_whole(station.state, {"groups": {"turbine": {"accepted": commands}}, "modes": agents})
    people = People.read(station.people).add("root", "admin", ROOT)
    people = people.add("anna", "operator", ANNA, by="root", by_password=ROOT)
    people.add("bert", "approver", BERT, by="root", by_password=ROOT)
    return station


def said(words: list[str], *passwords: str) -> int:
    read, write = os.pipe()
    os.write(write, "".join(f"{p}\n" for p in passwords).encode())
    os.close(write)
    try:
        return main([*words, "--password-fd", str(read)])
    finally:
        os.close(read)


def test_from_a_proposal_to_its_approval_on_the_command_line(
    station: StationFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    at = ["--station", str(station.path)]
    change = ["propose", "--writes", str(tmp_path / "writes.yaml"), "--plant", str(tmp_path / "plant.yaml"), *at]
    change += ["--reason", "a test", "--stage-s", "20", "--measure-s", "40"]
    assert said([*change, "--by", "anna"], BERT) == 2
    assert said([*change, "--by", "root"], ROOT) == 2
    assert "root is admin, which may not propose" in capsys.readouterr().err
    assert said([*change, "--by", "anna"], ANNA) == 0
    told = capsys.readouterr().out
    assert "write      turbine/WT01/power_limit_pu = 0.5 (back to 1)" in told
    assert "margin" in told

    (id,) = proposal_ids(station)
    assert said(["approve", id, "--by", "anna", *at], ANNA) == 2
    assert "anna is operator and may not approve" in capsys.readouterr().err
    assert said(["approve", id, "--by", "bert", *at], BERT) == 0
    assert said(["approve", id, "--by", "bert", *at], BERT) == 0
    assert "that approval stands" in capsys.readouterr().out
    assert main(["proposals", "list", *at]) == 0
    assert capsys.readouterr().out == f"{id}  approved by bert, waits to be executed\n"
    assert main(["proposals", "show", id, *at]) == 0

    from twinloop.deploy.twin_plan import load_live_twin

    live, site, config = load_live_twin(station, tmp_path / "plant.yaml")
    recheck(station, live, site, config)
    found = ProposalFolder(station, id).recheck()
    assert found is not None
    assert found.verdict == ""
    recheck(station, live, site, config)  # not due again for seconds
    assert ProposalFolder(station, id).recheck() == found

    monkeypatch.setattr(proposals_command, "LASTS_S", 0.2)
    assert main(["proposals", "execute", id, *at]) == 1
    assert "no answer" in capsys.readouterr().out
    assert not list(station.inbox.iterdir())


def test_without_a_running_control_nothing_is_proposed(
    station: StationFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    station.control.unlink()
    words = ["propose", "--writes", str(tmp_path / "writes.yaml"), "--plant", str(tmp_path / "plant.yaml")]
    words += ["--station", str(station.path), "--by", "anna", "--reason", "a test"]
    assert said(words, ANNA) == 2
    assert "start `twinloop run" in capsys.readouterr().err
    assert proposal_ids(station) == ()
