"""The relations of attention against a slow loop, closed forms and what a divergence has to be."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from behaviours import STUDENT_WIDTH, TEACHER_WIDTH, made_up_behaviour
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from avsync_cli.errors import ConfigError
from training.losses.relations import (
    ALL_LAYERS,
    PUBLISHED_CODE,
    RelationOptions,
    cad_loss,
    compare_layers,
    layer_of,
    map_divergence,
    select_layers,
    vr_loss,
)
from training.networks.transformer import LayerBehaviour
from training.networks.vocalist import Behaviour

numbers = st.floats(-8, 8, width=32)
unhurried = settings(max_examples=50)  # a busy machine is not a wrong loss
directions = pytest.mark.parametrize("direction", ["teacher_student", "student_teacher"])


@pytest.fixture
def student() -> Behaviour:
    return made_up_behaviour(STUDENT_WIDTH, seed=1)


@pytest.fixture
def teacher() -> Behaviour:
    return made_up_behaviour(TEACHER_WIDTH, seed=2)


def slow_divergence(p_scores: Tensor, q_scores: Tensor) -> float:
    """KL(p || q) of the softmax maps of two scores, entry by entry, mean over all entries."""
    p_rows, q_rows = (x.detach().double().flatten(0, -2).tolist() for x in (p_scores, q_scores))
    total, count = 0.0, 0
    for p_row, q_row in zip(p_rows, q_rows, strict=True):
        p_sum, q_sum = (sum(math.exp(score) for score in row) for row in (p_row, q_row))
        for p_score, q_score in zip(p_row, q_row, strict=True):
            count += 1
            p, q = math.exp(p_score) / p_sum, math.exp(q_score) / q_sum
            total += p * math.log(p / q) if p > 0 else 0.0
    return total / count


def slow_value_relation(values: Tensor) -> Tensor:
    found = values.detach().double().numpy()
    pairs, heads, tokens, width = found.shape
    relation = np.empty((pairs, heads, tokens, tokens))
    for b, h, i, j in np.ndindex(relation.shape):
        relation[b, h, i, j] = sum(found[b, h, i] * found[b, h, j]) / math.sqrt(width)
    return torch.from_numpy(relation)


def test_divergence_worked_by_hand():
    """Maps (1/2, 1/2) and (3/4, 1/4): KL one way is ln(2 / sqrt 3), the other 3/4 ln 3 - ln 2."""
    even, uneven = torch.zeros(1, 2), torch.tensor([[math.log(3), 0.0]])
    assert map_divergence(uneven, even).item() == pytest.approx(math.log(2 / math.sqrt(3)) / 2)
    assert map_divergence(uneven, even, direction="student_teacher").item() == pytest.approx(
        (0.75 * math.log(3) - math.log(2)) / 2
    )


def test_a_hidden_entry_counts_as_an_element_without_divergence():
    even = torch.tensor([[0.0, 0.0, -torch.inf]])
    uneven = torch.tensor([[math.log(3), 0.0, -torch.inf]])
    assert map_divergence(uneven, even).item() == pytest.approx(math.log(2 / math.sqrt(3)) / 3)


@directions
@pytest.mark.parametrize("name", ["AV1", "VA2", "F4"])
def test_relations_against_a_slow_loop(student: Behaviour, teacher: Behaviour, name: str, direction: str):
    ours, theirs = layer_of(student, name), layer_of(teacher, name)
    flip = 1 if direction == "teacher_student" else -1
    cad = slow_divergence(*(theirs.scores, ours.scores)[::flip])
    vr = slow_divergence(*(slow_value_relation(theirs.values), slow_value_relation(ours.values))[::flip])
    assert cad_loss(ours, theirs, direction=direction).item() == pytest.approx(cad, rel=1e-5)
    assert vr_loss(ours, theirs, direction=direction).item() == pytest.approx(vr, rel=1e-5)


def test_the_clamp_of_the_published_code_touches_the_scores_of_va_alone(
    student: Behaviour, teacher: Behaviour
):
    plain = compare_layers(student, teacher, layers=ALL_LAYERS)
    clamped = compare_layers(student, teacher, layers=ALL_LAYERS, options=PUBLISHED_CODE)
    assert torch.equal(plain.vr, clamped.vr)
    for place, name in enumerate(ALL_LAYERS):
        if name.startswith("VA"):
            scores = [layer_of(side, name).scores.clamp(min=1e-5) for side in (teacher, student)]
            assert clamped.cad[place].item() == pytest.approx(slow_divergence(*scores), rel=1e-5)
            assert clamped.cad[place] != plain.cad[place]
        else:
            assert clamped.cad[place] == plain.cad[place]


def test_names_reach_their_layers(student: Behaviour):
    encoders = {"AV": student.av, "VA": student.va, "F": student.mem}
    for prefix, encoder in encoders.items():
        for place in range(4):
            assert layer_of(student, f"{prefix}{place + 1}") is encoder.layers[place]


def test_layers_are_chosen_by_name():
    assert len(select_layers("all")) == 12
    assert select_layers("F4") == ("F4",)
    assert select_layers(["VA1", "AV3"]) == ("VA1", "AV3")
    assert select_layers(()) == ()
    with pytest.raises(ConfigError, match="'F5' is not a layer"):
        select_layers("F5")
    with pytest.raises(ConfigError, match="named twice"):
        select_layers(["F1", "F1"])


def test_an_unknown_direction_is_refused():
    with pytest.raises(ConfigError, match="direction 'both' is not one of teacher_student, student_teacher"):
        RelationOptions(direction="both")


def test_maps_that_do_not_compare_are_refused():
    with pytest.raises(ConfigError, match="heads and tokens must agree"):
        map_divergence(torch.zeros(1, 8, 5, 16), torch.zeros(1, 1, 5, 16))


@directions
@unhurried
@given(
    scores=st.lists(st.tuples(numbers, numbers), min_size=2, max_size=6), shift=numbers, hide=st.booleans()
)
def test_divergence_is_finite_never_negative_and_blind_to_a_shift(
    scores: list[tuple[float, float]], shift: float, hide: bool, direction: str
):
    ours, theirs = torch.tensor(scores, dtype=torch.float64).mT.unsqueeze(1)
    if hide:
        ours, theirs = (x.clone().index_fill_(-1, torch.tensor([0]), -torch.inf) for x in (ours, theirs))
    found = map_divergence(ours, theirs, direction=direction)
    assert found.isfinite()
    assert found >= -1e-12
    torch.testing.assert_close(map_divergence(ours + shift, theirs, direction=direction), found)
    assert map_divergence(ours, ours, direction=direction) == 0


@unhurried
@given(seed=st.integers(0, 2**31))
def test_the_value_relation_does_not_see_a_rotation_of_the_values(seed: int):
    generator = torch.Generator().manual_seed(seed)
    values, other = torch.randn(2, 1, 2, 5, 4, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64)).Q
    scores = torch.zeros(1, 2, 5, 5)
    theirs = LayerBehaviour(scores, other)
    turned, plain = (vr_loss(LayerBehaviour(scores, ours), theirs) for ours in (values @ rotation, values))
    torch.testing.assert_close(turned, plain)


def test_relations_move_a_student_towards_its_teacher(student: Behaviour, teacher: Behaviour):
    layer = LayerBehaviour(
        layer_of(student, "VA3").scores.detach().requires_grad_(),
        layer_of(student, "VA3").values.detach().requires_grad_(),
    )
    theirs = layer_of(teacher, "VA3")
    before = cad_loss(layer, theirs) + vr_loss(layer, theirs)
    before.backward()
    moved = replace(layer, scores=layer.scores - layer.scores.grad, values=layer.values - layer.values.grad)
    assert cad_loss(moved, theirs) + vr_loss(moved, theirs) < before
