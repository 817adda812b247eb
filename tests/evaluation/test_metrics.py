from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from sklearn.metrics import confusion_matrix as sklearn_confusion

from timesformer.evaluation.metrics import average_precision, confusion_matrix, top_k_accuracy


@given(st.integers(1, 30), st.integers(1, 8), st.integers(1, 8), st.integers(0, 10**6))
def test_top_k_is_the_rank_of_the_label(n: int, classes: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.permutation(n * classes).reshape(n, classes).astype(np.float32)  # no ties
    labels = rng.integers(classes, size=n)
    ranks = [(scores[i] > scores[i, labels[i]]).sum() for i in range(n)]
    assert top_k_accuracy(scores, labels, k) == pytest.approx(np.mean([rank < k for rank in ranks]))


def test_ties_go_to_the_lower_class() -> None:
    scores = np.zeros((2, 3), dtype=np.float32)
    assert top_k_accuracy(scores, np.array([0, 2]), 1) == 0.5


def test_confusion_matrix() -> None:
    matrix = confusion_matrix(np.array([0, 1, 1, 2]), np.array([0, 0, 1, 1]), 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 0]]


def test_average_precision_by_hand() -> None:
    scores = np.array([[0.9], [0.8], [0.7], [0.6]], dtype=np.float32)
    targets = np.array([[True], [False], [True], [False]])
    assert average_precision(scores, targets)[0] == pytest.approx((1 + 2 / 3) / 2)
    assert np.isnan(average_precision(scores, np.zeros_like(targets))[0])


@given(st.integers(2, 25), st.integers(0, 10**6))
def test_average_precision_is_the_area_under_the_steps(n: int, seed: int) -> None:
    """Against its definition by thresholds: the sum of precision times gain in recall; with ties."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 5, (n, 1)).astype(np.float32)
    targets = rng.random((n, 1)) < 0.5
    targets[0] = True
    area, recall = 0.0, 0.0
    for threshold in sorted(set(scores[:, 0]), reverse=True):
        chosen = scores[:, 0] >= threshold
        new_recall = (targets[:, 0] & chosen).sum() / targets.sum()
        area += (new_recall - recall) * (targets[:, 0] & chosen).sum() / chosen.sum()
        recall = new_recall
    assert average_precision(scores, targets)[0] == pytest.approx(area)


def test_average_precision_of_several_classes_is_scikit_learns() -> None:
    """Of as many classes as videos, more and fewer; one of them without a video, which is no cause for a warning."""
    rng = np.random.default_rng(0)
    for n, classes in ((9, 3), (4, 7), (5, 5)):
        scores = rng.integers(0, 6, (n, classes)).astype(np.float32)
        targets = rng.random((n, classes)) < 0.4
        targets[0], targets[:, 1] = True, False
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = average_precision(scores, targets)
        assert found.shape == (classes,)
        for c in range(classes):
            if c == 1:
                assert np.isnan(found[c])
            else:
                assert found[c] == pytest.approx(average_precision_score(targets[:, c], scores[:, c]))


def test_confusion_matrices_of_many_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(5, size=(2, 60))
    expected = sklearn_confusion(labels, predicted, labels=range(5))
    assert confusion_matrix(predicted, labels, 5).tolist() == expected.tolist()
    assert confusion_matrix(predicted, labels, 5).dtype == np.int64
