"""Class lists of teacher and student, compared by name."""

from .finding import Finding

BY_CLASS = ('embedding', 'logits')


def compare_classes(student, teacher, taps):
    """What differing class lists mean for the terms in use.

    Args:
        student (list[str]): Of the training data.
        teacher (list[str] | None): Of the teacher's checkpoint.
        taps (Iterable[str]): ``at`` of all entries.

    Returns:
        list[Finding]
    """
    if teacher is None:
        return [Finding(False, 'The teacher\'s checkpoint names no classes, '
                        'so nobody can tell whether they are the student\'s.')]
    student, teacher = list(student), list(teacher)
    if student == teacher:
        return []
    used = sorted(set(taps) & set(BY_CLASS))
    common = len(set(student) & set(teacher))
    if set(student) == set(teacher):
        text = ('Teacher and student have the same classes in another order: '
                + ', '.join(f'{index} is {a} in the student and {b} in the '
                            'teacher' for index, (a, b) in
                            enumerate(zip(student, teacher)) if a != b)[:200])
    else:
        text = (f'Of the student\'s {len(student)} classes the teacher knows '
                f'{common}, and {len(teacher) - common} others')
    if used:
        return [Finding(True, f'{text}. Terms at {" and ".join(used)} compare '
                        'class by class: use a teacher of these classes, or '
                        "terms at 'neck' and 'backbone' alone.")]
    return [Finding(False, f'{text}. Terms on feature maps do not mind.')]
