"""The cell as a MuJoCo model (MJCF): authored here from the maker's tables, with exact lengths and no mesh.

A body follows each joint; its frame is that of the joint, z along its axis, so that the Denavit-Hartenberg frame of the
link is a fixed transform of it. What touches are the capsules of :mod:`arm`; what is seen is of :mod:`arm_look`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np
from numpy.typing import NDArray

from .arm import N_JOINTS, UR5E, Arm, with_tool
from .arm_dynamics import (
    ARMATURE_KGM2,
    CENTRE_M,
    COULOMB_NM,
    MASS_KG,
    SERVO_INTEGRAL_GAIN_NMPRAD,
    SERVO_SPEED_GAIN_NMSPRAD,
    TORQUE_NM,
    VISCOUS_NMSPRAD,
    inertia,
)
from .arm_look import LOOKS, Look
from .config import ArmPlace, CapsuleFixture, People, PickPlaceWork, PlaneFixture, RobotCellConfig
from .plant_config import RobotCellPlantConfig

Floats = NDArray[np.float64]

SERVO_PERIOD_S = 0.002
PARTS_PER_ARM = 2
PART_SIZE_M = 0.05
HIP_M = 0.85

# Contact bits; an arm k has 1 << k, for up to eight arms.
_ARMS = 0xFF
_PLANE, _FIXTURE, _PERSON, _OBSTACLE, _FLOOR = (1 << k for k in range(8, 13))
_COLOURS = ("0.10 0.45 0.85", "0.95 0.50 0.10", "0.15 0.65 0.35", "0.60 0.30 0.75", "0.85 0.20 0.30", "0.10 0.65 0.70",
            "0.75 0.65 0.10", "0.45 0.45 0.50")  # fmt: skip
CAPSULE_GROUP = 3
"""Of the geoms that touch: MuJoCo draws groups 0 to 2 unless told otherwise."""
_VISUAL_GROUP = "1"


def cell_xml(config: RobotCellConfig, settings: RobotCellPlantConfig, places: tuple[ArmPlace, ...]) -> str:
    """MJCF of a cell with arms at ``places``."""
    root = Element("mujoco", model=config.name)
    _add(root, "compiler", angle="radian", autolimits="true", boundmass="0", balanceinertia="false")
    _add(root, "option", timestep=f"{SERVO_PERIOD_S}", integrator="implicitfast")
    _appearance(root, len(places))
    world = _add(root, "worldbody")
    contact = _add(root, "contact")
    actuators = _add(root, "actuator")
    _surroundings(world, config)
    arm = with_tool(UR5E, config.tool_length_m)
    for k, place in enumerate(places):
        _arm(world, contact, k, arm, place, settings)
        marker = _add(world, "body", name=f"arm_{k + 1}_target", mocap="true")
        _seen(marker, "sphere", f"{max(config.touch_m, 0.02)}", f"glow_{k + 1}")
    for group, gains in (("velocity", SERVO_SPEED_GAIN_NMSPRAD), ("intvelocity", SERVO_INTEGRAL_GAIN_NMPRAD)):
        for k in range(len(places)):
            for j in range(N_JOINTS):
                name = {"name": f"arm_{k + 1}_{group}_{j + 1}", "joint": f"arm_{k + 1}_joint_{j + 1}"}
                if group == "velocity":
                    _add(actuators, "velocity", kv=f"{gains[j]}", **name)
                else:
                    _add(actuators, "intvelocity", kp=f"{gains[j]}", actrange="-100 100", **name)
    if config.people is not None:
        for k in range(config.people.number[1]):
            _person(world, k, config.people)
    for k, obstacle in enumerate(config.obstacles):
        body = _add(world, "body", name=f"obstacle_{k + 1}", mocap="true")
        ends = (tuple(-c for c in obstacle.axis_m), obstacle.axis_m)
        _solid(
            body, f"obstacle_{k + 1}", ends, obstacle.radius_m, _OBSTACLE, 0, material="obstacle", group=_VISUAL_GROUP
        )
    if isinstance(config.work, PickPlaceWork):
        _parts(root, world, len(places), settings.part_kg)
    return tostring(root, encoding="unicode")


def _appearance(root: Element, n_arms: int) -> None:
    visual = _add(root, "visual")
    _add(visual, "headlight", ambient="0.32 0.32 0.34", diffuse="0.25 0.25 0.25", specular="0.1 0.1 0.1")
    _add(visual, "quality", shadowsize="4096", offsamples="4", numslices="32", numstacks="20", numquads="8")
    _add(visual, "map", znear="0.02", zfar="30", shadowclip="1.5", haze="0.35", fogstart="6", fogend="14")
    _add(visual, "rgba", haze="0.86 0.89 0.93 1")
    _add(root, "statistic", center="0 0 0.4", extent="2")
    asset = _add(root, "asset")
    _add(asset, "texture", type="skybox", builtin="gradient", rgb1="0.93 0.95 0.97", rgb2="0.62 0.70 0.79",
               width="256", height="256")  # fmt: skip
    _add(asset, "texture", name="floor", type="2d", builtin="checker", rgb1="0.70 0.72 0.74", mark="edge",
               rgb2="0.67 0.69 0.71", markrgb="0.80 0.82 0.84", width="512", height="512")  # fmt: skip
    _add(asset, "material", name="floor", texture="floor", texrepeat="1 1", texuniform="true", reflectance="0.06",
               specular="0.2", shininess="0.3")  # fmt: skip
    for name, colour, specular, shininess in (
        ("shell", "0.87 0.88 0.89 1", "0.5", "0.6"),
        ("tube", "0.74 0.76 0.78 1", "0.7", "0.7"),
        ("joint", "0.25 0.26 0.28 1", "0.4", "0.5"),
        ("mat", "0.36 0.39 0.43 1", "0.1", "0.1"),
        ("mark", "0.95 0.78 0.12 1", "0.1", "0.1"),
        ("wall", "0.55 0.70 0.85 0.18", "0.3", "0.6"),
        ("fixture", "0.45 0.50 0.56 1", "0.4", "0.4"),
        ("obstacle", "0.75 0.30 0.30 1", "0.3", "0.4"),
        ("vest", "0.98 0.55 0.10 1", "0.2", "0.2"),
        ("stripe", "0.90 0.95 0.55 1", "0.5", "0.6"),
        ("trousers", "0.18 0.22 0.34 1", "0.1", "0.1"),
        ("skin", "0.85 0.66 0.54 1", "0.2", "0.2"),
        ("helmet", "0.97 0.97 0.92 1", "0.6", "0.7"),
        ("part", "0.80 0.62 0.38 1", "0.2", "0.2"),
    ):
        _add(asset, "material", name=name, rgba=colour, specular=specular, shininess=shininess)
    for k in range(n_arms):
        _add(asset, "material", name=f"cap_{k + 1}", rgba=f"{_COLOURS[k]} 1", specular="0.5", shininess="0.6")
        _add(asset, "material", name=f"glow_{k + 1}", rgba=f"{_COLOURS[k]} 0.85", emission="0.6")


def _surroundings(world: Element, config: RobotCellConfig) -> None:
    _add(world, "light", name="sun", directional="true", pos="-1.5 -2 4", dir="0.35 0.45 -1", castshadow="true",
               diffuse="0.62 0.61 0.58", specular="0.3 0.3 0.3")  # fmt: skip
    _add(world, "light", name="fill", directional="true", pos="2 2 4", dir="-0.5 -0.3 -1", castshadow="false",
               diffuse="0.20 0.22 0.26", specular="0 0 0")  # fmt: skip
    _add(world, "body", name="middle", pos="0 0 0.55")
    look = {"mode": "targetbody", "target": "middle"}
    _add(world, "camera", name="front", pos="2.1 -4.8 2.3", fovy="26", **look)
    _add(world, "camera", name="near", pos="0.5 -1.9 1.0", fovy="38", **look)
    _add(world, "camera", name="side", pos="-4.4 -2.6 2.2", fovy="30", **look)
    _add(world, "camera", name="above", pos="0 -0.5 5.2", fovy="34", **look)
    floor_m = min((p.offset_m for p in config.fixtures if isinstance(p, PlaneFixture) and _is_level(p)), default=0.0)
    _add(world, "geom", name="floor", type="plane", size="12 12 0.1", pos=f"0 0 {floor_m}", material="floor",
               contype=f"{_FLOOR}", conaffinity="0", group="0")  # fmt: skip
    _add(world, "geom", name="mat", type="box", size="1.15 0.9 0.002", pos=f"0 0 {floor_m}", material="mat",
         contype="0", conaffinity="0", group=_VISUAL_GROUP)  # fmt: skip
    for name, place, size in (
        ("left", "-1.17 0", "0.03 0.95"), ("right", "1.17 0", "0.03 0.95"),
        ("back", "0 0.92", "1.2 0.03"), ("fore", "0 -0.92", "1.2 0.03"),
    ):  # fmt: skip
        _add(world, "geom", name=f"line_{name}", type="box", size=f"{size} 0.003", pos=f"{place} {floor_m}",
             material="mark", contype="0", conaffinity="0", group=_VISUAL_GROUP)  # fmt: skip
    for k, fixture in enumerate(config.fixtures):
        name = f"fixture_{k + 1}"
        if isinstance(fixture, CapsuleFixture):
            _solid(world, name, (fixture.start_m, fixture.end_m), fixture.radius_m, _FIXTURE, 0, material="fixture",
                   group=_VISUAL_GROUP)  # fmt: skip
            continue
        normal = np.array(fixture.normal) / math.hypot(*fixture.normal)
        seen = {"material": "wall", "group": "0"} if not _is_level(fixture) else {"rgba": "0 0 0 0", "group": "3"}
        _add(world, "geom", name=name, type="plane", size="1.5 1 0.1", pos=_text(normal * fixture.offset_m),
                   zaxis=_text(normal), contype=f"{_PLANE}", conaffinity="0", **seen)  # fmt: skip


def _is_level(plane: PlaneFixture) -> bool:
    return plane.normal[0] == 0 and plane.normal[1] == 0 and plane.normal[2] > 0


def _arm(world: Element, contact: Element, k: int, arm: Arm, place: ArmPlace, settings: RobotCellPlantConfig) -> None:
    name = f"arm_{k + 1}"
    turn = math.radians(place.yaw_deg)
    body = _add(world, "body", name=name, pos=_text((place.x_m, place.y_m, place.z_m)), quat=_about_z(turn))
    _seen(body, "cylinder", "0.11 0.008", "joint", pos="0 0 0.008")
    parent, origin, quat = body, (0.0, 0.0, 0.0), "1 0 0 0"
    _looks(body, LOOKS[0], k)
    _capsules(body, arm, k, frame=0, transform=(np.eye(3), np.zeros(3)))
    for j in range(N_JOINTS):
        link = _add(parent, "body", name=f"{name}_link_{j + 1}", pos=_text(origin), quat=quat, gravcomp="1")
        torque = TORQUE_NM[j]
        _add(
            link, "joint", name=f"{name}_joint_{j + 1}", type="hinge", axis="0 0 1",
            range=f"{arm.q_min_rad[j]!r} {arm.q_max_rad[j]!r}", armature=f"{ARMATURE_KGM2[j]}",
            damping=f"{settings.friction_pu * VISCOUS_NMSPRAD[j]}",
            frictionloss=f"{settings.friction_pu * COULOMB_NM[j]}",
            actuatorfrcrange=f"{-torque} {torque}", actuatorgravcomp="true",
        )  # fmt: skip
        turned = _about_x(arm.alpha_rad[j])
        shift = np.array([arm.a_m[j], 0.0, arm.d_m[j]])
        tensor = turned @ inertia(j) @ turned.T
        _add(
            link, "inertial", mass=f"{MASS_KG[j]}", pos=_text(shift + turned @ np.array(CENTRE_M[j])),
            fullinertia=_text((*np.diag(tensor), tensor[0, 1], tensor[0, 2], tensor[1, 2])),
        )  # fmt: skip
        _looks(link, LOOKS[j + 1], k)
        _capsules(link, arm, k, frame=j + 1, transform=(turned, shift))
        parent, origin, half = link, tuple(shift), arm.alpha_rad[j] / 2
        quat = f"{math.cos(half)!r} {math.sin(half)!r} 0 0"
    tool = _add(parent, "body", name=f"{name}_flange", pos=_text(origin), quat=quat)
    _add(tool, "site", name=f"{name}_tool", pos=_text((0.0, 0.0, arm.tool_length_m)), size="0.005", group="4")
    if arm.tool_length_m > 0.01:
        _seen(tool, "cylinder", "0.014", f"cap_{k + 1}", fromto=_text((0, 0, 0, 0, 0, arm.tool_length_m - 0.008)))
        _seen(tool, "cylinder", "0.024", "joint",
              fromto=_text((0, 0, arm.tool_length_m - 0.008, 0, 0, arm.tool_length_m)))  # fmt: skip
    if settings.payload_kg > 0:
        radius = 0.05  # a ball of that size
        load = _add(tool, "body", name=f"{name}_payload", pos=_text((0.0, 0.0, arm.tool_length_m)))
        moment = 0.4 * settings.payload_kg * radius**2
        _add(load, "inertial", pos="0 0 0", mass=f"{settings.payload_kg}", diaginertia=_text([moment] * 3))
    for first, second in own_pairs(arm):
        _add(contact, "pair", geom1=f"{name}_{arm.capsules[first].name}", geom2=f"{name}_{arm.capsules[second].name}")


def own_pairs(arm: Arm) -> list[tuple[int, int]]:
    """Capsules of one arm that can meet each other."""
    return [(a, b) for first, second in arm.self_blocks for a in range(*first) for b in range(*second)]


def _capsules(body: Element, arm: Arm, k: int, frame: int, transform: tuple[Floats, Floats]) -> None:
    """Capsules of a Denavit-Hartenberg frame, which is ``transform`` (turn, shift) of the body's."""
    turned, shift = transform
    for index, capsule in enumerate(arm.capsules):
        if capsule.frame != frame:
            continue
        # The foot and the housing above it stand on the plane that the arm is mounted on.
        others = _ARMS & ~(1 << k) | _FIXTURE | _PERSON | _OBSTACLE | (_PLANE if index >= 2 else 0)
        ends = tuple(tuple(shift + turned @ np.array(end)) for end in (capsule.start_m, capsule.end_m))
        _solid(body, f"arm_{k + 1}_{capsule.name}", ends, capsule.radius_m, 1 << k, others, rgba="0.2 0.5 0.9 0.35")


def _looks(body: Element, looks: Iterable[Look], k: int) -> None:
    for look in looks:
        material = f"cap_{k + 1}" if look.material == "cap" else look.material
        _seen(body, look.shape, f"{look.radius_m}", material, fromto=_text((*look.start, *look.end)))


def _person(world: Element, k: int, people: People) -> None:
    """Origin between the feet, x ahead. The capsule touches, the rest is looks; legs are bodies so that they swing."""
    name = f"person_{k + 1}"
    body = _add(world, "body", name=name, mocap="true")
    radius, height = people.radius_m, people.height_m
    ends = ((0.0, 0.0, radius), (0.0, 0.0, height - radius))
    _solid(body, name, ends, radius, _PERSON, 0, rgba="0.9 0.3 0.2 0.25")
    s = height / 1.8
    _seen(body, "ellipsoid", _text((0.12 * s, 0.19 * s, 0.30 * s)), "vest", pos=_text((0, 0, 1.17 * s)))
    _seen(body, "ellipsoid", _text((0.124 * s, 0.193 * s, 0.035 * s)), "stripe", pos=_text((0, 0, 1.10 * s)))
    _seen(body, "ellipsoid", _text((0.121 * s, 0.185 * s, 0.030 * s)), "stripe", pos=_text((0, 0, 1.25 * s)))
    _seen(body, "capsule", f"{0.05 * s}", "skin", fromto=_text((0, 0, 1.4 * s, 0, 0, 1.55 * s)))
    _seen(body, "capsule", f"{0.075 * s}", "vest", fromto=_text((0, -0.15 * s, 1.38 * s, 0, 0.15 * s, 1.38 * s)))
    _seen(body, "sphere", f"{0.105 * s}", "skin", pos=_text((0.01, 0, 1.61 * s)))
    _seen(body, "ellipsoid", _text((0.125 * s, 0.118 * s, 0.085 * s)), "helmet", pos=_text((0, 0, 1.69 * s)))
    for side in (-1, 1):
        arm = (0.0, side * 0.21 * s, 1.38 * s, 0.05 * s, side * 0.25 * s, 0.95 * s)
        _seen(body, "capsule", f"{0.045 * s}", "vest", fromto=_text(arm))
        _seen(body, "sphere", f"{0.05 * s}", "skin", pos=_text(arm[3:]))
        leg = _add(world, "body", name=f"{name}_leg_{'left' if side > 0 else 'right'}", mocap="true")
        _seen(leg, "capsule", f"{0.07 * s}", "trousers", fromto=_text((0, 0, 0, 0, 0, -0.74 * s)))
        _seen(leg, "ellipsoid", _text((0.13 * s, 0.05 * s, 0.04 * s)), "joint", pos=_text((0.05 * s, 0, -0.81 * s)))


def _parts(root: Element, world: Element, n_arms: int, mass_kg: float) -> None:
    """Boxes to carry; one of an arm's is waiting or carried while the other lies where it was dropped."""
    welds = _add(root, "equality")
    for k in range(n_arms):
        for p in range(PARTS_PER_ARM):
            name = f"arm_{k + 1}_part_{p + 1}"
            body = _add(world, "body", name=name, pos=f"{3 + k} 3 {PART_SIZE_M + 0.1 * p}")
            _add(body, "freejoint", name=name)
            _add(body, "geom", name=name, type="box", size=_text([PART_SIZE_M / 2] * 3), mass=f"{mass_kg}",
                       material="part", contype="0", conaffinity=f"{_FLOOR}", group=_VISUAL_GROUP)  # fmt: skip
            _add(welds, "weld", name=name, body1=f"arm_{k + 1}_flange", body2=name, active="false",
                       solref="0.004 1", solimp="0.95 0.99 0.001")  # fmt: skip


def _solid(
    body: Element, name: str, ends: tuple[tuple[float, ...], ...], radius_m: float, own: int, others: int, **look: str
) -> None:
    """A capsule that touches; a ball where its ends are one point. Weightless: links have their own inertias."""
    bits = {
        "contype": f"{own}",
        "conaffinity": f"{others}",
        "mass": "0",
        "group": look.pop("group", f"{CAPSULE_GROUP}"),
    }
    if math.dist(*ends) < 1e-9:
        _add(body, "geom", name=name, type="sphere", size=f"{radius_m}", pos=_text(ends[0]), **bits, **look)
    else:
        fromto = _text((*ends[0], *ends[1]))
        _add(body, "geom", name=name, type="capsule", size=f"{radius_m}", fromto=fromto, **bits, **look)


def _seen(body: Element, shape: str, size: str, material: str, **place: str) -> None:
    _add(body, "geom", type=shape, size=size, material=material, contype="0", conaffinity="0", mass="0",
               group=_VISUAL_GROUP, **place)  # fmt: skip


def _add(parent: Element, tag: str, **attributes: str) -> Element:
    return SubElement(parent, tag, attributes)


def _about_x(angle_rad: float) -> Floats:
    c, s = math.cos(angle_rad), math.sin(angle_rad)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def _about_z(angle_rad: float) -> str:
    return f"{math.cos(angle_rad / 2)!r} 0 0 {math.sin(angle_rad / 2)!r}"


def _text(numbers: Iterable[float]) -> str:
    return " ".join(repr(float(n)) for n in numbers)
