"""An approved proposal in the real loop: orders, arbitration, shield, journal and replay."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from twinloop.deploy.arbitration import Slot
from twinloop.deploy.journal import Journal, read, verify
from twinloop.deploy.proposals.approval import approve
from twinloop.deploy.proposals.effect import Window
from twinloop.deploy.proposals.executor import Executor
from twinloop.deploy.proposals.folder import ProposalFolder, Recheck
from twinloop.deploy.proposals.proposal import Gain, Proposal, SignedProposal, StageCheck, TwinStand
from twinloop.deploy.replay import replay
from twinloop.deploy.runtime import Period, Runtime, RuntimeSettings
from twinloop.deploy.shield import Mode, Shield
from twinloop.deploy.station.desk import StationDesk
from twinloop.deploy.station.folder import StationFolder, read_whole
from twinloop.deploy.station.order import Order, new_id, place
from twinloop.deploy.station.people import People
from twinloop.envs.constraint import declare
from twinloop.training.benchmarks.arbitration_site import KETTLES, Eager, KettlePlant

PASSWORD = "a password of many"
WRITES = {"kettle/K1/heat_kw": 12.5, "kettle/K2/heat_kw": 7.25}


class Rolled:
    """A station with an approved proposal: K1 is heated, then K2; a stage lasts four seconds, six are measured."""

    def __init__(self, path: Path, low: float = 0.0, high: float = 100.0) -> None:
        self.declaration = declare(KETTLES)
        self.station = StationFolder(path / "station")
        self.station.make()
        people = People.read(self.station.people).add("root", "admin", PASSWORD)
        for name, role in (("anna", "operator"), ("bert", "approver")):
            people = people.add(name, role, PASSWORD, by="root", by_password=PASSWORD)  # type: ignore[arg-type]
        now_s = time.time()
        self.proposal = Proposal(
            id=new_id(), kind="writes", by="anna", reason="warm water", created_utc_s=now_s,
            valid_until_utc_s=now_s + 600.0, site=KETTLES.site, nameplate_hash=KETTLES.hash,
            limits_hash=self.declaration.hash, writes=WRITES, lasts_s=30.0, rollback=dict.fromkeys(WRITES, 0.0),
            twin=TwinStand(state_sha256="0" * 64, time_s=0.0, open=True, nis=1.0, coverage=0.95),
            measured={"kettle/K1/temperature_degc": 20.0}, tolerance={"kettle/K1/temperature_degc": 1.0},
            horizon_s=14.0, n_replicas=32,
            gain=Gain(signal="kettle/temperature_degc", unit="degC", today=60.0, mean=2.0, low=low, high=high,
                      surely_low=1.0, surely_high=3.0),
            margins={}, stage_s=4.0, measure_s=6.0,
            stages=tuple(StageCheck(agents=(a,), low=-100.0, high=100.0) for a in ("kettle/K1", "kettle/K2")),
        )  # fmt: skip
        folder = ProposalFolder(self.station, self.proposal.id)
        signed = SignedProposal.of(self.proposal, people.unlock("anna", PASSWORD))
        folder.file_proposal(signed)
        folder.file_approval(approve(signed, people, "bert", people.unlock("bert", PASSWORD), now_utc_s=now_s), now_s)
        folder.write_recheck(
            Recheck(proposal=self.proposal.hash, utc_s=now_s, time_s=0.0, verdict="", windows=(Window(today=60.0),) * 3)
        )
        self.folder = folder
        self.plant = KettlePlant()
        self.executor = Executor(self.station, self.declaration)
        self.executor.start()
        self.ids: list[str] = []
        self.periods: list[Period] = []

    def order(self, kind: str, **fields: Any) -> None:
        now_s = time.time()
        order = Order.model_validate(
            {"id": new_id(), "kind": kind, "by": "anna", "utc_s": now_s, "expires_utc_s": now_s + 10.0} | fields
        )
        self.ids.append(order.id)
        place(self.station, order)

    def run(self, n_periods: int, acts: dict[int, Any]) -> None:
        desk = StationDesk(self.station, KETTLES, Mode.APPROVED, 1.0, executor=self.executor)

        def on_period(period: Period) -> None:
            self.periods.append(period)
            if period.number in acts and not period.handing_back:
                acts[period.number]()

        Runtime(
            self.plant, Eager(), Shield(self.declaration), Journal(self.station.journal),
            RuntimeSettings(retry_wait_s=0.0, hand_back_periods=0), mode=Mode.APPROVED, desk=desk,
            wall_period_s=60.0,  # the budgets of a machine that is busy with other things
            requesters={Slot.OPERATOR: desk, Slot.APPROVED: self.executor},
        ).run(n_periods, on_period)  # fmt: skip

    def heat(self, kettle: int) -> list[float]:
        return [float(commands["kettle"][kettle, 0]) for _, commands in self.plant.log]

    def result(self, place: int) -> Any:
        return read_whole(self.station.done / f"{self.ids[place]}.json")


@pytest.fixture
def rolled(tmp_path: Path) -> Rolled:
    return Rolled(tmp_path)


def test_only_what_was_approved_is_written_stage_by_stage_through_the_shield(rolled: Rolled) -> None:
    rolled.run(24, {2: lambda: rolled.order("execute", proposal=rolled.proposal.id)})
    assert rolled.result(0)["accepted"], rolled.result(0)["why"]
    assert rolled.heat(0)[-8:] == [12.5] * 8
    assert rolled.heat(1)[-8:] == [7.25] * 8
    first, second = (next(i for i, v in enumerate(rolled.heat(k)) if v) for k in (0, 1))
    assert rolled.heat(0)[first : first + 4] == [5.0, 10.0, 12.5, 12.5]
    assert second - first == 4
    assert all(float(c["kettle"][2, 0]) == 0.0 for _, c in rolled.plant.log)  # nobody approved anything for K3
    found = rolled.folder.execution()
    assert found is not None
    assert found.status == "standing"
    # 0.1 degC a kW, and a ripple of a thousandth of a degree each: the last six seconds are measured
    assert found.effects[-1] == pytest.approx(0.1 * (12.5 + 7.25), abs=0.03)


def test_the_run_replays_bit_for_bit_and_its_journal_holds_the_nonce_before_the_first_write(rolled: Rolled) -> None:
    rolled.run(16, {2: lambda: rolled.order("execute", proposal=rolled.proposal.id)})
    assert verify(rolled.station.journal).is_sound
    assert replay(rolled.station.journal, lambda start: Shield(rolled.declaration)).differences == ()
    rows = list(read(rolled.station.journal))
    nonce = rolled.folder.approval()
    assert nonce is not None
    order = next(i for i, row in enumerate(rows) if row["kind"] == "order")
    assert nonce.nonce in json.dumps(rows[order])
    assert any(row["kind"] == "execution" for row in rows)
    assert not any("14" in re.findall(r"\d+", json.dumps(row.get("slots", {}))) for row in rows[:order])
    assert any("14" in re.findall(r"\d+", json.dumps(row.get("slots", {}))) for row in rows[order:])


def test_a_broken_promise_is_rolled_back_within_the_rates(tmp_path: Path) -> None:
    rolled = Rolled(tmp_path, low=50.0, high=60.0)
    rolled.run(30, {2: lambda: rolled.order("execute", proposal=rolled.proposal.id)})
    found = rolled.folder.execution()
    assert found is not None
    assert found.status == "rolled back"
    top = max(i for i, v in enumerate(rolled.heat(0)) if v == 12.5)
    assert rolled.heat(0)[top : top + 4] == [12.5, 7.5, 2.5, 0.0]
    assert rolled.heat(1)[-1] == 0.0


def test_an_emergency_stop_ends_the_roll_out_and_an_approval_is_not_good_again(rolled: Rolled) -> None:
    rolled.run(
        20,
        {
            2: lambda: rolled.order("execute", proposal=rolled.proposal.id),
            6: lambda: rolled.order("stop"),
            10: lambda: rolled.order("reset"),
            14: lambda: rolled.order("execute", proposal=rolled.proposal.id),
        },
    )
    assert rolled.result(0)["accepted"]
    assert not rolled.result(3)["accepted"]
    assert rolled.heat(0)[-1] == 0.0
    found = rolled.folder.execution()
    assert found is not None
    assert found.status == "rolled back"
