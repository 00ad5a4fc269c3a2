"""From the twin's state to readings: rows of the nameplate, replica first."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from .people import Bodies

Tensor = torch.Tensor

NEAREST = ("arm_gap", "self_gap", "person_gap", "fixture_gap")


def arm_measured(s: Mapping[str, Tensor]) -> Tensor:
    """``[N, O, R]`` in the order of the nameplate's ``MEASURED``."""
    seen = torch.minimum(torch.minimum(s["seen_gap"], s["self_gap"]), torch.minimum(s["person_gap"], s["fixture_gap"]))
    one = (s["holds"], s["touches"], s["stall_s"], seen)
    rows = (s["q"], s["dq"], s["tool"], s["target"], torch.stack(one, 1), s["heard"], s["heard_age_s"][:, None])
    return torch.cat(rows, 1)


def arm_hidden(s: Mapping[str, Tensor]) -> Tensor:
    """``[N, H, R]`` in the order of the nameplate's ``HIDDEN``."""
    return torch.stack((s["distance"], *(s[name] for name in NEAREST), s["tool_speed"], s["guarded"]), 1)


def arm_statics(s: Mapping[str, Tensor]) -> Tensor:
    """``[N, S, R]`` in the order of the nameplate's ``STATICS``."""
    base = s["base"]
    return torch.cat((base[:, :3], base[:, 3:] * (180.0 / math.pi), s["home"]), 1)


def body_measured(bodies: Bodies) -> Tensor:
    """``[K, O, R]`` in the order of the nameplate's ``BODY_MEASURED``."""
    radius = bodies.radius[:, None, None].expand(-1, 1, bodies.start.shape[-1])
    return torch.cat((bodies.start, bodies.start + bodies.along, radius, bodies.velocity), 1)


def outer(rows: Tensor, present: Tensor, n_replicas: int, dtype: torch.dtype) -> Tensor:
    """Rows ``[N, C, R]`` as ``[B, N, C]``, zero where ``present`` ``[N, R]`` is False."""
    n, columns, lanes = rows.shape
    kept = rows if bool(present.all()) else rows * present[:, None]
    # One transposition of a plain matrix, which is faster than a permutation of three axes.
    flat = kept.reshape(n * columns, lanes).t()[:n_replicas].contiguous()
    return flat.view(n_replicas, n, columns).to(dtype)
