"""The networks of torchvision and timm, with random weights, fitted to the data set's images and classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from experiments.arguments import Flag
from runner.errors import UserError, unknown
from runner.registry import network

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

WITHOUT_AUXILIARY = {"aux_logits": False, "init_weights": True}
OPTIONS: dict[str, dict[str, Any]] = {"googlenet": WITHOUT_AUXILIARY, "inception_v3": WITHOUT_AUXILIARY}
"""Models that return more than logits in training, with the options that change that."""


def _known(model: str, models: Sequence[str]) -> str:
    if model not in models:
        reason = unknown("model", model, models)
        raise PydanticCustomError("unknown_model", "{reason}", {"reason": reason})
    return model


def _of_torchvision(model: str) -> str:
    import torchvision

    return _known(model, torchvision.models.list_models(module=torchvision.models))


def _of_timm(model: str) -> str:
    return _known(model, _timm().list_models())


def _timm() -> Any:
    try:
        import timm
    except ImportError:
        raise UserError("network 'timm' needs the package timm: pip install 'bnbench[timm]'") from None
    return timm


@network("torchvision")
def torchvision(
    *,
    model: Annotated[str, AfterValidator(_of_torchvision)] = "shufflenet_v2_x0_5",
    small_images: Flag = False,
    in_channels: int = 1,
    image_size: tuple[int, int] = (28, 28),
    classes: int = 10,
) -> nn.Module:
    """A classification network of torchvision, such as resnet18, with random weights.

    Source: torchvision.models. [N, 1, 28, 28] → [N, 10]; by default 351,610 parameters. If the images do not have three
    channels, the first convolution is a new one, with torch's default starting weights.

    model: a name of torchvision.models.list_models().
    small_images: made for images of about 32×32 pixels. A first convolution that is larger than 3×3 or has a stride is
        a new one, 3×3 and without stride, and the first maximum pooling is left out.

    Errors: ValueError where the images are too small for the model.
    """
    from torchvision.models import get_model

    def build() -> nn.Module:
        made: nn.Module = get_model(model, weights=None, num_classes=classes, **OPTIONS.get(model, {}))
        return _fitted(made, in_channels, small_images)

    return _checked(build, model, in_channels, image_size, small_images)


@network("timm")
def timm(
    *,
    model: Annotated[str, AfterValidator(_of_timm)] = "test_efficientnet",
    small_images: Flag = False,
    in_channels: int = 1,
    image_size: tuple[int, int] = (28, 28),
    classes: int = 10,
) -> nn.Module:
    """A classification network of timm, such as efficientnet_b0, with random weights. It needs bnbench[timm].

    Source: timm (Wightman 2019). [N, 1, 28, 28] → [N, 10]; by default 101,334 parameters. `model` is a name of
    timm.list_models(). The other arguments and errors are those of the network `torchvision`.
    """
    create = _timm().create_model

    def build() -> nn.Module:
        made: nn.Module = create(model, pretrained=False, num_classes=classes, in_chans=in_channels)
        return _fitted(made, in_channels, small_images)

    return _checked(build, model, in_channels, image_size, small_images)


def _fitted(made: nn.Module, channels: int, small_images: bool) -> nn.Module:
    """The network with a first convolution for these channels, and for small images."""
    from torch import nn

    layers = dict(made.named_modules())
    found = [(name, layer) for name, layer in layers.items() if isinstance(layer, nn.Conv2d)]
    if not found:
        raise ValueError("the model has no convolution that could be fitted to the images")
    name, first = found[0]
    wide = small_images and (max(first.kernel_size) > 3 or max(first.stride) > 1)
    if wide or first.in_channels != channels:
        size: Any = (3, 1, 1) if wide else (first.kernel_size, first.stride, first.padding)
        kernel, stride, padding = size
        bias = first.bias is not None
        made.set_submodule(name, nn.Conv2d(channels, first.out_channels, kernel, stride, padding, bias=bias))
    if small_images:
        pools = [name for name, layer in layers.items() if isinstance(layer, nn.MaxPool2d)]
        for pool in pools[:1]:
            made.set_submodule(pool, nn.Identity())
    return made


def _checked(
    build: Callable[[], nn.Module], model: str, channels: int, image_size: tuple[int, int], small_images: bool
) -> nn.Module:
    """The network. Errors: ValueError where it cannot compute images of this size."""
    import torch

    # On the meta device, nothing is computed and no random number is drawn.
    with torch.device("meta"):
        network = build().eval()
        images = torch.empty(2, channels, *image_size)
    try:
        network(images)
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        size = "×".join(map(str, image_size))
        raise ValueError(
            f"model '{model}' cannot compute images of {size} pixels ({reason}); "
            f"try {'' if small_images else 'network.small_images: true, or '}another model"
        ) from None
    return build()
