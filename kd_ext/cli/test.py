"""Scores the checkpoint of a detector, distilled or plain.

    kd_ext test CONFIG CHECKPOINT    (or: python tools/test.py CONFIG CHECKPOINT)

Options are those of mmdet's tools/test.py. Of a config that distills, the
student alone is built: its checkpoints are plain ones and no teacher is
needed. A checkpoint that does not fit the model is refused.
"""

from __future__ import annotations

import argparse
from copy import deepcopy
from typing import Sequence

from mmengine.config import Config, ConfigDict
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner

from kd_ext.build.detector import student_config
from kd_ext.cli.arguments import add_config_options, add_work_dir, parse, tool_parser
from kd_ext.cli.config import load_config, make_folder
from kd_ext.cli.data_check import check_checkpoint, check_data
from kd_ext.cli.errors import tool
from kd_ext.cli.runner import build_runner
from kd_ext.data.unwrap import unwrap
from kd_ext.errors import expected
from kd_ext.teachers.checkpoint import load_teacher


@tool
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Scores a checkpoint."""
    args = parse_args(argv, prog)
    cfg = student_config(load_config(args.config, args.cfg_options, args.launcher, args.work_dir))
    cfg.load_from = args.checkpoint
    cfg.resume = False  # a dumped config may say otherwise
    check_checkpoint('checkpoint', args.checkpoint)
    check_data(cfg, ('test',))
    make_folder(cfg.work_dir)
    if args.show or args.show_dir:
        enable_drawing(cfg, args.show, args.show_dir, args.wait_time)
    if args.tta:
        enable_tta(cfg)
    runner = build_runner(cfg)
    check_weights(runner, args.checkpoint, args.allow_mismatch)
    if args.out is not None:
        dump_predictions(runner, args.out)
    runner.test()


def parse_args(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    parser = tool_parser(__doc__, prog)
    add_config_options(parser)
    add_work_dir(parser)
    parser.add_argument('checkpoint', help='path or URL of the checkpoint')
    parser.add_argument('--out', metavar='FILE.pkl', help='write the predictions to a pickle file')
    parser.add_argument('--show', action='store_true', help='show the predictions in a window')
    parser.add_argument(
        '--show-dir', help="folder for images with the predictions, below the run's own folder in the work dir"
    )
    parser.add_argument('--wait-time', type=float, default=2, help='seconds per shown image (default: %(default)s)')
    parser.add_argument(
        '--tta',
        action='store_true',
        help='test-time augmentation: tta_model and tta_pipeline of the config, else a flip',
    )
    parser.add_argument(
        '--allow-mismatch', action='store_true', help='score although the checkpoint does not fit in every key'
    )
    args = parse(parser, argv)
    if args.out is not None and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'Expected --out to be a .pkl or .pickle file, but got {args.out}.')
    return args


def check_weights(runner: Runner, checkpoint: str, allow_mismatch: bool = False) -> None:
    """Raises a ``ValueError`` unless each key of a checkpoint fits the model; MMEngine only logs mismatches."""
    model = runner.model
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    load_teacher(model, checkpoint, allow_mismatch, 'model')


def enable_drawing(cfg: Config, show: bool = False, show_dir: str | None = None, wait_time: float = 2) -> None:
    """Draws the predictions into a window or files; raises a ``KeyError`` without a visualization hook."""
    hooks = cfg.get('default_hooks') or {}
    if 'visualization' not in hooks:
        raise KeyError(
            expected(
                'default_hooks',
                'a dict with an entry visualization for --show and --show-dir',
                f'the entries {sorted(hooks)}',
                "Add visualization=dict(type='mmdet.DetVisualizationHook') to it and "
                "visualizer=dict(type='mmdet.DetLocalVisualizer') to the config.",
            )
        )
    hook = hooks['visualization']
    hook.draw = True
    if show:
        hook.show = True
        hook.wait_time = wait_time
    if show_dir:
        hook.test_out_dir = show_dir


def enable_tta(cfg: Config) -> None:
    """Enables test-time augmentation: the config's, or a horizontal flip."""
    # DetTTAModel and TestTimeAug are registered above mmdet, where the prefix mmdet. does not find them; this import
    # registers DetTTAModel
    import mmdet.models  # noqa: F401

    parts = list(unwrap(cfg.test_dataloader.dataset))
    if 'tta_model' not in cfg:
        cfg.tta_model = dict(
            type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)
        )
    if 'tta_pipeline' not in cfg:
        cfg.tta_pipeline = _flip_pipeline(parts[0].config['pipeline'])
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    for part in parts:
        part.config['pipeline'] = cfg.tta_pipeline


def _flip_pipeline(pipeline: Sequence[dict]) -> list[dict]:
    """``pipeline`` with its last step, the packing, done with and without a flip."""
    pack = deepcopy(pipeline[-1])
    pack['meta_keys'] = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')
    flips = [dict(type='mmdet.RandomFlip', prob=prob) for prob in (1.0, 0.0)]
    return [*deepcopy(pipeline[:-1]), dict(type='TestTimeAug', transforms=[flips, [pack]])]


def dump_predictions(runner: Runner, path: str) -> None:
    """Writes the predictions of a test to a pickle file."""
    from mmdet.evaluation import DumpDetResults

    runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=path))
