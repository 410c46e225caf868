"""The images of a setting: generated once, or at a root that the user gives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from kd_ext.errors import file_error, value_error
from studies.setting import ROOT, Setting


def prepare(setting: Setting, work: Path) -> Path:
    """Makes the data of a setting, unless they are there: their root.

    Generated sets are shared by all settings with the same generator below ``work/data``.

    Raises:
        FileNotFoundError: A root that the environment has to name is not there, or lacks a split.
        ValueError: The environment does not name it.
    """
    root = place(setting, work)
    if 'generator' in setting.data:
        generate(setting.data['generator'], root)
    if setting.unlabelled:
        generate(_unlabelled_recipe(setting), unlabelled_place(setting, work))
    for split, name in setting.splits.items():
        if not (root / name).is_file():
            raise file_error(f'the {split} split of {setting.name}', 'an existing file', str(root / name))
    return root


def generate(recipe: dict[str, Any], root: Path) -> None:
    """Draws a data set, unless it is there: ``recipe`` holds the options of ``demo/make_shapes_dataset.py``."""
    options = [
        str(part)
        for key, value in recipe.items()
        for part in (f'--{key.replace("_", "-")}', *(value if isinstance(value, list) else [value]))
    ]
    subprocess.check_call([sys.executable, '-m', 'demo.make_shapes_dataset', str(root), *options], cwd=ROOT)


def _unlabelled_recipe(setting):
    # scenes of a seed of their own; their labels are not used, so both splits count
    recipe = setting.data['generator']
    changes = dict(train=setting.unlabelled.images - 1, val=1, tuning=0, seed=recipe.get('seed', 0) + 1000)
    return {**recipe, **changes}


def unlabelled_place(setting: Setting, work: Path) -> Path:
    """Root of the set with the unlabelled images of a setting."""
    return _place(_unlabelled_recipe(setting), work)


def _place(recipe, work):
    return work / 'data' / '-'.join('x'.join(map(str, v)) if isinstance(v, list) else str(v) for v in recipe.values())


def place(setting: Setting, work: Path) -> Path:
    """Where the data of a setting are or will be.

    Raises:
        ValueError: The environment does not name a root that it has to.
    """
    if 'generator' in setting.data:
        return _place(setting.data['generator'], work)
    variable = setting.data['root']
    if not os.environ.get(variable):
        raise value_error(
            f'the environment variable {variable}',
            f'the folder of the data of {setting.name}',
            'nothing',
            f'Call it as {variable}=/path/to/data python -m studies.run {setting.name}',
        )
    return Path(os.environ[variable]).resolve()
