"""What is measured of class probabilities, one number for each example: its mean is the measure."""

import torch
from torch import Tensor

BINS = 15  # of the expected calibration error, as in Guo et al. (2017) and Minderer et al. (2021)


def rank(scores: Tensor, labels: Tensor) -> Tensor:
    """How many labels come before the true one: scores (N, L) and labels (N,) give (N,); top-k is rank < k.

    Equal scores, which half precision often gives, are in the order of the labels, as argmax has them.
    """
    true = scores.gather(1, labels[:, None])
    before = torch.arange(scores.shape[1]) < labels[:, None]
    return ((scores > true) | ((scores == true) & before)).sum(1)


def nll(log_probs: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood −log π(y|x) in nats: log-probabilities (N, L) and labels (N,) give (N,)."""
    return -log_probs.gather(1, labels[:, None])[:, 0]


def calibration_gap(log_probs: Tensor, labels: Tensor) -> Tensor:
    """Numbers (N,) whose mean is the expected calibration error (Guo et al. 2017, eq. 5) of log-probabilities (N, L).

    It is Σ_b |B_b|/N · |accuracy(B_b) − confidence(B_b)| over 15 bins ((b−1)/15, b/15] of the greatest probability. An
    example's number is right − confidence with the sign that this difference has over its bin, and so depends on the
    other examples: the mean has no interval of a mean.
    """
    confidence, predicted = log_probs.exp().max(1)
    gap = (predicted == labels).to(confidence.dtype) - confidence
    edges = torch.arange(1, BINS, dtype=confidence.dtype) / BINS
    bins = torch.bucketize(confidence, edges)
    sums = torch.zeros(BINS, dtype=gap.dtype).index_add(0, bins, gap)
    return sums.sign()[bins] * gap
