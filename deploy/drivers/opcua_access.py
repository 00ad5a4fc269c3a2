"""Who may come to a server, and what for: certificates, users, rights, and a record of what was refused."""

from __future__ import annotations

import json
import logging
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from asyncua import ua as _typed_ua
from asyncua.common.utils import ServiceError
from asyncua.crypto.permission_rules import User, UserRole
from cryptography import x509

from ...envs.errors import ConfigurationError
from ..certificates.identity import Identity, load_identity
from ..certificates.trust import Role
from ..certificates.users import Right, Users
from ..certificates.users import User as Known

ua: Any = _typed_ua  # asyncua annotates with OPC UA's types, and takes and gives Python's
_logger = logging.getLogger(__name__)

REFUSED = "refused.jsonl"
_MOST_BYTES, _KEPT = 4 * 2**20, 3
_MOST_A_SECOND = 20
"""Lines; what comes faster is counted, so that whoever is refused cannot fill the disk or the loop's time."""


class ServerSecurity:
    """A server's folder: its certificate, whom it trusts, its users; raises :class:`ConfigurationError` if unusable."""

    def __init__(self, folder: str | Path) -> None:
        self.identity: Identity = load_identity(folder)
        self.users = Users(folder)
        self.users.load()
        self._rights: dict[str, Right] = {}
        self.refused = RefusalLog(Path(folder) / REFUSED)

    async def judge(self, certificate: x509.Certificate, description: Any) -> None:
        """The certificate validator of asyncua: raises a service fault for a client that must not make a session."""
        try:
            found = self.identity.trust.judge(certificate, Role.CLIENT, uri=description.ApplicationUri)
        except ConfigurationError as error:
            _logger.error("nobody can connect: %s", error)
            raise ServiceError(ua.StatusCodes.BadSecurityChecksFailed) from error
        if found is not None:
            self.refused.tell(what="connection", status=found.fault.status, why=found.text)
            raise ServiceError(getattr(ua.StatusCodes, found.fault.status))

    def get_user(
        self,
        iserver: Any,  # given by asyncua
        username: str | None = None,
        password: str | None = None,
        certificate: bytes | None = None,
    ) -> User | None:
        """The user manager of asyncua: whose password, or whose certificate with its key proved; None: nobody's."""
        try:
            known = self._known(username, password, certificate)
        except ConfigurationError as error:
            _logger.error("nobody can log in: %s", error)
            known = None
        if known is None:
            self.refused.tell(what="login", user=username, status="BadUserAccessDenied")
            return None
        self._rights[known.name] = known.right
        return User(role=UserRole.User, name=known.name)

    def _known(self, username: str | None, password: str | None, certificate: bytes | None) -> Known | None:
        if username is not None:
            return self.users.by_password(username, password or "")
        if certificate:
            return self.users.by_certificate(x509.load_der_x509_certificate(certificate))
        return None

    def may_write(self, user: User) -> bool:
        """Whether this user's login gave him the right to command."""
        return self._rights.get(user.name or "") is Right.WRITE


class RefusalLog:
    """What a server refused, one line of JSON each, three files of 4 MiB at most; without a path only in the log."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._handler: RotatingFileHandler | None = None
        self._second, self._told, self._left_out = 0, 0, 0

    def tell(self, **row: Any) -> None:
        """Write one line; never raises, since a server must go on without a disk too."""
        second = int(time.time())
        if second != self._second:
            if self._left_out:
                row = {**row, "left_out_before": self._left_out}
            self._second, self._told, self._left_out = second, 0, 0
        if self._told >= _MOST_A_SECOND:
            self._left_out += 1
            return
        self._told += 1
        _logger.warning("refused: %s", row)
        if self._path is None:
            return
        line = json.dumps({"utc_s": round(time.time(), 3), **row}, default=str)
        try:
            if self._handler is None:
                self._handler = RotatingFileHandler(self._path, maxBytes=_MOST_BYTES, backupCount=_KEPT - 1)
            self._handler.emit(logging.LogRecord("", logging.INFO, "", 0, line, None, None))
        except OSError as error:
            _logger.error("%s: %s", self._path, error)

    def close(self) -> None:
        """Close the file; a later line opens it again."""
        if self._handler is not None:
            self._handler.close()
            self._handler = None
