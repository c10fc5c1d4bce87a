"""Noise-contrastive estimation against memories of embeddings: the mathematics of CRD.

N is the batch, M the number of training samples, K that of the negatives of each anchor, E the size of an embedding.
Source: Tian, Krishnan and Isola, "Contrastive Representation Distillation", 2020, section 3.1; the memories and the
constant Z are those of its authors' code, after Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance
Discrimination", 2018, section 3.2.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Memory(nn.Module):
    """An embedding (M, E) of each training sample by one network, which anchors of the other network are held against.

    All that it remembers is in buffers, so that it goes where the module goes, and a resumed run goes on with it.
    `log_normaliser` is the logarithm of Z, which is estimated once, from the first batch in training; NaN before.
    """

    embeddings: Tensor
    log_normaliser: Tensor

    def __init__(self, num_samples: int, embedding_size: int) -> None:
        super().__init__()
        bound = (3 / embedding_size) ** 0.5  # a mean squared length of 1
        self.register_buffer("embeddings", torch.empty(num_samples, embedding_size).uniform_(-bound, bound))
        self.register_buffer("log_normaliser", torch.tensor(math.nan))

    def loss(self, anchors: Tensor, samples: Tensor, negatives: Tensor, temperature: float) -> Tensor:
        """The noise-contrastive loss of anchors (N, E), the embeddings of `samples` (N,), and of `negatives` (N, K).

        A pair is scored by h = exp(similarity / temperature) / Z and believed to be one sample with the probability
        h / (h + K / M). Gradients reach the anchors alone. The similarities with all M samples take N * M numbers,
        where the embeddings of all negatives would take N * K * E.
        """
        log_scores = anchors @ self.embeddings.T / temperature
        log_noise = math.log(negatives.shape[1] / len(self.embeddings))
        log_normaliser = self._normaliser(log_scores.detach(), samples, negatives)
        return noise_contrastive_loss(log_scores - log_normaliser - log_noise, samples, negatives)

    def _normaliser(self, log_scores: Tensor, samples: Tensor, negatives: Tensor) -> Tensor:
        """The logarithm of Z: M times the mean of exp(similarity / temperature) over positives and negatives."""
        if not self.log_normaliser.isnan():
            return self.log_normaliser
        candidates = torch.cat([samples.unsqueeze(1), negatives], dim=1)
        log_sum = log_scores.gather(1, candidates).logsumexp(dim=(0, 1))
        estimate = log_sum + math.log(len(self.embeddings) / candidates.numel())
        if self.training:
            self.log_normaliser = estimate
        return estimate

    @torch.no_grad()
    def remember(self, samples: Tensor, embeddings: Tensor, momentum: float) -> None:
        """Move the rows of `samples` (N,) to momentum * row + (1 - momentum) * embedding (N, E), of length 1."""
        moved = torch.lerp(embeddings, self.embeddings[samples], momentum)
        # A new tensor: the gradient of the loss still reads the old one.
        self.embeddings = self.embeddings.index_copy(0, samples, F.normalize(moved, dim=1))


def noise_contrastive_loss(log_odds: Tensor, samples: Tensor, negatives: Tensor) -> Tensor:
    """-log p(positive) - the sum over the negatives of log(1 - p(negative)), averaged over the batch, in nats.

    `log_odds` (N, M) are log(p / (1 - p)) of each anchor and each sample; `samples` (N,) are the positives, and
    `negatives` (N, K) may name a sample several times. Returns a scalar.
    """
    positive = log_odds.gather(1, samples.unsqueeze(1))
    # Every sample is counted instead of each negative gathered: on a GPU the gradient of a gather that meets a sample
    # twice is summed in an order that changes from run to run.
    times = torch.zeros_like(log_odds).scatter_add_(1, negatives, log_odds.new_ones(()).expand(negatives.shape))
    return (F.softplus(-positive).sum() + (times * F.softplus(log_odds)).sum()) / len(samples)


class Negatives(nn.Module):
    """Draws samples of other classes, uniformly and independently, so that one may be drawn several times."""

    by_class: Tensor
    counts: Tensor
    starts: Tensor

    def __init__(self, targets: Tensor, num_classes: int) -> None:
        super().__init__()
        counts = torch.bincount(targets, minlength=num_classes)
        # They follow from the training set, so a checkpoint does without them.
        self.register_buffer("by_class", targets.argsort(stable=True), persistent=False)
        self.register_buffer("counts", counts, persistent=False)
        self.register_buffer("starts", counts.cumsum(0) - counts, persistent=False)

    def draw(self, targets: Tensor, num_negatives: int, seed: int) -> Tensor:
        """Samples (N, num_negatives), none of which is of its row's class of targets (N,): a function of the seed."""
        generator = torch.Generator(targets.device).manual_seed(seed)
        shape = (len(targets), num_negatives)
        random = torch.randint(2**31 - 1, shape, generator=generator, device=targets.device)
        starts, counts = self.starts[targets].unsqueeze(1), self.counts[targets].unsqueeze(1)
        place = random % (len(self.by_class) - counts)  # among the others, whose order leaves out the class
        return self.by_class[place + counts * (place >= starts)]
