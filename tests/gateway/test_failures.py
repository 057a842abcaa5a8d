"""Every error of the tree has a status, and a stable code; what we did not foresee says nothing of itself."""

from __future__ import annotations

import pytest

from flowgpt import errors
from flowgpt.errors import FlowGPTError
from flowgpt.gateway.failures import Refusal, problem

EXPECTED = {
    "APIConnectionError": 502,
    "APIStatusError": 502,
    "APITimeoutError": 504,
    "AuthenticationError": 502,
    "BadRequestError": 502,
    "ChallengeError": 502,
    "FlowGPTError": 502,
    "InternalServerError": 502,
    "InvalidRequestError": 400,
    "ModelNotFoundError": 404,
    "NotFoundError": 502,
    "PermissionDeniedError": 502,
    "ProtocolError": 502,
    "ProxyError": 502,
    "QuotaExceededError": 429,
    "RateLimitError": 429,
    "ServiceUnavailableError": 503,
    "StoreError": 503,
    "StreamInterruptedError": 502,
}


def test_every_class_of_the_tree_has_its_status() -> None:
    classes = {
        name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, FlowGPTError)
    }

    assert {name: problem(kind("it failed")).status for name, kind in classes.items()} == EXPECTED


def test_a_problem_tells_what_the_error_knows() -> None:
    told = problem(errors.RateLimitError("too many", retry_after_s=7.5, hint="wait"))

    assert (told.status, told.code, told.message) == (429, "rate_limited", "too many (wait)")
    assert (told.retry_after_s, told.retriable, told.param) == (7.5, True, None)


@pytest.mark.parametrize(
    ("error", "retriable"),
    [
        (errors.RateLimitError("slow down"), True),
        (errors.QuotaExceededError("no credit"), False),
        (errors.AuthenticationError("bad key"), False),
        (errors.APIConnectionError("refused", attempts=1), True),
        (errors.APIConnectionError("refused", attempts=3), False),
        (errors.StreamInterruptedError("cut", partial_text="Hel"), False),
        (errors.InvalidRequestError("wrong"), False),
    ],
)
def test_who_may_ask_again(error: FlowGPTError, *, retriable: bool) -> None:
    assert problem(error).retriable is retriable


def test_the_parameter_and_the_partial_text_travel_along() -> None:
    wrong = problem(errors.InvalidRequestError("messages[0]: no role", param="messages[0]"))
    unknown = problem(errors.ModelNotFoundError("no such model"))
    cut = problem(errors.StreamInterruptedError("cut", partial_text="Hel"))

    assert (wrong.param, unknown.param, cut.partial_text) == ("messages[0]", "model", "Hel")


def test_too_much_is_413() -> None:
    assert problem(errors.InvalidRequestError("9 MB", code="payload_too_large")).status == 413


def test_k1_a_fault_of_ours_does_not_show_its_words() -> None:
    told = problem(KeyError("a secret"))

    assert (told.status, told.code, told.message) == (500, "internal_error", "the gateway failed: KeyError")


def test_a_refusal_is_its_own_problem() -> None:
    refusal = Refusal(403, "origin_not_allowed", "no", headers=[("vary", "origin")])

    assert problem(refusal) is refusal.problem
    assert (refusal.problem.status, refusal.problem.retriable) == (403, False)
    assert Refusal(503, "overloaded", "later").problem.retriable
