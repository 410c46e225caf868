"""Distillation by name: from ``rcka`` or ``nd:1.5`` to entries of ``distill``.

    cfg = Config.fromfile('retinanet_r18_fpn_1x_coco.py')
    kd_ext.distill_config(cfg, teacher='mmdet::retinanet/retinanet_r101_...',
                          teacher_ckpt='r101.pth', methods=['rcka', 'nd:1.5'])
"""

import copy
import os

from .messages import expected, near_matches

# weights: published for RCKA, ND, KD and ReviewKD, ours for the others
RECIPES = {
    'rcka': dict(rcka=dict(type='kd_ext.RCKALoss', at='neck', center=False,
                           loss_weight=10.)),
    'nd': dict(nd=dict(type='kd_ext.NDLoss', at='embedding',
                       loss_weight=1.)),
    'nckd': dict(nckd=dict(type='kd_ext.NCKDLoss', at='embedding',
                           loss_weight=0.1)),
    'lipschitz': dict(lipschitz=dict(
        type='kd_ext.LipschitzLoss', at='backbone', relative=True,
        loss_weight=0.1)),
    'kd': dict(kl=dict(type='kd_ext.LogitKLLoss', at='logits',
                       loss_weight=1.)),
    'reviewkd': dict(review=dict(type='kd_ext.ReviewKDLoss', at='neck',
                                 loss_weight=1.)),
    'pkd': dict(pkd=dict(type='mmrazor.PKDLoss', at='neck',
                         loss_weight=6.)),
    'cwd': dict(cwd=dict(type='mmrazor.ChannelWiseDivergence', at='neck',
                         tau=1., loss_weight=10.)),
}
RECIPES['kd++'] = {**RECIPES['kd'], **RECIPES['nd']}
RECIPES['reviewkd++'] = {**RECIPES['reviewkd'], **RECIPES['nd']}


def distill_entries(methods):
    """Entries of ``distill`` for methods by name.

    Args:
        methods (Sequence[str]): ``'rcka'``, or ``'rcka:0.5'`` for half of
            its usual weight.

    Raises:
        ValueError: An unknown method, one named twice, or a factor that is
            no number > 0.
    """
    if isinstance(methods, str) or not methods:
        raise ValueError(expected(
            'methods', 'a list of at least one method', repr(methods),
            f'Known: {", ".join(RECIPES)}.'))
    entries = {}
    for method in methods:
        name, _, factor = str(method).partition(':')
        if name not in RECIPES:
            raise ValueError(expected(
                'a distillation method', f'one of {", ".join(RECIPES)}',
                repr(name), near_matches(name, RECIPES)))
        for key, entry in copy.deepcopy(RECIPES[name]).items():
            if key in entries:
                raise ValueError(expected(
                    'methods', 'without a term twice', f'{key} again in '
                    f'{method!r}', 'kd++ holds kd and nd, reviewkd++ holds '
                    'reviewkd and nd.'))
            entry['loss_weight'] *= _factor(method, factor)
            entries[key] = entry
    return entries


def _factor(method, text):
    try:
        value = float(text or 1)
    except ValueError:
        value = float('nan')
    if not 0 < value < float('inf'):
        raise ValueError(expected(
            f'the factor of {method!r}', 'a number > 0', repr(text),
            'It multiplies the usual weight: rcka:0.5. Leave a method out to '
            'do without it.'))
    return value


def distill_config(cfg, teacher, teacher_ckpt, methods=('rcka',)):
    """Makes a config distill into its own model; changes and returns it.

    Args:
        cfg (Config): Of a detector; its model becomes the student.
        teacher (str): Config path or ``pkg::config`` of the teacher.
        teacher_ckpt (str): Path or URL of its weights.
        methods (Sequence[str]): See :func:`distill_entries`.

    Raises:
        ValueError: The config distills already, or has no model.
    """
    model = cfg.get('model')
    if not model or 'type' not in model:
        raise ValueError(expected('config', 'one of a detector, with a model',
                                  repr(model)))
    if str(model.type).endswith('DetectionDistill'):
        raise ValueError(expected(
            'config', 'one of a plain detector', 'one that distills already',
            'Train it as it is, or name the config of its student.'))
    if not teacher:
        raise ValueError(expected(
            'teacher', 'a config path or pkg::config', repr(teacher),
            'Say --teacher CONFIG --teacher-ckpt WEIGHTS.'))
    if '::' not in str(teacher) and os.path.isfile(teacher):
        teacher = os.path.abspath(teacher)  # found from any folder
    entries = distill_entries(methods)
    cfg.model = dict(
        type='kd_ext.DetectionDistill', student=model.to_dict(),
        teacher=str(teacher), teacher_ckpt=teacher_ckpt, distill=entries)
    return cfg
