"""The networks. To add one, write a factory under `@network("name")` in a module of this package and import it here.

Every network takes images [N, C, H, W] and returns logits [N, K]. C is its argument `in_channels`, (H, W) is
`image_size`, and K is `classes`. bnbench fills them in from the data set.
"""

from experiments.networks import conv_unit, lenet, libraries, mlp, notebook, tutorial, vgg

__all__ = ["conv_unit", "lenet", "libraries", "mlp", "notebook", "tutorial", "vgg"]
