"""The source documents' sentences as experiments. A module imported here adds more.

A function under `@claim("name")` gets that name, and imports in its body what it needs: planning needs none of it.
"""

from experiments.claims import (
    accuracy,
    batch_size,
    convergence,
    generalisation,
    gradients,
    initialisation,
    learning_rates,
    order,
    stability,
    statistics,
)

__all__ = [
    "accuracy",
    "batch_size",
    "convergence",
    "generalisation",
    "gradients",
    "initialisation",
    "learning_rates",
    "order",
    "stability",
    "statistics",
]
