"""A network of my own. study.yaml names this file under `plugins`."""

from math import prod

from torch import nn

from bnbench import network


@network("my_network")
def my_network(*, width: int = 64, image_size: tuple[int, int] = (28, 28), classes: int = 10) -> nn.Module:
    """One hidden layer with batch norm.

    A config sets the arguments, such as `network.width`. Two of them bnbench fills in from the data set:
    `image_size` (height and width) and `classes`.
    """
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(prod(image_size), width),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Linear(width, classes),
    )
