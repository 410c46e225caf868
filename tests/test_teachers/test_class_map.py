import pytest
import torch

from kd_ext.class_means.stored import ClassMeans
from kd_ext.teachers.class_map import ClassMap
from tests.helpers import tiny_detectors as tiny

STUDENT, TEACHER = ['sofa', 'cat', 'dining table'], ['cat', 'diningtable', 'couch', 'dog']


def test_found_by_name():
    mapped = ClassMap(STUDENT, TEACHER)
    assert mapped.index.tolist() == [-1, 0, 1] and not mapped.same
    assert mapped.common == [1, 2] and not mapped.disjoint
    assert mapped.describe() == ("classes: 2 of the student's 3 are among the teacher's 4, not sofa")
    aliased = ClassMap(STUDENT, TEACHER, dict(sofa='couch'))
    assert aliased.index.tolist() == [2, 0, 1]


def test_nothing_to_map():
    assert ClassMap().same and ClassMap(STUDENT).same
    assert ClassMap(STUDENT, ['Sofa', 'cat', 'dining_table']).same
    # a teacher with more classes behind has more logits
    assert not ClassMap(['cat'], ['cat', 'dog']).same
    assert ClassMap(STUDENT, ['dog']).disjoint


def test_columns_and_labels():
    mapped = ClassMap(STUDENT, TEACHER)
    assert mapped.columns(False) == ([1, 2], [0, 1])
    assert mapped.columns(True) == ([1, 2, 3], [0, 1, 4])
    labels = torch.tensor([0, 1, 2, 2])
    assert mapped.labels_to_teacher(labels).tolist() == [-1, 0, 1, 1]
    back = torch.tensor([0, 1, 2, 3, 4])
    assert mapped.labels_to_student(back).tolist() == [1, 2, -1, -1, 3]


def test_samples_keep_what_the_teacher_knows():
    sample = tiny.batch(count=1)['data_samples'][0]
    sample.gt_instances.labels = torch.tensor([0, 2])
    mapped = ClassMap(STUDENT, TEACHER)
    (seen,) = mapped.to_teacher([sample])
    assert seen.gt_instances.labels.tolist() == [1]
    assert torch.equal(seen.gt_instances.bboxes, sample.gt_instances.bboxes[1:])
    assert seen.metainfo == sample.metainfo
    assert sample.gt_instances.labels.tolist() == [0, 2]  # as it was


def test_rows_of_class_means():
    means = torch.arange(1.0, 11.0).view(5, 2)  # of TEACHER and the background
    found = ClassMeans(means, classes=TEACHER).of_classes(3, ClassMap(STUDENT, None, None))
    assert found.tolist() == [[0, 0], [1, 2], [3, 4], [9, 10]]
    aliased = ClassMap(STUDENT, TEACHER, dict(sofa='couch'))
    found = ClassMeans(means[:4], classes=TEACHER).of_classes(3, aliased)
    assert found.tolist() == [[5, 6], [1, 2], [3, 4]]
    # means of the student's own names need no alias
    own = ClassMeans(means[:3], classes=STUDENT).of_classes(3, aliased)
    assert torch.equal(own, means[:3])
    with pytest.raises(ValueError, match='tools/class_means.py'):
        ClassMeans(means[:1], classes=['dog']).of_classes(3, aliased)


def test_names_that_differ_in_case_alone():
    assert ClassMap(['A', 'a'], ['A', 'a']).same
    assert ClassMap(['A', 'a', 'b'], ['a', 'B', 'A']).index.tolist() == [2, 0, 1]
    assert ClassMap(['Dog'], ['DOG', 'dog', 'cat']).index.tolist() == [1]


@pytest.mark.parametrize(
    'args,text',
    [
        ((['a', 'a'], None), 'without one twice'),
        ((['a'], ['b'], dict(c='b')), "'c', which is no class of the student"),
        ((['a'], ['b'], dict(a='c')), "'c', which is no class of the teacher"),
    ],
)
def test_wrong_names(args, text):
    with pytest.raises(ValueError, match=text):
        ClassMap(*args)


def test_counts_are_those_of_the_heads():
    with pytest.raises(ValueError, match=r'student=\[...\], teacher=\[...\]'):
        ClassMap().check(3, 4)
    with pytest.raises(ValueError, match=r'classes=dict\(student=\[...\]\)'):
        ClassMap(None, TEACHER).check(3, 4)
    with pytest.raises(ValueError, match='class names of the student.*3'):
        ClassMap(STUDENT, TEACHER).check(5, 4)
    ClassMap(STUDENT, TEACHER).check(3, 4)
    ClassMap(STUDENT).check(80, 80)
