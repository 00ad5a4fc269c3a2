"""WFCRL's scenario I, scored by its own rules and its own FLORIS numbers, for a trained artifact.

Rules (Bizon Monroc et al. 2024, arXiv 2501.13592; wfcrl-env at 6634d468, Apache-2.0): 8 m/s from 270 deg, turbulence
0.06; a turbine moves its yaw by at most 5 deg a step within +-40 deg; the move is dropped while the moves so far, at
0.3 deg/s, took 10 % or more of the time (a step counts 60 s). Reward of a step, shared: mean over turbines of the
power in MW times 1e3 / u^3, less the mean of the load proxies (turbulence intensity, and the standard deviation of
each velocity component over the rotor). The score adds up 149 steps, because reset uses up one of the 150.

As there, agents act in turn, so that all but the last see their duty as it was one step earlier.

wfcrl-env runs FLORIS 3.5. Its turbine differs from that of FLORIS 4.7 (diameter 126 m against 125.88 m, power from a
table of power coefficients, no generator loss); its wake model does not. With the old turbine's table below, FLORIS
4.7 gives the powers and load proxies of FLORIS 3.5 to 1e-15.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...agents.policy import Policy
from ...envs.nameplate import Nameplate
from ...envs.wind_farm.layouts import named_layout
from ...envs.wind_farm.nameplate import GROUP, make_nameplate
from ..contestants import Contestant
from ..report import Cell, Table, print_table, provenance
from ..steady_evaluation import SteadyWind, steady_observation

NAME = "wfcrl"
SUMMARY = "WFCRL scenario I: the score of an artifact by the benchmark's own rules"

N_STEPS = 149
STEP_S = 60.0
MOST_MOVE_DEG, MOST_YAW_DEG, YAW_RATE_DEGPS, DUTY = 5.0, 40.0, 0.3, 0.1
WIND = SteadyWind(8.0, 270.0, 0.06)
BARS = {"turb3_row1": 242.0, "ablaincourt": 351.5}
_PUBLISHED_MAPPO = {"turb3_row1": 237.7, "ablaincourt": 351.7}
_CEILING = {"turb3_row1": 243.3, "ablaincourt": 352.18}

ROTOR_DIAMETER_M, HUB_HEIGHT_M, RATED_KW, AIR_DENSITY = 126.0, 90.0, 5000.0, 1.225
# NREL 5 MW as FLORIS 3.5 has it (after Jonkman et al. 2009, NREL/TP-500-38060), for the speeds that occur at 8 m/s.
_SPEED_MPS = (3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0, 7.5, 8.0, 8.5, 9.0)
_POWER_COEFFICIENT = (
    0.178085, 0.289075, 0.349022, 0.384728, 0.406059, 0.420228, 0.428823, 0.433873, 0.436223, 0.436845, 0.436575,
    0.436511, 0.436561,
)  # fmt: skip
_THRUST_COEFFICIENT = (
    0.99, 0.99, 0.97373036, 0.92826162, 0.89210543, 0.86100905, 0.835423, 0.81237673, 0.79225789, 0.77584769, 0.7629228,
    0.76156073, 0.76261984,
)  # fmt: skip

DESCRIPTION = """\
Score an artifact in WFCRL's scenario I by its own rules: step limits, the 10 % duty rule, the shared reward with
load coefficient 1, 149 steps, FLORIS 3.5's turbine. The policy's offset is approached by the moves that the rules
allow. Both farms take some seconds.

Bars: Turb3_Row1 242.0 (published MAPPO 237.7, ceiling 243.3), Ablaincourt 351.5 (351.7, 352.18). Scenario I is nearly
saturated: it is a parity test, no headline.
"""
EPILOG = """\
examples:
  twinloop bench wfcrl runs/any_farm/artifact
  twinloop bench wfcrl greedy
"""

FloatArray = NDArray[np.float64]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument("artifact", metavar="ARTIFACT", help="folder of a policy artifact, or 'greedy'")
    parser.add_argument("--farms", default=",".join(BARS), help="farms, default %(default)s")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the table there as md, csv and json")


def run(arguments: argparse.Namespace) -> int:
    """Score; 0 when every bar is met."""
    greedy = arguments.artifact == "greedy"
    contestant = Contestant("greedy") if greedy else Contestant("artifact", Path(arguments.artifact))
    rows: list[tuple[Cell, ...]] = []
    passed = True
    scores: dict[str, float] = {}
    for name in (n.strip() for n in arguments.farms.split(",") if n.strip()):
        farm = ScenarioOne(name)
        still = farm.play(Contestant("greedy").build(farm.nameplate))
        played = farm.play(contestant.build(farm.nameplate))
        bar = BARS.get(name, -math.inf)
        passed = passed and played.score >= bar
        scores[name] = played.score
        rows.append(
            (name, f"{played.score:.2f}", f"{bar:.1f}", f"{still.score:.2f}", _figure(_PUBLISHED_MAPPO, name),
             _figure(_CEILING, name), f"{played.power_mw:.4f}", f"{still.power_mw:.4f}", played.last_move)
        )  # fmt: skip
    columns = ("farm", "score", "bar", "zero yaw", "MAPPO", "ceiling", "end MW", "zero-yaw MW", "last move")
    notes = (
        "MAPPO: as recorded in MarkHaoxiang/wind-rl's report on the paper's runs; ceiling: best steady reward x 149.",
    )
    table = Table("WFCRL scenario I", columns, tuple(rows), notes, {"scores": scores, "passed": passed})
    print_table(table)
    if arguments.out is not None:
        table.write(arguments.out, "wfcrl", provenance(policy=contestant.fingerprint()))
    return 0 if passed else 1


def _figure(figures: dict[str, float], name: str) -> str:
    return f"{figures[name]:.2f}" if name in figures else "-"


@dataclass(frozen=True)
class Played:
    """One episode: the score, the farm's power at its end, and the step of the last move."""

    score: float
    power_mw: float
    last_move: int


class ScenarioOne:
    """One farm under WFCRL's rules."""

    def __init__(self, layout: str) -> None:
        self.x_m, self.y_m = named_layout(layout)
        statics = tuple(
            (x, y, ROTOR_DIAMETER_M, HUB_HEIGHT_M, RATED_KW) for x, y in zip(self.x_m, self.y_m, strict=True)
        )
        self.nameplate: Nameplate = make_nameplate(f"wfcrl_{layout}", STEP_S, len(self.x_m), statics)
        self._floris = old_floris(self.x_m, self.y_m)

    def play(self, policy: Policy) -> Played:
        """Run one episode of ``policy``."""
        n = len(self.x_m)
        column = self.nameplate.group(GROUP).index("commanded", "yaw_offset_deg")
        memory = policy.start(1)
        yaw, used, used_before = np.zeros(n), np.zeros(n), np.zeros(n)
        reward, power_mw = self.reward(yaw)
        score, last_move = 0.0, 0
        for step in range(1, N_STEPS + 1):
            observation = steady_observation(self.nameplate, self._floris, yaw, WIND)
            commands, memory = policy.act(observation, memory)
            wanted = np.asarray(commands[GROUP], dtype=np.float64)[0, :, column]
            move = np.clip(wanted - yaw, -MOST_MOVE_DEG, MOST_MOVE_DEG)
            known = np.append(used_before[:-1], used[-1])  # agents act in turn: only the last sees this far
            move[known / YAW_RATE_DEGPS / step / STEP_S >= DUTY] = 0.0
            used_before, used = used, used + np.abs(move)
            moved = np.clip(yaw + move, -MOST_YAW_DEG, MOST_YAW_DEG)
            if not np.array_equal(moved, yaw):
                yaw, last_move = moved, step
                reward, power_mw = self.reward(yaw)
            score += reward
        return Played(score, power_mw, last_move)

    def reward(self, yaw_deg: FloatArray) -> tuple[float, float]:
        """Reward of one step and the farm's power in MW, for yaw ``[N]`` in deg."""
        self._floris.set_operation(yaw_angles=yaw_deg[None])
        self._floris.run()
        field = self._floris.core.flow_field
        power_mw = np.asarray(self._floris.get_turbine_powers())[0] / 1e6
        spread = [np.std(np.asarray(v)[0], axis=(1, 2)) for v in (field.u, field.v, field.w)]
        turbulence = np.asarray(field.turbulence_intensity_field)[0].reshape(-1)
        load = float(np.mean(np.abs(np.stack([turbulence, *spread]))))
        return float(power_mw.mean()) * 1e3 / WIND.speed_mps**3 - load, float(power_mw.sum())


def old_turbine() -> dict[str, Any]:
    """NREL 5 MW of FLORIS 3.5 in the form that FLORIS 4.7 takes: power in kW from the power coefficient."""
    speed = np.array(_SPEED_MPS)
    area = math.pi * (ROTOR_DIAMETER_M / 2.0) ** 2
    power_kw = 0.5 * AIR_DENSITY * area * np.array(_POWER_COEFFICIENT) * speed**3 / 1e3
    return {
        "turbine_type": "nrel_5MW_floris_3_5",
        "hub_height": HUB_HEIGHT_M,
        "rotor_diameter": ROTOR_DIAMETER_M,
        "TSR": 8.0,
        "operation_model": "cosine-loss",
        "power_thrust_table": {
            "ref_air_density": AIR_DENSITY,
            "ref_tilt": 5.0,
            "cosine_loss_exponent_tilt": 1.88,
            "cosine_loss_exponent_yaw": 1.88,
            "wind_speed": list(_SPEED_MPS),
            "power": power_kw.tolist(),
            "thrust_coefficient": list(_THRUST_COEFFICIENT),
        },
    }


def old_floris(x_m: tuple[float, ...], y_m: tuple[float, ...]) -> Any:
    """FLORIS 4.7 with FLORIS 3.5's turbine, set to scenario I's wind."""
    from floris import FlorisModel

    defaults = FlorisModel.get_defaults()
    defaults["farm"] |= {"layout_x": list(x_m), "layout_y": list(y_m), "turbine_type": [old_turbine()]}
    defaults["flow_field"] |= {
        "wind_speeds": [WIND.speed_mps],
        "wind_directions": [WIND.direction_deg],
        "turbulence_intensities": [WIND.turbulence_pu],
        "reference_wind_height": HUB_HEIGHT_M,
    }
    return FlorisModel(defaults)
