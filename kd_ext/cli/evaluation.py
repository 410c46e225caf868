"""What only ``tools/test.py`` does to a config or a runner."""

from copy import deepcopy

from mmengine.config import ConfigDict

from kd_ext.data.unwrap import unwrap
from kd_ext.errors import expected


def enable_drawing(cfg, show=False, show_dir=None, wait_time=2):
    """Paints the predictions: into a window, into files or both."""
    hooks = cfg.get('default_hooks') or {}
    if 'visualization' not in hooks:
        raise KeyError(
            expected(
                'default_hooks',
                'a dict with an entry visualization for --show and --show-dir',
                f'the entries {sorted(hooks)}',
                'Add '
                "visualization=dict(type='mmdet.DetVisualizationHook') to it and "
                "visualizer=dict(type='mmdet.DetLocalVisualizer') to the config.",
            )
        )
    hook = hooks.visualization
    hook.draw = True
    if show:
        hook.show = True
        hook.wait_time = wait_time
    if show_dir:
        hook.test_out_dir = show_dir


def enable_tta(cfg):
    """Test-time augmentation, by the config or by a horizontal flip."""
    # these two types are in registries above mmdet's, where a type written mmdet.X is not looked up, and only this
    # import puts the model there
    import mmdet.models  # noqa: F401

    parts = [part.config for part in unwrap(cfg.test_dataloader.dataset)]
    if 'tta_model' not in cfg:
        cfg.tta_model = dict(
            type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)
        )
    if 'tta_pipeline' not in cfg:
        cfg.tta_pipeline = _flip_pipeline(parts[0].pipeline)
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    for part in parts:
        part.pipeline = cfg.tta_pipeline


def _flip_pipeline(pipeline):
    """``pipeline`` with its packing done once as is and once flipped."""
    pack = deepcopy(pipeline[-1])
    pack.meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')
    flips = [dict(type='mmdet.RandomFlip', prob=prob) for prob in (1.0, 0.0)]
    return [*deepcopy(pipeline[:-1]), dict(type='TestTimeAug', transforms=[flips, [pack]])]


def dump_predictions(runner, path):
    """Has the predictions of a test written to a pickle file."""
    from mmdet.evaluation import DumpDetResults

    runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=path))
