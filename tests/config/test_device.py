"""The device id of this installation."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowgpt.config import device, device_id, home
from flowgpt.protocol.signing import DEVICE_ID


def forget() -> None:
    """As a new process."""
    device._device_id.cache_clear()


def test_the_device_id_is_made_once_and_kept_private() -> None:
    first = device_id()
    assert DEVICE_ID.fullmatch(first)
    assert first.startswith("f-")
    path = home() / "device-id"
    assert path.read_text() == first + "\n"
    assert path.stat().st_mode & 0o777 == 0o600
    forget()
    assert device_id() == first


def test_the_device_id_is_reset_by_deleting_its_file() -> None:
    first = device_id()
    (home() / "device-id").unlink()
    forget()
    assert device_id() != first


@pytest.mark.parametrize("kept", ["", "short", "f-" + "A" * 19, "x" * 22, "f-0123456789abcdefghi\nmore", "\u00e9"])
def test_a_broken_device_id_is_replaced(kept: str) -> None:
    home().mkdir()
    (home() / "device-id").write_text(kept)
    made = device_id()
    assert DEVICE_ID.fullmatch(made)
    forget()
    assert device_id() == made


@pytest.mark.parametrize("kept", ["f-0123456789abcdefghi", "V1StGXR8_Z5jdHi6B-myT"])
def test_a_device_id_that_the_user_wrote_is_taken(kept: str) -> None:
    """docs/protocol.md#request-headers: both shapes were seen."""
    home().mkdir()
    (home() / "device-id").write_text(kept)
    assert device_id() == kept


def test_two_installations_have_two_ids(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = device_id()
    monkeypatch.setenv("FLOWGPT_HOME", str(tmp_path / "other"))
    assert device_id() != first
