"""What gives a student the teacher's outputs: the logit bank where it serves, else the teacher itself."""

from distill_run.data.batches import Batch
from distill_run.engine.protocols import Guide
from distill_run.models.outputs import Outputs
from distill_run.stages.assembly import Assembly
from distill_run.stages.live_teacher import LiveTeacher
from distill_run.stages.logit_bank import BankedTeacher, has_room
from distill_run.stages.trained import Trained
from distill_run.stages.training import Training
from distill_run.stages.workshop import Workshop


class SeveralTeachers:
    """A guide that asks each of several, and gives their outputs together."""

    def __init__(self, guides: list[tuple[float, Guide]]) -> None:
        self.guides = guides

    def __call__(self, batch: Batch) -> Outputs:
        """The outputs of all, by their weights."""
        return Outputs.of_several(tuple((weight, guide(batch).logits) for weight, guide in self.guides))


def make_guide(
    training: Training, assembly: Assembly, teacher: Trained, workshop: Workshop
) -> tuple[Guide | None, str]:
    """The guide of a training, and its name: "logit bank", "live teacher" or "nothing"."""
    needs = assembly.loss.needs
    if needs == "nothing":
        return None, "nothing"
    members = teacher.members or ((1.0, teacher),)
    is_banked = needs == "logits" and has_room(training, [member for _, member in members], workshop)
    guides: list[tuple[float, Guide]] = []
    for weight, member in members:
        if is_banked:
            guides.append((weight, BankedTeacher(member.own_network, member.fingerprint, training, workshop)))
        else:
            guides.append(
                (
                    weight,
                    LiveTeacher(member.own_network, workshop.device_for(member.own_network), assembly.teacher_points),
                )
            )
    guide = guides[0][1] if len(guides) == 1 else SeveralTeachers(guides)
    return guide, "logit bank" if is_banked else "live teacher"
