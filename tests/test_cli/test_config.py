import argparse

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import OPTIM_WRAPPERS, DefaultScope

from kd_ext import cli
from kd_ext.build.configs import find_config
from kd_ext.cli import config as cli_config
from tests.helpers.data_sets import ROOT
from tests.helpers.tiny_detectors import fcos


def arguments(*argv):
    parser = argparse.ArgumentParser()
    cli.add_shared_options(parser)
    return cli.parse(parser, [str(arg) for arg in argv])


@pytest.fixture
def plain(tmp_path):
    path = tmp_path / 'plain_net.py'
    path.write_text("model = dict(type='X', depth=18)\nvalues = [1, 2]\n")
    return path


@pytest.mark.parametrize('flag', ['--local_rank=3', '--local-rank=3'])
def test_local_rank(monkeypatch, flag):
    monkeypatch.setenv('LOCAL_RANK', '')
    monkeypatch.delenv('LOCAL_RANK')
    arguments('x.py', flag)
    assert cli.arguments.os.environ['LOCAL_RANK'] == '3'
    arguments('x.py', '--local_rank=1')  # the launcher's variable wins
    assert cli.arguments.os.environ['LOCAL_RANK'] == '3'


@pytest.mark.parametrize('value', ['0', '-1', '1.5', 'many'])
def test_counts_are_whole_numbers(value, capsys):
    parser = argparse.ArgumentParser()
    cli.add_image_options(parser, ('train', 'val'), 'val')
    assert parser.parse_args(['--max-images', '3']).max_images == 3
    with pytest.raises(SystemExit):
        parser.parse_args(['--max-images', value])
    assert (
        f'argument --max-images: Expected the value to be a whole number of at least 1, but got {value!r}.'
    ) in capsys.readouterr().err


def test_path_and_package_name(plain):
    assert find_config(str(plain)) == plain
    found = find_config('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py')
    assert found.is_file() and '.mim' in found.parts


@pytest.mark.parametrize(
    'name, texts',
    [
        ('plain_nat.py', ['Did you mean: plain_net.py?']),
        ('plain_net', ['plain_net.py']),
        (
            'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_2x_coco.py',
            ['In mmdet::fcos: Did you mean', 'fcos_r50-caffe_fpn_gn-head_1x_coco'],
        ),
        ('mmdet::fcoss/x.py', ['Did you mean: fcos,']),
        ('mmdett::fcos/x.py', ['Did you mean: mmdet,']),
        ('mmocr::x/y.py', ['pip install mmocr']),
    ],
)
def test_missing_config(plain, monkeypatch, name, texts):
    monkeypatch.chdir(plain.parent)
    with pytest.raises(FileNotFoundError, match='^Expected .*but got') as info:
        cli.load_config(arguments(name))
    for text in texts:
        assert text in str(info.value)


def test_options_go_into_the_config(plain, tmp_path):
    cfg = cli.load_config(arguments(plain, '--launcher', 'pytorch', '--cfg-options', 'model.depth=50', 'values=3,4'))
    assert cfg.model.depth == 50 and cfg['values'] == [3, 4]
    assert cfg.launcher == 'pytorch'


def test_work_dir(plain):
    assert cli.load_config(arguments(plain)).work_dir == 'work_dirs/plain_net'
    own = arguments(plain, '--cfg-options', 'work_dir=a')
    assert cli.load_config(own).work_dir == 'a'
    own = arguments(plain, '--cfg-options', 'work_dir=a', '--work-dir', 'b')
    assert cli.load_config(own).work_dir == 'b'


def amp_config():
    return Config(
        dict(optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1), accumulative_counts=2))
    )


def test_amp_on_a_gpu(monkeypatch):
    monkeypatch.setattr(cli_config, 'get_device', lambda: 'cuda')
    cfg = amp_config()
    cli.enable_amp(cfg)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 'dynamic'


def test_amp_on_a_cpu(monkeypatch, tmp_path):
    monkeypatch.setattr(cli_config, 'get_device', lambda: 'cpu')
    cfg = amp_config()
    cfg.optim_wrapper.loss_scale = 'dynamic'
    cli.enable_amp(cfg)
    cfg.dump(tmp_path / 'dumped.py')  # what the work dir gets
    cfg = Config.fromfile(tmp_path / 'dumped.py')

    net = torch.nn.Linear(4, 4)
    settings = dict(cfg.optim_wrapper)
    settings['optimizer'] = torch.optim.SGD(net.parameters(), lr=0.1)
    with DefaultScope.overwrite_default_scope('mmdet'):
        wrapper = OPTIM_WRAPPERS.build(settings)
    with wrapper.optim_context(net):
        assert net(torch.rand(2, 4)).dtype == torch.bfloat16
    assert net(torch.rand(2, 4)).dtype == torch.float32
    assert net.weight.dtype == torch.float32


def test_mmcv_ops_take_bfloat16():
    from mmcv.ops import RoIAlign, nms

    from kd_ext.engine.amp import keep_ops_in_float32

    keep_ops_in_float32()
    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [0.0, 0.0, 9.0, 8.0], [20.0, 20.0, 30.0, 30.0]])
    scores = torch.tensor([0.9, 0.8, 0.7])
    low = nms(boxes.bfloat16(), scores.bfloat16(), 0.5)[1]
    assert low.tolist() == nms(boxes, scores, 0.5)[1].tolist() == [0, 2]

    maps = torch.rand(1, 2, 8, 8).bfloat16().requires_grad_()
    rois = torch.tensor([[0.0, 1.0, 1.0, 6.0, 6.0]]).bfloat16()
    pooled = RoIAlign(2)(maps, rois)
    assert pooled.dtype == torch.bfloat16
    pooled.sum().backward()
    assert maps.grad.dtype == torch.bfloat16 and maps.grad.abs().sum() > 0


def test_amp_without_an_optimizer():
    with pytest.raises(KeyError, match='Expected optim_wrapper to be'):
        cli.enable_amp(Config(dict(model=dict())))


def test_lr_scaling():
    cfg = Config(dict(auto_scale_lr=dict(enable=False, base_batch_size=16)))
    cli.enable_lr_scaling(cfg)
    assert cfg.auto_scale_lr.enable
    with pytest.raises(KeyError, match='Expected auto_scale_lr to be'):
        cli.enable_lr_scaling(Config(dict(auto_scale_lr=dict(enable=False))))


def test_drawing():
    cfg = Config(dict(default_hooks=dict(visualization=dict(type='DetVisualizationHook'))))
    cli.enable_drawing(cfg, show_dir='painted')
    assert cfg.default_hooks.visualization == dict(type='DetVisualizationHook', draw=True, test_out_dir='painted')
    cli.enable_drawing(cfg, show=True, wait_time=3)
    assert cfg.default_hooks.visualization.wait_time == 3
    with pytest.raises(KeyError, match='visualization'):
        cli.enable_drawing(Config(dict()))


def test_tta_flips_once():
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackDetInputs')]
    cfg = Config(
        dict(model=fcos(), test_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=dict(pipeline=pipeline))))
    )
    cli.enable_tta(cfg)
    assert cfg.model.type == 'DetTTAModel' and cfg.model.module.type == 'FCOS'
    last = cfg.test_dataloader.dataset.dataset.pipeline[-1]
    assert last.type == 'TestTimeAug'
    assert [flip.prob for flip in last.transforms[0]] == [1.0, 0.0]
    assert 'flip' in last.transforms[1][0].meta_keys


def test_tta_of_the_config():
    cfg = Config(
        dict(
            model=dict(type='FCOS'),
            tta_model=dict(type='Own'),
            tta_pipeline=[dict(type='OwnPipeline')],
            test_dataloader=dict(dataset=dict(pipeline=[])),
        )
    )
    cli.enable_tta(cfg)
    assert cfg.model == dict(type='Own', module=dict(type='FCOS'))
    assert cfg.test_dataloader.dataset.pipeline[0].type == 'OwnPipeline'


def test_no_machine_paths():
    for path in [*(ROOT / 'kd_ext/cli').glob('*.py'), *(ROOT / 'tools').glob('*')]:
        if path.is_file():
            assert '/work/' not in path.read_text(), path
