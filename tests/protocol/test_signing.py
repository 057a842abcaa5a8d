"""The signed headers: literal vectors first, then what a server says of wrong ones."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowgpt.protocol.signing import authorization, fault, headers, signature

EXAMPLES = settings(max_examples=100)
ZEROS = "0" * 32
NONCE = "0123456789abcdef" * 2
DEVICE_ID = "f-" + "a1b2c3d4e5f6g7h8i9j"


# G4: golden vectors. The first is the one of docs/protocol.md#request-headers; the others were computed outside of
# Python, with coreutils: printf '%s' '1-00000000000000000000000000000000-Bearer abc' | md5sum
@pytest.mark.parametrize(
    ("timestamp_s", "nonce", "value", "expected"),
    [
        (1700000000, ZEROS, "Bearer null", "7af42bbe49b186370ed070c2351f3b80"),
        (1, ZEROS, "Bearer abc", "8ce420006562584c04c3b0fbb26ab4a0"),
        (1732279999, NONCE, "Bearer eyJhbGciOiJIUzI1NiJ9.e30.c2ln", "e66d9d8437b7450996d869f74923c406"),
        (0, "f" * 32, "Bearer clé", "11724a7ba681b87ed6012241e78e8416"),
    ],
)
def test_g4_the_signature_is_the_md5_of_time_nonce_and_the_whole_authorization(
    timestamp_s: int, nonce: str, value: str, expected: str
) -> None:
    assert signature(timestamp_s=timestamp_s, nonce=nonce, authorization=value) == expected


def test_g5_the_checksum_works_where_md5_is_forbidden_for_security(monkeypatch: pytest.MonkeyPatch) -> None:
    """A FIPS build refuses md5 unless it is told that no security hangs on it."""
    md5 = hashlib.md5

    def strict(data: bytes = b"", *, usedforsecurity: bool = True) -> Any:
        if usedforsecurity:
            raise ValueError("disabled for FIPS")
        return md5(data)

    monkeypatch.setattr(hashlib, "md5", strict)

    assert signature(timestamp_s=1700000000, nonce=ZEROS, authorization="Bearer null").startswith("7af42bbe")


@pytest.mark.parametrize(
    ("api_key", "expected"), [(None, "Bearer null"), ("", "Bearer null"), ("abc", "Bearer abc"), ("a b", "Bearer a b")]
)
def test_without_a_key_the_word_null_stands_behind_bearer(api_key: str | None, expected: str) -> None:
    assert authorization(api_key) == expected


def signed(**changes: str | int) -> dict[str, str]:
    """The headers of one send as a server sees them: names in lower case."""
    facts: dict[str, Any] = {"authorization": "Bearer null", "timestamp_s": 1700000000, "nonce": NONCE}
    facts["device_id"] = DEVICE_ID
    return {name.lower(): value for name, value in headers(**(facts | changes)).items()}


def test_the_headers_are_the_documented_ones() -> None:
    """Provenance: docs/protocol.md#request-headers."""
    assert headers(authorization="Bearer null", timestamp_s=1700000000, nonce=ZEROS, device_id=DEVICE_ID) == {
        "Authorization": "Bearer null",
        "Content-Type": "application/json",
        "x-flow-device-id": DEVICE_ID,
        "x-nonce": ZEROS,
        "x-signature": "7af42bbe49b186370ed070c2351f3b80",
        "x-timestamp": "1700000000",
    }


def test_right_headers_have_no_fault() -> None:
    assert fault(signed(), now_s=1700000000.5, tolerance_s=300) is None
    assert fault(signed(device_id="V1StGXR8_Z5jdHi6B-myT"), now_s=1700000000, tolerance_s=300) is None


@pytest.mark.parametrize("name", ["authorization", "x-timestamp", "x-nonce", "x-signature", "x-flow-device-id"])
def test_a_missing_header_is_named(name: str) -> None:
    seen = signed()
    del seen[name]

    assert fault(seen, now_s=1700000000, tolerance_s=300) == f"header {name} is missing"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("x-timestamp", "", "is not a Unix time in whole seconds"),
        ("x-timestamp", "1700000000.5", "is not a Unix time in whole seconds"),
        ("x-timestamp", "-1", "is not a Unix time in whole seconds"),
        ("x-timestamp", "9" * 5_000, "is not a Unix time in whole seconds"),
        ("x-timestamp", "١٧٠٠٠٠٠٠٠٠", "is not a Unix time in whole seconds"),
        ("x-timestamp", "1700000000\n", "is not a Unix time in whole seconds"),
        ("x-nonce", NONCE.upper(), "is not 32 lowercase hex digits"),
        ("x-nonce", NONCE[1:], "is not 32 lowercase hex digits"),
        ("x-nonce", NONCE + "0", "is not 32 lowercase hex digits"),
        ("x-flow-device-id", "f-short", "is not a device id of 21 characters"),
        ("x-flow-device-id", "x" * 22, "is not a device id of 21 characters"),
        ("x-flow-device-id", "x" * 20 + "!", "is not a device id of 21 characters"),
        ("authorization", "null", "is not a bearer token"),
        ("authorization", "Bearer ", "is not a bearer token"),
        ("authorization", "Basic abc", "is not a bearer token"),
        ("authorization", "Bearer abc", "x-signature does not match"),
        ("x-nonce", "f" * 32, "x-signature does not match"),
        ("x-timestamp", "1700000001", "x-signature does not match"),
        ("x-signature", "7AF42BBE49B186370ED070C2351F3B80", "x-signature does not match"),
        ("x-signature", "", "x-signature does not match"),
    ],
)
def test_a_wrong_header_is_named(name: str, value: str, words: str) -> None:
    said = fault(signed() | {name: value}, now_s=1700000000, tolerance_s=300)

    assert said == f"header {words if words.startswith('x-') else f'{name} {words}'}"


@pytest.mark.parametrize(
    ("skew_s", "accepted"), [(-301, False), (-300, True), (300, True), (301, False), (300.5, False)]
)
def test_the_clock_may_differ_by_the_tolerance(skew_s: float, accepted: bool) -> None:
    said = fault(signed(), now_s=1700000000 + skew_s, tolerance_s=300)

    assert said == (None if accepted else "header x-timestamp is more than 300 s from this server's clock")


def test_body_path_and_device_id_are_not_signed() -> None:
    assert signed(device_id="f-" + "0" * 19)["x-signature"] == signed()["x-signature"]


@EXAMPLES
@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1),
    st.integers(0, 10**12 - 1),
    st.binary(min_size=16, max_size=16),
)
def test_what_is_signed_is_accepted_and_a_changed_nonce_is_not(key: str, timestamp_s: int, nonce: bytes) -> None:
    seen = signed(authorization=authorization(key), timestamp_s=timestamp_s, nonce=nonce.hex())

    assert fault(seen, now_s=timestamp_s, tolerance_s=0) is None
    seen["x-nonce"] = seen["x-nonce"][::-1] if seen["x-nonce"] != seen["x-nonce"][::-1] else "1" + ZEROS[1:]
    assert fault(seen, now_s=timestamp_s, tolerance_s=0) == "header x-signature does not match"
