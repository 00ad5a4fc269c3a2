"""How long machines will last: estimates from condition signals and from lifetimes, with intervals that hold.

:mod:`.history` what was measured until machines failed, :mod:`.cmapss` NASA's turbofan files, :mod:`.features` windows
of signals, :mod:`.boosting` gradient boosting (needs scikit-learn to fit, numpy to predict), :mod:`.calibration`
intervals by unit, :mod:`.survival` lifetimes alone (needs relife), :mod:`.score` how good, :mod:`.decision` when to
replace, :mod:`.store` models as files.
"""

from .estimate import Estimate
from .history import Fleet, UnitHistory

__all__ = ["Estimate", "Fleet", "UnitHistory"]
