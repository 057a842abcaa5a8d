"""The error tree: its drawing, its codes, and that errors travel whole. docs/errors.md is held to the code here."""

from __future__ import annotations

import ast
import copy
import inspect
import pickle
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import flowgpt
from flowgpt import errors
from flowgpt.errors import (
    RETRY_CLASSES,
    APIStatusError,
    FlowGPTError,
    InvalidRequestError,
    RateLimitError,
    RetryClass,
    StreamInterruptedError,
)

ROOT = Path(__file__).parent.parent

TREE = {
    "FlowGPTError": "Exception",
    "InvalidRequestError": "FlowGPTError ValueError",
    "ModelNotFoundError": "InvalidRequestError",
    "APIConnectionError": "FlowGPTError",
    "APITimeoutError": "APIConnectionError",
    "ProxyError": "APIConnectionError",
    "StreamInterruptedError": "APIConnectionError",
    "ProtocolError": "FlowGPTError",
    "APIStatusError": "FlowGPTError",
    "BadRequestError": "APIStatusError",
    "AuthenticationError": "APIStatusError",
    "PermissionDeniedError": "APIStatusError",
    "ChallengeError": "PermissionDeniedError",
    "NotFoundError": "APIStatusError",
    "RateLimitError": "APIStatusError",
    "QuotaExceededError": "RateLimitError",
    "InternalServerError": "APIStatusError",
    "ServiceUnavailableError": "FlowGPTError",
    "StoreError": "FlowGPTError",
}
"""Provenance: the project's design, name by name."""

CODES: dict[str, dict[str, RetryClass]] = {
    "InvalidRequestError": dict.fromkeys(
        [
            "invalid_request",
            "header_injection",
            "bad_proxy",
            "bad_base_url",
            "payload_too_large",
            "client_closed",
            "wrong_loop",
            "forked_process",
        ],
        "never",
    ),
    "APIConnectionError": {"dns_error": "safe", "connect_error": "safe", "tls_error": "never"},
    "APITimeoutError": {
        "connect_timeout": "safe",
        "pool_timeout": "safe",
        "header_timeout": "ambiguous",
        "first_event_timeout": "ambiguous",
        "idle_timeout": "ambiguous",
        "deadline_exceeded": "never",
        "consumer_stalled": "never",
    },
    "ProxyError": {"proxy_connect_error": "safe", "proxy_auth_error": "never"},
    "StreamInterruptedError": {"stream_interrupted": "ambiguous", "stream_truncated": "ambiguous"},
    "ProtocolError": {
        "empty_reply": "ambiguous",
        **dict.fromkeys(
            [
                "bad_http",
                "not_a_stream",
                "decode_error",
                "line_too_long",
                "response_too_large",
                "bad_event",
                "bad_character",
                "invalid_output",
                "compression_refused",
                "redirect_refused",
            ],
            "never",
        ),
    },
    "ServiceUnavailableError": dict.fromkeys(["circuit_open", "overloaded", "shutting_down"], "safe"),
    "StoreError": {
        "store_busy": "safe",
        **dict.fromkeys(["store_full", "store_read_only", "store_corrupt", "store_newer"], "never"),
    },
}
"""Provenance: the design's table of codes, with the retry class of each one's row in the list of faults."""

CLASSES: dict[str, type[FlowGPTError]] = {
    name: value for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, FlowGPTError)
}


# The tree


def test_the_tree_has_these_classes_and_no_others() -> None:
    assert {name: " ".join(base.__name__ for base in kind.__bases__) for name, kind in CLASSES.items()} == TREE


def test_the_drawing_names_every_class_under_its_parent() -> None:
    drawing = re.findall(r"^    ([│├└─ ]*)(.*)$", errors.__doc__ or "", re.MULTILINE)
    drawn: dict[str, str] = {}
    path: list[str] = []
    for lines, words in drawing:
        depth = len(lines) // 3
        path[depth:] = [""]
        for name in re.findall(r"(?!ValueError)\b\w+Error\b", words):
            drawn[name] = path[depth - 1] if depth else "Exception"
            path[depth] = name

    assert drawn == {name: parents.split()[0] for name, parents in TREE.items()}


def test_every_class_is_exported_by_the_package() -> None:
    assert [name for name in CLASSES if getattr(flowgpt, name, None) is not CLASSES[name]] == []


def test_a_wrong_call_is_a_value_error() -> None:
    """So that `except ValueError` around a call with bad arguments works as everywhere in Python."""
    with pytest.raises(ValueError, match="empty"):
        raise InvalidRequestError("messages is empty")


# The codes


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_has_a_code_of_its_own_and_a_sentence(name: str) -> None:
    kind = CLASSES[name]

    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", kind.code)
    assert "code" in vars(kind)
    assert inspect.cleandoc(kind.__doc__ or "").splitlines()[0].endswith((".", "…"))


def test_no_two_classes_have_one_default_code() -> None:
    codes = [kind.code for kind in CLASSES.values()]
    doubled = {code for code in codes if codes.count(code) > 1}

    assert doubled == set()


@pytest.mark.parametrize(
    ("name", "code", "retry_class"), [(name, *row) for name, codes in CODES.items() for row in codes.items()]
)
def test_a_code_is_retried_as_its_fault_allows(name: str, code: str, retry_class: RetryClass) -> None:
    error = CLASSES[name]("x", code=code)

    assert (error.retry_class, error.retriable) == (retry_class, retry_class != "never")
    assert (code in RETRY_CLASSES) == (retry_class != "never")


@pytest.mark.parametrize(
    ("name", "retry_class"),
    [
        ("ModelNotFoundError", "never"),
        ("APIStatusError", "never"),
        ("BadRequestError", "never"),
        ("AuthenticationError", "never"),
        ("PermissionDeniedError", "never"),
        ("ChallengeError", "never"),
        ("NotFoundError", "never"),
        ("RateLimitError", "safe"),
        ("QuotaExceededError", "never"),
        ("InternalServerError", "ambiguous"),
        ("StoreError", "never"),
    ],
)
def test_a_refusal_is_retried_as_its_status_allows(name: str, retry_class: RetryClass) -> None:
    assert CLASSES[name]("x").retry_class == retry_class


def test_nothing_is_retriable_once_text_has_come() -> None:
    assert StreamInterruptedError("cut").retriable
    assert not StreamInterruptedError("cut", partial_text="Hel").retriable


# An error as a value


def test_an_error_carries_its_facts() -> None:
    bare = FlowGPTError("no")
    full = RateLimitError("slow down", status_code=429, retry_after_s=3.0, attempts=2, phase="head", request_id="r1")

    assert (bare.code, bare.hint, bare.retry_after_s, bare.phase) == ("error", None, None, None)
    assert (bare.request_id, bare.attempts, bare.partial_text) == (None, 0, "")
    assert (full.message, str(full), full.code) == ("slow down", "slow down", "rate_limited")
    assert (full.status_code, full.retry_after_s, full.attempts, full.phase, full.request_id) == (
        429,
        3,
        2,
        "head",
        "r1",
    )


FACTS: dict[str, Any] = {
    "code": "other_code",
    "hint": "do this",
    "retry_after_s": 1.5,
    "phase": "body",
    "request_id": "r1",
    "attempts": 3,
    "partial_text": "Segú",
}


@pytest.mark.parametrize("again", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("name", CLASSES)
def test_an_error_is_copied_and_pickled_with_all_it_carries(name: str, again: Any) -> None:
    facts = FACTS | ({"status_code": 418} if issubclass(CLASSES[name], APIStatusError) else {})
    error = CLASSES[name]("the message", **facts)
    twin = again(error)

    assert (type(twin), twin.args, vars(twin)) == (type(error), ("the message",), vars(error))
    assert {fact: getattr(twin, fact) for fact in facts} == facts


def test_k4_a_repr_is_one_line_whatever_the_message_has_in_it() -> None:
    shown = repr(FlowGPTError("a\nb\r\x1b[31m\u2028\u202ec"))

    assert shown == r"<FlowGPTError error: 'a\nb\r\x1b[31m\u2028\u202ec'>"
    assert shown.isprintable()


def test_a_repr_names_the_class_the_code_and_the_message() -> None:
    assert repr(StreamInterruptedError("cut", tail=b"secret")) == "<StreamInterruptedError stream_interrupted: 'cut'>"


# docs/errors.md


def rows() -> list[tuple[str, str, str]]:
    """Class, code and the word on retrying, from the table."""
    lines = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8").splitlines()
    cells = [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")
    ]
    return [(row[0], row[1], row[3]) for row in cells if len(row) == 5]


def codes_in_use() -> Iterator[tuple[str | None, str]]:
    """Every `code="..."` in the source, with the class that is called with it; and the codes of the tables.

    A table is any call or assignment that has an error class and a string in the form of a code side by side.
    """
    for path in sorted((ROOT / "src" / "flowgpt").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                kind = node.func.id if isinstance(node.func, ast.Name) and node.func.id in TREE else None
                for keyword in node.keywords:
                    if keyword.arg == "code" and (code := constant(keyword.value)):
                        yield kind, code
                yield from side_by_side(node.args)
            elif isinstance(node, ast.Tuple):
                yield from side_by_side(node.elts)


def side_by_side(nodes: list[ast.expr]) -> Iterator[tuple[str, str]]:
    for kind, code in pairwise(nodes):
        if isinstance(kind, ast.Name) and kind.id in TREE and (word := constant(code)):
            yield kind.id, word


def constant(node: ast.expr) -> str | None:
    """The code that stands there, when it is one."""
    value = node.value if isinstance(node, ast.Constant) else None
    return value if isinstance(value, str) and re.fullmatch(r"[a-z]+(_[a-z]+)*", value) else None


def test_the_scan_finds_codes() -> None:
    """So that a change of habit in the source does not empty the tests below unseen."""
    assert {("ProtocolError", "not_a_stream"), ("InvalidRequestError", "payload_too_large")} <= set(codes_in_use())


def test_the_document_names_every_class_with_its_own_code() -> None:
    listed = {(name, code) for name, code, _ in rows()}

    assert {(name, kind.code) for name, kind in CLASSES.items()} - listed == set()


def test_the_document_names_every_code_that_is_used_under_its_class() -> None:
    listed = {(name, code) for name, code, _ in rows()}
    codes = {code for _, code in listed}

    assert {pair for pair in codes_in_use() if pair not in listed and (pair[0] or pair[1] not in codes)} == set()
    assert RETRY_CLASSES.keys() - codes == set()
    assert {(name, code) for name, codes in CODES.items() for code in codes} - listed == set()


def test_the_document_says_truly_what_is_retried() -> None:
    words = {"safe": "yes", "ambiguous": "once", "never": "no"}

    wrong = {row for row in rows() if row[2] != words[CLASSES[row[0]]("x", code=row[1]).retry_class]}

    assert wrong == set()
    assert len(rows()) == len(set(rows())) > len(CLASSES)


def test_the_example_in_the_document_is_python_and_names_what_exists() -> None:
    document = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", document, re.DOTALL)
    tree = compile(example, "docs/errors.md", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    handlers = [node.type for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)]
    caught = [kind.attr for kind in handlers if isinstance(kind, ast.Attribute)]
    read = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr.islower()}

    assert (
        [name for name in caught if name in CLASSES]
        == caught
        == ["RateLimitError", "StreamInterruptedError", "FlowGPTError"]
    )
    assert [name for name in read if not hasattr(FlowGPTError("x"), name)] == ["create_async"]
