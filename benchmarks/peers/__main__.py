"""`python -m benchmarks.peers`, or one of its rooms by name: as `python -m benchmarks` does."""

from __future__ import annotations

import sys

from ..__main__ import main
from ..results import PEERS

if __name__ == "__main__":
    sys.exit(main([f"peers.{name}" for name in sys.argv[1:]] or [*PEERS]))
