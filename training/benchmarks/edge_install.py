"""What an edge machine has to take in: megabytes, seconds of import, and time to the first decision."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

from ...envs.errors import RunError
from ..report import Cell, Table, print_table, provenance, say

NAME = "edge_install"
SUMMARY = "size, import time and start of an installed twinloop[edge], which must need no torch, Ray or SB3"

EXTRAS = ("edge", "edge,opcua", "edge,modbus")
FORBIDDEN = ("torch", "ray", "stable_baselines3", "sb3_contrib", "gymnasium", "pettingzoo", "floris", "scipy", "pandas",
             "matplotlib", "pyarrow", "duckdb", "onnx", "tensorboard")  # fmt: skip
MB_BAR, IMPORT_BAR_S = 150.0, 1.0
ROUNDS = 7
MODULES = ("twinloop", "twinloop.deploy.runtime", "twinloop.deploy.commands.run", "twinloop.deploy.commands.package")

DESCRIPTION = """\
Build the wheel, install it with pip into a fresh environment for each of the extras edge, edge,opcua and edge,modbus
(with the versions of constraints.txt), and measure there: megabytes by package, without pip and byte code; seconds to
import what the edge runs, median of seven fresh processes; seconds from the start of the process to the first decision
of the real loop on a plant in its own process; and whether anything that belongs elsewhere is installed or imported.
With --artifact a policy artifact is loaded and runs the loop. Runs in the source's tree, which it leaves as it is. Exit
status 0 when edge is below 150 MB, its runtime imports in less than 1 s, and nothing forbidden is there.
"""
_SIZES = """
import importlib.metadata as m, json, pathlib
found = {}
for d in m.distributions():
    total = 0
    for f in d.files or ():
        p = pathlib.Path(d.locate_file(f))
        if p.is_file() and '__pycache__' not in p.parts:
            total += p.stat().st_size
    found[d.metadata['Name']] = total / 1e6
print(json.dumps(found))
"""
_LOOP = """
import json, sys, time
from pathlib import Path
from twinloop.agents.controllers.reference import NeutralPolicy
from twinloop.deploy.journal import Journal
from twinloop.deploy.runtime import Runtime, RuntimeSettings
from twinloop.deploy.shield import Shield
from twinloop.envs.constraint import declare
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.plant import Telemetry
import numpy as np

artifact, journal = sys.argv[1], sys.argv[2]
if artifact:
    from twinloop.agents.artifact import load_artifact
    policy = load_artifact(Path(artifact))
    plate = policy.nameplate
else:
    unit = Group('unit', ('U1', 'U2'), (Signal('level', 'm', 0.0, 9.0),), (Signal('speed', 'pu', 0.0, 1.0),))
    plate = Nameplate('edge', 1.0, (unit,))
    policy = NeutralPolicy(plate)

class Still:
    nameplate, clock_s = plate, 1e9
    def read(self):
        self.n = getattr(self, 'n', 0) + 1
        half = {g.name: (g.lower('measured') + g.upper('measured')) / 2 for g in plate.groups}
        middle = {g.name: np.tile(half[g.name], (g.n_assets, 1)) for g in plate.groups}
        times = {n: np.full(v.shape, self.clock_s) for n, v in middle.items()}
        good = {n: np.zeros(v.shape, np.int8) for n, v in middle.items()}
        return Telemetry(middle, times, good, self.clock_s, self.n)
    def write(self, commands): return commands
    def advance(self): self.clock_s += plate.period_s
    def close(self): pass

first = []
runtime = Runtime(Still(), policy, Shield(declare(plate)), Journal(Path(journal)), RuntimeSettings(hand_back_periods=0))
begun = float(open('/proc/self/stat').read().split(')')[1].split()[19]) / %d
summary = runtime.run(20, lambda p: first.append(time.clock_gettime(time.CLOCK_BOOTTIME) - begun))
forbidden = [n for n in %r if n in sys.modules]
told = {'first_s': first[0], 'forbidden': forbidden, 'ending': summary.ending.value, 'periods': summary.periods}
print(json.dumps(told))
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "example:\n  twinloop bench edge_install --artifact runs/demo/train/artifact"
    parser.add_argument("--artifact", type=Path, metavar="DIR", help="a policy artifact to load and run there")
    parser.add_argument("--source", type=Path, default=".", metavar="DIR", help="the source's tree (%(default)s)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the table as Markdown, CSV and JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; 0 when the bars are met."""
    source = Path(arguments.source).absolute()
    if not (source / "pyproject.toml").is_file() or not (source / "constraints.txt").is_file():
        raise RunError(f"--source {source}: holds no pyproject.toml and constraints.txt; give the source's tree")
    artifact = "" if arguments.artifact is None else str(arguments.artifact.absolute())
    rows, data, met = list[tuple[Cell, ...]](), dict[str, Any](), True
    with tempfile.TemporaryDirectory() as work:
        wheel = _wheel(source, Path(work))
        for extras in EXTRAS:
            say(f"installing twinloop[{extras}]")
            found = measured(wheel, extras, source / "constraints.txt", Path(work) / extras.replace(",", "_"), artifact)
            data[extras] = found
            total = sum(found["mb"].values())
            largest = sorted(found["mb"].items(), key=lambda item: -item[1])[:6]
            rows.append((extras, "MB installed", f"{total:.1f}", f"{MB_BAR:g}" if extras == "edge" else ""))
            rows.append((extras, "largest packages, MB", ", ".join(f"{n} {mb:.1f}" for n, mb in largest), ""))
            for module, seconds in found["import_s"].items():
                bar = f"{IMPORT_BAR_S:g}" if module == "twinloop.deploy.runtime" else ""
                rows.append((extras, f"import {module}, s", f"{seconds:.3f}", bar))
            what = "artifact" if artifact else "neutral policy"
            rows.append((extras, f"process start to first decision, {what}, s", f"{found['first_s']:.3f}", ""))
            rows.append((extras, "forbidden, installed or imported", ", ".join(found["forbidden"]) or "none", "none"))
            met &= not found["forbidden"]
            if extras == "edge":
                met &= total < MB_BAR and found["import_s"]["twinloop.deploy.runtime"] < IMPORT_BAR_S
    notes = (
        f"Median of {ROUNDS} fresh processes; files are in the cache of the disk, byte code is compiled.",
        "Sizes are of installed files without byte code; pip and setuptools are not counted.",
    )
    table = Table("An edge machine's install", ("extras", "what", "found", "bar"), tuple(rows), notes, data)
    print_table(table)
    if arguments.out is not None:
        table.write(arguments.out, NAME, provenance())
    return 0 if met else 1


def measured(wheel: Path, extras: str, constraints: Path, folder: Path, artifact: str) -> dict[str, Any]:
    """Install into ``folder`` and measure: ``mb`` by package, ``import_s`` by module, ``first_s``, ``forbidden``."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    _call([python, "-m", "pip", "install", "--quiet", "-c", constraints, f"{wheel}[{extras}]"], folder)
    sizes = json.loads(_call([python, "-c", _SIZES], folder))
    mb = {name: size for name, size in sizes.items() if name not in ("pip", "setuptools")}
    import_s = {}
    for module in MODULES:
        times = []
        for _ in range(ROUNDS):
            clock = "import time; b = time.perf_counter()"
            times.append(
                float(_call([python, "-c", f"{clock}; import {module}; print(time.perf_counter() - b)"], folder))
            )
        import_s[module] = statistics.median(times)
    program = _LOOP % (os.sysconf("SC_CLK_TCK"), FORBIDDEN)
    loops = [
        json.loads(_call([python, "-c", program, artifact, str(folder / f"j{k}.sqlite")], folder))
        for k in range(ROUNDS)
    ]
    if any(loop["ending"] != "completed" or loop["periods"] != 20 for loop in loops):
        raise RunError(
            f"twinloop[{extras}]: the loop ended as {loops[0]['ending']} after {loops[0]['periods']} periods"
        )
    here = {name.lower().replace("-", "_") for name in mb}
    forbidden = sorted({*(n for n in FORBIDDEN if n in here), *(n for loop in loops for n in loop["forbidden"])})
    return {
        "mb": mb,
        "import_s": import_s,
        "first_s": statistics.median(loop["first_s"] for loop in loops),
        "forbidden": forbidden,
    }


def _wheel(source: Path, work: Path) -> Path:
    """The wheel of the tree; the build needs the same packages as a release's."""
    words = [sys.executable, "-m", "build", "--no-isolation", "--outdir", work / "dist", source]
    _call(words, work)
    (found,) = (work / "dist").glob("*.whl")
    return found


def _call(words: list[Any], where: Path) -> str:
    """What a program prints; raises :class:`RunError` with what it complained of."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    where.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([str(w) for w in words], cwd=where, capture_output=True, text=True, check=False, env=bare)
    if done.returncode:
        raise RunError(f"{' '.join(str(w)[:60] for w in words[:5])}: failed: {done.stderr.strip()[-600:]}")
    return done.stdout
