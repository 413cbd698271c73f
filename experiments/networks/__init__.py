"""The networks. To add one, write a factory under `@network("name")` in a module of this package and import it here.

Every network takes images [N, 1, 28, 28] and returns logits [N, 10].
"""

from experiments.networks import conv_unit, lenet, mlp, notebook, tutorial, vgg

__all__ = ["conv_unit", "lenet", "mlp", "notebook", "tutorial", "vgg"]
