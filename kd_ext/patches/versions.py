"""What the supported versions need to work together; nothing else is patched.

Each shim says why it exists, looks whether it is needed, and does nothing where it is not. ``install`` runs them
all when ``kd_ext`` is imported.
"""

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import os
import pickle
import sys
import types
from multiprocessing.pool import ThreadPool

from kd_ext.engine import named_images as reading
from kd_ext.engine import whole_checkpoints as saving
from kd_ext.errors import expected

SSD_HEAD = 'mmdet.models.dense_heads.ssd_head'
MEAN_AP = 'mmdet.evaluation.functional.mean_ap'
RAZOR_QUANTIZATION = (
    'mmrazor.structures.quantization',
    'mmrazor.models.quantizers',
    'mmrazor.models.fake_quants',
    'mmrazor.models.observers',
    'mmrazor.models.algorithms.quantization',
    'mmrazor.engine.runner.quantization_loops',
)
NO_QUANTIZATION = expected(
    'the quantization half of mmrazor',
    'usable',
    'a torch that no longer has the APIs it was written for, so kd_ext replaced it by a stub',
    'Distillation, pruning and search are not affected; for quantization use '
    'mmrazor 1.0.0 with torch 1.13, without kd_ext.',
)


def install():
    """Installs every shim; calling it again changes nothing."""
    name_package()
    find_editable_packages()
    name_missing_extras()
    trust_mmengine_checkpoints()
    stub_razor_quantization()
    let_ssd_predict()
    score_voc_in_threads()
    saving.install()
    change_when_imported('mmcv.transforms.loading', reading.name_images)


def name_package():
    """``kd_ext::_base_/...`` and ``kd_ext::rcka_x.py`` config paths.

    MMEngine resolves ``package::config`` only for packages in its own table, and only with a folder in the name;
    our configs lie in none.
    """
    from mmengine.config import config, utils
    from mmengine.hub import hub

    utils.MODULE2PACKAGE.setdefault('kd_ext', 'kd_ext')
    original = utils._get_package_and_cfg_path
    if hasattr(original, '__wrapped__'):
        return

    @functools.wraps(original)
    def divide(name):
        package, _, inside = name.partition('::')
        if package == 'kd_ext' and inside and '/' not in inside:
            return package, inside
        return original(name)

    for module in (config, utils, hub):
        module._get_package_and_cfg_path = divide


def find_editable_packages():
    """``kd_ext::...`` from an editable install.

    MMEngine looks for a package beside its metadata, where an editable install (PEP 660) has no folder; there the
    import system is asked.
    """
    import mmengine.config.config
    import mmengine.hub.hub
    import mmengine.utils.package_utils

    original = mmengine.utils.package_utils.get_installed_path
    if hasattr(original, '__wrapped__'):
        return

    @functools.wraps(original)
    def get_installed_path(package):
        path = original(package)
        if not os.path.isdir(path):
            spec = importlib.util.find_spec(package)
            if spec is not None and spec.origin is not None:
                path = os.path.dirname(spec.origin)
        return path

    for module in (mmengine.utils, mmengine.utils.package_utils, mmengine.config.config, mmengine.hub.hub):
        module.get_installed_path = get_installed_path


def name_missing_extras():
    """``mmseg::...`` without mmsegmentation.

    MMEngine's text for a ``_base_`` names no version, and its hub calls pip for a package that is missing, which
    would bring mmsegmentation without what it imports. Both are told what to install before they look.
    """
    import mmengine.config.config
    import mmengine.hub.hub

    from kd_ext.build.extras import require_extra

    def checked(original):

        @functools.wraps(original)
        def look(package):
            require_extra(package)
            return original(package)

        return look

    for module, name in ((mmengine.config.config, 'is_installed'), (mmengine.hub.hub, 'install_package')):
        original = getattr(module, name)
        if not hasattr(original, '__wrapped__'):
            setattr(module, name, checked(original))


def trust_mmengine_checkpoints():
    """Resuming on torch >= 2.6.

    torch.load refuses by default whatever is not a tensor or a plain value; MMEngine's checkpoints hold
    HistoryBuffer objects with numpy arrays (the log history). These few types are named as safe; a file that holds
    others is still refused.
    """
    import torch

    add = getattr(torch.serialization, 'add_safe_globals', None)
    if add is None:  # torch < 2.4 reads everything
        return
    import numpy as np
    from mmengine.logging import HistoryBuffer

    core = getattr(np, '_core', None) or np.core
    dtypes = {type(np.dtype(kind)) for kind in 'bBhHiIlLqQefd?'}
    add([HistoryBuffer, core.multiarray._reconstruct, core.multiarray.scalar, np.ndarray, np.dtype, *dtypes])
    # Python pickles a method as getattr(class, name); the builtin would let a file reach anything, so its name is
    # bound to a stand-in
    add([(_history_method, 'builtins.getattr'), (_history_method, '__builtin__.getattr')])
    if not core.multiarray.__name__.startswith('numpy.core'):
        # written under numpy 1, read under numpy 2
        add(
            [
                (core.multiarray._reconstruct, 'numpy.core.multiarray._reconstruct'),
                (core.multiarray.scalar, 'numpy.core.multiarray.scalar'),
            ]
        )


def _history_method(owner, name):
    from mmengine.logging import HistoryBuffer

    if owner is not HistoryBuffer or name not in ('min', 'max', 'mean', 'current'):
        raise pickle.UnpicklingError(
            expected(
                'what a checkpoint names',
                'statistics of its log history only',
                f'{name!r} of {owner!r}',
                'Do not load this file unless you know where it comes from.',
            )
        )
    return getattr(owner, name)


def stub_razor_quantization():
    """``import mmrazor.models`` on torch >= 2.

    mmrazor 1.0.0 imports its quantization half with everything else, and that half uses torch APIs which are gone.
    The subpackages are replaced by stubs; using anything in them raises an ImportError that says why.
    """
    if (
        not quantization_apis_are_gone()
        or 'mmrazor.models' in sys.modules
        or any(isinstance(finder, _StubFinder) for finder in sys.meta_path)
    ):
        return
    sys.meta_path.insert(0, _StubFinder())


def quantization_apis_are_gone():
    """Whether this torch lacks what mmrazor's quantization half imports."""
    import torch

    return int(torch.__version__.split('.')[0]) >= 2


class _UnavailableMeta(type):
    def __call__(cls, *args, **kwargs):
        raise ImportError(NO_QUANTIZATION)

    def __getattr__(cls, name):
        if name.startswith('__'):
            raise AttributeError(name)
        raise ImportError(NO_QUANTIZATION)


class _StubModule(types.ModuleType):
    """Any name in it can be imported; none can be used."""

    __all__ = ()

    def __getattr__(self, name):
        if name.startswith('__'):
            raise AttributeError(name)
        return _UnavailableMeta(name, (), {'__module__': self.__name__})


class _StubFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, fullname, path=None, target=None):
        if any(fullname == name or fullname.startswith(f'{name}.') for name in RAZOR_QUANTIZATION):
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec):
        return _StubModule(spec.name)

    def exec_module(self, module):
        pass


def let_ssd_predict():
    """Boxes of SSD in mmdet 3.3.

    ``BaseDenseHead._predict_by_feat_single`` asks for ``self.loss_cls``, which SSDHead's ``__init__`` does not
    set, so every validation ends in an AttributeError (mmdetection issues 11063, 11305 and 11780). None, set where
    it is missing, answers the question: a loss of no custom kind. The head's module is left unimported until
    something else asks for it.
    """
    change_when_imported(SSD_HEAD, lambda module: _set_missing_loss_cls(module.SSDHead))


def score_voc_in_threads():
    """VOC mAP after a training on a CPU.

    mmdet's ``eval_map`` forks workers. A forked child inherits the locks of OpenMP and the allocator as they are,
    but not the threads that would release them, and may wait forever: a validation hung that way. Threads give the
    same numbers, from numpy, on data that need not be copied.
    """
    change_when_imported(MEAN_AP, lambda module: setattr(module, 'Pool', ThreadPool))


def change_when_imported(name, change):
    """Calls ``change(module)`` now, or when something imports the module."""
    module = sys.modules.get(name)
    if module is not None:
        change(module)
    elif not any(getattr(finder, 'name', None) == name for finder in sys.meta_path):
        sys.meta_path.insert(0, _Changer(name, change))


def _set_missing_loss_cls(head):
    original = head.__init__
    if hasattr(original, '__wrapped__'):
        return

    @functools.wraps(original)
    def __init__(self, *args, **kwargs):
        original(self, *args, **kwargs)
        # not on the class: there it would hide a submodule of that name
        if not hasattr(self, 'loss_cls'):
            self.loss_cls = None

    head.__init__ = __init__


class _Changer(importlib.abc.MetaPathFinder):
    """Has a module found by others, and changed when it ran."""

    def __init__(self, name, change):
        self.name, self.change = name, change

    def find_spec(self, fullname, path=None, target=None):
        if fullname != self.name:
            return None
        found = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, found), None)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            self.change(module)

        spec.loader.exec_module = exec_module
        return spec
