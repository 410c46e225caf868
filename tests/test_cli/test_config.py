import os

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import OPTIM_WRAPPERS, DefaultScope

from kd_ext.build.configs import find_config
from kd_ext.cli import config as cli_config
from kd_ext.cli.arguments import LAUNCHERS, add_config_options, add_image_options, add_work_dir, parse, tool_parser
from kd_ext.cli.config import enable_amp, enable_lr_scaling, load_config, make_folder
from kd_ext.cli.test import enable_drawing, enable_tta
from tests.helpers.data_sets import ROOT
from tests.helpers.tiny_detectors import fcos


def arguments(*argv):
    parser = tool_parser(None)
    add_config_options(parser)
    add_work_dir(parser)
    return parse(parser, [str(arg) for arg in argv])


def loaded(*argv):
    args = arguments(*argv)
    return load_config(args.config, args.cfg_options, args.launcher, args.work_dir)


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
    assert os.environ['LOCAL_RANK'] == '3'
    arguments('x.py', '--local_rank=1')  # the launcher's variable wins
    assert os.environ['LOCAL_RANK'] == '3'


@pytest.mark.parametrize('value', ['0', '-1', '1.5', 'many'])
def test_counts_are_whole_numbers(value, capsys):
    parser = tool_parser(None)
    add_image_options(parser, ('train', 'val'), 'val')
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
        load_config(name)
    for text in texts:
        assert text in str(info.value)


def test_options_go_into_the_config(plain, monkeypatch):
    for name in LAUNCHERS['pytorch']:
        monkeypatch.setenv(name, '0')
    cfg = loaded(plain, '--launcher', 'pytorch', '--cfg-options', 'model.depth=50', 'values=3,4')
    assert cfg.model.depth == 50 and cfg['values'] == [3, 4]
    assert cfg.launcher == 'pytorch'


def test_work_dir(plain):
    assert loaded(plain).work_dir == 'work_dirs/plain_net'
    assert loaded(plain, '--cfg-options', 'work_dir=a').work_dir == 'a'
    assert loaded(plain, '--cfg-options', 'work_dir=a', '--work-dir', 'b').work_dir == 'b'


@pytest.mark.parametrize('launcher', ['pytorch', 'slurm', 'mpi'])
def test_a_launcher_that_did_not_start_the_process(plain, launcher, monkeypatch):
    for name in LAUNCHERS[launcher]:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=f'--launcher .*{launcher}.*no {LAUNCHERS[launcher][0]}.*dist_train.sh'):
        arguments(plain, '--launcher', launcher)


@pytest.mark.parametrize('text', ['depth', '=3', 'model.depth:3'])
def test_settings_without_an_equals_sign(plain, text, capsys):
    with pytest.raises(SystemExit) as info:
        arguments(plain, '--cfg-options', text)
    assert info.value.code == 2
    assert f'--cfg-options to be KEY=VALUE, but got {text!r}' in capsys.readouterr().err


@pytest.mark.parametrize('text', ['values.7=1', 'model.depth.x=1', 'values.x=1'])
def test_settings_that_do_not_fit(plain, text):
    with pytest.raises(ValueError, match=f'^Expected --cfg-options to be .*{text}'):
        loaded(plain, '--cfg-options', text)


@pytest.mark.parametrize('teacher', ['own.py', dict(a='own.py', b='mmdet::fcos/x.py')])
def test_a_teacher_beside_the_config(tmp_path, monkeypatch, teacher):
    folder = tmp_path / 'configs'
    folder.mkdir()
    (folder / 'own.py').write_text("model = dict(type='FCOS')")
    (folder / 'own.pth').touch()
    Config(
        dict(model=dict(type='kd_ext.DetectionDistill', student=fcos(), teacher=teacher, teacher_ckpt='own.pth'))
    ).dump(folder / 'kd.py')
    monkeypatch.chdir(tmp_path)
    model = load_config('configs/kd.py').model
    found = model.teacher if isinstance(teacher, str) else model.teacher.a
    assert found == str(folder / 'own.py') and model.teacher_ckpt == str(folder / 'own.pth')
    if not isinstance(teacher, str):
        assert model.teacher.b == 'mmdet::fcos/x.py'
    (tmp_path / 'own.pth').touch()  # the working directory comes first
    assert load_config('configs/kd.py').model.teacher_ckpt == 'own.pth'


def test_folders_that_nothing_can_be_written_to(tmp_path):
    (tmp_path / 'file').touch()
    for bad in (tmp_path / 'file', tmp_path / 'file/below', '/proc/kd_ext'):
        with pytest.raises(FileNotFoundError, match='work_dir .*can be written to.*--work-dir'):
            make_folder(str(bad))
    assert make_folder(str(tmp_path / 'a/b')).is_dir()


def amp_config():
    return Config(
        dict(optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1), accumulative_counts=2))
    )


def test_amp_on_a_gpu(monkeypatch):
    monkeypatch.setattr(cli_config, 'get_device', lambda: 'cuda')
    cfg = amp_config()
    enable_amp(cfg)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 'dynamic'


def test_amp_on_a_cpu(monkeypatch, tmp_path):
    monkeypatch.setattr(cli_config, 'get_device', lambda: 'cpu')
    cfg = amp_config()
    cfg.optim_wrapper.loss_scale = 'dynamic'
    enable_amp(cfg)
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
        enable_amp(Config(dict(model=dict())))


def test_lr_scaling():
    cfg = Config(dict(auto_scale_lr=dict(enable=False, base_batch_size=16)))
    enable_lr_scaling(cfg)
    assert cfg.auto_scale_lr.enable
    with pytest.raises(KeyError, match='Expected auto_scale_lr to be'):
        enable_lr_scaling(Config(dict(auto_scale_lr=dict(enable=False))))


def test_drawing():
    cfg = Config(dict(default_hooks=dict(visualization=dict(type='DetVisualizationHook'))))
    enable_drawing(cfg, show_dir='painted')
    assert cfg.default_hooks.visualization == dict(type='DetVisualizationHook', draw=True, test_out_dir='painted')
    enable_drawing(cfg, show=True, wait_time=3)
    assert cfg.default_hooks.visualization.wait_time == 3
    with pytest.raises(KeyError, match='visualization'):
        enable_drawing(Config(dict()))


def test_tta_flips_once():
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackDetInputs')]
    cfg = Config(
        dict(model=fcos(), test_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=dict(pipeline=pipeline))))
    )
    enable_tta(cfg)
    assert cfg.model.type == 'DetTTAModel' and cfg.model.module.type == 'FCOS'
    last = cfg.test_dataloader.dataset.dataset.pipeline[-1]
    assert last.type == 'TestTimeAug'
    assert [flip.prob for flip in last.transforms[0]] == [1.0, 0.0]
    assert 'flip' in last.transforms[1][0].meta_keys


def test_tta_of_joined_data_sets():
    parts = [dict(pipeline=[dict(type='LoadImageFromFile'), dict(type='PackDetInputs')]) for _ in range(2)]
    cfg = Config(dict(model=fcos(), test_dataloader=dict(dataset=dict(type='ConcatDataset', datasets=parts))))
    enable_tta(cfg)
    for part in cfg.test_dataloader.dataset.datasets:
        assert [step.type for step in part.pipeline] == ['LoadImageFromFile', 'TestTimeAug']


def test_tta_of_the_config():
    cfg = Config(
        dict(
            model=dict(type='FCOS'),
            tta_model=dict(type='Own'),
            tta_pipeline=[dict(type='OwnPipeline')],
            test_dataloader=dict(dataset=dict(pipeline=[])),
        )
    )
    enable_tta(cfg)
    assert cfg.model == dict(type='Own', module=dict(type='FCOS'))
    assert cfg.test_dataloader.dataset.pipeline[0].type == 'OwnPipeline'


def test_no_machine_paths():
    for path in [*(ROOT / 'kd_ext/cli').glob('*.py'), *(ROOT / 'tools').glob('*')]:
        if path.is_file():
            assert '/work/' not in path.read_text(), path
