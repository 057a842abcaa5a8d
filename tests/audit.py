"""`python -m tests.audit requirements.txt …`: what is known against the pinned requirements. For `make check`.

pip-audit asks the package index's advisories; it passes over what it gets no answer for, and this does not keep quiet
about that: it is said, and a failure when AUDIT=strict. No list of requirements and no pin is made or changed here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

EXCEPTIONS: dict[str, str] = {}
"""Advisories that are known and do not concern us: id → why not."""


def main(files: list[str], *, strict: bool) -> int:
    """Print the findings; the exit code."""
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--progress-spinner", "off"]
    command += ["--format", "json", *(word for file in files for word in ("-r", file))]
    command += [word for id_ in EXCEPTIONS for word in ("--ignore-vuln", id_)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        findings, asked, unasked = read(json.loads(done.stdout))
    except (ValueError, KeyError, TypeError):
        findings, asked, unasked = [], 0, ["any of them"]
    for finding in findings:
        print(f"audit: {finding}")
    if unasked:
        least = f"{unasked[0]} and {len(unasked) - 1} more" if len(unasked) > 1 else unasked[0]
        print(f"audit: NOT ASKED: no advisories to be had here for {least}" + (" (AUDIT=strict)" if strict else ""))
    if asked and not findings:
        print(f"audit: nothing is known against {asked} requirements")
    return int(bool(findings) or (strict and bool(unasked)))


def read(report: Any) -> tuple[list[str], int, list[str]]:
    """pip-audit's report in JSON: what it found, of how many packages, and of which packages it knows nothing."""
    findings = [
        f"{package['name']} {package['version']}: {known['id']}, mended in {', '.join(known['fix_versions']) or 'none'}"
        for package in report["dependencies"]
        for known in package.get("vulns", ())
    ]
    unasked = [package["name"] for package in report["dependencies"] if "skip_reason" in package]
    return findings, len(report["dependencies"]) - len(unasked), unasked


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], strict=os.environ.get("AUDIT") == "strict"))
