"""Who we are to a broker: a password or a client's certificate, from a file that nobody else can read."""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import stat
from pathlib import Path

import yaml
from pydantic import Field, ValidationError, model_validator

from ...envs.configuration import Strict
from ...envs.errors import ConfigurationError
from .mqtt_address import NodeAddress, is_identifier

VARIABLE = "TWINLOOP_MQTT_IDENTITY"
"""Environment variable that names the identity's file."""


class _ClientContext(ssl.SSLContext):
    """Shakes hands as it wraps, and closes the socket of a peer that it refuses: paho would leave it open."""

    def wrap_socket(
        self,
        sock: socket.socket,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLSocket:
        wrapped = super().wrap_socket(sock, server_side, False, suppress_ragged_eofs, server_hostname, session)
        try:
            wrapped.do_handshake()
        except BaseException:
            wrapped.close()
            raise
        return wrapped


class Identity(Strict):
    """What a broker is told, and whom we believe; all paths as seen from the process.

    ``host_id`` is the Sparkplug host application that we are when we command: the plant obeys one.
    """

    username: str | None = None
    password: str | None = Field(default=None, repr=False)
    authority_file: Path | None = Field(default=None, description="PEM of whoever signed the broker's certificate")
    certificate_file: Path | None = Field(default=None, description="PEM of our own certificate")
    key_file: Path | None = Field(default=None, description="PEM of our private key")
    host_id: str = "twinloop"

    @model_validator(mode="after")
    def _the_pairs_are_whole(self) -> Identity:
        if self.password is not None and self.username is None:
            raise ValueError("password without username")
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file go together")
        if not is_identifier(self.host_id):
            raise ValueError(f"host_id {self.host_id!r}: a part of a topic, without + # and /")
        return self

    def check(self, where: NodeAddress) -> None:
        """Raise :class:`ConfigurationError` where a password would cross a network for all to read."""
        if self.password is not None and not where.is_secure and not _is_this_machine(where.host):
            raise ConfigurationError(
                f"{where.endpoint}: without TLS the password would cross the network in clear; give the broker a "
                "certificate and use mqtts://"
            )

    def context(self) -> ssl.SSLContext:
        """For TLS: the broker's certificate and name are always checked. Raises :class:`ConfigurationError`."""
        try:
            found = _ClientContext(ssl.PROTOCOL_TLS_CLIENT)  # which checks the broker's certificate and its name
            found.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.authority_file is None:
                found.load_default_certs()
            else:
                found.load_verify_locations(self.authority_file)
            if self.certificate_file is not None and self.key_file is not None:
                # No password is asked for on the terminal: a service has none.
                found.load_cert_chain(self.certificate_file, self.key_file, password="")
        except (OSError, ssl.SSLError) as error:
            names = [str(f) for f in (self.authority_file, self.certificate_file, self.key_file) if f is not None]
            raise ConfigurationError(
                f"MQTT identity: {', '.join(names)}: cannot be used for TLS ({error}); give PEM files, the key unsealed"
            ) from error
        return found


def identity_of_environment() -> Identity:
    """What the file named by :data:`VARIABLE` says; without that variable, nobody in particular."""
    name = os.environ.get(VARIABLE)
    return Identity() if not name else load_identity(name)


def load_identity(path: str | Path) -> Identity:
    """Read a YAML file of :class:`Identity`; raises :class:`ConfigurationError`, which never tells what is secret."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise ConfigurationError(f"{path}: others can read or write this secret; say: chmod 600 {path}")
            told = yaml.safe_load(file)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        # A parser's message quotes the line, which may hold the password.
        said = error.strerror if isinstance(error, OSError) else "is no YAML"
        raise ConfigurationError(f"{path}: {said}; {VARIABLE} names a file of username, password ...") from None
    try:
        return Identity.model_validate(told or {})
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigurationError(
            f"{path}: {where + ': ' if where else ''}{first['msg']}; keys here: {', '.join(Identity.model_fields)}"
        ) from None


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
