"""What tools/doctor.py checks: one function each, which returns (fine, detail, fix).

It has to run where kd_ext cannot be imported, so it lies beside the tool and
not in kd_ext, uses nothing of kd_ext, and imports only the standard library
outside of the checks. The checks import what they check, kd_ext included.
"""

import contextlib
import functools
import importlib
import importlib.metadata
import importlib.util
import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

# the distribution of mmcv and the version that belongs to it; all three install the folder mmcv
MMCV = {'mmcv': '2.1.0', 'mmcv-lite': '2.1.0', 'onedl-mmcv': '2.3.6'}
PIP = f'{shlex.quote(sys.executable)} -m pip'
if os.path.isfile(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'setup.sh')):
    SETUP = 'rm -f .venv/.kd_ext_ready && bash tools/setup.sh'
else:  # an installed wheel
    SETUP = f'{PIP} install --upgrade --force-reinstall --no-deps kd_ext'


def installed_version(name):
    """Version of a distribution, None where there is none."""
    found = importlib.metadata.distributions(name=name)
    return next((one.version for one in found), None)


ONEDL = any(installed_version(f'onedl-{name}') for name in ('mmcv', 'mmdetection', 'mmengine'))
if ONEDL and SETUP.startswith('rm'):
    SETUP = 'rm -f .venv-onedl/.kd_ext_ready && KD_EXT_STACK=onedl bash tools/setup.sh'


def rebuild_mmcv():
    """The command that compiles mmcv's operators."""
    name = 'onedl-mmcv' if ONEDL else 'mmcv'
    replaced = f'{PIP} uninstall -y mmcv-lite; ' if installed_version('mmcv-lite') else ''
    return (
        f'{replaced}MMCV_WITH_OPS=1 {PIP} install --force-reinstall --no-deps '
        f'--no-cache-dir --no-build-isolation --no-binary {name} {name}=={MMCV[name]}'
    )


# what to ask pip for, where that is not the name of the module
REQUIREMENTS = dict(
    mmengine='mmengine>=0.10.4,<0.11',
    mmdet='mmdet==3.3.0',
    mmrazor='mmrazor==1.0.0',
    mmseg='mmsegmentation==1.2.2',
    pkg_resources='setuptools<81',
    cv2='opencv-python-headless',
    ordered_set='ordered-set',
)
if ONEDL:
    REQUIREMENTS.update(mmengine='onedl-mmengine==0.10.12', mmdet='onedl-mmdetection==3.5.1')
FRESH = 'import sys; from mmengine.registry import MODELS; sys.exit(MODELS.get("kd_ext.RCKALoss") is None)'


def install(module):
    """The command that brings a module."""
    if module in ('', 'torch', 'mmcv', 'kd_ext'):
        return SETUP
    return f'{PIP} install {shlex.quote(REQUIREMENTS.get(module, module))}'


def distribution(module):
    """``opencv-python-headless`` of ``cv2``."""
    return re.match(r'[\w-]+', REQUIREMENTS.get(module, module)).group()


def in_range(name, rule, low, high):
    """Whether low <= version < high, and whether the package imports."""
    version, fix = installed_version(distribution(name)), install(name)
    if version is None:
        return False, f'not installed, {rule} is needed', fix
    # '2.13.0+cpu' -> (2, 13, 0)
    numbers = tuple(int(part) for part in re.findall(r'\d+', version)[:3])
    if not low <= numbers < high:
        return False, f'{version} is installed, {rule} is needed', fix
    importlib.import_module(name)
    return True, version, fix


def check_python():
    version = '.'.join(map(str, sys.version_info[:3]))
    ok = (3, 9) <= sys.version_info[:2] <= (3, 12)
    return (
        ok,
        version + ('' if ok else ', 3.9 to 3.12 is needed'),
        ('rm -rf .venv && KD_EXT_PYTHON=python3.11 bash tools/setup.sh'),
    )


check_torch = functools.partial(in_range, 'torch', 'torch 2.0 or later', (2,), (99,))


def has_gpu():
    """Whether the driver lists a GPU."""
    program = shutil.which('nvidia-smi')
    return (
        program is not None
        and 'GPU' in subprocess.run([program, '-L'], capture_output=True, text=True, timeout=60).stdout
    )


def check_cuda():
    import torch

    built_for = torch.version.cuda
    if torch.cuda.is_available():
        return True, f'CUDA {built_for}, {torch.cuda.get_device_name(0)}', ''
    if os.environ.get('CUDA_VISIBLE_DEVICES') in ('', '-1') or not has_gpu():
        return True, 'CPU only', ''
    if built_for is None:
        return (
            True,
            (
                'CPU only, as this torch is built without CUDA. To use the GPU '
                'of this machine: KD_EXT_TORCH=<a CUDA build> bash tools/setup.sh'
            ),
            '',
        )
    return (
        False,
        f'torch is for CUDA {built_for}, the driver is not',
        (
            f'update the NVIDIA driver to one for CUDA {built_for}, or install '
            'a torch for the CUDA version that nvidia-smi shows'
        ),
    )


def check_mmcv():
    found = {name: version for name in MMCV if (version := installed_version(name))}
    if len(found) > 1:
        remove = f'{PIP} uninstall -y {" ".join(found)} && {SETUP}'
        return False, f'{" and ".join(found)} are installed, and each overwrites files of the other', remove
    name, version = next(iter(found.items()), ('mmcv', 'nothing'))
    if version == MMCV[name]:
        return True, f'{version} ({name})', ''
    rule = '' if ONEDL else ': mmdet 3.3 takes mmcv < 2.2 and mmrazor 1.0 mmcv <= 2.1.0'
    return False, f'{version} is installed, {name} {MMCV[name]} is needed{rule}', rebuild_mmcv()


def run_nms(device):
    import torch
    from mmcv.ops import nms

    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [0.0, 0.0, 9.0, 8.0], [20.0, 20.0, 30.0, 30.0]], device=device)
    _, kept = nms(boxes, torch.tensor([0.9, 0.8, 0.7], device=device), 0.5)
    return kept.tolist() == [0, 2]


def check_mmcv_ops():
    with contextlib.suppress(ImportError):  # it gives operators to an mmcv without compiled ones
        importlib.import_module('kd_ext')
    try:
        works = run_nms('cpu')
    except (ImportError, OSError) as error:
        if getattr(error, 'name', None) not in ('mmcv._ext', None):
            raise
        what = 'built for another torch' if 'undefined symbol' in str(error) else 'installed without working ops'
        return False, f'{what}: {error}', rebuild_mmcv()
    if getattr(sys.modules['mmcv._ext'], '__file__', None) is not None:
        return works, 'compiled: nms of three boxes', rebuild_mmcv()
    return works, f'nms of three boxes in torch by kd_ext, the slow route; to compile: {rebuild_mmcv()}', SETUP


def check_mmcv_cuda_ops():
    import torch

    if not torch.cuda.is_available():
        return True, 'not needed without CUDA', ''
    fix = f'FORCE_CUDA=1 {rebuild_mmcv()}'
    try:
        return run_nms('cuda'), 'nms of three boxes', fix
    except RuntimeError as error:
        return False, f'built without CUDA: {error}', fix


check_mmengine = functools.partial(in_range, 'mmengine', '0.10.4 <= mmengine < 0.11', (0, 10, 4), (0, 11))
if ONEDL:
    check_mmdet = functools.partial(in_range, 'mmdet', 'onedl-mmdetection 3.5', (3, 5), (3, 6))
else:
    check_mmdet = functools.partial(in_range, 'mmdet', 'mmdet 3.3', (3, 3), (3, 4))


def check_mmrazor():
    with contextlib.suppress(ImportError):  # it lifts the limit on mmcv that mmrazor sets at import
        importlib.import_module('kd_ext')
    return in_range('mmrazor', 'mmrazor 1.0.0', (1, 0, 0), (1, 0, 1))


check_ordered_set = functools.partial(in_range, 'ordered_set', 'ordered-set (mmrazor imports it)', (0,), (99,))
check_joblib = functools.partial(in_range, 'joblib', 'joblib (mmrazor imports it)', (0,), (99,))


def check_pkg_resources():
    version = f'setuptools {installed_version("setuptools")}'
    found = importlib.util.find_spec('pkg_resources') is not None
    return found, version if found else (f'not in {version}; mmdet:: lookups need it'), install('pkg_resources')


def check_pycocotools():
    import numpy as np

    fix = f'{PIP} install --force-reinstall --no-deps pycocotools'
    try:
        from pycocotools import mask
    except ModuleNotFoundError:
        raise
    except (ImportError, ValueError) as error:
        return False, f'does not fit numpy {np.__version__}: {error}', fix
    rle = mask.encode(np.asfortranarray(np.eye(4, dtype=np.uint8)))
    return mask.area(rle) == 4, f'with numpy {np.__version__}', fix


def check_opencv():
    try:
        import cv2
    except ModuleNotFoundError:
        raise
    except ImportError as error:  # libGL.so.1, on servers
        return False, str(error), (f'{PIP} uninstall -y opencv-python && {install("cv2")}')
    return True, cv2.__version__, ''


def check_torchvision():
    version = installed_version('torchvision')
    if version is None:
        return True, 'not installed, and not needed: torchvision://resnet18 and the like are found without it', ''
    remove = f'{PIP} uninstall -y torchvision'
    try:
        importlib.import_module('torchvision')
    except (ImportError, RuntimeError, OSError) as error:
        if isinstance(error, ModuleNotFoundError):
            raise
        # every training asks for its version, and ends there
        return False, f'{version} does not fit torch {installed_version("torch")}: {error}', remove
    return True, version, ''


def check_kd_ext():
    import kd_ext

    return True, kd_ext.__version__, ''


def check_mmrazor_models():
    for name in ('kd_ext', 'mmrazor.models'):
        importlib.import_module(name)
    return True, 'imports, with the shims of kd_ext', ''


def check_ssd():
    from mmdet.models.dense_heads import SSDHead

    import kd_ext  # noqa: F401

    head = SSDHead(
        num_classes=1,
        in_channels=(8, 8),
        anchor_generator=dict(
            type='SSDAnchorGenerator',
            scale_major=False,
            strides=[8, 16],
            ratios=[[2], [2]],
            min_sizes=[16, 32],
            max_sizes=[32, 64],
        ),
    )
    return hasattr(head, 'loss_cls'), 'the head has what predicting asks', (SETUP)


def check_mmseg():
    version = installed_version('mmsegmentation')
    if version is None:
        return True, ("not installed, so no segmentors; for these: pip install 'kd_ext[seg]'"), ''
    if version != '1.2.2':
        return False, f'{version} is installed, 1.2.2 is needed', (install('mmseg'))
    for name in ('kd_ext', 'mmseg.models'):
        importlib.import_module(name)
    return True, version, ''


def check_checkpoints():
    import numpy as np
    import torch
    from mmengine.logging import HistoryBuffer

    import kd_ext  # noqa: F401

    log = HistoryBuffer([1.0, 2.0], [1, 1])
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'checkpoint.pth')
        torch.save(dict(log=log, lr=np.float64(0.1), n=np.int64(1)), path)
        try:
            loaded = torch.load(path)
        except pickle.UnpicklingError as error:
            refused = re.findall(r'GLOBAL (\S+)', str(error))
            return (
                False,
                f'torch.load refuses {", ".join(refused)}',
                ('export TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1, if you trust all the checkpoints that you load'),
            )
    return loaded['log'].mean() == 1.5, 'log history is read back', SETUP


def check_mmdet_configs():
    from mmengine.config import Config

    name = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
    cfg = Config.fromstring(f'_base_ = {name!r}', '.py')
    return cfg.model.type == 'RetinaNet', name, install('mmdet')


def check_kd_ext_configs():
    from mmengine.config.utils import MODULE2PACKAGE

    import kd_ext

    configs = os.path.join(os.path.dirname(kd_ext.__file__), '.mim/configs')
    if 'kd_ext' not in MODULE2PACKAGE:
        return False, 'MMEngine does not know the package', SETUP
    if not os.path.isdir(configs):
        return False, f'{configs} is missing', SETUP
    return True, 'kd_ext:: is known', ''


def check_kd_ext_types():
    # not from the repository: the installed package is what counts
    with tempfile.TemporaryDirectory() as folder:
        fresh = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', FRESH], cwd=folder, capture_output=True, text=True, timeout=300
        )
    if fresh.returncode == 0:
        return True, 'known without custom_imports', SETUP
    last = (fresh.stderr.strip() or 'not in the registry').splitlines()[-1]
    return False, last, SETUP


CHECKS = {name[6:]: check for name, check in list(globals().items()) if name.startswith('check_')}
