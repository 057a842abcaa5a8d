"""Print docs/faults.md: `python -m tests.faults > docs/faults.md`. Collects all tests, and runs none."""

from __future__ import annotations

import contextlib
import io
import sys

import pytest

from tests.faults.page import page


class Collected:
    """A plugin that keeps what was collected."""

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.items = list(session.items)


def main() -> int:
    collected, said = Collected(), io.StringIO()
    with contextlib.redirect_stdout(said):
        code = pytest.main(["--collect-only", "--quiet", "--numprocesses=0", "-m", ""], plugins=[collected])
    if code != pytest.ExitCode.OK:
        print(said.getvalue(), file=sys.stderr)
        return 1
    try:
        sys.stdout.write(page(collected.items))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
