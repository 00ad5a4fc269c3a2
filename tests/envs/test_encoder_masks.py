"""check_encoder passes masks that keep the contract and names what breaks them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from tests.linear_site import PUMP_SPEEDS, tank_nameplate

from twinloop.agents.own_signals import OwnSignalsEncoder
from twinloop.envs.conformance import check_encoder
from twinloop.envs.encoder import Encoder, MaskingEncoder
from twinloop.envs.errors import ContractError

PLATE = tank_nameplate(2, pump=True)


class PumpEncoder(OwnSignalsEncoder):
    """The pump may move by one level at a time."""

    def __init__(self) -> None:
        super().__init__(PLATE, "pump")

    def legal(self, measured: Any, statics: Any, present: Any) -> Any:
        xp: Any = torch if isinstance(measured, torch.Tensor) else np
        near = [abs(measured[..., :1] - level) <= 0.5 for level in PUMP_SPEEDS]
        return xp.concatenate(near, -1) | ~present[..., None]


def test_masks_that_keep_the_contract_pass() -> None:
    assert isinstance(PumpEncoder(), MaskingEncoder)
    check_encoder(PumpEncoder(), PLATE)


def test_an_encoder_without_masks_is_no_masking_encoder() -> None:
    plain = OwnSignalsEncoder(PLATE, "pump")
    assert isinstance(plain, Encoder)
    assert not isinstance(plain, MaskingEncoder)


class NoWayOut(PumpEncoder):
    """Nothing is legal where the pump runs fast."""

    def legal(self, measured: Any, statics: Any, present: Any) -> Any:
        return super().legal(measured, statics, present) & (measured[..., :1] < 0.9)


class OneFlagTooFew(PumpEncoder):
    def legal(self, measured: Any, statics: Any, present: Any) -> Any:
        return super().legal(measured, statics, present)[..., :2]


class Numbers(PumpEncoder):
    def legal(self, measured: Any, statics: Any, present: Any) -> Any:
        return super().legal(measured, statics, present) * 1.0


class OtherInTorch(PumpEncoder):
    def legal(self, measured: Any, statics: Any, present: Any) -> Any:
        flags = super().legal(measured, statics, present)
        return flags if isinstance(measured, np.ndarray) else torch.ones_like(flags)


class LooksAtTheBatch(PumpEncoder):
    def legal(self, measured: Any, statics: Any, present: Any) -> Any:
        flags = super().legal(measured, statics, present)
        return flags | (len(measured) > 1)


class LooksAtTheFeatures(PumpEncoder):
    """Remembers what it encoded last."""

    last = 0.0

    def encode(
        self, measured: Any, statics: Any, present: Any, memory: Mapping[str, Any], dt_s: float
    ) -> tuple[Any, Mapping[str, Any]]:
        self.last = float(measured[0, 0, 0]) + float(measured[-1, 0, 0])
        return super().encode(measured, statics, present, memory, dt_s)

    def legal(self, measured: Any, statics: Any, present: Any) -> Any:
        return super().legal(measured, statics, present) | (abs(measured[..., :1] - self.last) < 0.3)


BROKEN: list[tuple[type[PumpEncoder], str]] = [
    (NoWayOut, r"pump, slot 0, speed_pu, row 1 of call 0: no level is legal"),
    (OneFlagTooFew, r"legal of call 0 is bool \(6, 1, 2\), expected bool \(6, 1, 3\): one flag a level of speed_pu"),
    (Numbers, r"legal of call 0 is float64 \(6, 1, 3\), expected bool"),
    (OtherInTorch, r"level 2 of all, row 0 of call 0: with torch True, with numpy False"),
    (LooksAtTheBatch, r"row 0 alone False, in the batch True"),
    (LooksAtTheFeatures, r"after other calls"),
]


@pytest.mark.parametrize(("encoder", "words"), BROKEN, ids=lambda v: getattr(v, "__name__", None))
def test_broken_masks_are_caught(encoder: type[PumpEncoder], words: str) -> None:
    with pytest.raises(ContractError, match=f"(?s)check 'legal': .*{words}"):
        check_encoder(encoder(), PLATE)
