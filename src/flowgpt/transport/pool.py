"""The open connections of each event loop: one pool a loop, shared by all calls in it, closed with the loop.

The pool lives in an async generator, which the loop's `shutdown_asyncgens` closes (`asyncio.run` calls it).
Process-wide state, by design: connections belong to the loop, and class-level calls have no other place for them.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import AsyncGenerator, Callable
from contextvars import ContextVar
from typing import Any, Protocol

import aiohttp
from aiohttp_socks import ProxyConnector, ProxyType

from ..addresses import Proxy, Secret
from ..errors import InvalidRequestError
from .connection import Connection

A_DAY_S = 86_400
IDLE_CONNECTION_S = 30
"""How long a connection waits for its next request. Ours: shorter than servers usually keep one (60 s and more)."""


class Phases(Protocol):
    """What is told of a request on its way to a connection. `reused`: False once it has got a new one."""

    reused: bool

    def enter(self, phase: str) -> None:
        """The request is now in the phase `pool`, `connect` or `head`."""


PHASES: ContextVar[Phases] = ContextVar("PHASES")
"""The request that this task sends."""

_pools: dict[asyncio.AbstractEventLoop, Pool] = {}


class Pool:
    """The connections of one event loop; `limit` of them at most."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.process = os.getpid()
        self.exchanges: weakref.WeakSet[Any] = weakref.WeakSet()  # what its loop's end closes
        self._sessions: dict[Proxy | None, aiohttp.ClientSession] = {}
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._keeper = self._keep()
        # asyncio takes 256 KiB for each read, and cuts off what stays empty. Blocks of that size glibc maps and unmaps,
        # a third of a token's cost, until one was freed uncut: this one (mallopt(3), M_MMAP_THRESHOLD).
        bytes(512 * 1024)

    def __repr__(self) -> str:
        busy = sum(len(session.connector._acquired) for session in self._sessions.values() if session.connector)
        return f"<Pool {busy} busy, limit={self.limit}>"

    def session(self, proxy: Proxy | None) -> aiohttp.ClientSession:
        """The session to send with; a SOCKS proxy has one of its own, since aiohttp knows only HTTP proxies."""
        socks = proxy if proxy is not None and proxy.scheme == "socks5" else None
        if socks not in self._sessions:
            self._sessions[socks] = _session(socks, self.limit, self._connection)
        return self._sessions[socks]

    def _connection(self) -> Connection:
        made = Connection(loop=asyncio.get_running_loop())
        self._connections.add(made)
        return made

    async def _keep(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            _pools.pop(asyncio.get_running_loop(), None)
            for exchange in list(self.exchanges):
                exchange.close()
            for session in self._sessions.values():
                await session.close()
            for connection in list(self._connections):  # those too that the sessions let go of, and that close in time
                connection.abort()
            await asyncio.sleep(0)  # a transport closes its socket in the loop's next turn


async def current_pool(limit: int) -> Pool:
    """The running loop's pool, made at the first call. `limit`: the most connections, when it is made.

    Raises: InvalidRequestError (forked_process) in the child of a fork that goes on with its parent's loop.
    """
    loop = asyncio.get_running_loop()
    pool = _pools.get(loop)
    if pool is None:
        for closed in [other for other in _pools if other.is_closed()]:
            del _pools[closed]
        pool = _pools[loop] = Pool(limit)
        await anext(pool._keeper)
    elif pool.process != os.getpid():
        raise InvalidRequestError(
            "this event loop belongs to the parent process", code="forked_process", hint="start a loop of its own"
        )
    return pool


def _session(socks: Proxy | None, limit: int, connection: Callable[[], Connection]) -> aiohttp.ClientSession:
    settings: dict[str, Any] = {"limit": limit, "keepalive_timeout": IDLE_CONNECTION_S}
    if socks is None:
        connector: aiohttp.TCPConnector = _Connector(**settings)
    else:
        connector = _SocksConnector(
            proxy_type=ProxyType.SOCKS5,
            host=socks.host.strip("[]"),
            port=socks.port,
            username=None if socks.username is None else _octets(socks.username),
            password=None if socks.username is None else _octets(socks.password or ""),
            rdns=True,
            **settings,
        )
    connector._factory = connection  # type: ignore[assignment]  # it makes one
    return aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        # The deadlines are in exchange.py. Without one, the SOCKS library has its own of a minute.
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=A_DAY_S if socks else None),
        trust_env=False,
    )


class _Connector(aiohttp.TCPConnector):
    """Tells each request which phase it enters. The client's own tracing would cost a tenth of a short reply."""

    async def connect(self, *args: Any, **named: Any) -> Any:
        connection = await super().connect(*args, **named)
        PHASES.get().enter("head")
        return connection

    async def _wait_for_available_connection(self, *args: Any) -> None:
        PHASES.get().enter("pool")
        await super()._wait_for_available_connection(*args)

    async def _create_connection(self, *args: Any) -> Any:
        phases = PHASES.get()
        phases.reused = False
        phases.enter("connect")
        return await super()._create_connection(*args)


class _SocksConnector(_Connector, ProxyConnector):
    """Makes connections of our kind through a SOCKS proxy, and the service's TLS behind it as without a proxy.

    The SOCKS library's own TLS waits without end, cancelled or not, when the handshake hangs.
    """

    async def _wrap_create_connection(self, *args: Any, req: Any, timeout: Any, ssl: Any = None, **named: Any) -> Any:
        transport: Any
        connection: Any
        transport, opener = await super()._wrap_create_connection(*args, req=req, timeout=timeout, **named)
        if ssl is None:
            connection = self._factory()
            transport.set_protocol(connection)
            connection.connection_made(transport)
        else:
            transport, connection = await self._start_tls_connection(transport, req=req, timeout=timeout)
        connection.opener = opener  # it holds the stream writer, which closes the socket when it is dropped
        return transport, connection


class _Octets(Secret):
    """A SOCKS user name or password: the SOCKS library takes ASCII only, counts characters, and wants no empty one."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return str(self).encode()

    def __len__(self) -> int:
        return len(self.encode())

    def __bool__(self) -> bool:
        return True


def _octets(value: str) -> _Octets:
    """Raises: InvalidRequestError (bad_proxy) for what SOCKS cannot carry (RFC 1929)."""
    octets = _Octets(value)
    if len(octets) > 255:
        raise InvalidRequestError("a SOCKS user name or password has at most 255 bytes", code="bad_proxy")
    return octets
