"""What moves a UR5e: masses, inertias, torque limits, friction. The twin knows none of it; the plant does.

Masses, centres and inertias: Universal Robots, "DH parameters for calculations of kinematics and dynamics", as the
maker publishes them in Universal_Robots_ROS2_Description (BSD-3-Clause), config/ur5e/physical_parameters.yaml. Joint
torques: UR5e technical specification. Reflected rotor inertia: MuJoCo Menagerie's UR5e (BSD-3-Clause). Friction is of
no maker's table: assumed, of the order that identifications of the UR5 find (Kovincic et al. 2019); the plant's
configuration scales it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MASS_KG = (3.761, 8.058, 2.846, 1.37, 1.3, 0.365)
"""Of links 1..6; the base link stands still and counts for nothing."""
CENTRE_M = (
    (0.0, -0.02561, 0.00193),
    (0.2125, 0.0, 0.11336),
    (0.15, 0.0, 0.0265),
    (0.0, -0.0018, 0.01634),
    (0.0, 0.0018, 0.01634),
    (0.0, 0.0, -0.001159),
)
"""Of mass, in the link's DH frame."""
INERTIA_KGM2 = (
    (0.00700210, 0.00648091, 0.00657286, 0.00000073, -0.00001053, 0.00049994),
    (0.01505885, 0.33388086, 0.33247207, -0.00005400, 0.00000563, -0.00000181),
    (0.00399632, 0.07879254, 0.07848510, -0.00001365, 0.00137272, -0.00000660),
    (0.00165491, 0.00135962, 0.00126279, -0.00000282, -0.00000438, 0.00010157),
    (0.00135617, 0.00127827, 0.00096614, -0.00000274, 0.00000444, -0.00005048),
    (0.00018694, 0.00018908, 0.00025756, 0.00000006, -0.00000017, -0.00000092),
)
"""About the centre of mass, axes of the link's DH frame: xx yy zz xy xz yz."""
TORQUE_NM = (150.0, 150.0, 150.0, 28.0, 28.0, 28.0)
ARMATURE_KGM2 = (0.1, 0.1, 0.1, 0.1, 0.1, 0.1)
COULOMB_NM = (5.0, 5.0, 4.0, 0.8, 0.8, 0.8)
VISCOUS_NMSPRAD = (8.0, 8.0, 6.0, 1.0, 1.0, 1.0)
SERVO_SPEED_GAIN_NMSPRAD = (1500.0, 1500.0, 600.0, 40.0, 40.0, 40.0)
SERVO_INTEGRAL_GAIN_NMPRAD = (60000.0, 60000.0, 24000.0, 1600.0, 1600.0, 1600.0)
"""Of the speed loop in the arm's own controller: chosen here, so that it follows within some 25 ms."""


def inertia(link: int) -> Floats:
    """The tensor of link 0..5, ``[3, 3]``."""
    xx, yy, zz, xy, xz, yz = INERTIA_KGM2[link]
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
