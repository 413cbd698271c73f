"""The data sets. To add one, write a function `(root, download) -> DataSet` under `@dataset("name", …)` in a module of
this package and import it here.

`root` is the data folder. `download` says whether missing files may be downloaded. torch is imported inside the
functions, because listing and planning do not need it.
"""

from experiments.datasets import installed, mnist_files, published

__all__ = ["installed", "mnist_files", "published"]
