"""Real proxy servers on loopback: pproxy, which is not ours, for http, https and socks5.

A witness: it checks the credentials itself, and its log says what went through it. Each runs in a process of its own,
since pproxy patches asyncio; it ends when its input does. In there, and nowhere else, the name NAME is known.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from tests.upstream import BOUND_S

NAME = "origin.test"

SERVER = f"""
import asyncio, functools, socket, ssl, sys
import pproxy.server

genuine = socket.getaddrinfo
socket.getaddrinfo = lambda host, *rest, **named: genuine("127.0.0.1" if host == "{NAME}" else host, *rest, **named)

def say(line):
    print(line, flush=True)

async def main(uri, certificate=None):
    option = pproxy.Server(uri)
    # authtime: pproxy would let an address in for weeks once it has shown the password.
    settings = vars(option) | {{"rserver": [], "verbose": say, "authtime": -1}}
    tls = None
    if certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate)
    handler = functools.partial(pproxy.server.stream_handler, **settings)
    server = await asyncio.start_server(handler, option.host_name, option.port, ssl=tls)
    say(server.sockets[0].getsockname()[1])
    await asyncio.to_thread(sys.stdin.read)

asyncio.run(main(*sys.argv[1:]))
"""


@dataclass
class ProxyServer:
    """A proxy: `with ProxyServer("socks5", ("user", "password")) as proxy: proxy.url`.

    `credentials`: who may pass; None lets everybody. `certificate`: the PEM file with key and chain, for https.
    `log`: what the proxy has said, line by line.
    """

    scheme: str
    credentials: tuple[str, str] | None = None
    certificate: Path | None = None
    host: str = "127.0.0.1"
    port: int = 0
    log: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The address with the right credentials."""
        return self.address(self.credentials)

    @property
    def tunnels(self) -> list[str]:
        """Where the proxy was asked to connect to, once for each connection: `host:port`."""
        return [line.partition(" -> ")[2] for line in self.log if " -> " in line]

    def address(self, credentials: tuple[str, str] | None) -> str:
        """The address with these credentials, percent-encoded."""
        userinfo = ":".join(quote(part, safe="") for part in credentials) + "@" if credentials else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{userinfo}{host}:{self.port}"

    def __enter__(self) -> Self:
        self._changed = threading.Condition()
        users = "#" + ":".join(self.credentials) if self.credentials else ""
        uri = self.address(None).replace("https", "http") + users
        command = [sys.executable, "-c", SERVER, uri, *([str(self.certificate)] if self.certificate else [])]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._listener = threading.Thread(target=self._listen, name="proxy")
        self._listener.start()
        self.wait_for(lambda: self.port, "the proxy to listen")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(BOUND_S)
        self._listener.join(BOUND_S)
        assert not self._listener.is_alive(), "the proxy does not end"

    def kill(self) -> None:
        """Let the proxy die at once: what goes through it breaks."""
        self._process.kill()

    def wait_for(self, fact: Callable[[], Any], words: str = "it") -> None:
        """Wait until `fact()` is true. It is looked at whenever the proxy has said something."""
        with self._changed:
            assert self._changed.wait_for(fact, BOUND_S), f"waited in vain for {words}"

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                with self._changed:
                    if line.strip().isdigit():
                        self.port = int(line)
                    self.log.append(line.strip())
                    self._changed.notify_all()
