"""The benchmarks' own programs are for Linux, and compiled: elsewhere there is nothing to test."""

from __future__ import annotations

import shutil
import sys

collect_ignore = [] if sys.platform == "linux" and shutil.which("cc") else ["test_native.py"]
