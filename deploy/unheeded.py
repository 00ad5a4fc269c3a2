"""What a person ordered in a period that came to nothing: it is given again, or it would be lost without a word."""

from __future__ import annotations

from dataclasses import replace

from .shield.orders import Orders


def heeding(unheeded: Orders, new: Orders) -> tuple[Orders, Orders | None]:
    """``new`` with the mode and the reset of ``unheeded``, and what of these has to wait for the next period.

    The newer order wins where both are for the same assets, and a stop ends all that was asked before it.
    """
    if new.stop is not False or (unheeded.mode is None and not unheeded.reset):
        return new, None
    if new.mode is None and not new.reset:
        return replace(new, mode=unheeded.mode, reset=unheeded.reset, assets=unheeded.assets), None
    if new.assets == unheeded.assets:
        mode = unheeded.mode if new.mode is None else new.mode
        return replace(new, mode=mode, reset=new.reset or unheeded.reset), None
    return new, unheeded
