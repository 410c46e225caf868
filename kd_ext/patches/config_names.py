"""Config names such as ``kd_ext::_base_/distill/rcka.py``, which MMEngine looks up in installed packages."""

from __future__ import annotations

import functools
import importlib.util
import os


def name_package() -> None:
    """Makes ``kd_ext::_base_/...`` and ``kd_ext::rcka_x.py`` config names.

    MMEngine resolves ``package::config`` only for packages in its own table, and only with a folder in the name.
    The configs of kd_ext lie in no folder.
    """
    from mmengine.config import config, utils
    from mmengine.hub import hub

    utils.MODULE2PACKAGE.setdefault('kd_ext', 'kd_ext')
    original = utils._get_package_and_cfg_path
    if hasattr(original, '__wrapped__'):
        return

    @functools.wraps(original)
    def divide(name: str) -> tuple[str, str]:
        package, _, inside = name.partition('::')
        if package == 'kd_ext' and inside and '/' not in inside:
            return package, inside
        return original(name)

    for module in (config, utils, hub):
        module._get_package_and_cfg_path = divide


def find_editable_packages() -> None:
    """Finds the configs of a package that is installed in editable mode.

    MMEngine looks for a package's folder beside its metadata. An editable install (PEP 660) has none there, so the
    import system is asked.
    """
    import mmengine.config.config
    import mmengine.hub.hub
    import mmengine.utils.package_utils

    original = mmengine.utils.package_utils.get_installed_path
    if hasattr(original, '__wrapped__'):
        return

    @functools.wraps(original)
    def get_installed_path(package: str) -> str:
        path = original(package)
        if not os.path.isdir(path):
            spec = importlib.util.find_spec(package)
            if spec is not None and spec.origin is not None:
                path = os.path.dirname(spec.origin)
        return path

    for module in (mmengine.utils, mmengine.utils.package_utils, mmengine.config.config, mmengine.hub.hub):
        module.get_installed_path = get_installed_path
