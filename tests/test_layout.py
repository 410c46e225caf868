"""The rooms of the package: what lies where, and which way imports go."""

import ast
from pathlib import Path

import pytest

from tests.helpers.data_sets import ROOT

PACKAGE = ROOT / 'kd_ext'
# a room imports from those above it in this list, and from itself
ROOMS = (
    'version', 'errors', 'registry', 'losses', 'build', 'ops', 'patches', 'taps', 'connectors', 'teachers', 'data',
    'engine', 'class_means', 'pseudo_labels', 'terms', 'algorithms', 'analysis', 'recipes', 'preflight', 'report',
    'cli',
)  # fmt: skip
IN_THE_ROOT = {'__init__', 'errors', 'recipes', 'registry', 'version'}
OUTSIDE = {'benchmarks', 'demo', 'tests', 'tools'}
# 79 columns of figures and tables are long without being hard to read
LONGEST = 300


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    return {
        '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__'): path
        for path in sorted(PACKAGE.rglob('*.py'))
        if '.mim' not in path.parts
    }


MODULES = modules()


def imported(name: str) -> set[str]:
    """Modules that a module imports, wherever in the file it does."""
    path, found = MODULES[name], set()
    package = name if path.name == '__init__.py' else name.rpartition('.')[0]
    tree = ast.parse(path.read_text())
    for node in [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.unparse(node.test)
    ]:
        node.body = [ast.Pass()]  # for the type checker alone
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split('.')[: len(package.split('.')) - (node.level - 1)] if node.level else []
            base = '.'.join([*parts, *([node.module] if node.module else [])])
            # a name may be a module of the package or something in it
            found |= {f'{base}.{alias.name}' if f'{base}.{alias.name}' in MODULES else base for alias in node.names}
    return found


def room(name: str) -> str:
    """``terms`` of ``kd_ext.terms.entry``; '' of the package itself."""
    return name.split('.')[1] if '.' in name else ''


def test_the_root_holds_what_belongs_to_no_room():
    assert {path.stem for path in PACKAGE.glob('*.py')} == IN_THE_ROOT
    assert (PACKAGE / 'py.typed').is_file()
    assert {room(name) for name in MODULES} - {''} == set(ROOMS)


@pytest.mark.parametrize('name', [name for name in MODULES if name != 'kd_ext'])
def test_imports_go_one_way(name):
    floor = ROOMS.index(room(name))
    for other in imported(name):
        if not other.startswith('kd_ext'):
            assert other.split('.')[0] not in OUTSIDE, f'{name} imports {other}'
        elif other != 'kd_ext':  # the version is read from there
            assert ROOMS.index(room(other)) <= floor, f'{name} imports {other}, which lies above it'


def test_no_module_imports_itself_through_others():
    graph = {name: {other for other in imported(name) if other in MODULES} - {name} for name in MODULES}
    while True:
        leaves = {name for name, others in graph.items() if not others}
        if not leaves:
            break
        graph = {name: others - leaves for name, others in graph.items() if name not in leaves}
    assert not graph, f'imports go in circles among {sorted(graph)}'


@pytest.mark.parametrize('name', [name for name in MODULES if room(name) == 'losses'])
def test_losses_know_tensors_alone(name):
    names = {other for other in imported(name) if other.startswith(('mmdet', 'mmseg', 'mmrazor', 'mmengine.model'))}
    assert not names


@pytest.mark.parametrize('name', [name for name in MODULES if room(name) == 'taps'])
def test_taps_know_no_loss(name):
    assert not {other for other in imported(name) if 'losses' in other.split('.')}


@pytest.mark.parametrize('name', MODULES)
def test_files_are_short(name):
    assert len(MODULES[name].read_text().splitlines()) <= LONGEST


def public_functions(tree: ast.Module):
    """Functions and methods without an underscore in front, ``__init__`` included."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith('_'):
            yield node, False
        elif isinstance(node, ast.ClassDef) and not node.name.startswith('_'):
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and (item.name == '__init__' or not item.name.startswith('_')):
                    yield item, 'staticmethod' not in {getattr(one, 'id', '') for one in item.decorator_list}


def is_annotated(function: ast.FunctionDef, method: bool) -> bool:
    arguments = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
    arguments += [one for one in (function.args.vararg, function.args.kwarg) if one is not None]
    return function.returns is not None and all(one.annotation is not None for one in arguments[int(method) :])


def test_public_functions_are_annotated():
    bare, count = [], 0
    for name, path in MODULES.items():
        for function, method in public_functions(ast.parse(path.read_text())):
            count += 1
            if not is_annotated(function, method):
                bare.append(f'{name}.{function.name}')
    assert len(bare) <= 0.02 * count, f'{len(bare)} of {count} public functions lack annotations: {", ".join(bare)}'
