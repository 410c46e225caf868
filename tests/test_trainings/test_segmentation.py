"""Segmentors of mmseg in the places of detectors; see test_extras.py for
what happens without mmseg."""

import pytest
import torch

pytest.importorskip('mmseg', reason="segmentation is an extra: pip install 'kd_ext[seg]'")

from tests.helpers.data_sets import ROOT  # noqa: E402
from tests.helpers.tiny_segmentors import batch, build, config, distill, segmentor, shrink, step  # noqa: E402

DEEPLAB = 'deeplabv3plus_r18_voc12aug.py'
PSP = 'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'
DATASETS = ('voc12aug', 'cityscapes')
CONFIGS = sorted(path.name for path in (ROOT / 'configs').glob('*.py') if path.stem.endswith(DATASETS))
LIPSCHITZ = dict(type='kd_ext.LipschitzLoss', at='backbone', relative=True)
LOGITS = dict(type='kd_ext.LogitCKALoss', at='decode_head.conv_seg')


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def all_finite(gradients):
    return all(bool(torch.isfinite(g).all()) for g in gradients.values() if g is not None)


def has_signal(gradients, prefix):
    return any(name.startswith(prefix) and g is not None and bool(g.abs().sum() > 0) for name, g in gradients.items())


class TestOneStep:
    def test_lipschitz_reaches_the_first_stage(self):
        model = distill(segmentor(DEEPLAB), segmentor(DEEPLAB, 8), lipschitz=LIPSCHITZ)
        data = model.data_preprocessor(batch(), True)
        losses = model(**data, mode='loss')
        term = losses['distill.loss_lipschitz']
        assert bool(torch.isfinite(term)) and float(term.detach()) > 0
        term.backward()  # alone, so that no task loss hides its absence
        gradients = {name: p.grad for name, p in model.named_parameters()}
        assert all_finite(gradients)
        assert has_signal(gradients, 'backbone.layer1')
        assert not has_signal(gradients, 'decode_head')

    def test_logits_reach_the_whole_student(self):
        model = distill(segmentor(PSP), segmentor(PSP, 8), rcka=LOGITS)
        data = model.data_preprocessor(batch(), True)
        losses = model(**data, mode='loss')
        term = losses['distill.loss_rcka']
        assert bool(torch.isfinite(term)) and float(term.detach()) > 0
        term.backward()
        gradients = {name: p.grad for name, p in model.named_parameters()}
        assert all_finite(gradients)
        assert has_signal(gradients, 'decode_head.conv_seg')
        assert has_signal(gradients, 'backbone.layer1')
        assert not has_signal(gradients, 'auxiliary_head')

    def test_logits_of_other_sizes(self):
        # DeepLabV3+ scores at a quarter of the image, PSPNet at an eighth
        model = distill(segmentor(PSP), segmentor(DEEPLAB, 8), rcka=LOGITS)
        losses, gradients = step(model)
        assert bool(torch.isfinite(losses['distill.loss_rcka']))
        assert all_finite(gradients)

    def test_memory_is_bounded_by_the_logits(self):
        from torch.utils._python_dispatch import TorchDispatchMode

        from kd_ext.losses import LogitCKALoss

        largest = []

        class Watch(TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                output = func(*args, **(kwargs or {}))
                if isinstance(output, torch.Tensor):
                    largest.append(output.numel())
                return output

        # a 512 x 1024 image at stride 8; pixels x pixels would be 2^26
        logits = torch.randn(1, 19, 64, 128, requires_grad=True)
        teacher = torch.randn(1, 19, 64, 128)
        with Watch():
            LogitCKALoss()(logits, teacher).backward()
        assert max(largest) == logits.numel()

    def test_task_losses_are_those_of_the_plain_student(self):
        cfg = segmentor(DEEPLAB)
        for head in (cfg.decode_head, cfg.auxiliary_head):
            head.dropout_ratio = 0.0
        alone, _ = step(build(cfg))
        losses, _ = step(distill(cfg, segmentor(DEEPLAB, 8), lipschitz=LIPSCHITZ, rcka=LOGITS))
        assert {'decode.loss_ce', 'aux.loss_ce'} <= alone.keys()
        for key, value in alone.items():
            torch.testing.assert_close(losses[f'student.{key}'], value)

    def test_teacher_stays_out_of_it(self):
        model = distill(segmentor(DEEPLAB), segmentor(DEEPLAB, 8), lipschitz=LIPSCHITZ, rcka=LOGITS)
        before = {k: v.clone() for k, v in model.teacher.state_dict().items()}
        step(model.train())
        assert not any(m.training for m in model.teacher.modules())
        assert all(p.grad is None for p in model.teacher.parameters())
        for key, value in model.teacher.state_dict().items():
            assert torch.equal(value, before[key]), key
        assert not any(key.startswith('teacher') for key in model.state_dict())
        assert model.state_dict().keys() == build(segmentor(DEEPLAB)).state_dict().keys()

    def test_teacher_runs_as_far_as_the_taps_ask(self):
        model = distill(segmentor(DEEPLAB), segmentor(DEEPLAB, 8), lipschitz=LIPSCHITZ)
        calls = []
        for part in ('backbone', 'decode_head', 'auxiliary_head'):
            getattr(model.teacher, part).register_forward_hook(lambda *args, part=part: calls.append(part))
        step(model)
        assert calls == ['backbone']


class TestScopes:
    @pytest.mark.parametrize('current', ['mmdet', 'kd_ext', 'mmseg'])
    def test_teacher_by_path_under_any_scope(self, current):
        from mmengine.registry import DefaultScope

        from kd_ext.teachers.build import build_teacher

        with DefaultScope.overwrite_default_scope(current):
            for source in (PSP, str(ROOT / 'configs' / DEEPLAB)):
                teacher = build_teacher(source, 'random')
                assert type(teacher).__module__.startswith('mmseg.')

    def test_prefix_of_the_type(self):
        from kd_ext.teachers.build import build_teacher

        cfg = segmentor(DEEPLAB)
        del cfg['_scope_']
        cfg.type = 'mmseg.EncoderDecoder'
        assert build_teacher(cfg, 'random').decode_head is not None

    def test_blank_samples(self):
        from mmseg.structures import SegDataSample

        from kd_ext.build.probe import blank_samples

        (sample,) = blank_samples(build(segmentor(DEEPLAB)), torch.zeros(1, 3, 64, 96))
        assert isinstance(sample, SegDataSample)
        assert sample.img_shape == (64, 96)


class TestTeacherInputs:
    @staticmethod
    def adapted(changes, data):
        """The batch for a teacher with other statistics, and as the teacher
        itself would have made it."""
        from kd_ext.teachers.inputs import InputAdapter

        student, teacher = segmentor(DEEPLAB), segmentor(DEEPLAB)
        teacher.data_preprocessor.update(changes)
        student, teacher = build(student), build(teacher)
        ready = student.data_preprocessor(data(), True)
        ours = InputAdapter(student, teacher)(**ready)
        return ours, teacher.data_preprocessor(data(), True)['inputs']

    def test_same_statistics_pass_through(self):
        ours, own = self.adapted({}, batch)
        assert torch.equal(ours, own)

    @pytest.mark.parametrize(
        'changes',
        [
            dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0]),
            dict(bgr_to_rgb=False),
            dict(bgr_to_rgb=False, rgb_to_bgr=True, mean=[1.0, 2.0, 3.0]),
            dict(mean=[1.0, 2.0, 3.0], pad_val=7),
            dict(mean=None, std=None),
        ],
    )
    def test_other_statistics(self, changes):
        ours, own = self.adapted(changes, batch)
        torch.testing.assert_close(ours, own, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize('name', CONFIGS)
def test_config_steps_once_when_shrunken(name):
    from kd_ext.build.detector import model_config

    model = config(name).model
    if 'teacher' not in model:
        losses, gradients = step(build(shrink(model)))
        assert all_finite(gradients)
        return
    assert model.teacher_ckpt.startswith('https://download.openmmlab.com/')
    model.student = shrink(model.student)
    model.teacher = shrink(model_config(model.teacher, 'teacher'))
    model.teacher_ckpt = 'random'
    distilled = build(model)
    assert distilled.distiller.terms.keys() == model.distill.keys()
    losses, gradients = step(distilled)
    for key in model.distill:
        value = losses[f'distill.loss_{key}'].detach()
        assert bool(torch.isfinite(value)) and float(value) > 0
    assert all_finite(gradients)
    assert has_signal(gradients, 'backbone')


# one config of each student: the plain ones, and RCKA's, whose students are mmseg's own
@pytest.mark.parametrize('name', [n for n in CONFIGS if not n.startswith(('lipschitz', 'rcka-pixels_'))])
def test_config_fits_at_full_size(name):
    # shrinking sets the widths of the heads, so the config's own show here
    model = config(name).model
    student = model.get('student', model)
    student.pretrained = None
    student = build(student).eval()
    with torch.no_grad():
        stages = student.extract_feat(torch.zeros(1, 3, 64, 64))
        for head in (student.decode_head, student.auxiliary_head):
            assert head(stages).shape[1] == head.num_classes


@pytest.mark.parametrize('name', [n for n in CONFIGS if '_r101_' in n])
def test_teacher_and_weights_are_of_one_model(name):
    import re
    from pathlib import Path

    import mmseg
    import yaml

    model = config(name).model
    folder, _, file = model.teacher.partition('::')[2].rpartition('/')
    index = yaml.safe_load((Path(mmseg.__file__).parent / '.mim/configs' / folder / 'metafile.yaml').read_text())
    (entry,) = (entry for entry in index['Models'] if entry['Name'] == re.sub(r'\.py$', '', file))
    assert entry['Weights'] == model.teacher_ckpt
