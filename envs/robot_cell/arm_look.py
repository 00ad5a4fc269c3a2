"""How an arm is drawn: tubes, joint housings and caps, sized by eye after the UR5e. Nothing here touches anything.

Each entry belongs to the body that turns with joint 1..6, whose z axis is the joint's; index 0 is the base.
"""

from __future__ import annotations

from dataclasses import dataclass

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Look:
    """A cylinder or capsule from ``start`` to ``end``, metres, in the frame of its body."""

    shape: str
    start: Point
    end: Point
    radius_m: float
    material: str


def _along_z(z_from: float, z_to: float, radius: float, material: str, x: float = 0.0) -> Look:
    return Look("cylinder", (x, 0.0, z_from), (x, 0.0, z_to), radius, material)


LOOKS: tuple[tuple[Look, ...], ...] = (
    (_along_z(0.0, 0.012, 0.076, "joint"), _along_z(0.012, 0.085, 0.062, "shell")),
    (_along_z(0.085, 0.108, 0.060, "joint"), Look("capsule", (0, 0, 0.108), (0, 0, 0.1625), 0.058, "shell")),
    (
        _along_z(-0.070, 0.060, 0.059, "shell"),
        _along_z(-0.078, -0.070, 0.056, "cap"),
        _along_z(0.066, 0.200, 0.058, "shell"),
        _along_z(0.060, 0.066, 0.054, "joint"),
        _along_z(0.200, 0.208, 0.055, "cap"),
        Look("cylinder", (0, 0, 0.138), (-0.425, 0, 0.138), 0.044, "tube"),
        _along_z(0.078, 0.185, 0.052, "shell", x=-0.425),
        _along_z(0.185, 0.193, 0.049, "cap", x=-0.425),
    ),
    (
        _along_z(0.062, 0.078, 0.047, "joint"),
        _along_z(-0.052, 0.062, 0.050, "shell"),
        _along_z(-0.060, -0.052, 0.047, "cap"),
        Look("cylinder", (0, 0, 0.007), (-0.3922, 0, 0.007), 0.036, "tube"),
        _along_z(-0.040, 0.055, 0.041, "shell", x=-0.3922),
        _along_z(-0.047, -0.040, 0.038, "cap", x=-0.3922),
    ),
    (
        _along_z(0.055, 0.066, 0.037, "joint"),
        _along_z(0.066, 0.178, 0.040, "shell"),
        _along_z(0.178, 0.185, 0.037, "cap"),
    ),
    (
        _along_z(0.040, 0.052, 0.036, "joint"),
        _along_z(0.052, 0.140, 0.039, "shell"),
        _along_z(0.140, 0.147, 0.036, "cap"),
    ),
    (
        _along_z(0.040, 0.062, 0.038, "shell"),
        _along_z(0.062, 0.0996, 0.032, "joint"),
    ),
)
