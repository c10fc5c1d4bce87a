"""Noise-contrastive estimation with remembered embeddings: the mathematics of CRD. objectives/memory.py remembers them.

N is the batch size, M the number of training samples, K the number of negatives for each anchor. Source: Tian, Krishnan
and Isola, "Contrastive Representation Distillation", 2020, section 3.1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def noise_contrastive_loss(log_odds: Tensor, samples: Tensor, negatives: Tensor) -> Tensor:
    """-log p(positive) - sum of log(1 - p(negative)) over the negatives, averaged over the batch, in nats.

    `log_odds` (N, M) are log(p / (1 - p)) for each anchor and each sample. `samples` (N,) are the positives, and
    `negatives` (N, K) may hold a sample several times. Returns a scalar.
    """
    positive = log_odds.gather(1, samples.unsqueeze(1))
    # Count how often each sample is a negative, and do not gather the negatives: where a gather reads a sample twice, a
    # GPU adds up its gradient in an order that changes from run to run.
    times = torch.zeros_like(log_odds).scatter_add_(1, negatives, log_odds.new_ones(()).expand(negatives.shape))
    return (F.softplus(-positive).sum() + (times * F.softplus(log_odds)).sum()) / len(samples)
