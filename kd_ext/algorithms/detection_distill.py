"""The algorithm: runs student and teachers in order, with or without gradients."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from mmengine.model import BaseModel
from mmrazor.models.algorithms import BaseAlgorithm
from mmrazor.models.utils import add_prefix
from torch import Tensor

from kd_ext.algorithms.distiller import Distiller
from kd_ext.algorithms.plain_student import PlainStudentMixin
from kd_ext.algorithms.saved_run import average_shares, calling_runner
from kd_ext.build.detector import build_detector, model_config
from kd_ext.engine import policies
from kd_ext.errors import loss_parts, near_matches, raise_task_fault, type_error
from kd_ext.registry import MODELS
from kd_ext.taps import Reading
from kd_ext.teachers.build import build_teachers, check_apart, map_classes
from kd_ext.teachers.forward import TeacherPass
from kd_ext.teachers.identity import teacher_digest
from kd_ext.teachers.inputs import InputAdapter

ARGUMENTS = (
    'student',
    'teacher',
    'teacher_ckpt',
    'distill',
    'allow_teacher_mismatch',
    'classes',
    'data_preprocessor',
    'init_cfg',
)


@MODELS.register_module()
class DetectionDistill(PlainStudentMixin, BaseAlgorithm):
    """Trains a detector under a frozen teacher, on stock MMEngine runners.

    In each step the teacher runs without gradient, on the same images in its own normalisation and only as far as
    the taps need it. The student computes its own loss while taps record its features. The teacher's head then
    reads the student's regions, if a tap asks for that. The total loss is the student's task loss plus all
    ``distill.loss_*`` terms.

    Args:
        student: Any detector: its ``model`` config, a config path, ``pkg::config`` or a model.
        teacher: The same for the teacher, or a dict of several by name. Teachers stay outside this module's
            parameters, checkpoints and EMA copies.
        teacher_ckpt: Path or URL of the teacher's weights, or a dict of several by name. Every key must fit;
            ``'random'`` is for tests.
        distill: Entries ``name=dict(type=<loss>, at=<tap>, teacher=<name, if there are several>, levels=<indices
            or pairs of them, default by stride>, level_weights=<one per pair, default 1>, connector=<a config or
            another entry's name, default automatic>, teacher_connector=<a config, default none>, stage=<of a
            cascade, default the first>, class_means=<a file of tools/class_means.py, default 'online'>,
            schedule=<when it acts, see Schedule; default always>, balance=<share of the task loss to keep, default
            none>, <arguments of the loss>)``.
        allow_teacher_mismatch: Accept a checkpoint that does not fit the teacher in every key.
        classes: Names that map classes if teacher and student differ: ``student``, a list; ``teacher``, a list (or
            a dict of lists by teacher) that replaces the checkpoint's; ``aliases``, a dict from the student's
            names to the teacher's where they differ. Without it, both are taken to have the same classes.
        data_preprocessor: For a student whose config has none; MMEngine passes that of the whole config, so the
            student sees what it would see without distillation.
        init_cfg: As in mmrazor's ``BaseAlgorithm``.

    Raises:
        FileNotFoundError: The teacher's config or checkpoint does not exist.
        TypeError: An argument is unknown or has the wrong type.
        ValueError: The checkpoint does not fit, or an entry of ``distill`` names a tap, level or loss that does
            not exist.

    Example:
        model = dict(
            _delete_=True, type='kd_ext.DetectionDistill',
            student=_base_.model, teacher='mmdet::retinanet/'
            'retinanet_x101-64x4d_fpn_1x_coco.py', teacher_ckpt='x101.pth',
            distill=dict(rcka=dict(type='kd_ext.RCKALoss', at='neck',
                                   levels=(0, 1, 2, 3), loss_weight=10.)))
    """

    def __init__(
        self,
        student: dict | str | BaseModel | None = None,
        teacher: dict | str | BaseModel | None = None,
        teacher_ckpt: str | dict[str, str] | None = None,
        distill: dict[str, dict] | None = None,
        allow_teacher_mismatch: bool = False,
        classes: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
        **unknown: Any,
    ) -> None:
        for key in unknown:
            raise type_error(
                'kd_ext.DetectionDistill', f'given {", ".join(ARGUMENTS)}', f'{key!r}', near_matches(key, ARGUMENTS)
            )
        policies.apply()
        if not isinstance(student, BaseModel):
            cfg = model_config(student, 'student')  # type: ignore[arg-type]  # refuses None
            if data_preprocessor is not None:  # from the whole config, by MMEngine's Runner
                cfg = {'data_preprocessor': data_preprocessor, **cfg}
            student = build_detector(cfg, 'student')
        detector: Any = student
        # the same seed gives the same student with and without distillation
        with torch.random.fork_rng(devices=[]):
            check_apart(student, teacher)
            teachers = build_teachers(teacher, teacher_ckpt, allow_teacher_mismatch)
            distiller = Distiller(distill, detector, teachers, map_classes(classes, teachers))
        super().__init__(student, None, init_cfg, module_inplace=True)
        self.distiller = distiller
        # not registered: stays outside our parameters, state, modes and copies
        self.__dict__['teachers'] = teachers
        self.adapters = {name: InputAdapter(student, model) for name, model in teachers.items()}
        # of the teachers that class means come from
        self.teacher_digests = {
            name: teacher_digest(model) for name, model in teachers.items() if distiller.class_means
        }
        self.distillation_stopped = False  # set by mmrazor's StopDistillHook

    @property
    def student(self) -> BaseModel:
        """The detector that is trained and saved."""
        return self.architecture

    @property
    def teacher(self) -> BaseModel:
        """The frozen detector; of several, the first. See ``teachers``."""
        return next(iter(self.teachers.values()))

    def __getattr__(self, name: str) -> Any:
        """Parts and methods of the student: hooks written for detectors (``SetEpochInfoHook``,
        ``YOLOXModeSwitchHook``) look for them here."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == 'architecture':
                raise
            return getattr(self.architecture, name)

    def train(self, mode: bool = True) -> DetectionDistill:
        """As for any module; the training loop calls it, so it also sets how shares are logged."""
        if mode:
            average_shares(calling_runner())
        return super().train(mode)

    def loss(self, inputs: Tensor, data_samples: list | None = None) -> dict[str, Tensor]:
        """``student.*`` task losses, ``distill.loss_*`` terms, the share of each term in the total as
        ``distill.share_*``, and the factor of an entry with a schedule or a balance as ``distill.factor_*``."""
        self.distiller.finite.settle()  # of a step without a backward pass
        if self.distillation_stopped or not self.distiller.active:
            losses = self.architecture(inputs, data_samples, mode='loss')
            task_loss, _ = self.parse_losses(losses)
            terms = self.distiller.idle()
        else:
            passes = self.distiller.teacher_passes()
            self._run_teachers(passes, inputs, data_samples)
            with self.distiller.reading(self.student) as seen_S:
                losses = self.architecture(inputs, data_samples, mode='loss')
            self._run_teachers(passes, inputs, data_samples, seen_S)
            seen_T = {name: one.read(seen_S) for name, one in passes.items()}
            task_loss, _ = self.parse_losses(losses)
            terms = self.distiller(seen_S, seen_T, task_loss.detach())
        fault = partial(raise_task_fault, dict(losses), task_loss.detach(), data_samples)
        self.distiller.finite([task_loss], fault, [part for _, part in loss_parts(losses)])
        losses = add_prefix(losses, 'student')
        losses.update(add_prefix(terms, 'distill'))
        total, _ = self.parse_losses(losses)
        shares = {key[5:]: value.detach() / total.detach() for key, value in terms.items() if key.startswith('loss_')}
        return {**losses, **{f'distill.share_{name}': share for name, share in shares.items()}}

    def _run_teachers(
        self, passes: dict[str, TeacherPass], inputs: Tensor, samples: list | None, seen_S: Reading | None = None
    ) -> None:
        """Runs the teachers that precede the student or, with ``seen_S``, those that follow it."""
        for name, one in passes.items():
            if one.waits == (seen_S is not None):
                teacher = self.teachers[name]
                if any(module.training for module in teacher.modules()):  # a hook may have switched it
                    teacher.eval()
                one.run(teacher, self.adapters[name](inputs, samples), samples)

    def _apply(self, fn: Callable, *args: Any, **kwargs: Any) -> DetectionDistill:
        for teacher in self.teachers.values():
            teacher._apply(fn)  # to the same device
        return super()._apply(fn, *args, **kwargs)

    def __deepcopy__(self, memo: dict) -> DetectionDistill:
        for teacher in self.teachers.values():
            memo[id(teacher)] = teacher  # copies share the teachers
        copied = memo[id(self)] = type(self).__new__(type(self))
        copied.__dict__.update(deepcopy(self.__dict__, memo))
        return copied
