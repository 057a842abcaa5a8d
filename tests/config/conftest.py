"""The configuration file of a test."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the configuration file belongs."""
    monkeypatch.setenv("FLOWGPT_HOME", str(tmp_path))
    path = tmp_path / "config.toml"
    path.touch(0o600)
    return path
