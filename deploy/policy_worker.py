"""The policy's own process: ``python -m twinloop.deploy.policy_worker``, started by :mod:`.policy_process` alone.

It reads frames on its input and answers each on its output, until its input ends or its parent dies.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..agents.artifact import load_artifact
from ..envs.errors import TwinloopError
from ..envs.nameplate import Nameplate
from ..envs.twin import Observation
from .policy_wire import Receiver, pack, send

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Serve one parent; returns the exit status."""
    _die_with_parent()
    # What a library prints must not come between the frames.
    output = os.dup(1)
    os.dup2(2, 1)
    receiver = Receiver(0)
    try:
        asked, _ = receiver.receive()
        try:
            nameplate = Nameplate.from_dict(asked["nameplate"])
            policy = load_artifact(Path(asked["folder"]), nameplate, own=asked["own"])
        except TwinloopError as error:
            send(output, pack({"error": str(error)}, {}))
            return 1
        send(output, pack({"ready": policy.hash}, {}))
        while True:
            heading, fields = receiver.receive()
            send(output, _answer(policy, heading, fields))
    except (EOFError, BrokenPipeError):
        return 0


def _answer(policy: Any, heading: dict[str, Any], fields: Any) -> bytes:
    try:
        observation = Observation(
            measured=fields["measured"],
            statics=fields["statics"],
            present=fields["present"],
            dt_s=float(heading["dt_s"]),
        )
        commands, memory = policy.act(observation, fields.get("memory", {}))
        return pack({"turn": heading["turn"]}, {"commands": commands, "memory": memory})
    except Exception as error:  # noqa: BLE001 - a policy is foreign code: whatever it raises is its turn's answer
        return pack({"turn": heading.get("turn"), "error": f"{type(error).__name__}: {error}"}, {})


def _die_with_parent() -> None:
    """A policy that hangs in native code sees no end of its input; the kernel ends it, where that can be asked for."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
