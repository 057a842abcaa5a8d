"""Keys: how they are made and recognised, and every form in which none, a wrong one or too many are refused."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowgpt.gateway.auth import Auth, digest, new_key
from flowgpt.gateway.failures import Refusal
from flowgpt.gateway.guard import Fields, fields
from flowgpt.store import Store
from tests.conftest import API_KEY

EXAMPLES = settings(max_examples=100)

ALICE, BOB = API_KEY, f"{API_KEY}-bob"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with contextlib.closing(Store(tmp_path / "flowgpt.db")) as opened:
        yield opened


@pytest.fixture
def asking(store: Store) -> Auth:
    """An Auth that knows alice and bob."""
    store.add_key("alice", digest(ALICE), 1.0)
    store.add_key("bob", digest(BOB), 2.0)
    return Auth(store, insecure_no_auth=False)


def headers(*lines: str) -> Fields:
    pairs = [line.encode("latin-1").split(b": ", 1) for line in lines]
    return fields([(name, value) for name, value in pairs])


def refused(who: Auth, *lines: str, query: bytes = b"") -> Refusal:
    with pytest.raises(Refusal) as caught:
        who.owner(headers(*lines), query)
    refusal = caught.value
    assert API_KEY not in refusal.problem.message
    assert (("www-authenticate", "Bearer") in refusal.headers) == (refusal.problem.status == 401)
    return refusal


# --- keys -----------------------------------------------------------------------------------------------------------


def test_a_new_key_is_fresh_long_and_fit_for_a_header_and_a_shell() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    for key in keys:
        assert key.startswith("fg-")
        assert len(key) == len("fg-") + 43, "256 bits in base64"
        assert set(key) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_a_digest_is_sha_256_and_shows_nothing_of_the_key() -> None:
    assert digest("fg-abc") == hashlib.sha256(b"fg-abc").hexdigest()


@pytest.mark.parametrize(
    ("lines", "owner"),
    [
        ([f"Authorization: Bearer {ALICE}"], "alice"),
        ([f"Authorization: bearer {ALICE}"], "alice"),
        ([f"Authorization: BEARER   {ALICE}  "], "alice"),
        ([f"x-api-key: {ALICE}"], "alice"),
        ([f"X-Api-Key: {BOB} "], "bob"),
        ([f"x-api-key: {ALICE}", f"Authorization: Bearer {ALICE}"], "alice"),
        ([f"x-api-key: {ALICE}", "Authorization: Basic dTpw"], "alice"),
        ([f"x-api-key: {ALICE}", "Authorization: Bearer "], "alice"),
        ([f"Authorization: Bearer {BOB}", "x-api-key: "], "bob"),
        (["Cookie: a=b", f"Authorization: Bearer {BOB}", "x-api-keys: other"], "bob"),
    ],
)
def test_a_key_is_taken_from_either_header(lines: list[str], owner: str, asking: Auth) -> None:
    assert asking.owner(headers(*lines), b"") == owner


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["Authorization: "],
        ["Authorization: Bearer"],
        ["Authorization: Bearer "],
        ["Authorization: Bearer null"],
        [f"Authorization: {ALICE}"],
        [f"Authorization: Basic {ALICE}"],
        [f"Authorization: Bearer{ALICE}"],
        [f"Authorization: Bearer {ALICE[:-1]}"],
        [f"Authorization: Bearer {ALICE}x"],
        [f"Authorization: Bearer {ALICE} x"],
        [f"Authorization: Bearer {ALICE.upper()}"],
        [f"Authorization: Bearer {digest(ALICE)}"],
        ["Authorization: Bearer alice"],
        ["x-api-key: "],
        ["x-api-key: é\xff"],
        [f"x-api-key: Bearer {ALICE}"],
        ["x-api-key: " + "x" * 60_000],
        [f"api-key: {ALICE}"],
        [f"Cookie: key={ALICE}"],
    ],
)
def test_no_key_and_any_other_are_401(lines: list[str], asking: Auth) -> None:
    problem = refused(asking, *lines).problem
    assert (problem.status, problem.code, problem.retriable) == (401, "invalid_api_key", False)


@EXAMPLES
@given(value=st.binary(max_size=80))
def test_k6_no_bytes_crash_it_or_come_in(value: bytes, crowd: Auth) -> None:
    for name, prefix in ((b"authorization", b"Bearer "), (b"authorization", b""), (b"x-api-key", b"")):
        with pytest.raises(Refusal) as caught:
            crowd.owner(fields([(name, prefix + value)]), b"")
        assert caught.value.problem.status == 401


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Auth]:
    with contextlib.closing(Store(tmp_path_factory.mktemp("crowd") / "flowgpt.db")) as opened:
        for number in range(3):
            opened.add_key(f"n{number}", digest(f"{API_KEY}-{number}"), 1.0)
        yield Auth(opened, insecure_no_auth=False)


@pytest.mark.parametrize("key", ["", "unknown", "é\xff", "x" * 10_000, f"{API_KEY}-0", f"{API_KEY}-2"])
def test_k6_each_key_is_hashed_once_and_compared_with_all(
    key: str, crowd: Auth, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison is the standard library's: what is counted here is that nothing returns early."""
    compared: list[tuple[int, int]] = []
    genuine = hmac.compare_digest

    def compare(known: Any, asked: Any) -> bool:
        compared.append((len(known), len(asked)))
        return genuine(known, asked)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    with contextlib.suppress(Refusal):
        crowd.owner(headers(f"x-api-key: {key}"), b"")
    assert compared == [(64, 64)] * 3


# --- more than one --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        [f"Authorization: Bearer {ALICE}", f"Authorization: Bearer {ALICE}"],
        [f"Authorization: Bearer {ALICE}", "Authorization: Bearer other"],
        ["Authorization: Basic dTpw", f"Authorization: Bearer {ALICE}"],
        [f"x-api-key: {ALICE}", f"X-API-Key: {ALICE}"],
        ["x-api-key: ", f"x-api-key: {ALICE}"],
        [f"Authorization: Bearer {ALICE}", f"x-api-key: {BOB}"],
        ["Authorization: Bearer wrong", f"x-api-key: {ALICE}"],
    ],
)
def test_k8_two_keys_or_a_doubled_header_are_400(lines: list[str], asking: Auth) -> None:
    problem = refused(asking, *lines).problem
    assert (problem.status, problem.code) == (400, "ambiguous_api_key")


@pytest.mark.parametrize(
    "query",
    [
        *("api_key={}", "key={}", "x-api-key={}", "access_token={}", "API_KEY={}", "a=1&key={}", "key", "key="),
        *("%6bey={}", "api%5Fkey={}", "Authorization=Bearer+{}"),
    ],
)
def test_k7_a_key_in_the_url_is_refused_whatever_the_headers_say(query: str, asking: Auth) -> None:
    data = query.format(ALICE).encode()
    for lines in ([], [f"Authorization: Bearer {ALICE}"]):
        problem = refused(asking, *lines, query=data).problem
        assert (problem.status, problem.code) == (401, "invalid_api_key")
        assert "URL" in problem.message


@pytest.mark.parametrize("query", [b"", b"limit=20&after=x", b"monkey=1", b"keys=1", b"\xff=%ff", b"a=key"])
def test_k7_any_other_query_is_none_of_our_affairs(query: bytes, asking: Auth) -> None:
    assert asking.owner(headers(f"x-api-key: {ALICE}"), query) == "alice"


# --- when nobody is asked -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines", [[], ["Authorization: Bearer sk-any"], ["x-api-key: any", "Authorization: Bearer other"]]
)
def test_as_long_as_no_key_exists_none_is_asked_for(lines: list[str], store: Store) -> None:
    for who in (Auth(store, insecure_no_auth=False), Auth(None, insecure_no_auth=False)):
        assert who.owner(headers(*lines), b"") == ""


def test_with_insecure_no_auth_nobody_is_asked_though_keys_exist(store: Store) -> None:
    store.add_key("alice", digest(ALICE), 1.0)
    assert Auth(store, insecure_no_auth=True).owner({}, b"") == ""


def test_a_key_counts_from_when_it_is_made_until_it_is_revoked_and_the_last_one_locks(store: Store) -> None:
    who = Auth(store, insecure_no_auth=False)
    asked = f"Authorization: Bearer {ALICE}"
    assert who.owner(headers(asked), b"") == ""
    store.add_key("alice", digest(ALICE), 1.0)
    assert who.owner(headers(asked), b"") == "alice"
    assert refused(who).problem.status == 401
    store.revoke_key("alice")
    assert refused(who, asked).problem.status == 401
    assert refused(who).problem.status == 401, "it does not open when the last key is revoked"


def test_keys_that_cannot_be_read_let_nobody_in(store: Store) -> None:
    who = Auth(store, insecure_no_auth=False)
    store.close()
    problem = refused(who, f"Authorization: Bearer {ALICE}").problem
    assert (problem.status, problem.code, problem.retriable) == (503, "store_error", True)
