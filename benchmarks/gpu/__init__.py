"""`python -m benchmarks gpu`: what only a machine with a GPU can show, in at most ten minutes.

`run.py` runs each part of `parts.py` in a process of its own with a time limit, so that no part can stop the others.
The results go to `benchmarks/results/gpu/`, and docs/performance.py makes a section from them.
"""
