"""One setting of the study, as its file declares it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from kd_ext.errors import file_error, near_matches, value_error

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ROLES = ('baseline', 'control', 'ours', 'context')
SPLITS = ('train', 'teacher', 'tuning', 'test')
GENERATED = dict(
    train='annotations/instances_train.json',
    teacher='annotations/instances_train.json',
    tuning='annotations/instances_tuning.json',
    test='annotations/instances_val.json',
)


@dataclass(frozen=True)
class Arm:
    """What is trained: see ``arms.yml``.

    ``variants`` always has at least one entry; without names in the file it is called ``''``. ``default_of`` names the
    arm whose weight was searched, where this one chooses its own as ``--distill`` does.
    """

    name: str
    title: str
    role: str
    times: int = 1
    search: bool = True
    default_of: str = ''
    methods: list[str] | None = None
    entries: dict[str, dict] | None = None
    changes: dict[str, dict] = field(default_factory=dict)
    variants: dict[str, dict] = field(default_factory=dict)

    @property
    def distils(self) -> bool:
        """Whether there is a teacher in it."""
        return bool(self.methods or self.entries or self.variants)

    @property
    def searched(self) -> bool:
        """Whether the share of its terms has to be searched first."""
        return self.distils and self.search and not self.default_of

    def recipes(self) -> dict[str, dict]:
        """``methods``, ``entries`` and ``changes`` of each variant, by its name."""
        if self.variants:
            return self.variants
        return {'': dict(methods=self.methods, entries=self.entries, changes=self.changes)}


@dataclass(frozen=True)
class Part:
    """Teacher or student: a config file with its schedule.

    ``images`` takes the first so many of the training split; ``options`` are merged into the config.
    """

    config: str
    epochs: int
    images: int | None = None
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Search:
    """Shares of the loss that are tried, on seeds of their own and the tuning split."""

    shares: list[float]
    seeds: list[int]


@dataclass(frozen=True)
class Unlabelled:
    """Images without labels, which the teacher labels and all arms but some train on.

    An epoch has ``ratio`` of them for each labelled image. There are fewer epochs, so that each arm has as many
    iterations as without them. ``control`` is the arm that has the labels and no distillation.
    """

    images: int
    control: str
    without: list[str]
    ratio: float = 1.0


@dataclass(frozen=True)
class Thresholds:
    """When a setting can tell methods apart; in points of the metric, see :mod:`studies.gate`."""

    points: float = 8.0
    deviations: float = 4.0
    flat_points: float = 1.0
    flat_part: float = 0.25
    controls: int = 2


@dataclass(frozen=True)
class Setting:
    """A whole declared setting."""

    name: str
    title: str
    text: str
    data: dict[str, Any]
    metric: str
    teacher: Part
    student: Part
    arms: dict[str, Arm]
    seeds: list[int]
    search: Search
    gate: Thresholds
    waits: str = ''
    curve_points: int = 6
    unlabelled: Unlabelled | None = None

    def takes_unlabelled(self, arm: Arm | None) -> bool:
        """Whether an arm trains on the unlabelled images; the teacher (None) does not."""
        return self.unlabelled is not None and arm is not None and arm.name not in self.unlabelled.without

    @property
    def splits(self) -> dict[str, str]:
        """Annotation file of each split, below the root of the data."""
        return GENERATED if 'generator' in self.data else self.data['splits']


def load(path: str | Path, arms: str | Path = HERE / 'arms.yml') -> Setting:
    """Reads a setting by its name in this folder, or from a path.

    Raises:
        FileNotFoundError: There is no such setting.
        ValueError: A key is missing, unknown, or its value cannot be.
    """
    path = Path(path)
    if path.suffix != '.yml':
        path = HERE / f'{path}.yml'
    if not path.is_file():
        raise file_error('SETTING', f'one of {", ".join(names())}', repr(path.stem), near_matches(path.stem, names()))
    known = {name: _made(Arm, f'{name} in arms.yml', dict(one, name=name)) for name, one in _read(arms).items()}
    content = _read(path)
    for name, one in (content.pop('own_arms', None) or {}).items():
        known[name] = _made(Arm, f'own_arms.{name}', dict(one, name=name))
    chosen = content.get('arms') or []
    for name in chosen:
        if name not in known:
            raise value_error(f'arms in {path.name}', f'among {", ".join(known)}', name, near_matches(name, known))
    for key, kind in (('teacher', Part), ('student', Part), ('search', Search), ('gate', Thresholds)):
        content[key] = _made(kind, f'{key} in {path.name}', content.get(key) or {})
    if 'unlabelled' in content:
        content['unlabelled'] = _made(Unlabelled, f'unlabelled in {path.name}', content['unlabelled'])
    setting = _made(Setting, path.name, dict(content, name=path.stem, arms={name: known[name] for name in chosen}))
    _check(setting)
    return setting


def names() -> list[str]:
    """The settings of this folder."""
    return sorted(path.stem for path in HERE.glob('*.yml') if path.stem != 'arms')


def _read(path):
    return yaml.safe_load(Path(path).read_text()) or {}


def _made(kind, place, content):
    allowed = {one.name for one in fields(kind)}
    for key in content:
        if key not in allowed:
            raise value_error(place, f'made of {", ".join(sorted(allowed))}', repr(key), near_matches(key, allowed))
    try:
        return kind(**content)
    except TypeError as error:  # its text names the missing key
        raise value_error(place, 'complete', str(error).rpartition('missing ')[2]) from error


def _check(setting):
    place = f'{setting.name}.yml'
    for arm in setting.arms.values():
        if arm.role not in ROLES:
            raise value_error(f'role of {arm.name}', f'one of {", ".join(ROLES)}', repr(arm.role))
        if arm.default_of and arm.default_of not in setting.arms:
            raise value_error(f'default_of of {arm.name} in {place}', 'one of its arms', repr(arm.default_of))
    if [arm.role for arm in setting.arms.values()].count('baseline') != 1:
        raise value_error(f'arms in {place}', 'with exactly one baseline', str([*setting.arms]), 'Add alone.')
    if set(setting.seeds) & set(setting.search.seeds):
        raise value_error(
            f'search.seeds in {place}', 'other seeds than those reported', str(setting.search.seeds), 'Take 100, 101.'
        )
    for share in setting.search.shares:
        if not 0 < share < 1:
            raise value_error(f'search.shares in {place}', 'between 0 and 1', repr(share))
    if ('generator' in setting.data) == ('root' in setting.data):
        raise value_error(f'data in {place}', 'either a generator or a root with splits', str(sorted(setting.data)))
    if setting.unlabelled and 'generator' not in setting.data:
        raise value_error(
            f'unlabelled in {place}', 'used with a generator', 'a root', 'Unlabelled images are generated.'
        )
    for name in [setting.unlabelled.control, *setting.unlabelled.without] if setting.unlabelled else ():
        if name not in setting.arms:
            raise value_error(f'unlabelled in {place}', f'of arms among {", ".join(setting.arms)}', name)
    missing = [split for split in SPLITS if split not in setting.splits]
    if missing:
        raise value_error(f'data.splits in {place}', f'complete ({", ".join(SPLITS)})', f'no {", ".join(missing)}')
