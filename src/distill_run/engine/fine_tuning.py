"""What fine-tuning asks for: groups of parameters, a moving average of the weights, batch norm that stays as it is."""

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from distill_run.config.schema import Recipe
from distill_run.errors import user_error
from distill_run.models.layers import last_linear
from distill_run.models.network import Network


def parameter_groups(network: Network, loss: nn.Module, recipe: Recipe, key: str) -> list[dict[str, Any]]:
    """The parameters of network and loss that learn, as an optimizer takes them; the first group has the full rate.

    With `backbone_lr_factor`, all parameters of the network but those of its last linear layer have that part of the
    rate. Without `decay_norms`, norms and biases, which have at most one dimension, have no weight decay. `key` is the
    recipe's place in the configuration. Raises UserError where there is no last linear layer, or no rate.
    """
    head = _head(network, recipe, key)
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for module, is_backbone in ((network, head is not None), (loss, False)):
        for parameter in module.parameters():
            if not parameter.requires_grad:
                continue
            slower = is_backbone and all(parameter is not other for other in head or ())
            decays = recipe.decay_norms or parameter.ndim > 1
            groups.setdefault((slower, not decays), {"params": []})["params"].append(parameter)
    for (slower, undecayed), group in groups.items():
        if slower:
            group["lr"] = recipe.optimizer["lr"] * recipe.backbone_lr_factor
        if undecayed:
            group["weight_decay"] = 0.0
    return [groups[kind] for kind in sorted(groups)]


def _head(network: Network, recipe: Recipe, key: str) -> list[nn.Parameter] | None:
    """The parameters that keep the full rate; None where all do."""
    if recipe.backbone_lr_factor is None:
        return None
    if "lr" not in recipe.optimizer:
        raise user_error(
            f"{key}.backbone_lr_factor is a part of the optimizer's rate, and {key}.optimizer.lr is not set",
            f"set it, as in {key}.optimizer.lr=0.001",
        )
    return list(last_linear(network.architecture, "the network")[1].parameters())


class MovingAverage(AveragedModel):
    """A copy of a network, whose `update_parameters` moves its weights and buffers towards those of the network.

    The first update copies them; every other one gives decay * its own + (1 - decay) * the network's.
    """

    def __init__(self, network: Network, decay: float) -> None:
        super().__init__(network, use_buffers=True)
        self.update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    def update_parameters(self, model: nn.Module) -> None:
        """See the class. Torch's own makes the host wait for a GPU, to which it sends the number of updates."""
        ours, theirs = (
            [tensor.detach() for tensor in (*each.parameters(), *each.buffers())] for each in (self.module, model)
        )
        if self.n_averaged == 0:  # it is on the CPU
            for own, other in zip(ours, theirs, strict=True):
                own.copy_(other)
        else:
            for dtype in {tensor.dtype for tensor in ours}:
                alike = [[tensor for tensor in each if tensor.dtype == dtype] for each in (ours, theirs)]
                self.update(*alike, self.n_averaged)
        self.n_averaged += 1


def freeze_batch_norm(network: Network) -> None:
    """Let batch norm use its running statistics and leave them as they are, until `train` is called again."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
