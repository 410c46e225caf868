"""tools/setup.sh with an interpreter that only writes down what it is asked: routes, bad surroundings, going on."""

import fcntl
import shutil
import subprocess
import sys
import time
import zipfile

import pytest

from tests.helpers.data_sets import ROOT

# an interpreter, and after ``-m venv`` the one of the environment; it fails at a step whose words BREAK names
PYTHON = r"""#!/usr/bin/env bash
echo "$*" >> "$CALLS"
if [ -n "${BREAK:-}" ] && [[ "$*" == *$BREAK* ]]; then echo "ERROR: ${BROKEN:-no connection}"; exit 1; fi
case "$*" in
*sys.version_info\[:3\]*) echo "${VERSION:-3.11.7}" ;;
--version) echo "Python ${VERSION:-3.11.7}" ;;
"-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
*"import platform"*) echo torch2.13.0-cp311-x86_64 ;;
*"import mmcv._ext"*) exit "${NO_OPS:-1}" ;;
*"torch.cuda.is_available"*) exit 1 ;;
"-m pip wheel "*) all=$*; folder=${all#*-w }; cp "$WHEEL" "${folder% *}/mmcv-2.1.0-cp311-cp311-linux_x86_64.whl" ;;
"-m zipfile "*) exec "$REAL" "$@" ;;
esac
"""
COMPILER = '#!/usr/bin/env bash\n'
# what the script calls, so that no other interpreter or compiler of this machine is found
NEEDED = 'bash cat cp cut dirname env flock grep head mkdir mktemp mv nproc rm rmdir sed sha256sum sleep tail tr'
READY = '[setup] ready in'


@pytest.fixture
def place(tmp_path):
    """A checkout in a path with blanks, a PATH with a fake interpreter and a compiler, and a home."""
    root = tmp_path / 'a path with blanks/kd ext'
    for part in ('tools', 'requirements'):
        shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns('__pycache__'))
    shutil.copy(ROOT / 'setup.py', root)
    programs = tmp_path / 'bin'
    programs.mkdir()
    for name, text in dict(python3_11=PYTHON, gcc=COMPILER, **{'g++': COMPILER}).items():
        (programs / name.replace('_', '.')).write_text(text)
        (programs / name.replace('_', '.')).chmod(0o755)
    for name in NEEDED.split():
        (programs / name).symlink_to(shutil.which(name))
    wheel = tmp_path / 'built.whl'
    with zipfile.ZipFile(wheel, 'w') as archive:
        archive.writestr('mmcv/_ext.so', 'operators' * 1000)
    return Place(root, tmp_path, wheel)


class Place:
    def __init__(self, root, folder, wheel):
        self.root, self.folder, self.wheel, self.programs = root, folder, wheel, folder / 'bin'
        self.calls = folder / 'calls'
        self.kept = folder / 'home/.cache/kd_ext/mmcv-2.1.0-torch2.13.0-cp311-x86_64'
        (folder / 'home').mkdir()

    def env(self, **changes):
        found = dict(
            PATH=str(self.programs),
            HOME=str(self.folder / 'home'),
            CALLS=str(self.calls),
            WHEEL=str(self.wheel),
            REAL=sys.executable,
        )
        return {**found, **changes}

    def setup(self, **changes):
        """Output of a call, and what the interpreters were asked in it."""
        self.calls.write_text('')
        done = subprocess.run(
            [shutil.which('bash'), str(self.root / 'tools/setup.sh')],
            env=self.env(**changes),
            text=True,
            capture_output=True,
            timeout=120,
        )
        assert (done.returncode == 0) == ('[setup] ready' in done.stdout), done.stdout + done.stderr
        assert 'FAILED at step' not in done.stdout or '[setup] Fix: ' in done.stdout
        return done.stdout, self.calls.read_text()

    def keep_wheel(self, content=None):
        self.kept.mkdir(parents=True)
        path = self.kept / 'mmcv-2.1.0-cp311-cp311-linux_x86_64.whl'
        path.write_bytes(self.wheel.read_bytes() if content is None else content)
        return path


class TestRoutes:
    def test_compiled(self, place):
        printed, calls = place.setup()
        assert READY in printed and 'slower' not in printed, printed
        assert 'pip wheel' in calls and '-e .[seg,tests,lint]' in calls
        assert f'pip install mmdet==3.3.0 mmengine>=0.10.4,<0.11 mmrazor==1.0.0 {place.kept}/mmcv-2.1.0' in calls
        assert (place.setup()) == ('[setup] ready (.venv is up to date)\n', '')
        # the wheel is kept for another environment
        shutil.rmtree(place.root / '.venv')
        assert 'pip wheel' not in place.setup()[1]

    def test_lite_needs_no_compiler(self, place):
        for name in ('gcc', 'g++'):
            (place.programs / name).unlink()
        printed, calls = place.setup(KD_EXT_OPS='lite', KD_EXT_EXTRAS='')
        assert READY in printed and 'To compile: KD_EXT_OPS=compiled bash tools/setup.sh' in printed
        assert 'mmcv-lite==2.1.0' in calls and 'pip wheel' not in calls and '-e .\n' in calls
        # the tests need more
        assert '-e .[tests]' in place.setup(KD_EXT_OPS='lite', KD_EXT_EXTRAS='tests')[1]

    def test_any_takes_what_is_there(self, place):
        quick = dict(KD_EXT_OPS='any', KD_EXT_EXTRAS='')
        assert 'mmcv-lite==2.1.0' in place.setup(**quick)[1]
        assert place.setup(**quick)[1] == ''
        printed, calls = place.setup()
        assert 'pip wheel' in calls and 'uninstall -q -y mmcv mmcv-lite' in calls
        assert place.setup(**quick)[1] == ''
        shutil.rmtree(place.root / '.venv')
        assert f'{place.kept}/mmcv-2.1.0' in place.setup(**quick)[1]

    def test_the_maintained_stack_has_an_environment_of_its_own(self, place):
        printed, calls = place.setup(KD_EXT_STACK='onedl', KD_EXT_OPS='lite', KD_EXT_EXTRAS='tests')
        assert READY in printed and '-m venv .venv-onedl' in calls
        assert 'onedl-mmdetection==3.5.1 onedl-mmengine==0.10.12 mmrazor==1.0.0 onedl-mmcv==2.3.6' in calls
        assert not (place.root / '.venv').exists()
        assert 'find Python 3.10 to 3.12' in place.setup(KD_EXT_STACK='onedl', VERSION='3.9.18')[0]

    @pytest.mark.parametrize('name', ['KD_EXT_OPS', 'KD_EXT_STACK'])
    def test_misspelt(self, place, name):
        printed, calls = place.setup(**{name: 'light'})
        assert f'Fix: {name}=' in printed and 'not light' in printed and not calls


class TestBadSurroundings:
    def test_no_compiler(self, place):
        (place.programs / 'g++').unlink()
        printed, _ = place.setup()
        assert 'FAILED at step: find a C++ compiler' in printed
        assert 'build-essential' in printed and 'KD_EXT_OPS=lite bash tools/setup.sh' in printed
        assert READY in place.setup(KD_EXT_OPS='lite')[0]

    def test_python_is_too_new(self, place):
        printed, _ = place.setup(VERSION='3.13.0')
        assert 'find Python 3.9 to 3.12 (found: python3.11 is 3.13.0)' in printed and 'KD_EXT_PYTHON=' in printed
        assert not (place.root / '.venv').exists()

    def test_the_named_python_is_not_replaced(self, place):
        printed, _ = place.setup(KD_EXT_PYTHON='/no/such/python')
        assert 'found: none with its venv module' in printed

    def test_no_network(self, place):
        printed, _ = place.setup(BREAK='torch==2.13.0')
        assert 'FAILED at step: install torch' in printed and 'ERROR: no connection' in printed
        assert 'check the network' in printed and 'call this again' in printed
        printed, calls = place.setup()
        assert READY in printed and '-m venv' not in calls, 'what was done is not done again'

    def test_it_breaks_off_after_the_compiling(self, place):
        assert 'FAILED at step: install kd_ext' in place.setup(BREAK='mmrazor==1.0.0')[0]
        printed, calls = place.setup()
        assert READY in printed and 'pip wheel' not in calls

    def test_a_broken_build_leaves_no_wheel(self, place):
        printed, _ = place.setup(BREAK='pip wheel', BROKEN='c++: fatal error: Killed')
        assert 'FAILED at step: build mmcv' in printed and 'MAX_JOBS=1' in printed and 'Killed' in printed
        assert not list(place.kept.glob('*.whl'))
        assert READY in place.setup()[0]

    def test_half_a_wheel(self, place):
        path = place.keep_wheel(place.wheel.read_bytes()[:200])
        printed, calls = place.setup()
        assert READY in printed and 'pip wheel' in calls
        assert zipfile.is_zipfile(path), 'a whole one took its place'

    def test_half_a_wheel_without_a_compiler(self, place):
        path = place.keep_wheel(b'PK half')
        (place.programs / 'gcc').unlink()
        assert 'mmcv-lite' in place.setup(KD_EXT_OPS='any')[1] and not path.exists()

    def test_the_home_cannot_be_written(self, place):
        home = place.folder / 'a file'
        home.write_text('')
        printed, _ = place.setup(HOME=str(home))
        assert READY in printed and 'built wheels are kept in .setup_logs/wheels' in printed
        assert list((place.root / '.setup_logs/wheels').rglob('mmcv-*.whl'))

    def test_no_home(self, place):
        env = place.env()
        del env['HOME']
        done = subprocess.run([shutil.which('bash'), str(place.root / 'tools/setup.sh')], env=env, capture_output=True)
        assert done.returncode == 0

    def test_the_checkout_cannot_be_written(self, place):
        (place.root / '.setup_logs').write_text('')
        printed, _ = place.setup()
        assert 'FAILED at step: write to' in printed and 'copy it to a folder of yours' in printed

    def test_another_set_up_is_waited_for(self, place):
        assert READY in place.setup()[0]
        with open(place.root / '.setup_logs/lock', 'w') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            second = subprocess.Popen(
                [shutil.which('bash'), str(place.root / 'tools/setup.sh')],
                env=place.env(),
                text=True,
                stdout=subprocess.PIPE,
            )
            assert 'another set-up is running here' in second.stdout.readline()
            time.sleep(0.2)
            assert second.poll() is None
        assert 'ready' in second.stdout.read() and second.wait() == 0

    def test_two_at_once_prepare_it_once(self, place):
        place.calls.write_text('')
        command = [shutil.which('bash'), str(place.root / 'tools/setup.sh')]
        both = [subprocess.Popen(command, env=place.env(), stdout=subprocess.DEVNULL) for _ in range(2)]
        assert [one.wait(120) for one in both] == [0, 0]
        assert place.calls.read_text().count('-m venv') == 1

    def test_the_interpreter_of_the_environment_is_gone(self, place):
        place.setup()
        (place.root / '.venv/bin/python').unlink()
        printed, calls = place.setup()
        assert READY in printed and '-m venv' in calls


def test_the_quickstart_needs_neither_compiler_nor_test_tools(place):
    (place.root / 'tools/setup.sh').write_text('echo "$KD_EXT_OPS [$KD_EXT_EXTRAS]"; exit 3\n')
    for given, wanted in (
        ({}, 'any []\n'),
        (dict(KD_EXT_OPS='compiled', KD_EXT_EXTRAS='tests'), 'compiled [tests]\n'),
    ):
        done = subprocess.run(
            [shutil.which('bash'), str(place.root / 'tools/quickstart.sh')],
            env={**place.env(), **given},
            text=True,
            capture_output=True,
        )
        assert (done.returncode, done.stdout) == (3, wanted)
