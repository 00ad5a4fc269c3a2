from __future__ import annotations

import argparse
import importlib
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from twinloop import __version__
from twinloop.__main__ import COMMANDS, PACKAGE_EXTRAS, Command, extra_of, main, overview

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "ray", "numpy", "floris", "scipy", "onnx", "onnxruntime", "asyncua", "gymnasium", "matplotlib")

IMPORTED_AS = {
    "box2d": "Box2D",
    "django_js_lib_htmx": "js_lib_htmx",
    "mlflow_skinny": "mlflow",
    "paho_mqtt": "paho",
    "pillow": "PIL",
    "scikit_learn": "sklearn",
}
"""Packages whose import has another name."""

Sample = Callable[[str], None]


def python(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sample:
    """Writes the module of a command ``sample`` whose ``run`` has the given body."""

    def write(body: str) -> None:
        (tmp_path / "sample_command.py").write_text(
            f"def configure(parser):\n    parser.add_argument('--seed', type=int)\ndef run(arguments):\n    {body}\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "sample_command", raising=False)
        importlib.invalidate_caches()
        monkeypatch.setitem(COMMANDS, "sample", Command("sample_command", "for tests", "train"))

    return write


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_no_command_and_help_show_every_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert shown == overview()
    for name, command in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(command.summary)}$", shown, re.MULTILINE)


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"twinloop {__version__}\n"


def test_python_m_twinloop_and_the_script_show_the_same_help() -> None:
    module = subprocess.run([sys.executable, "-m", "twinloop", "--help"], capture_output=True, text=True, check=True)
    script = subprocess.run([Path(sys.executable).parent / "twinloop"], capture_output=True, text=True, check=True)
    assert module.stdout == script.stdout == overview()


def test_a_mistyped_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert capsys.readouterr().err == (
        f"error: 'trian' is not a command of twinloop; commands: {', '.join(COMMANDS)} (did you mean 'train'?)\n"
    )


def test_help_imports_nothing_heavy_and_no_command() -> None:
    done = python(
        "import sys, twinloop\nfrom twinloop.__main__ import main\nmain(['--help'])\n"
        f"print([m for m in sys.modules if m.split('.')[0] in {HEAVY!r} or '.commands' in m], file=sys.stderr)"
    )
    assert done.stderr == "[]\n"


def test_a_command_imports_no_other_command() -> None:
    done = python(
        "import sys\nfrom twinloop.__main__ import main\nmain(['sites'])\n"
        "print(sorted(m for m in sys.modules if '.commands.' in m), file=sys.stderr)"
    )
    assert done.stderr == "['twinloop.envs.commands.sites']\n"


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([name, "--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: twinloop {name}")
    assert "example" in shown


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_argument_of_every_command_is_explained(name: str) -> None:
    parser = argparse.ArgumentParser()
    importlib.import_module(COMMANDS[name].module).configure(parser)
    assert parser.description
    assert [action.dest for action in parser._actions if not action.help] == []


@pytest.mark.parametrize("name", ["commission", "run"])
def test_the_operators_commands_explain_themselves_without_torch_and_ray(name: str) -> None:
    done = python(
        "import sys\nfor m in ('torch', 'ray', 'stable_baselines3', 'floris'): sys.modules[m] = None\n"
        f"from twinloop.__main__ import main\nmain([{name!r}, '--help'])"
    )
    assert done.stderr == ""
    assert done.returncode == 0


def test_a_commands_exit_status_is_the_programs(sample: Sample) -> None:
    sample("return arguments.seed")
    assert main(["sample", "--seed", "3"]) == 3


def test_arguments_are_not_guessed_from_their_beginnings(sample: Sample, capsys: pytest.CaptureFixture[str]) -> None:
    sample("return 0")
    with pytest.raises(SystemExit) as left:
        main(["sample", "--see", "3"])
    assert left.value.code == 2
    assert "unrecognized arguments: --see" in capsys.readouterr().err


def test_an_error_of_ours_is_one_message_and_no_traceback(sample: Sample, capsys: pytest.CaptureFixture[str]) -> None:
    sample("from twinloop.envs.errors import PlantError; raise PlantError('port 4840 is busy; choose another')")
    assert main(["sample"]) == 2
    assert capsys.readouterr().err == "error: port 4840 is busy; choose another\n"


@pytest.mark.parametrize(("package", "extra"), [("torch", "train"), ("asyncua", "opcua"), ("ray", "ray")])
def test_a_missing_package_names_the_extra_that_brings_it(
    package: str, extra: str, sample: Sample, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sample(f"import {package}.part")
    for name in [m for m in sys.modules if m.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # what the import system itself uses for "not there"
    assert main(["sample"]) == 2
    assert capsys.readouterr().err == (
        f"error: twinloop sample needs the package {package!r}, which is not installed; "
        f"install it with: pip install 'twinloop[{extra}]'\n"
    )


def test_a_missing_module_of_no_extra_is_a_bug_and_shows_its_traceback(sample: Sample) -> None:
    sample("import twinloop.no_such_module")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        main(["sample"])


def test_the_extra_of_the_command_is_preferred_where_it_brings_the_package() -> None:
    assert [extra_of("torch", preferred) for preferred in ("train", "edge", "all")] == ["train", "twin", "all"]
    assert extra_of("left_pad", "all") is None


def test_extras_are_those_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared: dict[str, set[str]] = {}
    for extra, requirements in project["optional-dependencies"].items():
        if extra in ("all", "dev"):
            continue
        for requirement in requirements:
            package = re.split(r"[<>=!\[ ]", requirement)[0].replace("-", "_")
            declared.setdefault(IMPORTED_AS.get(package, package), set()).add(extra)
    assert {package: set(extras) for package, extras in PACKAGE_EXTRAS.items()} == declared
    assert {command.extra for command in COMMANDS.values()} <= {*project["optional-dependencies"]}


def test_ctrl_c_ends_with_130_and_one_calm_line(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text(
        "import time\ndef configure(parser): pass\n"
        "def run(arguments):\n    print('ready', flush=True)\n    time.sleep(60)\n"
    )
    program = (
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nfrom twinloop.__main__ import COMMANDS, Command, main\n"
        "COMMANDS['sleep'] = Command('sleeper', '', 'all')\nsys.exit(main(['sleep']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said.strip() == "stopped by Ctrl-C"


@pytest.mark.parametrize(("words", "status"), [(["--help"], 141), (["sites", "wind_farm"], 1)])
def test_a_reader_that_leaves_early_sees_no_traceback(words: list[str], status: int) -> None:
    # 141 is ours, as a shell reports SIGPIPE; 1 is what Rich ends with.
    program = f"import sys; from twinloop.__main__ import main; sys.exit(main({words!r}))"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == status


def test_sites_lists_every_site(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sites"]) == 0
    assert re.search(
        r"^wind_farm +turbines that steer their wakes .* farm_power", capsys.readouterr().out, re.MULTILINE
    )


def test_sites_shows_signals_with_unit_range_and_rate(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sites", "wind_farm"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^commanded +yaw_offset_deg +deg +-40 to 40 +0\.3 deg/s", shown, re.MULTILINE)
    assert re.search(r"^measured +nacelle_deg +deg +0 to 360, wraps", shown, re.MULTILINE)
    assert "tasks: farm_power" in shown
    assert "encoders: relational" in shown


def test_an_unknown_site_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sites", "windfarm"]) == 2
    assert "(did you mean 'wind_farm'?)" in capsys.readouterr().err
