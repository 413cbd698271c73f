"""The networks. A module of factories under `@network("name")`, imported here, adds more.

Every network takes images [N, 1, 28, 28] and gives logits [N, 10].
"""

from experiments.networks import conv_unit, lenet, mlp, notebook, tutorial, vgg

__all__ = ["conv_unit", "lenet", "mlp", "notebook", "tutorial", "vgg"]
