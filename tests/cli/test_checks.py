"""The doctor's tables: every code and phase has its check, and a key's age is read without a word of it."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowgpt.cli import checks
from flowgpt.cli.checks import FAILS, LADDER, judge
from flowgpt.cli.failures import EXIT_CODES
from flowgpt.errors import RETRY_CLASSES, FlowGPTError
from flowgpt.transport.probe import Outcome
from tests.conftest import API_KEY
from tests.transport.calls import call


def jwt(claims: Any) -> str:
    """A key in a JWT's form, with the canary in its claims and as its signature."""
    parts = (json.dumps(part).encode() for part in ({"alg": "none"}, claims))
    return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), API_KEY])


# --- the key's age --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("left_s", "state", "code"), [(3600, "ok", 0), (-3600, "fail", 3)])
def test_a_jwt_says_when_it_expires(left_s: int, state: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expires_s = int(time.time()) + left_s
    monkeypatch.setenv("FLOWGPT_API_KEY", jwt({"exp": expires_s, "sub": API_KEY}))
    found = checks.local()[-1]

    assert (found.name, found.state, found.exit_code) == ("token", state, code)
    assert found.words.endswith(time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(expires_s)))
    assert API_KEY not in repr(found)


@pytest.mark.parametrize(
    "claims",
    [{}, [], 7, {"exp": None}, {"exp": "soon"}, {"exp": 1e300}, {"exp": float("nan")}, {"exp": [1]}],
    ids=repr,
)
def test_a_jwt_that_does_not_say_when_it_expires(claims: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWGPT_API_KEY", jwt(claims))
    found = checks.local()[-1]

    assert (found.state, found.words.startswith("cannot tell")) == ("skipped", True)


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)) | st.from_regex(r"[\w-]*\.[\w-]*\.[\w-]*"))
def test_any_other_key_has_no_age(key: str) -> None:
    assert checks._expiry(key) is None


# --- the tables -----------------------------------------------------------------------------------------------------


def test_every_check_that_a_code_names_is_on_the_ladder() -> None:
    assert {*FAILS.values(), *checks.OF_PHASE.values()} == {*LADDER}


@pytest.mark.parametrize("phase", [None, "pool", "connect", "head", "body"])
@pytest.mark.parametrize("code", sorted({*FAILS, *RETRY_CLASSES, "deadline_exceeded", "of_tomorrow"}))
@pytest.mark.parametrize("proxy", ["", "http://127.0.0.1:9"])
def test_any_failure_fails_one_check_and_nothing_behind_it_is_claimed(code: str, phase: str, proxy: str) -> None:
    there = call("https://localhost", proxy=proxy)
    found = judge(there, Outcome(FlowGPTError("it failed", code=code, phase=phase)))

    (fails,) = (check for check in found if check.state == "fail")
    behind = [check.state for check in found if LADDER.index(check.name) > LADDER.index(fails.name)]
    assert [check.name for check in found] == [*LADDER]
    assert {*behind} <= {"skipped"}
    assert (fails.words, fails.exit_code) == ("it failed", EXIT_CODES[FlowGPTError])


def test_a_refusal_in_the_head_does_not_prove_that_the_signature_was_looked_at() -> None:
    failure = FlowGPTError("too many", code="rate_limited", phase="head")
    found = {check.name: check.state for check in judge(call("http://127.0.0.1:1"), Outcome(failure))}

    assert (found["service"], found["signature"], found["protocol"], found["quota"]) == (
        "ok",
        "skipped",
        "skipped",
        "fail",
    )
