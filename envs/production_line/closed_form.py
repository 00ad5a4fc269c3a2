"""Two-machine lines in closed form: what the exact chains themselves answer to."""

from __future__ import annotations

from ..errors import ConfigurationError


def two_bernoulli(p1: float, p2: float, capacity: int) -> float:
    """Parts a slot of two Bernoulli machines, a full buffer looked through (Li & Meerkov 2009, section 4.2)."""
    if p1 == p2:
        return p2 * (1.0 - (1.0 - p1) / (capacity + 1.0 - p1))
    a = p1 * (1.0 - p2) / (p2 * (1.0 - p1))
    return p2 * (1.0 - (1.0 - p1) * (1.0 - a) / (1.0 - p1 / p2 * a**capacity))


def two_geometric(fails: tuple[float, float], repairs: tuple[float, float], capacity: int) -> float:
    """Parts a slot of two machines with operation-dependent failures, a full buffer not looked through (Gershwin 1994,
    section 3.2.4, the deterministic two-machine line, after Buzacott 1967).

    Raises :class:`ConfigurationError` for less than 4 places, of which the form has no interior.
    """
    if capacity < 4:
        raise ConfigurationError(f"two_geometric: capacity {capacity}; the closed form begins at 4, solve the chain")
    (p1, p2), (r1, r2) = fails, repairs
    up1 = r1 + r2 - r1 * r2 - r1 * p2
    up2 = r1 + r2 - r1 * r2 - p1 * r2
    down1 = p1 + p2 - p1 * p2 - p1 * r2
    down2 = p1 + p2 - p1 * p2 - r1 * p2
    y1, y2 = up1 / down1, up2 / down2
    x = y2 / y1
    # chances relative to C: the interior, of 2 to N - 2 parts, is X^n Y1^a Y2^b
    interior = sum(x**n for n in range(2, capacity - 1)) * (1.0 + y1) * (1.0 + y2)
    empty = x * up1 / (r1 * p2)
    one = x * (1.0 + y2) + x / p2 * up1 / down2
    top = x ** (capacity - 1)
    one_less = top * (1.0 + y1) + top / p1 * up2 / down1
    full = top * up2 / (p1 * r2)
    starved = empty / (interior + empty + one + one_less + full)
    return r2 / (r2 + p2) * (1.0 - starved)


def two_exponential(rate1: float, rate2: float, capacity: int, *, blocking: str) -> float:
    """Parts a slot of two exponential machines that never fail: the birth-death chain of the parts between them, up to
    the capacity where they are blocked before service, and two more where after (M/M/1/n queue, Kleinrock 1975,
    section 3.6)."""
    most = capacity + (2 if blocking == "after" else 0)
    ratio = rate1 / rate2
    weights = [ratio**n for n in range(most + 1)]
    return rate2 * (1.0 - weights[0] / sum(weights))
