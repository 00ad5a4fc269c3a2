"""The Ray session of a run: a cluster that is joined, one that this process is in already, or one of its own."""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
from typing import Any

from ..envs.errors import MissingExtraError, RunError

KNOCK_S = 5.0


class RaySession:
    """``open`` gives the ray module, connected; ``close`` ends only what ``open`` began.

    A session that this process is in already is used and left running. Else ``address`` (``auto`` or ``host:port``) or
    the environment's RAY_ADDRESS names a cluster to join; without either a session of ``n_cpus`` starts on this
    machine, without dashboard. Its ports listen on every interface of the machine, which no option of Ray prevents:
    train behind a firewall. No usage report leaves the machine.
    """

    def __init__(self, address: str | None, n_cpus: int) -> None:
        self._address = address
        self._n_cpus = n_cpus
        self._ray: Any = None
        self._owns = False
        self.is_cluster = False
        """Whether workers may be placed on other machines."""

    def open(self) -> Any:
        """Connect; raises MissingExtraError without Ray, RunError where the cluster does not answer."""
        if importlib.util.find_spec("ray") is None:
            raise MissingExtraError("ray", "ray", "rollout.workers above 0")
        import ray

        self._ray = ray
        address = self._address or os.environ.get("RAY_ADDRESS")
        if not ray.is_initialized():
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            if address is None:
                # "local": without it Ray joins any cluster that it finds running
                ray.init(address="local", num_cpus=self._n_cpus, include_dashboard=False, **_QUIET)
            else:
                try:
                    _knock(address)
                    ray.init(address=address, **_QUIET)
                except (OSError, RuntimeError, ValueError) as error:
                    raise RunError(
                        f"rollout.ray_address {address!r}: no Ray cluster answers there ({error}); start one with "
                        "`ray start --head`, or leave ray_address and RAY_ADDRESS out for a session on this machine"
                    ) from error
            self._owns = True
        nodes = ray.nodes()  # type: ignore[no-untyped-call]  # Ray leaves it untyped
        self.is_cluster = len(nodes) > 1
        return ray

    def close(self) -> None:
        """Leave the cluster, or stop the session, where :meth:`open` joined or started it."""
        if self._owns:
            self._ray.shutdown()
            self._owns = False


def _knock(address: str) -> None:
    """Raise OSError where nobody listens on ``host:port``: Ray itself takes minutes to find out, and then aborts."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()


_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
