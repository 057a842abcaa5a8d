"""Crowds: very many streams at once, some of which fail by plan, and hours of them. Each text is looked at.

`make load` and `make soak`; and `make crash`: processes that are killed. Not a measure of speed (benchmarks/ is), and
too heavy for the test suite, but for a few kills.
"""
