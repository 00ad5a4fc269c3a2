"""Who commands what, when several may: a priority array per command, for every protocol."""

from .priority_array import N_SLOTS, RELINQUISHED, ArrayState, Effective, PriorityArray, Slot

__all__ = ["N_SLOTS", "RELINQUISHED", "ArrayState", "Effective", "PriorityArray", "Slot"]
