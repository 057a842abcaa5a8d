"""`python -m load` for both crowds, `python -m load soak [SECONDS]`, `python -m load crash [KILLS [BEHIND_S]]`.

Exit code 1 when a stream is wrong, something grows, or something is lost.
"""

from __future__ import annotations

import os
import sys
import tempfile

from . import crash, crowd, soak


def main(arguments: list[str]) -> int:
    for name in list(os.environ):
        if name.startswith("FLOWGPT_") or name.lower().endswith("_proxy"):
            del os.environ[name]
    with tempfile.TemporaryDirectory() as home:
        os.environ["FLOWGPT_HOME"] = home
        if arguments[:1] == ["soak"]:
            return 0 if soak.run(float(*arguments[1:2] or ["600"])) else 1
        if arguments[:1] == ["crash"]:
            kills, behind_s, *_ = (*arguments[1:], *("1000", "1")[len(arguments) - 1 :])
            return 0 if crash.run(int(kills), float(behind_s)) else 1
        right = [crowd.run("library", 10_000, 200), crowd.run("gateway", 2_000, 200)]
        return 0 if all(right) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
