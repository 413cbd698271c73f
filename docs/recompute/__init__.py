"""Recompute the numbers of the documents from the tables, without bnbench: `python -m docs.recompute`.

These modules were written from the sentences of the documents, not from bnbench's code. They import pandas, numpy and
scipy only. They read runs.csv, metrics.csv, curves.csv and probes.csv in `results/reference/`, and never verdicts.csv.
"""
