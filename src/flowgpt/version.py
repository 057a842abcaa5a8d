"""The version, in one place: the build, the User-Agent and `flowgpt --version` read it here."""

__version__ = "0.1.0"
