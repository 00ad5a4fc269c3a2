"""What stands between every policy and every actuator."""

from .decision import Code, Decision, InputState, Mode, Reason, ShieldState, Source
from .inputs import Guarded
from .settings import ShieldSettings
from .shield import Shield
from .site_fallback import Fallback

__all__ = [
    "Code",
    "Decision",
    "Fallback",
    "Guarded",
    "InputState",
    "Mode",
    "Reason",
    "Shield",
    "ShieldSettings",
    "ShieldState",
    "Source",
]
