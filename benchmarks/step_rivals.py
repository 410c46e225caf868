"""mmrazor's distillation of the same detectors, for comparison.

Its PKD on the neck, wired as in mmrazor's own configs, beside ours with the same loss on the same levels. Teacher
and student are the modules of the model they are compared with; in-place layers are left in place, which mmrazor
by default turns off.
"""

from mmengine.registry import MODELS, DefaultScope

from benchmarks.step_model import built_on

LEVELS = (0, 1, 2, 3)
WEIGHT = 6.0
OURS = 'DetectionDistill + PKD'
KINDS = 'FpnTeacherDistill', 'SingleTeacherDistill'


def pkd_rivals(model):
    """Algorithms by name: ours with PKD, and mmrazor's two.

    Args:
        model (DetectionDistill): Its necks have one width.
    """
    found = {
        OURS: built_on(model, dict(pkd=dict(type='mmrazor.PKDLoss', at='neck', levels=LEVELS, loss_weight=WEIGHT)))
    }
    for kind in KINDS:
        found[f'mmrazor {kind} + PKD'] = _razor(kind, model)
    return found


def _razor(kind, model):
    recorder = dict(fpn=dict(type='ModuleOutputs', source='neck'))
    names = {level: f'loss_pkd_fpn{level}' for level in LEVELS}
    distiller = dict(
        type='ConfigurableDistiller',
        student_recorders=recorder,
        teacher_recorders=recorder,
        distill_losses={name: dict(type='PKDLoss', loss_weight=WEIGHT) for name in names.values()},
        loss_forward_mappings={
            name: {
                side: dict(from_student=side == 'preds_S', recorder='fpn', data_idx=level)
                for side in ('preds_S', 'preds_T')
            }
            for level, name in names.items()
        },
    )
    with DefaultScope.overwrite_default_scope('mmrazor'):
        return MODELS.build(
            dict(
                type=f'mmrazor.{kind}',
                architecture=model.student,
                teacher=model.teacher,
                distiller=distiller,
                module_inplace=True,
                teacher_module_inplace=True,
            )
        )
