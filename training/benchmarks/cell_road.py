"""A link to a plant at a local socket that breaks and comes back: what its clients' connections pass through."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from pathlib import Path


class Road:
    """Bytes between the clients of one socket and the server at another; ``cut`` breaks all connections for a while."""

    def __init__(self, server: Path, here: Path) -> None:
        self._server = server
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._is_cut = False
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(str(here))
        self._listening.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, seconds: float) -> None:
        """Break what is connected, and whatever connects, and return after that many seconds of wall time."""
        self._is_cut = True
        for pair in self._pairs:
            _shut(pair)
        self._pairs.clear()
        time.sleep(seconds)
        self._is_cut = False

    def close(self) -> None:
        self._listening.close()
        for pair in self._pairs:
            _shut(pair)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            if self._is_cut:
                client.close()
                continue
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            server.connect(str(self._server))
            self._pairs.append((client, server))
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=_carry, args=(source, sink), daemon=True).start()


def _carry(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    _shut((source, sink))


def _shut(pair: tuple[socket.socket, socket.socket]) -> None:
    for end in pair:
        with suppress(OSError):  # the other side may have left
            end.shutdown(socket.SHUT_RDWR)
