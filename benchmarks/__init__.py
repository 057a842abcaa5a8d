"""What the library costs, as ratios: the same bytes read by it and by plainer code, in one run on one machine.

`python -m benchmarks` runs all; each room here is one comparison, or what they share. Figures: README.md beside this.
A ratio that misses its target is printed as missed; only a wrong result (a text lost, say) makes the run fail.
"""
