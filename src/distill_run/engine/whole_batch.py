"""The batch of all processes, put together from what each of them has computed for its share of the images.

Every process then computes the loss of the whole batch. So an objective may compare samples with each other, divide by
the labelled ones or remember them, and need not know that there are several processes.
"""

from dataclasses import replace

from torch import Tensor

from distill_run.data.batches import Batch
from distill_run.models.outputs import Outputs
from distill_run.processes import Processes


def whole_batch(batch: Batch, num_images: int, processes: Processes) -> Batch:
    """The batch of all processes, which has so many images; `images` remain those of this process."""
    sizes = processes.share_sizes(num_images)

    def whole(own: Tensor | None) -> Tensor | None:
        return None if own is None else processes.gather(own, sizes)

    return replace(
        batch,
        indices=processes.gather(batch.indices, sizes),
        targets=processes.gather(batch.targets, sizes),
        partner_targets=whole(batch.partner_targets),
        shares=whole(batch.shares),
        host_indices=None,
    )


def whole_outputs(outputs: Outputs, num_images: int, processes: Processes) -> Outputs:
    """A network's outputs for that batch; a gradient goes to the rows of this process."""
    sizes = processes.share_sizes(num_images)
    return Outputs(
        processes.gather_for_loss(outputs.logits, sizes),
        {point: processes.gather_for_loss(features, sizes) for point, features in outputs.features.items()},
        tuple((weight, processes.gather_for_loss(logits, sizes)) for weight, logits in outputs.members),
    )
