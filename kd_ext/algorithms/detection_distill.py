"""The algorithm: who runs when, and under which grad mode."""

from copy import deepcopy
from typing import Dict, List, Optional, Union

import torch
from mmengine.model import BaseModel
from mmrazor.models.algorithms import BaseAlgorithm
from mmrazor.models.utils import add_prefix
from torch import Tensor

from kd_ext.algorithms.distiller import Distiller
from kd_ext.algorithms.plain_student import PlainStudentMixin
from kd_ext.build.detector import build_detector, model_config
from kd_ext.engine import policies
from kd_ext.errors import check_task_loss, near_matches, type_error
from kd_ext.registry import MODELS
from kd_ext.teachers.build import build_teachers, map_classes
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

    A step runs the teacher without gradient, on the same images in its own normalisation, only as far as the taps
    ask; the student's own loss while taps record its features; the teacher's head where that is to read the
    student's regions; then the losses. The total is the student's task loss plus all ``distill.loss_*`` terms.

    Args:
        student (dict | str | BaseModel): Any detector: its ``model`` config, a config path, ``pkg::config`` or a
            model.
        teacher (dict | str | BaseModel): The same for the teacher. It stays outside this module's parameters,
            checkpoints and EMA copies. For several, a dict of them by name.
        teacher_ckpt (str | dict[str, str]): Path or URL of the teacher's weights, for several by name. Every key
            is accounted for; ``'random'`` is for tests.
        distill (dict[str, dict]): Entries ``name=dict(type=<loss>, at=<tap>, teacher=<name, where there are
            several>, levels=<indices or pairs of them, default by stride>, level_weights=<one a pair, default 1>,
            connector=<a config or another entry's name, default automatic>, teacher_connector= <default none>,
            stage=<of a cascade, default the first>, class_means=<a file of tools/class_means.py, default
            'online'>, schedule=<when it acts, see Schedule; default always>, balance=<share of the task loss to
            keep, default none>, <arguments of the loss>)``.
        allow_teacher_mismatch (bool): Go on although the checkpoint does not fit the teacher in every key.
        classes (dict): Names to map classes by where teacher and student differ: ``student``, a list; ``teacher``,
            a list (or one by teacher's name) in place of what the checkpoint says; and ``aliases``, the teacher's
            name by the student's where the same class is called otherwise. Without it they are taken to be the
            same.
        data_preprocessor (dict): For a student whose config has none, as MMEngine does with that of a whole config:
            the student sees what it would see without distillation.
        init_cfg (dict): As in mmrazor's ``BaseAlgorithm``.

    Raises:
        FileNotFoundError: The teacher's config or checkpoint is not there.
        TypeError: An argument is not known, or of another type.
        ValueError: The checkpoint does not fit; an entry of ``distill`` names no tap, no level or no loss that
            exists.

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
        student: Union[Dict, str, BaseModel, None] = None,
        teacher: Union[Dict, str, BaseModel, None] = None,
        teacher_ckpt: Union[str, Dict[str, str], None] = None,
        distill: Optional[Dict[str, Dict]] = None,
        allow_teacher_mismatch: bool = False,
        classes: Optional[Dict] = None,
        data_preprocessor: Optional[Dict] = None,
        init_cfg: Optional[Dict] = None,
        **unknown,
    ) -> None:
        for key in unknown:
            raise type_error(
                'kd_ext.DetectionDistill', f'given {", ".join(ARGUMENTS)}', f'{key!r}', near_matches(key, ARGUMENTS)
            )
        policies.apply()
        if not isinstance(student, BaseModel):
            student = model_config(student, 'student')
            if data_preprocessor is not None:  # MMEngine's Runner hands on that of the whole config
                student = {'data_preprocessor': data_preprocessor, **student}
            student = build_detector(student, 'student')
        # the student of a seed is the same with and without distillation
        with torch.random.fork_rng(devices=[]):
            teachers = build_teachers(teacher, teacher_ckpt, allow_teacher_mismatch)
            distiller = Distiller(distill, student, teachers, map_classes(classes, teachers))
        super().__init__(student, None, init_cfg, module_inplace=True)
        self.distiller = distiller
        # not registered: no parameter, state, mode or copy of ours
        self.__dict__['teachers'] = teachers
        self.adapters = {name: InputAdapter(student, model) for name, model in teachers.items()}
        self.distillation_stopped = False  # set by mmrazor's StopDistillHook

    @property
    def student(self) -> BaseModel:
        """The detector that is trained and saved."""
        return self.architecture

    @property
    def teacher(self) -> BaseModel:
        """The frozen detector; of several the first, see ``teachers``."""
        return next(iter(self.teachers.values()))

    def __getattr__(self, name: str):
        """Parts and methods of the student: hooks written for detectors (``SetEpochInfoHook``,
        ``YOLOXModeSwitchHook``) look for them here."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == 'architecture':
                raise
            return getattr(self.architecture, name)

    def loss(self, inputs: Tensor, data_samples: Optional[List] = None) -> Dict[str, Tensor]:
        """``student.*`` task losses, ``distill.loss_*`` terms, the share of each term in the total as
        ``distill.share_*``, and the factor of an entry with a schedule or a balance as ``distill.factor_*``."""
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
        check_task_loss(losses, task_loss, data_samples)
        losses = add_prefix(losses, 'student')
        losses.update(add_prefix(terms, 'distill'))
        total, _ = self.parse_losses(losses)
        losses.update(
            {
                f'distill.share_{key[5:]}': value.detach() / total.detach()
                for key, value in terms.items()
                if key.startswith('loss_')
            }
        )
        return losses

    def _run_teachers(self, passes, inputs, data_samples, seen_S=None):
        """Those that wait for the student, once it was read; else others."""
        for name, one in passes.items():
            if one.waits == (seen_S is not None):
                adapted = self.adapters[name](inputs, data_samples)
                one.run(self.teachers[name], adapted, data_samples)

    def _apply(self, fn, *args, **kwargs):
        for teacher in self.teachers.values():
            teacher._apply(fn)  # follows to the device
        return super()._apply(fn, *args, **kwargs)

    def __deepcopy__(self, memo):
        for teacher in self.teachers.values():
            memo[id(teacher)] = teacher  # copies share them
        copied = memo[id(self)] = type(self).__new__(type(self))
        copied.__dict__.update(deepcopy(self.__dict__, memo))
        return copied
