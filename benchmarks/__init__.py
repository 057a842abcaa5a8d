"""What flowgpt costs, beside the least code that could do the same: in one run, on one machine, from the same bytes.

`python -m benchmarks` runs every room, with names only those; README.md says what each measures, RESULTS.md what came
out. A missed target is told, and no failure; a wrong result (a text lost, a stream without its end) ends the run.
"""
