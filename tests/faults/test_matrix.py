"""The fault matrix: each case of the table over each surface, with real sockets from end to end."""

from __future__ import annotations

import contextlib
import functools
import socket
import ssl
from collections.abc import Iterator

import pytest
import trustme

from flowgpt import config
from flowgpt.gateway.app import create_app
from flowgpt.gateway.settings import Settings
from tests.conftest import Resolver
from tests.faults.surfaces import SURFACES
from tests.faults.table import CASES, Case
from tests.gateway.conftest import Served
from tests.upstream import Upstream


@pytest.fixture(scope="module")
def gateway() -> Iterator[Served]:
    """One gateway for all cases: it asks whom the configuration names at that time, as each surface does."""
    with Served(lambda: create_app(settings=Settings())) as served:
        yield served


@functools.cache
def untrusted() -> ssl.SSLContext:
    """A server's context with a certificate of an authority that nobody knows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


@contextlib.contextmanager
def played(case: Case) -> Iterator[Upstream]:
    """The upstream of a case, and the configuration that leads to it; nothing is sent twice."""
    with (
        Upstream(case.script, greeting=case.greeting, tls=untrusted() if case.tls else None) as upstream,
        socket.socket() as closed,
        socket.socket() as deaf,
    ):
        for place in (closed, deaf):
            place.bind(("127.0.0.1", 0))
        deaf.listen(0)
        with socket.create_connection(deaf.getsockname()):  # one fills its queue
            ports = {"closed": closed.getsockname()[1], "deaf": deaf.getsockname()[1]}
            written = case.config.format(url=upstream.url, port=upstream.port, **ports)
            config.home().mkdir()
            (config.home() / "config.toml").write_text(f"max_retries = 0\n{written}\n", "utf-8")
            yield upstream


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("name", CASES)
def test_each_surface_tells_it(name: str, surface: str, gateway: Served, resolver: Resolver) -> None:
    case = CASES[name]
    resolver(
        {
            "flaky.test": socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
            "two.test": ["::1", "127.0.0.1"],
        }
    )

    with played(case) as upstream:
        SURFACES[surface](case, gateway)
        assert len(upstream.requests) == case.sends
