"""What is compared: networks, norm layers and data sets. Importing this package registers all of them.

It is itself a plugin of `runner`, through the same entry point a user's package would use.
"""

from experiments import datasets, networks, norms

__all__ = ["datasets", "networks", "norms"]
