"""FlowGPT from Python. Unofficial; see README.md for status and terms."""

__version__ = "0.1.0"
