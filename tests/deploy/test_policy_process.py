"""A policy in a process of its own gives the same answers, and its death costs the loop nothing but turns."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from tests.deploy.audit.pumps import PUMPS, Pumps
from tests.deploy.presses import until

from twinloop.agents.action_layout import ActionLayout
from twinloop.agents.artifact import load_artifact, save_artifact
from twinloop.agents.conformance import check_policy
from twinloop.agents.forward import PolicyNetwork
from twinloop.agents.layers import Dense, GruWeights
from twinloop.agents.own_signals import OwnSignalsEncoder
from twinloop.deploy import policy_process
from twinloop.deploy.journal import Journal, read
from twinloop.deploy.policy_process import PolicyProcess, PolicyProcessError
from twinloop.deploy.policy_wire import LARGEST_BYTES, Receiver, pack, send
from twinloop.deploy.runtime import Period, Runtime, RuntimeSettings
from twinloop.deploy.shield import Shield
from twinloop.deploy.shield.orders import Orders
from twinloop.envs.constraint import declare
from twinloop.envs.errors import ArtifactError
from twinloop.envs.twin import Observation

TURN_S = 20.0
"""Patience for a turn where speed is not what is tested."""


def saved(folder: Path, seed: int = 0) -> Path:
    """A recurrent policy for the pumps, untrained; valves stay neutral."""
    group, n, rng = PUMPS.group("pump"), OwnSignalsEncoder(PUMPS, "pump").n_features, np.random.default_rng(seed)

    def draw(*shape: int) -> NDArray[np.float32]:
        return rng.normal(size=shape).astype(np.float32)

    gru = GruWeights(draw(1, n, 12), draw(1, 4, 12), draw(1, 12), draw(1, 12))
    layers = (gru, Dense(draw(1, gru.n_outputs, 1), draw(1, 1)))
    network = PolicyNetwork(np.zeros(n), np.full(n, 50.0), 5.0, layers, ActionLayout.of(group, None))
    return save_artifact(
        folder, nameplate=PUMPS, weights={"pump": network}, encoders={}, scope="site", provenance={}, report={}
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("artifact") / "a")


def of(folder: Path, timeout_s: float = TURN_S, hang_s: float | None = None) -> PolicyProcess:
    return PolicyProcess(folder, load_artifact(folder, PUMPS, graphs=False), timeout_s, hang_s)


@pytest.fixture
def process(folder: Path) -> Iterator[PolicyProcess]:
    with of(folder) as found:
        yield found


def observation(seed: int = 0, n_rows: int = 1) -> Observation:
    rng = np.random.default_rng(seed)
    return Observation(
        measured={"pump": rng.uniform(0, 100, (n_rows, 3, 2)), "valve": rng.uniform(0, 1, (n_rows, 1, 1))},
        statics={"pump": np.zeros((n_rows, 3, 0)), "valve": np.zeros((n_rows, 1, 0))},
        present={"pump": np.ones((n_rows, 3), bool), "valve": np.ones((n_rows, 1), bool)},
        dt_s=600.0,
    )


def test_it_answers_bit_for_bit_as_in_process_and_remembers_nothing_itself(
    folder: Path, process: PolicyProcess
) -> None:
    local = load_artifact(folder, PUMPS)
    assert (process.name, process.hash) == (local.name, local.hash)
    here, there = local.start(2), process.start(2)
    for seed in range(5):
        seen = observation(seed, 2)
        told, here = local.act(seen, here)
        answered, there = process.act(seen, there)
        for name in ("pump", "valve"):
            np.testing.assert_array_equal(answered[name], told[name])
            assert answered[name].dtype == np.float64
        assert sorted(here) == sorted(there)
        for key in here:
            np.testing.assert_array_equal(here[key], there[key])
            assert here[key].dtype == there[key].dtype
    again, _ = process.act(seen, local.start(2))  # what it was told before has left no trace
    np.testing.assert_array_equal(again["pump"], local.act(seen, local.start(2))[0]["pump"])


def test_it_answers_for_the_same_assets_as_the_policy_that_it_stands_for(folder: Path) -> None:
    own = frozenset({"pump/" + PUMPS.group("pump").assets[1]})
    local, seen = load_artifact(folder, PUMPS, own=own), observation(1)
    with PolicyProcess(folder, load_artifact(folder, PUMPS, graphs=False, own=own), TURN_S) as process:
        assert process.own == own
        told, _ = process.act(seen, process.start(1))
    np.testing.assert_array_equal(told["pump"], local.act(seen, local.start(1))[0]["pump"])
    whole, _ = load_artifact(folder, PUMPS).act(seen, local.start(1))
    np.testing.assert_array_equal(told["pump"][0, 1], whole["pump"][0, 1])
    np.testing.assert_array_equal(told["pump"][0, [0, 2]], np.tile(PUMPS.group("pump").neutral(), (2, 1)))
    assert (whole["pump"][0, [0, 2]] != told["pump"][0, [0, 2]]).any()


def test_it_keeps_the_contract_of_policies(process: PolicyProcess) -> None:
    check_policy(process, PUMPS)


def test_what_the_policy_raises_costs_its_turn_and_not_its_process(process: PolicyProcess) -> None:
    memory, pid = process.start(1), process.pid
    seen = observation()
    with pytest.raises(PolicyProcessError, match="KeyError"):
        process.act(Observation({}, {}, {}, 1.0), memory)
    process.act(seen, memory)
    assert process.pid == pid


def test_a_killed_process_fails_its_turns_until_somebody_starts_the_policy_again(process: PolicyProcess) -> None:
    memory, seen, pid = process.start(1), observation(), process.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(PolicyProcessError, match=f"its process {pid} was ended by SIGKILL"):
        process.act(seen, memory)
    assert until(lambda: process.pid not in (None, pid), 60.0)
    with pytest.raises(PolicyProcessError, match="another one runs and waits for a reset"):
        process.act(seen, memory)
    process.act(seen, process.start(1))


def test_a_process_that_died_between_turns_is_not_trusted_again_by_itself(process: PolicyProcess) -> None:
    memory, pid = process.start(1), process.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert until(lambda: process.pid not in (None, pid), 60.0)  # nobody asked meanwhile
    with pytest.raises(PolicyProcessError, match="was ended by SIGKILL; another one runs"):
        process.act(observation(), memory)


def test_a_process_that_stands_still_is_late_and_then_killed_and_replaced(folder: Path) -> None:
    with of(folder, 0.3, 1.0) as process:
        memory, seen, pid = process.start(1), observation(), process.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        for _ in range(2):
            with pytest.raises(PolicyProcessError, match=r"no answer within 0\.3 s"):
                process.act(seen, memory)
        assert until(lambda: process.pid not in (None, pid), 60.0)
        assert not psutil.pid_exists(pid)
        with pytest.raises(PolicyProcessError, match="another one runs"):
            process.act(seen, memory)


def test_a_late_answer_is_not_taken_for_the_next_one(folder: Path) -> None:
    with of(folder, 0.5, 60.0) as process:
        memory, pid = process.start(1), process.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(PolicyProcessError, match="no answer"):
            process.act(observation(1), memory)
        os.kill(pid, signal.SIGCONT)
        found: list[object] = []

        def answered() -> bool:
            try:
                found.append(process.act(observation(2), memory)[0]["pump"])
            except PolicyProcessError:
                return False  # the machine is busy
            return True

        assert until(answered, 60.0)
        np.testing.assert_array_equal(found[0], load_artifact(folder, PUMPS).act(observation(2), memory)[0]["pump"])


def test_an_artifact_that_changes_or_cannot_be_loaded_is_told_of_at_the_start(tmp_path: Path, folder: Path) -> None:
    mine = Path(shutil.copytree(folder, tmp_path / "mine"))
    local = load_artifact(mine, PUMPS, graphs=False)
    shutil.rmtree(mine)
    saved(mine, seed=1)
    with pytest.raises(ArtifactError, match="leave the folder alone"), PolicyProcess(mine, local, TURN_S):
        pass
    (mine / "policy_pump.onnx").unlink()
    with pytest.raises(ArtifactError, match=r"policy_pump\.onnx"), PolicyProcess(mine, local, TURN_S):
        pass


def test_its_process_ends_with_it_and_with_its_parent(folder: Path) -> None:
    with of(folder) as process:
        pid = process.pid
    assert pid is not None
    assert not psutil.pid_exists(pid)
    with pytest.raises(PolicyProcessError, match="was ended"):
        process.start(1)


def test_a_kill_in_mid_run_is_followed_by_the_fallback_in_the_same_period_and_a_reset_brings_it_back(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Period] = []

    class Desk:
        """Period 3 begins with a kill; from period 8 on, a reset as soon as another process runs."""

        period, pid, reset_at = 0, 0, 0

        def __call__(self) -> Orders:
            self.period += 1
            if self.period == 3:
                self.pid = child.pid or 0
                os.kill(self.pid, signal.SIGKILL)
            if self.period < 8 or self.reset_at:
                return Orders()
            assert until(lambda: child.pid not in (None, self.pid), 60.0)
            self.reset_at = self.period
            return Orders(reset=True)

    desk = Desk()
    patient = RuntimeSettings(retry_wait_s=0.0, hand_back_periods=0)
    with of(folder) as child, Journal(tmp_path / "j") as journal:
        shield = Shield(declare(PUMPS))
        runtime = Runtime(Pumps(steady=True), child, shield, journal, patient, orders=desk)
        runtime.run(12, seen.append)
    rows = [row for row in read(tmp_path / "j") if row["kind"] == "decision"]
    turns = [row["policy"]["outcome"] for row in rows]
    assert turns[:2] == ["answered", "answered"]
    assert turns[2:5] == ["raised"] * 3
    assert turns[5:7] == ["tripped"] * 2
    assert turns[7:] == ["answered"] * 5
    assert desk.reset_at == 8
    for period in seen[2:7]:
        assert {source.value for source in period.decision.source.values()} == {"fallback"}


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.sampled_from(["<f8", "<f4", "<i8", "|b1", "<i4"]).flatmap(
            lambda kind: arrays(np.dtype(kind), array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
        ),
        max_size=4,
    )
)
@settings(max_examples=60, deadline=None)
def test_frames_arrive_as_they_were_sent(named: dict[str, NDArray[Any]]) -> None:
    read_end, write_end = os.pipe()
    try:
        send(write_end, pack({"turn": 7}, {"memory": named}))
        heading, fields = Receiver(read_end).receive()
    finally:
        os.close(read_end)
        os.close(write_end)
    assert heading == {"turn": 7}
    found = fields.get("memory", {})
    assert sorted(found) == sorted(named)
    for name, array in named.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    "frame",
    [
        (10).to_bytes(8, "little") + (20).to_bytes(8, "little") + b"x" * 10,
        (LARGEST_BYTES + 1).to_bytes(8, "little") + (1).to_bytes(8, "little"),
        (2).to_bytes(8, "little") + (2).to_bytes(8, "little") + b"{}",
        (4).to_bytes(8, "little") + (4).to_bytes(8, "little") + b"null",
        pack({}, {"a": {"b": np.zeros(3)}}).replace(b"<f8", b"|O8"),
        pack({}, {"a": {"b": np.zeros(3)}}).replace(b"[3]", b"[4]"),
        pack({}, {"a": {"b": np.zeros(3)}}).replace(b"[3]", b"[2]"),
    ],
)
def test_nonsense_from_a_process_is_refused(frame: bytes) -> None:
    read_end, write_end = os.pipe()
    try:
        send(write_end, frame)
        with pytest.raises(ValueError, match=r"frame|array|buffer"):
            Receiver(read_end).receive()
    finally:
        os.close(read_end)
        os.close(write_end)


def test_only_numbers_travel() -> None:
    with pytest.raises(TypeError, match="expected numbers"):
        pack({}, {"a": {"b": np.array([object()])}})


def test_starts_that_fail_become_rarer() -> None:
    assert list(policy_process.BACK_OFF_S) == sorted(policy_process.BACK_OFF_S)
    assert policy_process.BACK_OFF_S[-1] >= 10.0
