"""What a validation measures, against numbers worked by hand and numpy's least squares."""

import numpy as np
import pytest
import torch
from behaviours import STUDENT_WIDTH, TEACHER_WIDTH

from training.loops.validation import Counts, HintFit


def test_f1_of_a_worked_example():
    counts = Counts()
    counts.add(torch.tensor([2.0, 0.3, -1.0, 0.6]), torch.tensor([1.0, 0.0, 1.0, 1.0]))
    counts.add(torch.tensor([-2.0, 0.0]), torch.tensor([0.0, 1.0]))  # a logit of 0 says no
    assert (counts.hits, counts.false_alarms, counts.misses) == (2, 1, 2)
    assert counts.f1 == pytest.approx(2 * 2 / (2 * 2 + 1 + 2))
    assert counts.accuracy == pytest.approx(3 / 6)
    assert Counts(misses=3, pairs=3).f1 == 0


def test_the_hint_is_measured_on_pairs_that_it_was_not_fitted_to():
    rng = torch.Generator().manual_seed(0)
    student = torch.randn(40, 16, STUDENT_WIDTH, generator=rng)
    mixing = torch.randn(STUDENT_WIDTH, TEACHER_WIDTH, generator=rng)
    teacher = student @ mixing + 0.5 + 0.3 * torch.randn(40, 16, TEACHER_WIDTH, generator=rng)
    teacher[1::2] += 1.0  # the pairs that are only measured on differ by one
    hint = HintFit()
    for first in range(0, 40, 5):  # batches of an odd size
        hint.add(student[first : first + 5], teacher[first : first + 5])
    inputs, wanted = (t[0::2].flatten(0, 1).numpy() for t in (student, teacher))
    inputs = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
    weights = np.linalg.lstsq(inputs, wanted, rcond=None)[0]
    tried, others = (t[1::2].flatten(0, 1).numpy() for t in (student, teacher))
    expected = np.mean((np.concatenate([tried, np.ones((len(tried), 1))], axis=1) @ weights - others) ** 2)
    assert hint.error() == pytest.approx(expected, rel=0.02)
    assert hint.error() == pytest.approx(1 + 0.09, rel=0.1)


def test_the_hint_of_a_single_pair_is_finite():
    hint = HintFit()
    hint.add(torch.ones(1, 16, STUDENT_WIDTH), torch.ones(1, 16, TEACHER_WIDTH))
    assert hint.error() == pytest.approx(0, abs=1e-4)
