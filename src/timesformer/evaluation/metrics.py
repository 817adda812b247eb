"""Figures of merit of scores (N videos, C classes) against labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]
Labels = NDArray[np.int64]


def top_k_accuracy(scores: Scores, labels: Labels, k: int) -> float:
    """Share of videos whose label is among the k classes of highest score, in [0, 1]; ties go to the lower class."""
    top = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float((top == labels[:, None]).any(axis=1).mean())


def confusion_matrix(predicted: Labels, labels: Labels, num_classes: int) -> NDArray[np.int64]:
    """Counts (C, C): row the true class, column the predicted one."""
    matrix = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(matrix, (labels, predicted), 1)
    return matrix


def average_precision(scores: Scores, targets: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Average precision (C,) of each class, NaN for a class without a video; its mean is mAP.

    The precision at each true video, in the order of falling scores, averaged; videos of equal score count as one
    step, so that their order is of no matter.
    """
    result = np.full(scores.shape[1], np.nan)
    for c in range(scores.shape[1]):
        if not targets[:, c].any():
            continue
        order = np.argsort(-scores[:, c], kind="stable")
        hits = np.cumsum(targets[order, c])
        last_of_score = np.append(np.diff(scores[order, c]) != 0, True)
        found, seen = hits[last_of_score], np.flatnonzero(last_of_score) + 1
        gained = np.diff(found, prepend=0)
        result[c] = float((gained * found / seen).sum() / hits[-1])
    return result
