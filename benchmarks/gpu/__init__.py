"""`python -m benchmarks gpu`: everything that only a machine with a GPU can show, in at most ten minutes.

Each part runs in a process of its own (`run.py`) with a time limit, so no part can stop the others. `parts.py` lists
the parts. `report.py` writes the goals. The results go to `benchmarks/results/gpu/`, from which docs/performance.py
makes its section.
"""
