"""A video and a page of stills of the emulated robot cell under a policy, behind shield and runtime."""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...agents.artifact import load_artifact
from ...agents.policy import Commands, Memory, Policy
from ...deploy.journal import Journal
from ...deploy.runtime import Runtime, RuntimeSettings
from ...deploy.shield.shield import Shield
from ...deploy.summary import Ending, RunSummary
from ...envs.constraint import Declaration, declaration_of_site
from ...envs.errors import ConfigurationError, PlantError
from ...envs.nameplate import Nameplate
from ...envs.plant import Arrays, Telemetry
from ...envs.plant_file import load_plant_file
from ...envs.robot_cell.arm import N_JOINTS, UR5E, Arm, with_tool
from ...envs.robot_cell.capsules import capsule_ends, radii
from ...envs.robot_cell.config import RobotCellConfig
from ...envs.robot_cell.kinematics import reach_speeds
from ...envs.robot_cell.nameplate import ARM, PERSON
from ...envs.twin import Observation
from ..report import Table, print_table, provenance, say

if TYPE_CHECKING:
    from ...envs.robot_cell.plant import MuJoCoCell
    from ...envs.robot_cell.video import CellCamera, Frame, VideoFile

NAME = "cell_video"
SUMMARY = "a video and a page of stills of the emulated robot cell, off screen"

LARGEST_MB = 3.0
DESCRIPTION = """\
Run the emulated robot cell under a policy, through shield and runtime as on a real one, and film it off screen: a
video, a page of stills (the last with the capsules that count as touching) and a table of what happened. Without
--run the arms take turns: resolved rates to the target; who lacks the right of way goes home when another is near;
all wait while a person is near. Bars: no contact of the arms with each other or with fixtures, none with a person
while the arm moves, and a video below 3 MB.

Needs Debian's libosmesa6 (or a graphics card and MUJOCO_GL=egl), and for .mp4 the program ffmpeg.
"""
EPILOG = """\
examples:
  twinloop bench cell_video
  twinloop bench cell_video --run runs/cell/artifact --seconds 40 --out results/cell_video
  twinloop bench cell_video --format webp --width 480 --set plant.seed=7
"""
_VIEWS = ("front", "near", "above", "side", "front", "near")
_NEAR_M, _CLOSE_M, _LEAST_M = 0.15, 0.09, 0.05
_PERSON_M = 0.75
_TURN_S = 3.0
_ALONG = np.linspace(0.0, 1.0, 5)
# A plant in simulated time waits for whoever controls it, however busy the machine; the policy has its period.
_PATIENT = RuntimeSettings(
    deadline_pu=1.0, deadline_max_s=30.0, decision_pu=3000.0, decision_max_s=60.0, hand_back_periods=0
)

Floats = NDArray[np.float64]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument(
        "--plant", type=Path, default=Path("configs/robot_cell/plant_cell.yaml"), metavar="FILE",
        help="a plant's YAML, default %(default)s",
    )  # fmt: skip
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of it")
    parser.add_argument("--run", type=Path, metavar="ARTIFACT", help="folder of a policy artifact")
    parser.add_argument("--seconds", type=float, default=24.0, help="default %(default)g")
    parser.add_argument("--fps", type=float, default=20.0, help="frames a second, default %(default)g")
    parser.add_argument("--width", type=int, default=960, help="pixels, default %(default)s")
    parser.add_argument("--format", choices=("mp4", "webp", "gif"), default="mp4", help="default %(default)s")
    parser.add_argument("--out", type=Path, default=Path("runs/cell_video"), metavar="DIR", help="default %(default)s")


def run(arguments: argparse.Namespace) -> int:
    """Film; 0 when the bars are met."""
    from ...envs.robot_cell.video import CellCamera, VideoFile, write_stills

    site, config, plant_config = load_plant_file(arguments.plant, arguments.set)
    if not isinstance(config, RobotCellConfig):
        raise ConfigurationError(f"{arguments.plant}: site.kind: {site.name!r}; needed is a robot_cell")
    plant: Any = site.plant(config, plant_config)
    policy: Policy = TakingTurns(plant.nameplate, config)
    if arguments.run is not None:
        policy = load_artifact(arguments.run, plant.nameplate)
    n_periods = round(arguments.seconds / config.control_period_s)
    height = 2 * round(arguments.width * 9 / 32)
    video = arguments.out / f"cell.{arguments.format}"
    every = max(1, round(1.0 / (arguments.fps * config.control_period_s)))
    width = 2 * (arguments.width // 2)
    with closing(plant), CellCamera(plant.model, width, height) as camera:
        with VideoFile(video, 1.0 / (every * config.control_period_s)) as film:
            filmed = Filmed(plant, camera, film, n_periods, every)
            summary = drive(filmed, policy, n_periods, declaration_of_site(site, config))
        write_stills(arguments.out / "stills.png", filmed.stills)
        table = tell(plant, policy.name, summary, arguments.seconds, video.stat().st_size / 1e6)
    print_table(table)
    table.write(arguments.out, NAME, provenance((getattr(plant_config, "seed", 0),), policy=policy.name))
    return 0 if judge(plant, video) else 1


def drive(filmed: Filmed, policy: Policy, n_periods: int, declaration: Declaration) -> RunSummary:
    """As deployment does, in simulated time; raises PlantError when the run does not reach its end."""
    with TemporaryDirectory(prefix="twinloop-video-") as folder, Journal(Path(folder) / "journal.sqlite") as journal:
        summary = Runtime(filmed, policy, Shield(declaration), journal, _PATIENT).run(n_periods)
    if summary.ending is Ending.INTERRUPTED:
        raise KeyboardInterrupt
    if summary.ending is not Ending.COMPLETED:
        raise PlantError(
            f"{policy.name}: ended after {summary.periods} of {n_periods} periods ({summary.ending}): {summary.detail}"
        )
    return summary


def tell(plant: MuJoCoCell, policy: str, summary: RunSummary, seconds: float, size_mb: float) -> Table:
    """What happened, in figures."""
    contacts = plant.contacts
    return Table(
        title=f"the robot cell under {policy!r}, {seconds:g} s on the MuJoCo plant",
        columns=("figure", "value"),
        rows=(
            ("touches a minute", round(60.0 * float(plant.touches.sum()) / seconds, 1)),
            *((f"contacts: {kind.replace('_', ' ')}", count) for kind, count in contacts.items()),
            ("smallest gap between arms, m", round(plant.smallest_gap_m, 4)),
            ("protective stops", int(plant.protective_stops.sum())),
            ("commands changed by the shield", sum(summary.interventions.values())),
            ("periods on the fallback", summary.fallback_periods),
            ("video, MB", round(size_mb, 2)),
        ),
        notes=("one run to look at: what a policy is worth is measured elsewhere, over thousands of touches",),
        data={"contacts": dict(contacts), "touches": plant.touches.tolist()},
    )


def judge(plant: MuJoCoCell, video: Path) -> bool:
    """Print the bars and whether they are met."""
    harmful = sum(plant.contacts[kind] for kind in ("arm", "fixture", "obstacle", "person"))
    size_mb = video.stat().st_size / 1e6
    say(f"contacts {harmful}: bar 0, {'missed' if harmful else 'met'}")
    say(f"video {size_mb:.2f} MB: bar below {LARGEST_MB:g}, {'met' if size_mb < LARGEST_MB else 'missed'}")
    return not harmful and size_mb < LARGEST_MB


class Filmed:
    """A plant that is photographed every so many periods; six stills are spread over the run."""

    def __init__(self, plant: MuJoCoCell, camera: CellCamera, film: VideoFile, n_periods: int, every: int) -> None:
        self._plant, self._camera, self._film = plant, camera, film
        self._still_at = [round((k + 0.7) / len(_VIEWS) * n_periods) for k in range(len(_VIEWS))]
        self._period = 0
        self._every = every
        self.stills: list[tuple[str, Frame]] = []

    @property
    def nameplate(self) -> Nameplate:
        return self._plant.nameplate

    @property
    def clock_s(self) -> float:
        return self._plant.clock_s

    def read(self) -> Telemetry:
        return self._plant.read()

    def write(self, commands: Arrays) -> Arrays:
        return self._plant.write(commands)

    def advance(self) -> None:
        from ...envs.robot_cell.video import with_caption

        plant = self._plant
        plant.advance()
        self._period += 1
        time_s = self._period * plant.nameplate.period_s
        if self._period % self._every == 0:
            contacts = sum(plant.contacts[kind] for kind in ("arm", "fixture", "obstacle", "person"))
            text = f"{time_s:5.1f} s    {int(plant.touches.sum())} touches    {contacts} contacts"
            self._film.add(with_caption(self._camera.frame(plant.data), text))
        for k, at in enumerate(self._still_at):
            if at == self._period:
                is_last = k + 1 == len(self._still_at)
                text = f"{time_s:.1f} s, {_VIEWS[k]}" + (": the capsules that count as touching" if is_last else "")
                self.stills.append((text, self._camera.frame(plant.data, _VIEWS[k], capsules=is_last)))

    def close(self) -> None:
        self._plant.close()


class TakingTurns:
    """Arms that reach one after the other where it is narrow. A rule to look at, no baseline."""

    name = "taking_turns"

    def __init__(self, nameplate: Nameplate, config: RobotCellConfig) -> None:
        self._nameplate = nameplate
        self._arm: Arm = with_tool(UR5E, config.tool_length_m)
        self._config = config
        group = nameplate.group(ARM)
        self._at = {signal.name: k for k, signal in enumerate(group.measured)}
        statics = group.statics_array()
        self._base = np.column_stack((statics[:, :3], np.radians(statics[:, 3])))
        self._home = statics[:, 4 : 4 + N_JOINTS]
        self._limit = group.upper("commanded")

    @property
    def nameplate(self) -> Nameplate:
        return self._nameplate

    def start(self, n_rows: int) -> Memory:
        """Whose turn it is, and since when."""
        return {"turn": np.zeros(n_rows), "turn_s": np.zeros(n_rows), "touches": np.zeros((n_rows, len(self._base)))}

    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        arms = np.asarray(observation.measured[ARM], dtype=np.float64)
        q = arms[..., self._at["q1_rad"] : self._at["q1_rad"] + N_JOINTS]
        target = arms[..., self._at["target_x_m"] : self._at["target_x_m"] + 3]
        tool = arms[..., self._at["tool_x_m"] : self._at["tool_x_m"] + 3]
        gap, touches = self._gaps(q, arms), arms[..., self._at["touches"]]
        n = arms.shape[1]
        turn, turn_s = memory["turn"].astype(np.int64), memory["turn_s"] + observation.dt_s
        rows = np.arange(len(arms))
        over = (turn_s > _TURN_S) | (touches[rows, turn] > memory["touches"][rows, turn])
        turn, turn_s = np.where(over, (turn + 1) % n, turn), np.where(over, 0.0, turn_s)
        has_way = turn[:, None] == np.arange(n)
        reach = reach_speeds(
            q, self._base, target, self._arm, towards_rad=self._home, speed_mps=self._config.tool_speed_mps
        )
        slow = np.clip((gap - _LEAST_M) / (_CLOSE_M - _LEAST_M), 0.0, 1.0)[..., None]
        home = 2.0 * (self._home - q)
        speeds = np.where((has_way | (gap > _NEAR_M))[..., None], slow * reach, home)
        speeds = np.where(self._person_near(observation, tool)[..., None], 0.0, speeds)
        most = np.maximum(np.abs(speeds / self._limit).max(-1, keepdims=True), 1.0)
        commands: dict[str, Floats] = {g.name: np.zeros((len(arms), g.n_assets, len(g.commanded)))
                                       for g in self._nameplate.groups}  # fmt: skip
        commands[ARM] = speeds / most
        return commands, {"turn": turn.astype(np.float64), "turn_s": turn_s, "touches": touches}

    def _gaps(self, q: Floats, arms: Floats) -> Floats:
        """To the nearest other arm as heard, between points along the capsules, ``[B, N]``."""
        first = self._at["heard_q1_rad"]
        own, others = self._points(q), self._points(arms[..., first : first + N_JOINTS])
        radius = np.repeat(radii(self._arm), len(_ALONG))
        gaps = np.full(q.shape[:2], np.inf)
        for i in range(q.shape[1]):
            for k in range(q.shape[1]):
                if i != k:
                    apart = np.linalg.norm(own[:, i, :, None] - others[:, k, None], axis=-1) - radius[:, None] - radius
                    gaps[:, i] = np.minimum(gaps[:, i], apart.min((-1, -2)))
        return gaps

    def _points(self, q: Floats) -> Floats:
        """Along the capsules, ``[B, N, 8 x 5, 3]``."""
        ends = capsule_ends(q, self._base, self._arm)
        points = ends[..., 0, None, :] + _ALONG[:, None] * (ends[..., 1, None, :] - ends[..., 0, None, :])
        return np.asarray(points.reshape(*q.shape[:2], -1, 3))

    def _person_near(self, observation: Observation, tool: Floats) -> NDArray[np.bool_]:
        """Whether anybody stands near an arm's foot or tool, ``[B, N]``."""
        if PERSON not in observation.measured:
            return np.zeros(tool.shape[:2], dtype=np.bool_)
        people = np.asarray(observation.measured[PERSON], dtype=np.float64)[..., None, :, :2]
        from_tool = np.linalg.norm(people - tool[..., None, :2], axis=-1).min(-1)
        from_foot = np.linalg.norm(people - self._base[:, None, :2], axis=-1).min(-1)
        return np.asarray(np.minimum(from_tool, from_foot) < _PERSON_M)
