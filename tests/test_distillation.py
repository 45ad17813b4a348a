"""The distillation losses against slow loops in numpy, closed forms and what a loss has to be."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from behaviours import PAIRS, STUDENT_WIDTH, TEACHER_WIDTH, made_up_behaviour
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from avsync_cli.errors import ConfigError
from training.losses.distillation import (
    KD,
    MTD,
    NMTD,
    RKD,
    FitNets,
    MiniLM,
    bce_loss,
    kd_loss,
    rkd_angle_loss,
    rkd_distance_loss,
    uncertainty_weighted,
)
from training.losses.relations import ALL_LAYERS, PUBLISHED_CODE, PUBLISHED_PAPER
from training.networks.vocalist import Behaviour, Dims, VocaList

LABELS = torch.tensor([1.0, 0.0, 1.0])
METHODS: dict[str, Callable[[], nn.Module]] = {
    "BCE": lambda: NMTD(()),
    "KD": KD,
    "RKD": RKD,
    "MiniLM*": MiniLM,
    "FitNets": lambda: FitNets(STUDENT_WIDTH, TEACHER_WIDTH),
    "NMTD": NMTD,
    "NMTD of the paper": lambda: NMTD("all", PUBLISHED_PAPER),
    "NMTD of the code": lambda: NMTD("all", PUBLISHED_CODE),
    "VA4": lambda: NMTD("VA4"),
    "without VR": lambda: NMTD("F4", vr=0.0),
    "without CAD": lambda: NMTD("F4", cad=0.0),
    "UW-13D": lambda: MTD("UW-13D"),
    "UW-25D": MTD,
    "AW-13D": lambda: MTD("AW-13D"),
    "AW-25D": lambda: MTD("AW-25D"),
}
REACHED = {  # the student's logits and the tensors that a method looks at
    "BCE": 1,
    "KD": 1,
    "RKD": 2,
    "MiniLM*": 3,
    "FitNets": 2,
    "VA4": 3,
    "without VR": 2,
    "without CAD": 2,
}
ALL_REACHED = 1 + 2 * 12
numbers = st.floats(-8, 8, width=32)
unhurried = settings(max_examples=50)
seeds = st.integers(0, 2**31)


@pytest.fixture
def student() -> Behaviour:
    return made_up_behaviour(STUDENT_WIDTH, seed=1)


@pytest.fixture
def teacher() -> Behaviour:
    return made_up_behaviour(TEACHER_WIDTH, seed=2)


def tensors_of(behaviour: Behaviour) -> list[Tensor]:
    encoders = (behaviour.av, behaviour.va, behaviour.mem)
    maps = [tensor for e in encoders for layer in e.layers for tensor in (layer.scores, layer.values)]
    return [behaviour.logits, behaviour.pooled, *(e.output for e in encoders), *maps]


# --- terms -------------------------------------------------------------------------------------


def test_bce_by_hand():
    """Probabilities 3/4 and 1/3 of being in sync, of which the first is."""
    logits = torch.tensor([math.log(3), -math.log(2)])
    expected = (-math.log(3 / 4) - math.log(2 / 3)) / 2
    assert bce_loss(logits, torch.tensor([1, 0])).item() == pytest.approx(expected)


def test_kd_by_hand():
    """At temperature 5 the student says 1/2 and the teacher 3/4."""
    teacher = torch.tensor([5 * math.log(3)])
    expected = 25 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert kd_loss(torch.zeros(1), teacher).item() == pytest.approx(expected, rel=1e-5)


@unhurried
@given(student=numbers, teacher=numbers, temperature=st.floats(0.5, 20))
def test_kd_pulls_the_student_to_the_teacher(student: float, teacher: float, temperature: float):
    ours = torch.tensor([student], dtype=torch.float64, requires_grad=True)
    loss = kd_loss(ours, torch.tensor([teacher], dtype=torch.float64), temperature=temperature)
    loss.backward()
    assert loss >= -1e-12
    assert ours.grad.item() * (student - teacher) >= -1e-12


def slow_smooth_l1(x: float, y: float) -> float:
    gap = abs(x - y)
    return 0.5 * gap**2 if gap < 1 else gap - 0.5


def test_rkd_against_a_slow_loop():
    rng = np.random.default_rng(3)
    ours, theirs = rng.standard_normal((4, 3)), rng.standard_normal((4, 7))
    places = range(4)

    def distances(points: np.ndarray) -> dict[tuple[int, int], float]:
        raw = {(i, j): math.dist(points[i], points[j]) for i in places for j in places}
        mean = sum(raw.values()) / 12
        return {key: value / mean for key, value in raw.items()}

    def cosine(points: np.ndarray, i: int, j: int, k: int) -> float:
        if j in (i, k):
            return 0.0
        to_i, to_k = points[i] - points[j], points[k] - points[j]
        return float(to_i @ to_k / np.linalg.norm(to_i) / np.linalg.norm(to_k))

    ours_d, theirs_d = distances(ours), distances(theirs)
    distance = sum(slow_smooth_l1(ours_d[key], theirs_d[key]) for key in ours_d) / 16
    triplets = [(i, j, k) for i in places for j in places for k in places]
    angle = sum(slow_smooth_l1(cosine(ours, *t), cosine(theirs, *t)) for t in triplets) / 64
    tensors = torch.from_numpy(ours), torch.from_numpy(theirs)
    assert rkd_distance_loss(*tensors).item() == pytest.approx(distance)
    assert rkd_angle_loss(*tensors).item() == pytest.approx(angle)


@unhurried
@given(seed=seeds, scale=st.floats(0.1, 10))
def test_rkd_sees_neither_rotation_nor_shift_nor_scale(seed: int, scale: float):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64)).Q
    moved = scale * points @ rotation + 3
    assert rkd_distance_loss(moved, points) < 1e-20
    assert rkd_angle_loss(moved, points) < 1e-20


@pytest.mark.parametrize("points", [torch.ones(4, 3), torch.ones(1, 3), torch.eye(3)[[0, 0, 1]]])
def test_rkd_of_points_that_coincide_is_finite(points: Tensor):
    ours = points.clone().requires_grad_()
    theirs = torch.randn(points.shape, generator=torch.Generator().manual_seed(0))
    loss = rkd_distance_loss(ours, theirs) + rkd_angle_loss(ours, theirs)
    loss.backward()
    assert loss.isfinite()
    assert ours.grad.isfinite().all()


def test_hint_is_the_mean_square_after_the_projection(student: Behaviour, teacher: Behaviour):
    method = FitNets(STUDENT_WIDTH, TEACHER_WIDTH, weight=3.0)
    loss = method(student, teacher, LABELS)
    projected = student.mem.output @ method.projection.weight.mT + method.projection.bias
    expected = (projected - teacher.mem.output).square().sum() / (PAIRS * 16 * TEACHER_WIDTH)
    torch.testing.assert_close(loss.parts["hint"], expected.detach())
    torch.testing.assert_close(loss.total, bce_loss(student.logits, LABELS) + 3 * expected)


# --- weighting ---------------------------------------------------------------------------------


def test_uncertainty_weighting_by_hand():
    losses, weights = torch.tensor([2.0, 8.0]), torch.tensor([1.0, 2.0])
    expected = (2 / 2 + math.log(2)) + (8 / 8 + math.log(5))
    assert uncertainty_weighted(losses, weights).item() == pytest.approx(expected)


@unhurried
@given(loss=st.floats(1e-3, 1e3), other=st.floats(0.05, 20))
def test_uncertainty_weighting_is_least_where_its_derivative_says(loss: float, other: float):
    """d/dw of L / (2 w^2) + ln(1 + w^2) is 0 at w^2 = (L + sqrt(L^2 + 8 L)) / 4."""
    losses = torch.tensor([loss], dtype=torch.float64)
    best = torch.tensor([(loss + math.sqrt(loss**2 + 8 * loss)) / 4], dtype=torch.float64).sqrt()
    best.requires_grad_()
    least = uncertainty_weighted(losses, best)
    least.backward()
    assert abs(best.grad.item()) < 1e-6 * max(1, loss)
    assert uncertainty_weighted(losses, torch.tensor([other], dtype=torch.float64)) >= least - 1e-9


@pytest.mark.parametrize(
    ("weighting", "terms"), [("UW-13D", 13), ("UW-25D", 25), ("AW-13D", 13), ("AW-25D", 25)]
)
def test_weights_are_as_many_as_the_name_says_and_start_at_one(
    student: Behaviour, teacher: Behaviour, weighting: str, terms: int
):
    method = MTD(weighting)
    assert [p.shape for p in method.parameters()] == [(terms,)]
    uniform = NMTD()(student, teacher, LABELS).total
    loss = method(student, teacher, LABELS)
    expected = uniform / 2 + terms * math.log(2) if weighting.startswith("UW") else uniform
    torch.testing.assert_close(loss.total, expected)
    loss.total.backward()
    assert (method.weights.grad != 0).all()


@pytest.mark.parametrize("weighting", ["AW-13D", "AW-25D"])
def test_each_weight_belongs_to_its_term(student: Behaviour, teacher: Behaviour, weighting: str):
    """The derivative by a plain weight is its term."""
    method = MTD(weighting)
    loss = method(student, teacher, LABELS)
    loss.total.backward()
    cad = torch.stack([loss.parts[f"cad_{name}"] for name in ALL_LAYERS])
    vr = torch.stack([loss.parts[f"vr_{name}"] for name in ALL_LAYERS])
    by_layer = [cad + vr] if weighting == "AW-13D" else [cad, vr]
    torch.testing.assert_close(method.weights.grad, torch.cat([loss.parts["bce"].view(1), *by_layer]))


@pytest.mark.parametrize("weighting", ["AW-13D", "AW-25D"])
def test_plain_weights_vanish_and_never_turn_a_loss_round(
    student: Behaviour, teacher: Behaviour, weighting: str
):
    """Of losses that stay as they are; the gradient at the logits is BCE's times its weight."""
    method = MTD(weighting)
    optimiser = torch.optim.Adam(method.parameters(), lr=0.05)
    [of_bce] = torch.autograd.grad(NMTD(())(student, teacher, LABELS).total, student.logits)
    totals, shares = [], []
    for _ in range(60):
        loss = method(student, teacher, LABELS)
        at_logits, method.weights.grad = torch.autograd.grad(loss.total, (student.logits, method.weights))
        optimiser.step()
        totals.append(loss.total.item())
        shares.append((at_logits @ of_bce / of_bce.square().sum()).item())
    assert shares[0] == pytest.approx(1)
    assert min(shares) == shares[-1] == 0
    assert min(totals) == totals[-1] == 0


def test_weights_set_by_hand(student: Behaviour, teacher: Behaviour):
    method = NMTD(["AV2", "F4"], bce=0.5, cad=[2.0, 3.0], vr=[0.0, 4.0])
    loss = method(student, teacher, LABELS)
    parts = loss.parts
    expected = 0.5 * parts["bce"] + 2 * parts["cad_AV2"] + 3 * parts["cad_F4"] + 4 * parts["vr_F4"]
    torch.testing.assert_close(loss.total.detach(), expected)
    with pytest.raises(ConfigError, match="3 weights do not fit 2 layers"):
        NMTD(["AV2", "F4"], cad=[1.0, 2.0, 3.0])


def test_an_unknown_weighting_is_refused():
    with pytest.raises(ConfigError, match="weighting 'UW-12D' is not one of"):
        MTD("UW-12D")


def test_leaving_a_relation_out_leaves_the_other(student: Behaviour, teacher: Behaviour):
    whole, no_vr, no_cad, bce = (
        method(student, teacher, LABELS).total
        for method in (NMTD("F4"), NMTD("F4", vr=0.0), NMTD("F4", cad=0.0), NMTD(()))
    )
    torch.testing.assert_close(no_vr + no_cad, whole + bce)
    torch.testing.assert_close(bce, bce_loss(student.logits, LABELS))
    torch.testing.assert_close(MiniLM()(student, teacher, LABELS).total, whole)


# --- every method ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_the_gradient_reaches_the_student_and_never_the_teacher(
    student: Behaviour, teacher: Behaviour, name: str
):
    for tensor in (*tensors_of(student), *tensors_of(teacher)):
        tensor.retain_grad()
    loss = METHODS[name]()(student, teacher, LABELS)
    loss.total.backward()
    assert loss.total.isfinite()
    assert [part for part in loss.parts.values() if part.requires_grad or not part.isfinite()] == []
    assert [tensor for tensor in tensors_of(teacher) if tensor.grad is not None] == []
    reached = [tensor.grad for tensor in tensors_of(student) if tensor.grad is not None]
    assert all(grad.isfinite().all() for grad in reached)
    assert student.logits.grad.abs().sum() > 0
    assert sum(grad.abs().sum() > 0 for grad in reached) == REACHED.get(name, ALL_REACHED)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "FitNets"])
def test_a_student_that_equals_its_teacher_has_only_bce_to_lose(teacher: Behaviour, name: str):
    twin = made_up_behaviour(TEACHER_WIDTH, seed=2)
    parts = METHODS[name]()(twin, teacher, LABELS).parts
    assert {term: value.item() for term, value in parts.items() if term != "bce" and value != 0} == {}


def test_fitnets_is_zero_where_the_projection_meets_the_teacher(teacher: Behaviour):
    method = FitNets(TEACHER_WIDTH, TEACHER_WIDTH)
    nn.init.eye_(method.projection.weight)
    nn.init.zeros_(method.projection.bias)
    assert method(teacher, teacher, LABELS).parts["hint"] < 1e-12


def test_a_small_network_learns_from_a_wide_one():
    torch.manual_seed(0)
    teacher = VocaList(Dims("teacher", 32, (2, 2, 2, 2, 32))).eval()
    student = VocaList(Dims("student", 16, (2, 2, 2, 2, 16))).eval()
    frames, mels = torch.rand(PAIRS, 5, 3, 48, 96), 4 * torch.randn(PAIRS, 80, 16)
    method = MTD()

    def loss() -> Tensor:
        behaviours = (network(frames, mels, with_behaviour=True) for network in (student, teacher))
        return method(*behaviours, LABELS).total

    before = loss()
    before.backward()
    with torch.no_grad():
        for parameter in (*student.parameters(), *method.parameters()):
            parameter -= 1e-3 * parameter.grad
        assert loss() < before
    assert [name for name, p in student.named_parameters() if p.grad is None] == []
    assert [name for name, p in teacher.named_parameters() if p.grad is not None] == []
