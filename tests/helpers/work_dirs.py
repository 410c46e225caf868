"""Work dirs as MMEngine leaves them, without a training."""

import json

from mmengine.config import Config

LOG = """2026/01/02 03:04:05 - mmengine - INFO -
------------------------------------------------------------
System environment:
    Python: 3.11.7 (main, May  9 2026, 07:35:25) [GCC 12.2.0]
    PyTorch: 2.13.0+cpu
    MMEngine: 0.10.7

Runtime environment:
    seed: 5
------------------------------------------------------------

2026/01/02 03:04:06 - mmengine - INFO - matches: what learns from what
entry  student  shape     stride  teacher  shape     stride  connector  added  loss
rcka   neck[0]  64x40x40  8       neck[0]  64x40x40  8       none       0      patch 16
rcka   neck[1]  64x20x20  16      neck[1]  64x20x20  16      conv 1x1   4,096  patch 16
4,096 added parameters, in training alone
2026/01/02 03:04:07 - mmengine - INFO - command: python tools/train.py a.py
2026/01/02 03:04:07 - mmengine - INFO - Checkpoints will be saved to here.
"""
PLAIN = dict(type='FCOS')
DISTILLS = dict(
    type='kd_ext.DetectionDistill', student=PLAIN, teacher='t.py', distill=dict(rcka=dict(type='kd_ext.RCKALoss'))
)


def line(step, term=None, share=0.5, **more):
    """A line of scalars: a task loss of 1, a term and its share."""
    values = dict(loss=1.0, time=0.5, data_time=0.1, epoch=step // 10 + 1, step=step)
    if term is not None:
        values.update({'loss': 1.0 + term, 'distill.loss_rcka': term, 'distill.share_rcka': share})
    return {**values, **more}


def write(folder, lines=(), model=DISTILLS, start='20260102_030405', log=LOG, tail='', **settings):
    """A start of a training in ``folder``."""
    inside = folder / start / 'vis_data'
    inside.mkdir(parents=True)
    cfg = dict(model=model, train_cfg=dict(max_epochs=3), **settings)
    Config(cfg).dump(str(inside / 'config.py'))
    (inside / 'scalars.json').write_text(''.join(json.dumps(one) + '\n' for one in lines) + tail)
    if log:
        (folder / start / f'{start}.log').write_text(log)
    return folder
