"""The sentences of the source documents as experiments. To add claims, write a module and import it here.

A claim is a function under `@claim("name")`; several claims of one kind share a function, which gets the name. The
functions import measures in their bodies, because planning a sweep must not import pandas.
"""

from experiments.claims import accuracy, convergence, generalisation, sensitivity, stability, statistics

__all__ = ["accuracy", "convergence", "generalisation", "sensitivity", "stability", "statistics"]
