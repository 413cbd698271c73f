"""What is compared: networks, norm layers, data sets, and what is claimed of them. Importing this registers them all.

`runner` finds this package by its place, beside its own. A user's package has an entry point (`bnbench.plugins`).
"""

from experiments import calibration, claims, datasets, networks, norms, source_norms

__all__ = ["calibration", "claims", "datasets", "networks", "norms", "source_norms"]
