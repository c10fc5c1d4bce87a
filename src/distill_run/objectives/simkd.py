"""SimKD: the student imitates the teacher's last features and decides with the teacher's own classifier."""

from typing import Any, final

from torch import Tensor, nn

from distill_run.data.batches import Batch
from distill_run.losses.features import hint_loss
from distill_run.models.layers import last_linear
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import FeatureObjective, ReplacesStudent
from distill_run.rules import FLAG, whole


@final
class ReusedTeacherClassifier(FeatureObjective, ReplacesStudent):
    """weight * the mean squared difference of the projected features and the teacher's, without a cross-entropy.

    The network that learns, and that student.pt holds, is a models.reused_classifier.ReusedClassifier: the student, a
    projection and the teacher's classifier. `factor` and `last_relu` describe its projection. Where the student's map
    is smaller, the teacher's features are pooled. Source: Chen et al., "Knowledge Distillation with the Reused Teacher
    Classifier", 2022, section 3.
    """

    task_weight = 0.0

    def __init__(self, *, weight: float, factor: int, last_relu: bool) -> None:
        super().__init__(weight=weight, student_points=["projected"], teacher_points=["unpooled"])
        whole(1).check("factor", factor)
        FLAG.check("last_relu", last_relu)
        self.factor = factor
        self.last_relu = last_relu

    def student_node(self, student: dict[str, Any], teacher: dict[str, Any]) -> dict[str, Any]:
        """See ReplacesStudent."""
        return {
            "_target_": "distill_run.models.reused_classifier.ReusedClassifier",
            "student": student,
            "teacher": teacher,
            "factor": self.factor,
            "last_relu": self.last_relu,
            "widened": False,
        }

    def given_weights(self, teacher: nn.Module) -> dict[str, Tensor]:
        """See ReplacesStudent."""
        return {f"classifier.{key}": value for key, value in last_linear(teacher, "teacher")[1].state_dict().items()}

    def distillation(self, _: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """See FeatureObjective."""
        return self.sum_over_points(hint_loss, student, teacher)
