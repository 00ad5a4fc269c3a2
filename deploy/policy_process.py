"""A policy artifact that is evaluated in a process of its own, so that nothing it does can stop the loop.

A thread under a deadline (:mod:`.leash`) bounds a policy that is slow, but not one that hangs in native code with the
interpreter's lock, or that takes its whole process down. Its own process can be killed, and the loop goes on: the turn
fails, the fallback takes over in the same period, and after some failed turns in a row the policy is out. A new process
is started in the background meanwhile. It is not used before somebody resets the policy (:meth:`PolicyProcess.start`):
one that died once is not trusted again by itself.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from ..agents.artifact import ArtifactPolicy
from ..agents.policy import Commands, Memory
from ..envs.errors import ArtifactError, TwinloopError
from ..envs.nameplate import Nameplate
from ..envs.twin import Observation
from .policy_wire import Receiver, pack, send
from .scheduling import lower_priority

_LOG = logging.getLogger(__name__)
_START_S = 60.0
_END_S = 2.0
_LOOK_S = 0.1
BACK_OFF_S = (0.0, 1.0, 3.0, 10.0, 30.0)
"""Wait before the n-th start in a row of a process that does not stay."""
_STAYS_S = 60.0
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class PolicyProcessError(TwinloopError):
    """The policy's process ended, hangs, or raised; the turn is lost."""


class PolicyProcess:
    """The policy of an artifact's ``folder``, as a :class:`~twinloop.agents.policy.Policy`; a ``with`` block runs it.

    ``local``: the same artifact without its graphs (``load_artifact(..., graphs=False)``), which lends name, hash,
    encoders and the memory of new rows; what a policy remembers stays with its caller. ``timeout_s``: for one turn;
    ``hang_s``: how long a turn may stay unanswered before its process is killed. Entering raises
    :class:`~twinloop.envs.errors.ArtifactError` for an artifact that the process can't load, or another one.
    """

    def __init__(self, folder: Path, local: ArtifactPolicy, timeout_s: float, hang_s: float | None = None) -> None:
        self._folder, self._local = Path(folder), local
        self._timeout_s = timeout_s
        self._hang_s = max(1.0, 3.0 * timeout_s) if hang_s is None else hang_s
        self._link: _Link | None = None
        self._lost = "its process was not started"
        self._closing = threading.Event()
        self._supervisor: threading.Thread | None = None

    @property
    def name(self) -> str:
        return self._local.name

    @property
    def nameplate(self) -> Nameplate:
        return self._local.nameplate

    @property
    def hash(self) -> str:
        return self._local.hash

    @property
    def about(self) -> Mapping[str, Any]:
        return self._local.about

    @property
    def encoders(self) -> Mapping[str, Any]:
        return self._local.encoders

    @property
    def own(self) -> frozenset[str] | None:
        return self._local.own

    @property
    def inputs(self) -> Mapping[str, Any]:
        return self._local.inputs

    @property
    def pid(self) -> int | None:
        """Of the process that evaluates now; None while there is none."""
        link = self._link
        return None if link is None else link.pid

    def __enter__(self) -> Self:
        self._closing.clear()
        self._link, self._lost = self._open(), ""
        self._supervisor = threading.Thread(target=self._supervise, name="policy process", daemon=True)
        self._supervisor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        if self._supervisor is not None:
            self._supervisor.join(_END_S)
        link, self._link, self._lost = self._link, None, "its process was ended"
        if link is not None:
            link.close()

    def start(self, n_rows: int) -> Memory:
        """What ``n_rows`` new rows remember. After a failure, also a person's leave to use the new process.

        Raises :class:`PolicyProcessError` while there is none.
        """
        link = self._link
        if link is None or link.status() is not None:
            raise PolicyProcessError(f"policy {self.name}: {self._lost or 'its process ended'}; not running again yet")
        self._lost = ""
        return self._local.start(n_rows)

    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        """Ask the process; raises :class:`PolicyProcessError` where it is dead, late or raised, within the time-out."""
        link = self._link
        if not self._lost and link is not None:
            try:
                return link.ask(observation, memory, self._timeout_s)
            except (OSError, EOFError, ValueError) as error:
                if not isinstance(error, TimeoutError):
                    link.kill()
                    self._lose(link, error)
                    raise PolicyProcessError(f"policy {self.name}: {self._lost}") from error
                raise PolicyProcessError(f"policy {self.name}: no answer within {self._timeout_s:.3g} s") from error
        runs = link is not None and link.status() is None
        again = "another one runs and waits for a reset" if runs else "not running again yet"
        raise PolicyProcessError(f"policy {self.name}: {self._lost or 'its process ended'}; {again}")

    def _open(self) -> _Link:
        link = _Link(self._folder, self.nameplate, self.own)
        try:
            found = link.meet(time.monotonic() + _START_S)
        except BaseException as error:
            late = isinstance(error, TimeoutError)
            link.discard()
            if not isinstance(error, OSError | EOFError | ValueError):
                raise
            told = "no answer" if late else link.ending()
            raise ArtifactError(
                f"{self._folder}: the policy's process could not start ({told}); its own message stands above; "
                "--no-policy-process evaluates the policy in the loop's process"
            ) from error
        if found != self.hash:
            link.discard()
            raise ArtifactError(
                f"{self._folder}: the policy's process found artifact {found[:12]}, this one {self.hash[:12]}; leave "
                "the folder alone while it is in use"
            )
        return link

    def _lose(self, link: _Link, error: BaseException | None = None) -> None:
        """Note why, unless another thread has done so, or the link is another one by now."""
        if self._link is link and not self._lost:
            nonsense = f" after it sent nonsense ({error})" if isinstance(error, ValueError) else ""
            self._lost = f"its process {link.pid} {link.ending()}{nonsense}"
            _LOG.error("policy %s: %s", self.name, self._lost)

    def _supervise(self) -> None:
        """Kill a process that hangs, and start another one for one that ended; from its own thread."""
        failures, opened_s = 0, time.monotonic()
        while not self._closing.wait(_LOOK_S):
            link = self._link
            if link is not None:
                if link.silent_s() > self._hang_s:
                    _LOG.error("policy %s: process %d has hung for %.3g s: killed", self.name, link.pid, self._hang_s)
                    link.kill()
                if link.status() is None:
                    continue
                self._lose(link)
                self._link = None
                link.close()
                failures = 0 if time.monotonic() - opened_s > _STAYS_S else failures
            if self._closing.wait(BACK_OFF_S[min(failures, len(BACK_OFF_S) - 1)]):
                return
            failures += 1
            try:
                found = self._open()
            except (TwinloopError, OSError) as error:
                _LOG.error("policy %s: %s", self.name, error)
                continue
            opened_s = time.monotonic()
            if self._closing.is_set():
                found.close()
                return
            self._link = found
            _LOG.warning("policy %s: runs again in process %d and waits for a reset", self.name, found.pid)


class _Link:
    """One process and the two pipes to it. Asked from one thread at a time; killed from any."""

    def __init__(self, folder: Path, nameplate: Nameplate, own: frozenset[str] | None) -> None:
        named = None if own is None else sorted(own)
        told = {"folder": str(Path(folder).absolute()), "nameplate": nameplate.to_dict(), "own": named}
        self._hello = pack(told, {})
        # A session of its own: Ctrl-C in the terminal is for the loop.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "twinloop.deploy.policy_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, **_ONE_THREAD},
        )
        assert self._process.stdin is not None  # both are pipes; narrows the types
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin.fileno(), self._process.stdout.fileno()
        for descriptor in (self._input, self._output):
            os.set_blocking(descriptor, False)
        lower_priority(self._process.pid)
        self._receiver = Receiver(self._output)
        self._turn = self._answered = 0
        self._asked_s = time.monotonic()

    @property
    def pid(self) -> int:
        return self._process.pid

    def meet(self, give_up_s: float) -> str:
        """Hash of the artifact that the process has loaded; raises :class:`ArtifactError` with what it says instead."""
        send(self._input, self._hello, give_up_s)
        heading, _ = self._receiver.receive(give_up_s)
        if "ready" not in heading:
            raise ArtifactError(str(heading.get("error", heading)))
        return str(heading["ready"])

    def ask(self, observation: Observation, memory: Memory, timeout_s: float) -> tuple[Commands, Memory]:
        """One turn; a late answer to an earlier one is thrown away."""
        give_up_s = time.monotonic() + timeout_s
        while self._answered < self._turn:  # never more than one turn in the pipe, so that writing can't block for long
            self._take(give_up_s)
        self._turn += 1
        self._asked_s = time.monotonic()
        fields = {
            "measured": observation.measured,
            "statics": observation.statics,
            "present": observation.present,
            "memory": memory,
        }
        try:
            send(self._input, pack({"turn": self._turn, "dt_s": observation.dt_s}, fields), give_up_s)
        except TimeoutError as error:
            raise ValueError("half a frame was taken") from error  # the pipe can't be used any more
        heading, found = self._take(give_up_s)
        if "error" in heading:
            raise PolicyProcessError(str(heading["error"]))
        commands = {name: np.asarray(array, dtype=np.float64) for name, array in found.get("commands", {}).items()}
        return commands, found.get("memory", {})

    def _take(self, give_up_s: float) -> tuple[dict[str, Any], dict[str, Any]]:
        heading, fields = self._receiver.receive(give_up_s)
        turn = heading.get("turn")
        if turn != self._answered + 1:
            raise ValueError(f"an answer to turn {turn!r}, expected {self._answered + 1}")
        self._answered += 1
        return heading, fields

    def silent_s(self) -> float:
        """For how long a turn has waited for its answer."""
        return time.monotonic() - self._asked_s if self._answered < self._turn else 0.0

    def status(self) -> int | None:
        """Exit status, None while it runs."""
        return self._process.poll()

    def ending(self) -> str:
        """In words, how it ended."""
        try:
            status = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            return "does not end"
        if status < 0:
            return f"was ended by {signal.Signals(-status).name}"
        return f"ended with status {status}"

    def kill(self) -> None:
        self._process.kill()

    def discard(self) -> None:
        """End it at once, and free the pipes."""
        self.kill()
        self.close()

    def close(self) -> None:
        """Let it end, and free the pipes."""
        assert self._process.stdin is not None  # narrows the types
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
