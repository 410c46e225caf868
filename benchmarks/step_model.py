"""A distillation as ``benchmarks/step.py`` times it.

Weights are random and images generated: what a step costs depends on neither, but for what a method does until it
has converged.
"""

import contextlib
import logging

import torch
from mmengine.config import ConfigDict
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope

from kd_ext.algorithms import DetectionDistill
from kd_ext.build.configs import distills
from kd_ext.errors import expected
from kd_ext.recipes import distill_config, distill_entries
from kd_ext.teachers.build import initialise

# by name: a config and the methods in place of its own
PRESETS = {
    'rcka-fcos': ('kd_ext::rcka_fcos_r101_r50_coco.py', None),
    'rcka-faster-rcnn': ('kd_ext::nd-rcka_faster-rcnn_r101_r50_coco.py', ('rcka',)),
    'all-faster-rcnn': ('kd_ext::nd-rcka_faster-rcnn_r101_r50_coco.py', ('rcka', 'nd', 'nckd', 'lipschitz')),
}
OBJECTS = 8  # in each image


def load_model(cfg, methods=None, teacher=None):
    """The algorithm of a config, untrained.

    Args:
        cfg (Config): Of a distillation, or of a detector with ``teacher``.
        methods (Sequence[str], optional): In place of its ``distill``, see :func:`kd_ext.recipes.distill_entries`.
        teacher (str, optional): Config of the teacher of a plain detector.

    Returns:
        DetectionDistill: In training mode.

    Raises:
        ValueError: A plain detector without a teacher, or one with two.
    """
    if teacher is not None:
        distill_config(cfg, teacher, 'random', methods or ['rcka'])
    settings = cfg.model
    if not distills(settings):
        raise ValueError(
            expected(
                'config',
                'one that distills',
                settings.type,
                'Say --teacher CONFIG [--distill METHOD ...] to distill into its detector.',
            )
        )
    if methods is not None:
        settings.distill = distill_entries(methods)
    for entry in settings.distill.values():
        entry.pop('class_means', None)  # the file of a trained teacher
    several = isinstance(settings.get('teacher_ckpt'), dict)
    settings.teacher_ckpt = dict.fromkeys(settings.teacher_ckpt, 'random') if several else 'random'
    torch.manual_seed(0)
    scope = cfg.get('default_scope') or 'mmdet'
    with quiet(), DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(settings)
        initialise(model.student)
    return model.train()


@contextlib.contextmanager
def quiet():
    """Without the line a parameter that MMEngine logs."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def generated_batch(model, height, width, count):
    """``count`` images of noise with boxes and masks, preprocessed.

    Returns:
        dict: ``inputs`` and ``data_samples`` for the model.
    """
    from mmdet.testing import demo_mm_inputs

    classes = min(
        (module.num_classes for module in model.student.modules() if getattr(module, 'num_classes', 1) > 1), default=1
    )
    batch = demo_mm_inputs(count, (3, height, width), [OBJECTS] * count, classes + 1, with_mask=True)
    for sample in batch['data_samples']:
        sample.gt_instances.labels -= 1
        sample.set_metainfo(dict(scale_factor=(1.0, 1.0)))
    return model.data_preprocessor(batch, True)


def built_on(model, distill):
    """Another distillation with the models of the first one.

    Returns:
        DetectionDistill
    """
    with quiet():
        return DetectionDistill(model.student, model.teacher, distill=ConfigDict(distill)).train()
