"""What goes wrong first on a user's machine: one message that says where, what and what to do, and nothing lost.

Other wrong inputs are tested beside their commands (``test_train_command``, ``test_run_command``, ``test_commission``).
"""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from twinloop.__main__ import main
from twinloop.envs.wind_farm.config import RelationalSettings, WindFarmConfig
from twinloop.envs.wind_farm.farm import farm_nameplate
from twinloop.envs.wind_farm.relational import RelationalEncoder

TRAIN = """\
kind: train
name: row
site: {kind: wind_farm, name: row, layout: {kind: named, name: row3_5d}, dt_s: 60}
task: {name: farm_power}
encoder: {name: relational}
rollout: {replicas: 4, shard_replicas: 2, steps: 2}
learner: {kind: ppo, minibatches: 2}
iterations: 1
"""
PLANT = """\
site: {kind: wind_farm, name: row, layout: {kind: named, name: row3_5d}, dt_s: 60}
plant: {kind: floris, series: day}
"""

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a training's and a plant's file."""
    (tmp_path / "row.yaml").write_text(TRAIN)
    (tmp_path / "plant.yaml").write_text(PLANT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def coordinates(x_m: str, y_m: str) -> str:
    return f"site.layout={{kind: coordinates, x_m: [{x_m}], y_m: [{y_m}]}}"


def complaint(words: list[str], capsys: Capture) -> str:
    """What the command says on the error stream, having ended with 2."""
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    return err


WRONG_SITES = [
    ("site.kind=windfarm", ["site 'windfarm'", "did you mean 'wind_farm'"]),
    ("site.dt_min=1", ["dt_min: unknown key", "did you mean 'dt_s'? its unit is 's'"]),
    ("site.layout.name=ablain", ["layout 'ablain'", "did you mean 'ablaincourt'"]),
    ("site.turbine=nrel_5mw", ["turbine: 'nrel_5mw'", "did you mean 'nrel_5MW'"]),
    ("site.inflow.wind_direction_rad=[4.7, 4.7]", ["did you mean 'wind_direction_deg'? its unit is 'deg'"]),
    ("site.inflow.wind_speed_mps=[10, 5]", ["wind_speed_mps: [10, 5]", "[smallest, largest]"]),
    ("site.inflow.wind_direction_deg=[350, 10]", ["through north as [350, 370]"]),
    ("site.inflow.wind_speed_mps=[-10, 5]", ["-10", "greater than 0"]),
    ("site.inflow.turbulence_pu=[6, 6]", ["turbulence_pu.0: 6", "less than or equal to 1"]),
    (coordinates("0, .nan", "0, 0"), ["x_m.1: nan; must be a finite number"]),
    (coordinates("0, 100", "0, 0"), ["layout: WT01 and WT02 are 100.0 m apart", "rotor diameter"]),
    (coordinates("0, 1000, 2000", "0, 0"), ["3 x_m and 2 y_m; give one of each a turbine"]),
]


@pytest.mark.parametrize("command", ["train", "commission"])
@pytest.mark.parametrize(("override", "said"), WRONG_SITES)
def test_a_wrong_site_is_named_by_place_value_and_remedy(
    command: str, override: str, said: list[str], place: Path, capsys: Capture
) -> None:
    file = {"train": "row.yaml", "commission": "plant.yaml"}[command]
    err = complaint([command, file, "--set", override], capsys)
    assert err.startswith((f"error: {file}: ", f"error: --set {override}: "))
    for words in said:
        assert words in err
    assert not (place / "runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "task.name=farm_powr"], ["row.yaml: site 'wind_farm' has no task", "did you mean 'farm_power'"]),
        (["--set", "task.options.horizn=3"], ["task.options: horizn: unknown key", "did you mean 'horizon'"]),
        (["--set", "encoder.name=relationl"], ["has no encoder 'relationl'", "did you mean 'relational'"]),
        (["--set", "encoder.settings.filter_h=3"], ["encoder.settings: filter_h", "its unit is 's'"]),
        (["--set", "encoder.settings.n_upstream=-1"], ["n_upstream: -1; must be greater than or equal to 0"]),
        (["--set", "site.other_turbines=[nrel]"], ["turbine: 'nrel' is not in FLORIS' library"]),
        (["--set", "device=gpu"], ["device: 'gpu'; must be cpu, cuda"]),
        (["--workers", "3"], ["workers 3 exceeds the 2 shards", "at most 2 workers"]),
        (["--out", "plant.yaml"], ["plant.yaml/row-", "cannot be made (Not a directory)"]),
    ],
)
def test_a_wrong_training_is_refused_before_a_run_folder_is_made(
    words: list[str], said: list[str], place: Path, capsys: Capture
) -> None:
    err = complaint(["train", "row.yaml", *words], capsys)
    for text in said:
        assert text in err
    assert not (place / "runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "plant.yaml"], "plant.yaml: cannot be made"),
        (["--set", "train.task.name=x"], "demo: train: site 'wind_farm' has no task 'x'"),
        (["--set", "plant.plant.sed=1"], "did you mean 'seed'"),
        (["--minutes", "nan"], "--minutes nan: give a number"),
        (["--resume"], "holds no demo to go on with"),
    ],
)
def test_a_wrong_demo_leaves_no_folder_that_would_stand_in_the_way(
    words: list[str], said: str, place: Path, capsys: Capture
) -> None:
    given = words if "--out" in words else [*words, "--out", "new"]
    assert said in complaint(["demo", *given], capsys)
    assert not (place / "new").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evaluate", "none", "--plant", "plant.yaml", "--seeds", "a"], "--seeds: 'a'; give whole numbers"),
        (["evaluate", "none", "--plant", "plant.yaml", "--processes", "0"], "--processes: 0; give a positive number"),
        (["evaluate", "none", "--plant", "plant.yaml"], "none: no MANIFEST.sha256, so no policy artifact"),
        (["bench", "steady_gian"], "did you mean 'steady_gain'"),
        (["bench", "steady_gain", "greedy", "--random", "-3"], "--random: -3; give a number of farms from 0 on"),
        (["bench", "steady_gain", "greedy", "--out", "row.yaml"], "row.yaml: cannot be made (File exists)"),
    ],
)
def test_wrong_words_to_measurements_cost_no_minutes(words: list[str], said: str, place: Path, capsys: Capture) -> None:
    assert said in complaint(words, capsys)
    assert not (place / "runs").exists()


def test_a_busy_port_is_named_with_the_way_out(capsys: Capture) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        err = complaint(["commission", "plant.yaml", "--endpoint", f"opc.tcp://127.0.0.1:{port}/x"], capsys)
    assert f"port {port} of 127.0.0.1" in err
    assert "another program listens there; stop it, or give another port with --endpoint" in err


@pytest.mark.parametrize(
    ("package", "words", "extra"),
    [
        ("floris", ["train", "row.yaml"], "wind"),
        ("onnx", ["train", "row.yaml"], "train"),
        ("ray", ["train", "row.yaml", "--workers", "2"], "ray"),
        ("floris", ["run", "--policy", "greedy", "--plant", "plant.yaml"], "wind"),
        ("asyncua", ["commission", "plant.yaml"], "opcua"),
    ],
)
def test_an_absent_package_is_named_with_its_extra_before_any_work(
    package: str, words: list[str], extra: str, place: Path
) -> None:
    program = (
        f"import sys; sys.modules[{package!r}] = None\n"  # what the import system itself uses for "not there"
        "from twinloop.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert f"needs the package {package!r}, which is not installed" in done.stderr
    assert f"pip install 'twinloop[{extra}]'" in done.stderr
    assert not [*(place / "runs").glob("*"), *(place / "journals").glob("*")]


def test_settings_of_the_encoder_are_those_that_it_takes() -> None:
    assert RelationalEncoder(farm_nameplate(WindFarmConfig())).settings() == RelationalSettings().model_dump()
