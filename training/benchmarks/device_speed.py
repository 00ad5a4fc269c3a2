"""How fast a device trains end to end, twin, policy and learner together, and how far that is from its floor."""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...agents.ppo_settings import PpoConfiguration
from ...envs.errors import ConfigurationError
from ...envs.wind_farm.config import CoordinateLayout, WindFarmConfig
from ..configuration import EncoderChoice, TaskChoice, TrainConfiguration
from ..device_batch import DeviceRollout
from ..device_trainer import DeviceTrainer
from ..problem import Problem
from ..report import Cell, Table, print_table, provenance, say
from ..rollout_settings import RolloutConfiguration
from .device_work import WorkCounter, best_rates, synchronise
from .drift_site import DriftConfig, drift_configuration, drift_problem

NAME = "device_speed"
SUMMARY = "learner: agent-steps a second end to end on one device (CPU or CUDA), and the share of the device's floor"

ASSETS = (1, 8, 80)
CUDA_REPLICAS, CPU_REPLICAS = 4096, 64
CUDA_STEPS, CPU_STEPS = 64, 8
_COUNTED_REPLICAS = 64
_ROW, _SPACING_M = 10, 630.0

DESCRIPTION = """\
Train PPO (64 x 64 tanh, 4 epochs of 8 minibatches, shared weights) on the reference task and on the wind farm, twin and
learner on one device, and time whole iterations: rollout, advantages, updates. The floor of an agent-step is the
larger of two times: its bytes (state, rollout arrays, each epoch's reading of them, all once and no others) at the
speed at which this device copies an array, and its operations at the speed at which it multiplies float32 matrices,
both measured in this run. `eager bytes` are what the operations move when no two are fused. Sizes by default are full
on a GPU and small on a CPU, where the figures say nothing about a GPU. There is no bar.
"""


@dataclass(frozen=True)
class _Figures:
    """Of one agent-step: seconds, the least bytes, operations, the bytes of unfused operations; ``launches`` of an
    iteration; ``rollout_share`` of the time."""

    seconds: float
    least_bytes: float
    operations: float
    eager_bytes: float
    launches: int
    rollout_share: float


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "example:\n  twinloop bench device_speed --device cuda --assets 8 --compiled"
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU if there is one")
    parser.add_argument("--task", choices=("both", "reference", "wind_farm"), default="both", help="default both")
    parser.add_argument("--assets", type=int, nargs="+", default=list(ASSETS), metavar="N", help="default 1 8 80")
    parser.add_argument(
        "--replicas", type=int, metavar="B", help=f"default {CUDA_REPLICAS} on CUDA, {CPU_REPLICAS} on CPU"
    )
    parser.add_argument(
        "--steps", type=int, metavar="T", help=f"a rollout; default {CUDA_STEPS} on CUDA, {CPU_STEPS} on CPU"
    )
    parser.add_argument("--iterations", type=int, default=3, help="timed, after one that is not; the best counts (3)")
    parser.add_argument("--compiled", action="store_true", help="fuse the policy by torch.compile (CUDA alone)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the table as Markdown, CSV and JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; always 0, as there is no bar."""
    device = _device(arguments.device)
    on_gpu = device.type == "cuda"
    replicas = arguments.replicas or (CUDA_REPLICAS if on_gpu else CPU_REPLICAS)
    steps = arguments.steps or (CUDA_STEPS if on_gpu else CPU_STEPS)
    name = torch.cuda.get_device_name(device) if on_gpu else f"the CPU ({torch.get_num_threads()} threads), no GPU"
    say(f"device: {name}; {replicas} replicas, rollouts of {steps} steps")
    bytes_per_s, operations_per_s = best_rates(device, 1.0 if on_gpu else 0.05)
    rows: list[tuple[Cell, ...]] = []
    data: list[dict[str, Any]] = []
    for task in ("reference", "wind_farm") if arguments.task == "both" else (arguments.task,):
        for n_assets in arguments.assets:
            f = _measure(task, n_assets, replicas, steps, device, arguments)
            by_bytes, by_operations = f.least_bytes / bytes_per_s, f.operations / operations_per_s
            floor = max(by_bytes, by_operations)
            limit = "bytes" if by_bytes > by_operations else "operations"
            rows.append(
                (
                    task,
                    n_assets,
                    f"{1.0 / f.seconds:,.0f}",
                    f"{100.0 * f.rollout_share:.0f} %",
                    f"{f.least_bytes:,.0f}",
                    f"{f.eager_bytes:,.0f}",
                    f"{f.operations:,.0f}",
                    f"{f.launches:,}",
                    f"{100.0 * floor / f.seconds:.2f} % ({limit})",
                )
            )
            data.append({"task": task, "assets": n_assets, **vars(f), "floor_s": floor})
            say(f"{task}, {n_assets} assets: {1.0 / f.seconds:,.0f} agent-steps/s")
    columns = (
        "task",
        "assets",
        "agent-steps/s",
        "in rollouts",
        "least bytes",
        "eager bytes",
        "operations",
        "launches an iteration",
        "of the floor",
    )
    notes = (
        f"Measured on {name}, {replicas} replicas, rollouts of {steps} steps; wall time, the best iteration; bytes and "
        "operations an agent-step.",
        f"Here this device copied {bytes_per_s / 1e9:,.1f} GB/s and multiplied {operations_per_s / 1e12:,.3f} TFLOP/s.",
        "The policy was compiled." if arguments.compiled else "Nothing was compiled: every operation is a launch.",
    )
    rates = {"bytes_per_s": bytes_per_s, "operations_per_s": operations_per_s, "device": name}
    table = Table("Training speed on one device", columns, tuple(rows), notes, {"cases": data, **rates})
    print_table(table)
    if arguments.out is not None:
        table.write(arguments.out, NAME, provenance(device=name))
    return 0


def _device(asked: str) -> torch.device:
    if asked == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("device_speed: --device cuda, but torch finds no CUDA GPU here; use cpu or auto")
    return torch.device("cuda" if asked == "cuda" or (asked == "auto" and torch.cuda.is_available()) else "cpu")


def _problem(task: str, n_assets: int, replicas: int, steps: int, device: torch.device) -> tuple[Any, Problem]:
    changes: dict[str, Any] = {
        "learner": PpoConfiguration(minibatches=math.gcd(8, replicas * steps)),
        "rollout": RolloutConfiguration(replicas=replicas, steps=steps),
        "device": device.type,
    }
    if task == "reference":
        config = drift_configuration(100, site=DriftConfig(n_assets=n_assets), **changes)
        return config, drift_problem(config)
    places = [divmod(i, _ROW) for i in range(n_assets)]
    layout = CoordinateLayout(
        x_m=tuple(_SPACING_M * column for _, column in places), y_m=tuple(_SPACING_M * row for row, _ in places)
    )
    config = TrainConfiguration(
        site=WindFarmConfig(layout=layout),
        task=TaskChoice(name="farm_power", options={"horizon": 32}),
        encoder=EncoderChoice(name="relational"),
        iterations=100,
        **changes,
    )
    return config, Problem.of(config)


def _measure(
    task: str, n_assets: int, replicas: int, steps: int, device: torch.device, arguments: argparse.Namespace
) -> _Figures:
    config, problem = _problem(task, n_assets, replicas, steps, device)
    trainer = DeviceTrainer(config, problem, is_compiled=arguments.compiled)
    seconds, share = math.inf, 0.0
    for number in range(arguments.iterations + 1):
        synchronise(device)
        start = time.perf_counter()
        batch = trainer.gather()
        synchronise(device)
        gathered = time.perf_counter()
        trainer.learn(batch)
        synchronise(device)
        took = time.perf_counter() - start
        if number and took < seconds:
            seconds, share = took, (gathered - start) / took
    # Work grows in step with the replicas, so it is counted on few of them.
    counted = min(replicas, _COUNTED_REPLICAS)
    small_config, small = _problem(task, n_assets, counted, steps, device)
    of_few = DeviceTrainer(small_config, small)
    of_few.iterate()
    with WorkCounter() as work:
        batch = of_few.gather()
        of_few.learn(batch)
    each = counted * steps * n_assets
    return _Figures(
        seconds / (replicas * steps * n_assets),
        _least_bytes(of_few, batch, config) / each,
        work.operations / each,
        work.moved_bytes / each,
        work.launches,
        share,
    )


def _least_bytes(trainer: DeviceTrainer, batch: DeviceRollout, config: TrainConfiguration) -> float:
    """State read and written every step, the rollout written once, and read once for its values and in every epoch."""
    if not isinstance(config.learner, PpoConfiguration):
        return 0.0
    arrays: list[torch.Tensor] = [t for g in batch.groups.values() for t in vars(g).values() if t is not None]
    rollout = sum(t.numel() * t.element_size() for t in arrays)
    return 2.0 * trainer.state_bytes() * len(batch.terminated) + (2.0 + config.learner.epochs) * rollout
