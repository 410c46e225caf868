"""The table of what learns from what."""

import io
from collections import Counter

from rich.console import Console

from tests.helpers import short_trainings as training
from tests.helpers import tiny_detectors as tiny

REVIEW = dict(type='kd_ext.ReviewKDLoss', at='neck', mid_channels=8)
TABLE = """
entry  student                     shape     stride  teacher           shape     stride  connector  added  loss
nd     embedding of dense regions  16        -       the same regions  24        -       Linear     408
rcka   neck[0]                     16x40x40  8       neck[0]           24x40x40  8       Conv2d     408    patch 16
rcka   neck[1]                     16x20x20  16      neck[1]           24x20x20  16      Conv2d     408    patch 16
rcka   neck[2]                     16x10x10  32      neck[2]           24x10x10  32      Conv2d     408    patch 8 for 16
same   neck[0]                     16x40x40  8       neck[0]           24x40x40  8       of rcka    0
same   neck[1]                     16x20x20  16      neck[1]           24x20x20  16      of rcka    0
same   neck[2]                     16x10x10  32      neck[2]           24x10x10  32      of rcka    0
1,632 added parameters, in training alone; shapes and patches of an image of 320 x 320, larger images have larger ones
"""  # noqa: E501
PKD = dict(type='mmrazor.PKDLoss', at='neck')


def matches(**entries):
    return tiny.distill(teacher=tiny.fcos(8, width=24), **entries).distiller


def test_the_whole_table():
    distiller = matches(
        rcka=tiny.rcka(patch_size=16), same=dict(PKD, connector='rcka'), nd=dict(type='kd_ext.NDLoss', at='embedding')
    )
    assert str(distiller.matches) == TABLE.strip()
    assert distiller.matches.added == 4 * (16 * 24 + 24)


def test_without_notes_there_is_no_column_for_them():
    first, *_, last = str(matches(pkd=PKD).matches).splitlines()
    assert first.endswith('added') and last.endswith('in training alone')


def test_what_a_loss_adds_itself_is_a_note():
    distiller = matches(review=REVIEW)
    own = sum(p.numel() for p in distiller.parameters())
    assert own > 0 and distiller.matches.added == own
    assert distiller.matches.notes == [f'review: {own:,} parameters in ReviewKDLoss']


def test_levels_without_a_partner_are_a_note():
    notes = matches(rcka=tiny.rcka(at='backbone', levels=(0, 1))).matches.notes
    assert notes == ['rcka: strides without a partner: student 32; teacher 32']


def test_a_training_logs_it_once(shapes, tmp_path):
    cfg = training.config(shapes, tmp_path, 'random', epochs=1, log_level='INFO')
    runner = training.train(cfg)
    (log,) = tmp_path.glob('*/*.log')
    lines = log.read_text().splitlines()
    table = str(runner.model.distiller.matches).splitlines()
    first = lines.index(table[0])
    assert lines[first : first + len(table)] == table
    assert lines[first - 1].endswith('what learns from what')
    assert sum('entry' in line and 'stride' in line for line in lines) == 1


def test_a_narrow_terminal_cuts_nothing_off():
    found = matches(rcka=tiny.rcka(patch_size=16), nd=dict(type='kd_ext.NDLoss', at='embedding')).matches
    page = io.StringIO()
    Console(file=page, width=80, color_system=None).print(found.table())
    narrow, whole = page.getvalue(), '\n'.join(str(found).splitlines()[: len(found.rows) + 1])
    assert max(map(len, narrow.splitlines())) <= 80
    # cells are folded: every letter is still there
    assert Counter(''.join(narrow.split())) == Counter(''.join(whole.split()))
