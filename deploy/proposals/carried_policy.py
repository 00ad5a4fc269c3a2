"""An approved policy while it is carried out: in a process of its own, started beside the loop and asked on a leash."""

from __future__ import annotations

import threading
from pathlib import Path

from ...agents.artifact import ArtifactPolicy
from ...agents.policy import Commands, Memory
from ...envs.errors import TwinloopError
from ...envs.twin import Observation
from ..leash import Leash, Outcome
from ..policy_process import PolicyProcess


class CarriedPolicy:
    """``folder``: of the artifact, to evaluate it in its own process; None evaluates it here, as its graphs were read.

    Nothing here waits: the process starts, and ends, in a thread beside.
    """

    def __init__(self, policy: ArtifactPolicy, folder: Path | None, budget_s: float) -> None:
        self._budget_s = budget_s
        self._policy: ArtifactPolicy | PolicyProcess = policy
        self._leash: Leash[[Observation, Memory], tuple[Commands, Memory]] | None = None
        self._process: PolicyProcess | None = None
        self._over = threading.Event()
        self.fault = ""
        """Why it can't start; empty while it starts or runs."""
        if folder is None:
            self._leash = Leash(policy.act, "approved policy")
        else:
            process = self._policy = PolicyProcess(folder, policy, budget_s)
            threading.Thread(target=self._live, args=(process,), name="approved policy", daemon=True).start()

    @property
    def is_ready(self) -> bool:
        """Whether it can be asked."""
        return self._leash is not None

    @property
    def pid(self) -> int | None:
        """Of the process that evaluates it; None where there is none."""
        return None if self._process is None else self._process.pid

    def start(self) -> Memory:
        """What it remembers before its first turn."""
        return self._policy.start(1)

    def ask(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        """One turn; raises ``ValueError`` with what it did instead: late, or an error, or dead."""
        assert self._leash is not None  # asked only when ready
        answer = self._leash.ask(self._budget_s, observation, memory)
        if answer.outcome is not Outcome.ANSWERED or answer.value is None:
            raise ValueError(answer.error or answer.outcome.value)
        return answer.value

    def close(self) -> None:
        """It is not asked any more."""
        self._over.set()
        if self._leash is not None:
            self._leash.close()

    def _live(self, process: PolicyProcess) -> None:
        """Keeps the process. It dies with the thread that started it, as it should with us, so this one stays."""
        try:
            with process:
                if not self._over.is_set():
                    self._process, self._leash = process, Leash(process.act, "approved policy")
                self._over.wait()
        except (TwinloopError, OSError) as error:
            self.fault = " ".join(str(error).split())
