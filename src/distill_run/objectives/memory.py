"""What CRD keeps of the training set: embeddings of all samples, and which samples are of other classes.

N is the batch size, M the number of training samples, K the number of negatives for each anchor, E the size of an
embedding. The memories and the constant Z follow the code of CRD's authors (see losses/contrast.py) and Wu et al.,
"Unsupervised Feature Learning via Non-Parametric Instance Discrimination", 2018, section 3.2.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_run.losses.contrast import noise_contrastive_loss


class Memory(nn.Module):
    """One network's embeddings (M, E) of all training samples, which the other network's anchors are compared with.

    The memory is in buffers, so it moves to a device with the module, and a resumed run continues with it.
    `log_normaliser` is the logarithm of Z. It is estimated once, from the first training batch, and is NaN before.
    """

    embeddings: Tensor
    log_normaliser: Tensor

    def __init__(self, num_samples: int, embedding_size: int) -> None:
        super().__init__()
        bound = (3 / embedding_size) ** 0.5  # a mean squared length of 1
        self.register_buffer("embeddings", torch.empty(num_samples, embedding_size).uniform_(-bound, bound))
        self.register_buffer("log_normaliser", torch.tensor(math.nan))
        self.is_normalised = False  # what the host knows of it: to ask a GPU is to wait for it
        self.register_load_state_dict_post_hook(_forget)  # type: ignore[no-untyped-call]

    def loss(self, anchors: Tensor, samples: Tensor, negatives: Tensor, temperature: float) -> Tensor:
        """The noise-contrastive loss of anchors (N, E) with positives `samples` (N,) and `negatives` (N, K).

        A pair has the score h = exp(similarity / temperature) / Z, and shows one sample with the probability
        h / (h + K / M). Only the anchors receive gradients. The similarities with all M samples take N * M numbers;
        the embeddings of all negatives would take N * K * E.
        """
        log_scores = anchors @ self.embeddings.T / temperature
        log_noise = math.log(negatives.shape[1] / len(self.embeddings))
        log_normaliser = self._normaliser(log_scores.detach(), samples, negatives)
        return noise_contrastive_loss(log_scores - log_normaliser - log_noise, samples, negatives)

    def _normaliser(self, log_scores: Tensor, samples: Tensor, negatives: Tensor) -> Tensor:
        """The logarithm of Z, which is M times the mean of exp(similarity / temperature) over all pairs."""
        self.is_normalised = self.is_normalised or not self.log_normaliser.isnan()
        if self.is_normalised:
            return self.log_normaliser
        candidates = torch.cat([samples.unsqueeze(1), negatives], dim=1)
        log_sum = log_scores.gather(1, candidates).logsumexp(dim=(0, 1))
        estimate = log_sum + math.log(len(self.embeddings) / candidates.numel())
        if self.training:
            self.log_normaliser = estimate
            self.is_normalised = True
        return estimate

    @torch.no_grad()
    def remember(self, samples: Tensor, embeddings: Tensor, momentum: float) -> None:
        """Replace each row of `samples` (N,) by momentum * row + (1 - momentum) * embedding (N, E), at length 1."""
        moved = torch.lerp(embeddings, self.embeddings[samples], momentum)
        # Not in place: the backward pass of the loss still reads the old tensor.
        self.embeddings = self.embeddings.index_copy(0, samples, F.normalize(moved, dim=1))


def _forget(memory: nn.Module, _: object) -> None:
    assert isinstance(memory, Memory)
    memory.is_normalised = False


class Negatives(nn.Module):
    """Draws samples of other classes, uniformly and with replacement: a sample may be drawn several times."""

    by_class: Tensor
    counts: Tensor
    starts: Tensor

    def __init__(self, targets: Tensor, num_classes: int) -> None:
        super().__init__()
        counts = torch.bincount(targets, minlength=num_classes)
        # A checkpoint does not need them, because they follow from the training set.
        self.register_buffer("by_class", targets.argsort(stable=True), persistent=False)
        self.register_buffer("counts", counts, persistent=False)
        self.register_buffer("starts", counts.cumsum(0) - counts, persistent=False)

    def draw(self, targets: Tensor, num_negatives: int, seed: int) -> Tensor:
        """Samples (N, num_negatives), none of the class that `targets` (N,) gives for their row; drawn from `seed`."""
        generator = torch.Generator(targets.device).manual_seed(seed)
        shape = (len(targets), num_negatives)
        random = torch.randint(2**31 - 1, shape, generator=generator, device=targets.device)
        starts, counts = self.starts[targets].unsqueeze(1), self.counts[targets].unsqueeze(1)
        place = random % (len(self.by_class) - counts)  # in the order of all samples without this class
        return self.by_class[place + counts * (place >= starts)]
