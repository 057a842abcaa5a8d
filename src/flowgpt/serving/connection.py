"""uvicorn's HTTP connection, mended and bounded, and what all connections of a listening socket share.

What is answered is the application's affair, and the words of a refusal the server's. No routes here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Literal

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

TRANSPORT = "flowgpt.transport"
"""Where the ASGI scope holds the connection's asyncio transport."""

LIMIT_HEAD_BYTES = 64 * 1024
LIMIT_HEADERS = 100

HEAD_S = 10.0
"""How long a request's head may take, from its first byte on, or a new connection's silence; and how long a client that
was refused may stay to read why."""

PIECE_BYTES = 4096
"""How much is parsed at once: so exact is the count of a head's bytes."""

GATHER_BYTES = 64 * 1024
"""How much of an answer is gathered at most: from then on a client that does not read must be noticed."""

STOP_S = 5.0
"""How long an application may take to end when its listener does."""


class Listener(ServerState):
    """One listening socket and what is open on it: uvicorn's `connections`, and the `tasks` that answer.

    `problem`: a refusal's JSON body, from its status and words. `gathers`: what an application sends in one turn of the
    loop leaves in one write. `leaving`: answers tell their clients to come here no more. At its end, `patience_s`: how
    long the clients may take to read what was written to them; `stop_s`: how long the application may take when they
    have been broken off.
    """

    def __init__(
        self,
        problem: Callable[[HTTPStatus, str], bytes],
        *,
        head_s: float = HEAD_S,
        limit_connections: int | None = None,
        gathers: bool = False,
    ) -> None:
        super().__init__()
        self.problem = problem
        self.gathers = gathers
        self.head_s = head_s
        self.limit_connections = limit_connections
        self.leaving = False
        self.patience_s = 0.0
        self.stop_s = STOP_S
        self.empty = asyncio.Event()
        self.empty.set()
        self._date_s, self._date = 0, b""

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Those of every answer that begins now."""
        now_s = int(time.time())
        if now_s != self._date_s:
            self._date_s, self._date = now_s, formatdate(now_s, usegmt=True).encode()
        dated = [(b"date", self._date)]
        return [*dated, (b"connection", b"close")] if self.leaving else dated


class Connection(HttpToolsProtocol):
    """uvicorn's HTTP connection, with bounds on what is no body yet, and refusals in JSON.

    It shows itself to the application, takes a request to upgrade for a plain one, tells every request that waits here
    when the client has left (uvicorn tells the last one only), and lets a client read its answer before it closes.
    """

    server_state: Listener

    # a dictionary that is shared has room for 30 names, and uvicorn's are 28: with these it would take 1 KiB more
    __slots__ = (
        "_deaf",
        "_head_bytes",
        "_is_too_many",
        "_reading",
        "_timer",
        "_unanswered",
        "_unread_bytes",
        "_unsent",
        "_unsent_bytes",
    )

    def __init__(self, config: uvicorn.Config, listener: Listener, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(config, listener, {}, loop)
        self._unanswered: list[RequestResponseCycle] = []
        self._reading: Literal["nothing", "head", "body"] = "nothing"
        self._head_bytes = 0
        self._unread_bytes = 0
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._deaf = self._is_too_many = False

    # --- a connection's beginning and end ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self.server_state.empty.clear()
        limit = self.server_state.limit_connections
        self._is_too_many = limit is not None and len(self.connections) > limit
        self._start_timer(self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unsent.clear()
        self._stop_timer()
        self._unset_keepalive_if_required()
        self._disconnect()
        super().connection_lost(exc)
        if not self.connections:
            self.server_state.empty.set()

    # --- what comes in ----------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._unset_keepalive_if_required()
        for start in range(0, len(data), PIECE_BYTES):
            self._parse(data[start : start + PIECE_BYTES])
            if self._deaf:
                return
        is_blank = self._reading == "nothing" and self._is_answered()  # lines before a head: no wait for ever for it
        if self._timer is None and (self._reading == "head" or is_blank):
            self._start_timer(self._head_is_late)

    def _parse(self, piece: bytes) -> None:
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:  # it stops here: another reads the same head without that wish
            version = self.parser.get_http_version().encode()
            head = [b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, version)]
            head += [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
            self.parser = httptools.HttpRequestParser(self)
            self.data_received(b"".join(head) + b"\r\n" + piece[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(HTTPStatus.BAD_REQUEST, "Invalid HTTP request received.")
        else:
            self._head_bytes += len(piece)
            if self._head_bytes > LIMIT_HEAD_BYTES:
                self._refuse(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the head has more than {LIMIT_HEAD_BYTES} bytes"
                )

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        self._reading = "head"
        self._stop_timer()  # one for this head starts when the read has not brought all of it
        self.server_state.default_headers = self.server_state.headers()
        super().on_message_begin()
        self.scope[TRANSPORT] = self.transport  # type: ignore[literal-required]  # our own key

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) == LIMIT_HEADERS:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"there are more than {LIMIT_HEADERS} headers")
            raise ValueError("refused")  # stops the parser
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._reading = "body"
        self._stop_timer()
        if self._is_too_many:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "there are too many connections; ask again soon")
            raise ValueError("refused")
        if self.parser.get_method() == b"CONNECT":
            raise ValueError("this is no proxy")
        super().on_headers_complete()
        if not self._should_upgrade():
            self.cycle.transport = self  # type: ignore[assignment]  # as much of one as it uses
            self._unanswered = [cycle for cycle in self._unanswered if not cycle.response_complete] + [self.cycle]

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0  # what is no body counts as a head: trailers, and what is said of chunks
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._reading = "nothing"
        super().on_message_complete()

    def _should_upgrade(self) -> bool:
        """uvicorn asks this to leave a request alone: _parse comes back with it."""
        return bool(self.parser.should_upgrade())

    # --- what goes out: the transport of an answer, as uvicorn's cycle uses it --------------------------------------

    def write(self, data: bytes) -> None:
        """uvicorn writes a head, each piece and an end by themselves: as many system calls, and packets."""
        if not self.server_state.gathers:
            self.transport.write(data)
            return
        if not self._unsent:
            self.loop.call_soon(self._send_gathered)
        self._unsent.append(data)
        self._unsent_bytes += len(data)
        if self._unsent_bytes >= GATHER_BYTES:
            self._send_gathered()

    def _send_gathered(self) -> None:
        if self._unsent:
            self.transport.write(b"".join(self._unsent))
            self._unsent.clear()
            self._unsent_bytes = 0

    def is_closing(self) -> bool:
        return self._deaf or self.transport.is_closing()

    def close(self) -> None:
        """Close, when the client has read its answer.

        Closing on what the client still sends is a reset, which takes the answer along; and a client that reads nothing
        would keep a closing connection for ever.
        """
        self._send_gathered()
        if self._reading != "nothing" or self.transport.get_write_buffer_size():
            self._linger()
        else:
            self.transport.close()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._reading == "body" and self._is_answered():  # nobody wants the rest
            self.close()

    def shutdown(self) -> None:
        self._send_gathered()
        super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        self.close()

    # --- refusing, and leaving --------------------------------------------------------------------------------------

    def _head_is_late(self) -> None:
        if self._reading == "nothing":
            self.close()
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"the head took more than {self.server_state.head_s:g} s")

    def _refuse(self, status: HTTPStatus, words: str) -> None:
        """Answer what never reaches the application, unless another answer is under way, and close."""
        if self.is_closing():
            return
        self._send_gathered()
        if not any(cycle.response_started and not cycle.response_complete for cycle in self._unanswered):
            body = self.server_state.problem(status, words)
            head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
            head += "retry-after: 1\r\n" if status == HTTPStatus.SERVICE_UNAVAILABLE else ""
            head += f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            self.transport.write(head.encode() + body)
        self._disconnect()
        self._linger()

    def _linger(self) -> None:
        """Say that nothing more comes, throw away what the client still sends, and wait until it has left."""
        if self.is_closing():
            return
        self._deaf = True
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        self.transport.write_eof()
        self._unread_bytes = self.transport.get_write_buffer_size()
        self._start_timer(self._give_up)

    def _give_up(self) -> None:
        """Break the connection, unless the client has read something since."""
        unread_bytes = self.transport.get_write_buffer_size()
        if 0 < unread_bytes < self._unread_bytes:
            self._unread_bytes = unread_bytes
            self._start_timer(self._give_up)
        else:
            self.transport.abort()

    def _is_answered(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _disconnect(self) -> None:
        for cycle in self._unanswered:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def _start_timer(self, act: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(self.server_state.head_s, act)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
