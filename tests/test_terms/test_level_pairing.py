"""Levels are paired by stride; what cannot be is said with both sides'."""

import pytest

from kd_ext.terms.level_pairing import pair_levels, side, stride_of, unpaired

SHAPES = {stride: (1, 2 * stride, -(-320 // stride), -(-320 // stride)) for stride in (4, 8, 16, 32, 64, 128)}


def maps(*strides):
    return [SHAPES[stride] for stride in strides]


def pairs(student, teacher, least=1, wanted=None):
    return pair_levels('x', wanted, maps(*student), maps(*teacher), least)


def test_stride_of_coarse_maps_whatever_their_padding():
    assert [stride_of((1, 8, n, n)) for n in (80, 10, 6, 5, 3, 2, 1)] == [4, 32, 64, 64, 128, 128, 256]
    assert stride_of((5, 8)) is stride_of((1, 5, 8)) is None


@pytest.mark.parametrize(
    ('student', 'teacher', 'wanted'),
    [
        ((4, 8, 16, 32), (4, 8, 16, 32), [(0, 0), (1, 1), (2, 2), (3, 3)]),
        ((8, 16, 32), (4, 8, 16, 32), [(0, 1), (1, 2), (2, 3)]),
        ((8, 16, 32), (4, 8, 16), [(0, 1), (1, 2)]),
        ((8, 16, 32), (8, 16), [(0, 0), (1, 1)]),
        ((8, 16), (16, 32), [(1, 0)]),
        ((8, 16, 32, 64, 128), (16, 32, 64), [(1, 0), (2, 1), (3, 2)]),
        # dilated stages: in order
        ((4, 8, 8, 8), (4, 8, 8, 8), [(0, 0), (1, 1), (2, 2), (3, 3)]),
        ((4, 8, 16, 16), (4, 8, 8, 8), [(0, 0), (1, 1), (2, 2), (3, 3)]),
        # nothing agrees: in order, resized
        ((8,), (32,), [(0, 0)]),
        ((4, 8), (16, 32), [(0, 0), (1, 1)]),
    ],
)
def test_pairs_of_a_loss_by_level(student, teacher, wanted):
    assert pairs(student, teacher) == wanted


@pytest.mark.parametrize(
    ('student', 'teacher', 'wanted'),
    [
        ((8, 16, 32), (8, 16), [(0, 0), (1, 1)]),
        ((4, 8, 16, 32), (8, 16, 32), [(1, 0), (2, 1), (3, 2)]),
        ((4, 8, 8, 8), (4, 8, 8, 8), [(0, 0), (1, 1), (2, 2), (3, 3)]),
    ],
)
def test_pairs_of_a_loss_that_relates_levels(student, teacher, wanted):
    assert pairs(student, teacher, least=2) == wanted


@pytest.mark.parametrize(
    ('student', 'teacher', 'least', 'match'),
    [
        (
            (8, 16),
            (32, 64),
            2,
            r"the student's strides 8, 16 and the teacher's "
            'strides 32, 64',
        ),
        ((4, 8), (8, 16), 2, 'levels of which 2 or more can be paired by stride'),
        ((16,), (16,), 2, r'levels=\(\(0, 1\), \(1, 2\)\)'),
        (
            (8, 16),
            (32,),
            1,
            "levels that can be paired by stride, but got the student's strides 8, 16 and the teacher's strides 32",
        ),
        ((4, 8, 8, 8), (8, 16, 32), 1, 'strides 4, 8, 8, 8 and'),
    ],
)
def test_too_few_pairs(student, teacher, least, match):
    with pytest.raises(ValueError, match=match):
        pairs(student, teacher, least)


def test_shapes_without_strides():
    tokens = [(1, 100, 8), (1, 25, 8)]
    assert pair_levels('x', None, tokens, tokens) == [(0, 0), (1, 1)]
    with pytest.raises(ValueError, match=r'shapes \[\(1, 100, 8\)'):
        pair_levels('x', None, tokens, tokens[:1])


def test_named_levels():
    three, four = (8, 16, 32), (4, 8, 16, 32)
    assert pairs(three, four, wanted=(0, 2)) == [(0, 0), (2, 2)]
    assert pairs(three, four, wanted=1) == [(1, 1)]
    assert pairs(three, four, wanted=[[0, 1], (2, 3), 1]) == [(0, 1), (2, 3), (1, 1)]
    for wrong in ((3,), ((0, 4),), ((0, 1, 2),), ('0',), ()):
        with pytest.raises(ValueError, match='levels to be within 0..2, or pairs of a student and a teacher level'):
            pairs(three, four, wanted=wrong)
    with pytest.raises(ValueError, match='2 or more'):
        pairs(three, four, least=2, wanted=(1,))


def test_words():
    assert str(side('neck', 1, SHAPES[8])) == 'neck[1] (16, 40, 40) stride 8'
    assert str(side('fc', 0, (5, 8))) == 'fc[0] (8)'
    three, four = maps(8, 16, 32), maps(4, 8, 16)
    assert unpaired([(0, 1), (1, 2)], three, four) == 'student 32; teacher 4'
    assert unpaired([(0, 0)], three[:1], four[:1]) == ''
