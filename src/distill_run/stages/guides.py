"""What gives a student the teacher's outputs: the logit bank where it serves, else the teacher itself."""

import torch

from distill_run.data.batches import Batch
from distill_run.engine.protocols import Guide
from distill_run.models.outputs import Outputs
from distill_run.stages.assembly import Assembly
from distill_run.stages.live_teacher import LiveTeacher
from distill_run.stages.logit_bank import BankedTeacher, has_room
from distill_run.stages.top_logits import TopLogits
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


class TopOfTeacher:
    """A guide that gives what a bank would keep of another's logits: a bank without room changes no student."""

    def __init__(self, guide: Guide, top_k: int) -> None:
        self.guide = guide
        self.top_k = top_k

    def __call__(self, batch: Batch) -> Outputs:
        """The reduced logits."""
        logits = self.guide(batch).logits
        everything = torch.arange(len(logits), device=logits.device)
        return Outputs(TopLogits.of(logits, self.top_k).spread(everything))


def make_guide(
    training: Training, assembly: Assembly, teacher: Trained, workshop: Workshop
) -> tuple[Guide | None, str]:
    """The guide of a training, and its name: "logit bank", "live teacher" or "nothing"."""
    needs = assembly.loss.needs
    if needs == "nothing":
        return None, "nothing"
    members = teacher.members or ((1.0, teacher),)
    several = [member for _, member in members]
    is_banked = needs == "logits" and workshop.processes.from_first(lambda: has_room(training, several, workshop))
    guides: list[tuple[float, Guide]] = []
    for weight, member in members:
        if is_banked:
            guides.append((weight, BankedTeacher(member.own_network, member.fingerprint, training, workshop)))
        else:
            device = workshop.device_for(member.own_network)
            live = LiveTeacher(member.own_network, device, assembly.teacher_points)
            guides.append((weight, live if training.top_k is None else TopOfTeacher(live, training.top_k)))
    guide = guides[0][1] if len(guides) == 1 else SeveralTeachers(guides)
    return guide, "logit bank" if is_banked else "live teacher"
