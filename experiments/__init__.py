"""What is compared: networks, norm layers, data sets, and what is claimed of them. Importing this registers them all.

It is itself a plugin of `runner`, through the same entry point a user's package would use.
"""

from experiments import calibration, claims, datasets, networks, norms, source_norms

__all__ = ["calibration", "claims", "datasets", "networks", "norms", "source_norms"]
