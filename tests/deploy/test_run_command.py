"""``twinloop run`` as a user meets it: on an emulated plant, with wrong input, and with Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from twinloop.__main__ import main
from twinloop.agents.action_layout import ActionLayout
from twinloop.agents.artifact import load_artifact, save_artifact
from twinloop.agents.forward import PolicyNetwork
from twinloop.agents.layers import Dense
from twinloop.agents.own_signals import OwnSignalsEncoder
from twinloop.deploy.journal import Journal, read, verify
from twinloop.deploy.plants import open_plant
from twinloop.deploy.runtime import Runtime, RuntimeSettings
from twinloop.deploy.shield import Shield
from twinloop.deploy.summary import Ending
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.nameplate import Nameplate
from twinloop.envs.plant import Plant
from twinloop.envs.wind_farm.nameplate import GROUP, make_nameplate

PLANT = """\
site: {kind: wind_farm, name: pair, layout: {kind: coordinates, x_m: [0.0, 630.0], y_m: [0.0, 0.0]}}
plant: {kind: floris, series: day}
"""


@pytest.fixture
def plant_file(tmp_path: Path) -> Path:
    path = tmp_path / "pair.yaml"
    path.write_text(PLANT)
    return path


def artifact(folder: Path, plate: Nameplate) -> Path:
    """A policy that steers by its own sensors, untrained."""
    group, n, rng = plate.group(GROUP), OwnSignalsEncoder(plate, GROUP).n_features, np.random.default_rng(0)
    layers = (
        Dense(rng.normal(size=(1, n, 8)).astype(np.float32), np.zeros((1, 8), np.float32), "tanh"),
        Dense(rng.normal(size=(1, 8, 1)).astype(np.float32), np.zeros((1, 1), np.float32)),
    )
    mlp = PolicyNetwork(
        feature_mean=np.zeros(n),
        feature_std=np.ones(n),
        feature_clip=5.0,
        layers=layers,
        layout=ActionLayout.of(group, [group.commanded[0].name]),
    )
    return save_artifact(
        folder, nameplate=plate, weights={GROUP: mlp}, encoders={}, scope="site", provenance={}, report={}
    )


def test_an_artifact_runs_on_an_emulated_plant_and_leaves_a_sound_journal(
    plant_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant = open_plant(plant_file=plant_file)
    folder = artifact(tmp_path / "artifact", plant.nameplate)
    plant.close()
    path = tmp_path / "run.sqlite"
    status = main(["run", str(folder), "--plant", str(plant_file), "--periods", "6", "--journal", str(path)])
    printed = capsys.readouterr().out
    assert status == 0
    assert "6/6" in printed
    for words in ("completed", "energy", "kWh", "interventions", "latency", "yes, all assets at neutral"):
        assert words in printed
    report = verify(path)
    assert report.is_sound
    assert report.ended
    assert report.head in printed.replace("\n", "").replace(" ", "")
    assert read(path)[0]["policy_hash"] is not None


def test_the_greedy_policy_needs_no_artifact_and_changes_nothing(
    plant_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.sqlite"
    words = ["run", "--policy", "greedy", "--plant", str(plant_file), "--periods", "3", "--journal", str(path)]
    assert main([*words, "--set", "plant.seed=3"]) == 0
    assert "interventions   none" in capsys.readouterr().out
    assert [row["kind"] for row in read(path)] == ["start", "decision", "decision", "decision", "end"]


def test_an_artifact_of_another_plant_is_refused_with_what_differs(
    plant_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_nameplate("elsewhere", 5.0, 2, ((0.0, 0.0, 126.0, 90.0, 5000.0), (700.0, 0.0, 126.0, 90.0, 5000.0)))
    folder = artifact(tmp_path / "artifact", other)
    status = main(["run", str(folder), "--plant", str(plant_file), "--journal", str(tmp_path / "j")])
    told = capsys.readouterr().err
    assert status == 2
    assert "period_s: 5.0 here, 10.0 there" in told
    assert "statics differ for WT01, WT02" in told
    assert not (tmp_path / "j").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--plant", "PLANT"], "either an ARTIFACT folder or --policy"),
        (["artifact", "--policy", "greedy", "--plant", "PLANT"], "either an ARTIFACT folder or --policy"),
        (["--policy", "greedy"], "either --endpoint"),
        (["--policy", "greedy", "--plant", "PLANT", "--endpoint", "opc.tcp://127.0.0.1:1"], "127.0.0.1:1: no answer"),
        (["--policy", "greedi", "--plant", "PLANT"], "did you mean 'greedy'?"),
        (["--policy", "greedy", "--plant", "PLANT", "--periods", "0"], "give a positive number"),
        (["--policy", "greedy", "--plant", "nowhere.yaml"], "nowhere.yaml"),
        (["--policy", "greedy", "--plant", "PLANT", "--set", "plant.sede=3"], "sede"),
        (["--policy", "greedy", "--endpoint", "http://127.0.0.1"], "cannot be opened"),
        (
            ["--policy", "greedy", "--endpoint", "opc.tcp://127.0.0.1:1", "--set", "a=1"],
            "a plant at --endpoint has none",
        ),
        (["--policy", "greedy", "--endpoint", "opc.tcp://127.0.0.1:1/none"], "127.0.0.1:1"),
        (["nowhere", "--plant", "PLANT"], "no policy artifact"),
        (["--policy", "greedy", "--plant", "PLANT", "--orders", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["--policy", "greedy", "--plant", "PLANT", "--watchdog-periods", "-1"], "--watchdog-periods: -1"),
    ],
)
def test_wrong_input_is_one_clear_line_and_nothing_is_sent(
    words: list[str], told: str, plant_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["run", *[str(plant_file) if w == "PLANT" else w for w in words]])
    err = capsys.readouterr().err
    assert status == 2
    assert err.startswith("error: ")
    assert told in err


def test_help_explains_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    text = capsys.readouterr().out
    for words in (
        "ARTIFACT",
        "--endpoint",
        "--plant",
        "--periods",
        "--journal",
        "--policy",
        "--set",
        "--mode",
        "--orders",
        "--watchdog-periods",
        "SIGUSR1",
        "examples:",
        "Ctrl-C",
    ):
        assert words in text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_hands_back_and_ends_its_journal(plant_file: Path, tmp_path: Path, number: int) -> None:
    path = tmp_path / "run.sqlite"
    command = [sys.executable, "-m", "twinloop", "run", "--policy", "random", "--plant", str(plant_file)]
    process = subprocess.Popen(
        [*command, "--journal", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "120"},
    )
    begun_s = time.monotonic()
    while time.monotonic() - begun_s < 60.0 and not (path.exists() and _n_rows(path) > 5):
        time.sleep(0.2)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=60.0)
    assert process.returncode == 130, printed
    assert "interrupted" in printed
    report = verify(path)
    assert report.is_sound
    assert report.ended
    last = read(path)[-1]
    assert last["handed_back"] is True
    np.testing.assert_allclose(last["previous"]["accepted"][GROUP], np.tile([0.0, 1.0], (2, 1)), atol=1e-8)


def test_a_server_that_is_killed_in_mid_run_ends_it_with_nothing_lost(plant_file: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "twinloop", "commission", str(plant_file), "--speed", "100"]
    server = subprocess.Popen([*command, "--endpoint", "opc.tcp://127.0.0.1:0/pair"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        endpoint = next(line.split()[1] for line in server.stdout if line.startswith("endpoint"))
        plant = open_plant(endpoint=endpoint)
        policy = load_artifact(artifact(tmp_path / "artifact", plant.nameplate), plant.nameplate)
        settings = RuntimeSettings(max_plant_failures=4, retry_wait_s=0.1)
        runtime = Runtime(plant, policy, Shield(plant.nameplate), Journal(tmp_path / "j"), settings)
        summary = runtime.run(1000, lambda period: server.kill() if period.number == 5 else None)
        plant.close()
    finally:
        server.kill()
        server.communicate()
    assert summary.ending is Ending.PLANT_LOST
    assert 8 <= summary.periods <= 10
    assert summary.fallback_periods >= 1
    report = verify(tmp_path / "j", summary.journal_head)
    assert report.is_sound
    assert report.ended


def _n_rows(path: Path) -> int:
    return verify(path).rows


def test_a_plant_opens_from_its_file_with_overrides(plant_file: Path) -> None:
    plant = open_plant(plant_file=plant_file, overrides=["site.name=renamed"])
    try:
        assert isinstance(plant, Plant)
        assert plant.nameplate.site == "renamed"
    finally:
        plant.close()


def test_a_plant_is_opened_from_one_place() -> None:
    with pytest.raises(ConfigurationError, match="one of them"):
        open_plant()


def _served(plant_file: Path, speed: str) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "twinloop", "commission", str(plant_file), "--speed", speed]
    server = subprocess.Popen([*command, "--endpoint", "opc.tcp://127.0.0.1:0/pair"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    return server, next(line.split()[1] for line in server.stdout if line.startswith("endpoint"))


def test_a_served_plant_is_watched_in_a_second_process_and_a_stop_by_signal_trips_it(
    plant_file: Path, tmp_path: Path
) -> None:
    server, endpoint = _served(plant_file, "20")
    path = tmp_path / "run.sqlite"
    command = [sys.executable, "-m", "twinloop", "run", "--policy", "random", "--endpoint", endpoint, "--journal"]
    process = subprocess.Popen(
        [*command, str(path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL
    )
    try:
        assert _until(lambda: path.exists() and _n_rows(path) > 4)
        watchdogs = [
            child.pid for child in psutil.Process(process.pid).children() if "watchdog" in " ".join(child.cmdline())
        ]
        assert len(watchdogs) == 1
        process.send_signal(signal.SIGUSR1)
        assert _until(lambda: any(r.get("modes") == "tripped" for r in read(path)))
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=60.0)
        assert process.returncode == 130, printed
        assert f"kill -USR1 {process.pid}" in printed
        assert not any(psutil.pid_exists(pid) for pid in watchdogs)
    finally:
        for child in (process, server):
            child.kill()
            child.communicate()
    orders = [row["orders"] for row in read(path) if row["kind"] == "decision"]
    assert "stop" not in orders[0]
    assert orders[-1]["stop"] is True
    assert verify(path).is_sound
    assert main(["replay", str(path)]) == 0


def _until(fact: Callable[[], bool], timeout_s: float = 60.0) -> bool:
    give_up_s = time.monotonic() + timeout_s
    while time.monotonic() < give_up_s:
        if fact():
            return True
        time.sleep(0.1)
    return False


def test_in_shadow_mode_an_emulated_plant_is_left_alone(
    plant_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.sqlite"
    words = ["run", "--policy", "random", "--plant", str(plant_file), "--periods", "3", "--journal", str(path)]
    assert main([*words, "--mode", "shadow"]) == 0
    assert "2 of 2 shadow" in capsys.readouterr().out
    assert [row["previous"] for row in read(path)[2:]] == [{"written": False}] * 3
    assert main(["replay", str(path), "--plant", str(plant_file)]) == 0
