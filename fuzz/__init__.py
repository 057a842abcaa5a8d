"""The parsers of what strangers send, under a fuzzer: one module a parser, and its first inputs in corpus/.

A harness has `check`, bytes in, which holds what must be true of any bytes; and `parse`, the plain use, whose time is
guarded. No socket, no clock but the guard's, no change of the package. How to run them: docs/fuzzing.md.
"""
