"""SimKD: the student learns the teacher's last features, and decides with the teacher's own classifier."""

from typing import Any, final

from torch import Tensor, nn

from distill_run.data.batches import Batch
from distill_run.losses.features import hint_loss
from distill_run.models.layers import last_linear
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import Needs, Objective
from distill_run.rules import NOT_NEGATIVE


@final
class ReusedTeacherClassifier(Objective):
    """weight * the mean squared difference of the projected features and the teacher's; no cross-entropy.

    What learns is a models.reused_classifier.ReusedClassifier, projection and classifier included, and so is what
    student.pt holds. The teacher's features are pooled where the student's map is smaller. Source: Chen et al.,
    "Knowledge Distillation with the Reused Teacher Classifier", 2022,
    section 3.
    """

    needs: Needs = "features"
    task_weight = 0.0

    def __init__(self, *, weight: float, factor: int, last_relu: bool) -> None:
        super().__init__()
        NOT_NEGATIVE.check("weight", weight)
        self.weight = weight
        self.factor = factor
        self.last_relu = last_relu
        self.student_points, self.teacher_points = ["projected"], ["unpooled"]

    def student_node(self, student: dict[str, Any], teacher: dict[str, Any]) -> dict[str, Any]:
        """See Objective."""
        return {
            "_target_": "distill_run.models.reused_classifier.ReusedClassifier",
            "student": student,
            "teacher": teacher,
            "factor": self.factor,
            "last_relu": self.last_relu,
        }

    def given_weights(self, teacher: nn.Module) -> dict[str, Tensor]:
        """See Objective."""
        return {f"classifier.{key}": value for key, value in last_linear(teacher, "teacher")[1].state_dict().items()}

    def distillation(self, batch: Batch, student: Outputs, teacher: Outputs | None) -> Tensor:  # noqa: ARG002
        """See Objective."""
        assert teacher is not None
        ((projected, wanted),) = self.features(student, teacher)
        return hint_loss(projected, wanted)
