"""What *safe* means for a site: data, no solver.

One declaration becomes the shield's rows, the training cost, the runtime monitor, the strategies of property tests and
the table in the docs. :func:`declare` joins constraints with a nameplate's own and checks the whole;
:class:`Margins` says by how much each is kept.
"""

from __future__ import annotations

from .coupled import ConflictConstraint, CoupledConstraint, SeparationConstraint, SumConstraint, SumRateConstraint
from .declaration import Declaration, Row, declare
from .kinds import Constraint, constraints_of
from .limits import Limit, effective_limits
from .local import (
    AccelerationConstraint,
    DeadbandConstraint,
    DwellConstraint,
    ExclusiveConstraint,
    LocalConstraint,
    RangeConstraint,
    RateConstraint,
    SwitchesConstraint,
    TransitionConstraint,
)
from .margin import Margins, Worst
from .moment import History, Moment, needs_history
from .safe_state import SafeState
from .site import HasConstraints, HasSafeStates, constraints_of_site, declaration_of_site
from .state import (
    Barrier,
    BarrierConstraint,
    BarrierTerms,
    Foresight,
    LookAheadConstraint,
    MeasuredConstraint,
    RowsConstraint,
    RowTerms,
    SiteRows,
    StateConstraint,
)

__all__ = [
    "AccelerationConstraint",
    "Barrier",
    "BarrierConstraint",
    "BarrierTerms",
    "ConflictConstraint",
    "Constraint",
    "CoupledConstraint",
    "DeadbandConstraint",
    "Declaration",
    "DwellConstraint",
    "ExclusiveConstraint",
    "Foresight",
    "HasConstraints",
    "HasSafeStates",
    "History",
    "Limit",
    "LocalConstraint",
    "LookAheadConstraint",
    "Margins",
    "MeasuredConstraint",
    "Moment",
    "RangeConstraint",
    "RateConstraint",
    "Row",
    "RowTerms",
    "RowsConstraint",
    "SafeState",
    "SeparationConstraint",
    "SiteRows",
    "StateConstraint",
    "SumConstraint",
    "SumRateConstraint",
    "SwitchesConstraint",
    "TransitionConstraint",
    "Worst",
    "constraints_of",
    "constraints_of_site",
    "declaration_of_site",
    "declare",
    "effective_limits",
    "needs_history",
]
