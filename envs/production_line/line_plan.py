"""The largest line of a configuration: who stands where. No torch, so that a nameplate needs none."""

from __future__ import annotations

from dataclasses import dataclass

from .config import FixedLine, LineConfig, Machine


@dataclass(frozen=True)
class Plan:
    """What all replicas share. ``is_serial``: buffer ``k`` lies between machines ``k`` and ``k + 1``; ``rounds``: the
    machines on the longest way; ``machines``: their configuration, ``M`` of them."""

    machines: tuple[Machine, ...]
    names: tuple[str, ...]
    producer: tuple[int, ...]
    consumer: tuple[int, ...]
    capacities: tuple[int, ...]
    is_serial: bool
    rounds: int

    @property
    def wears(self) -> bool:
        """Whether any machine needs service."""
        return any(m.upkeep is not None for m in self.machines)


def plan_of(config: LineConfig) -> Plan:
    """The largest line of a configuration."""
    line = config.line
    machines = line.machines if isinstance(line, FixedLine) else (line.machine,) * line.machines[1]
    names = tuple(m.name or f"M{i + 1}" for i, m in enumerate(machines))
    producer: tuple[int, ...]
    consumer: tuple[int, ...]
    capacities: tuple[int, ...]
    if isinstance(line, FixedLine) and line.parallel:
        producer, consumer, capacities = (), (), ()
    elif isinstance(line, FixedLine) and line.buffers:
        producer = tuple(b.producer - 1 for b in line.buffers)
        consumer = tuple(b.consumer - 1 for b in line.buffers)
        capacities = tuple(b.capacity for b in line.buffers)
    else:
        producer, consumer = tuple(range(len(machines) - 1)), tuple(range(1, len(machines)))
        widest = line.capacities if isinstance(line, FixedLine) else (line.capacity[1],) * (len(machines) - 1)
        capacities = tuple(widest)
    serial = producer == tuple(range(len(machines) - 1)) and consumer == tuple(range(1, len(machines)))
    return Plan(machines, names, producer, consumer, capacities, serial, _longest(len(machines), producer, consumer))


def _longest(n: int, producer: tuple[int, ...], consumer: tuple[int, ...]) -> int:
    """Machines on the longest way from a source to a sink; parts go from lower to higher places."""
    length = [1] * n
    for p, c in sorted(zip(producer, consumer, strict=True)):
        length[c] = max(length[c], length[p] + 1)
    return max(length)
