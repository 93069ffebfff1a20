"""Self-distillation of a multi-label classifier, a loss for training loops of users.

The loss of MTECG's SPEED-TR release: a student learns from the labels and from a teacher's
tempered probabilities. No recipe uses it; a training loop calls it with the logits of both::

    loss = distillation_loss(student(x), teacher(x), target)
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from einthoven.errors import RecipeError


def distillation_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    temperature: float = 2.0,
    weight: float = 0.7,
) -> Tensor:
    """``weight * T**2 * KL(teacher || student) + (1 - weight) * BCE(student, target)``.

    KL is the mean Bernoulli divergence from the teacher's tempered probabilities to the student's,
    computed from log-sigmoids, so that saturated logits stay finite.

    Parameters
    ----------
    student, teacher : Tensor, shape (batch, labels)
        Logits; no gradient flows into the teacher.
    target : Tensor, shape (batch, labels)
        0 or 1.
    temperature : float
        T > 0; the square keeps the size of the gradients.
    weight : float
        Share of the teacher, 0 to 1.

    Raises
    ------
    RecipeError
        If the temperature or the weight is out of range.
    """
    if not temperature > 0.0 or not 0.0 <= weight <= 1.0:
        raise RecipeError(
            f"temperature = {temperature!r}, weight = {weight!r}",
            remedy="choose a temperature above 0 and a weight from 0 to 1",
        )
    ours, theirs = student / temperature, teacher.detach() / temperature
    positive = theirs.sigmoid() * (logsigmoid(theirs) - logsigmoid(ours))
    negative = (-theirs).sigmoid() * (logsigmoid(-theirs) - logsigmoid(-ours))
    soft = (positive + negative).mean()
    hard = binary_cross_entropy_with_logits(student, target.to(student.dtype))
    return weight * temperature**2 * soft + (1.0 - weight) * hard
