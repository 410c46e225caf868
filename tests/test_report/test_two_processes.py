"""The hook of the report on two processes."""

import json

import pytest

from tests.helpers import short_trainings as training
from tests.helpers.two_processes import on_two

BODY = """
    from mmengine.config import Config
    from kd_ext.cli.runner import build_runner
    from kd_ext.report import hook

    def counted(truth, results):
        print('measures', len(truth['images']), 'images', flush=True)
        return measure(truth, results)

    measure, hook.precision = hook.precision, counted
    cfg = Config.fromfile(sys.argv[1])
    cfg.launcher = 'pytorch'
    build_runner(cfg).train()
"""


@pytest.mark.slow
def test_figures_of_all_images_and_one_page(shapes, tmp_path):
    cfg = training.config(shapes, tmp_path / 'run', training.save_teacher(tmp_path), epochs=1)
    cfg.custom_hooks = [dict(type='kd_ext.ReportHook', max_images=2)]
    cfg.train_dataloader.batch_size = 2
    cfg.dump(str(tmp_path / 'config.py'))
    said = on_two(tmp_path, BODY, tmp_path / 'config.py')
    # half of the 4 images lie on each process
    assert said.count('measures 4 images') == 2
    (path,) = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    row = [json.loads(line) for line in path.read_text().splitlines() if 'bbox_mAP' in line][-1]
    assert {'report/error_missed', 'report/cka_rcka_neck[0]'} <= set(row)
    assert (tmp_path / 'run/report.html').read_text().endswith('</html>\n')
