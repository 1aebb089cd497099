"""Statistics of lists, by hand."""

import numpy as np
import pytest

from desireline.evaluation.lists import list_statistics

COUNTS = np.array([7, 9, 8, 4, 2, 2, 0, 0])  # items 2 … 7; padding and unknown have counts too


def test_the_same_popular_list_for_everybody():
    found = list_statistics(np.array([[2, 3], [3, 2], [2, 3], [2, 3]], np.int32), COUNTS)
    assert found["coverage@2"] == pytest.approx(2 / 6)
    assert found["identical lists"] == 0.75
    assert found["popularity overlap"] == 1
    assert found["novelty"] == pytest.approx((1 + 2) / 2)  # shares of 8 and 4 among 16


def test_lists_of_their_own():
    found = list_statistics(np.array([[2, 6], [4, 5], [7, 0]], np.int32), COUNTS)
    assert found["coverage@2"] == pytest.approx(5 / 6)
    assert found["identical lists"] == 0
    assert found["popularity overlap"] == pytest.approx((0.5 + 0 + 0) / 3)
    assert found["novelty"] == pytest.approx((1 + 4 + 3 + 3 + 4) / 5)  # never seen counts as once


def test_no_list_at_all():
    assert set(list_statistics(np.zeros((3, 10), np.int32), COUNTS).values()) == {0.0}
