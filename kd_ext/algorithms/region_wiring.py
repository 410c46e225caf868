"""Wires region taps: heads, common places, class means, terms."""

from kd_ext.class_means import (
    OnlineClassMeans,
    StoredClassMeans,
    load_class_means,
)
from kd_ext.messages import expected
from kd_ext.probe import probing
from .entry import asks, build_loss
from .region_term import RegionTerm

ONLINE = 'online'


class RegionWiring:
    """Makes the terms of region taps and the class means they share.

    Args:
        student, teacher (nn.Module): Probed where needed, not kept.

    Attributes:
        class_means (dict[str, nn.Module]): By name in the state dict; running
            means under the key of their tap.
        means_of (dict[str, str]): Name of the class means of a term.
        online (set[str]): Keys of taps with running class means.
        own (set[str]): Those at which the teacher reads regions of its own.
    """

    def __init__(self, student, teacher):
        self.models = dict(student=student, teacher=teacher)
        self.class_means, self.means_of = {}, {}
        self.online, self.own = set(), set()
        self._heads, self._files = {}, {}

    def term(self, name, loss, tap, settings):
        """The :class:`RegionTerm` of an entry.

        Raises:
            ValueError: A head is not supported, class means do not fit, or
                see :class:`RegionTerm`.
        """
        student, teacher, shared = self._pair(tap)
        at = settings['at']
        width = teacher.width if at == 'embedding' else teacher.num_logits
        kind, loss = loss['type'], build_loss(name, loss)
        wants_means = 'class_means' in asks(loss)
        if wants_means and at != 'embedding':
            raise ValueError(expected(
                f'distill.{name}.at', "'embedding', which class means are of",
                repr(at)))
        if not wants_means and 'class_means' in settings:
            raise ValueError(expected(
                f'distill.{name}', 'without class_means, which '
                f'{kind} does not take', 'class_means='))
        if wants_means:
            self._add_means(name, settings.get('class_means', ONLINE), tap.key,
                            student, width, shared)
        return RegionTerm(name, loss, at, tap.key, student, teacher, shared,
                          width, settings.get('connector'))

    def _pair(self, tap):
        """Heads of both models, and whether they have places in common."""
        if tap.key not in self._heads:
            heads = {role: tap.head(model, role)
                     for role, model in self.models.items()}
            student, teacher = heads['student'], heads['teacher']
            shared = teacher.shares_places(student)
            if shared and student.family == 'dense':
                shared = self._sizes(student) == self._sizes(teacher)
            self._heads[tap.key] = student, teacher, shared
        return self._heads[tap.key]

    @staticmethod
    def _sizes(head):
        with probing(head.model) as inputs:
            return head.sizes(head.model.extract_feat(inputs))

    def _add_means(self, name, source, key, student, width, shared):
        if source == ONLINE:
            if key not in self.class_means:
                self.class_means[key] = OnlineClassMeans(student.num_labels,
                                                         width)
            self.means_of[name] = key
            self.online.add(key)
            if not shared:
                self.own.add(key)
            return
        if source not in self._files:
            found = load_class_means(source)
            found.check(student.num_classes, source)
            if found.means.shape[1] != width:
                raise ValueError(expected(
                    f'distill.{name}.class_means',
                    f'of width {width}, as the teacher\'s embeddings are',
                    f'{found.means.shape[1]} in {source!r}',
                    'Compute them with this teacher: '
                    'tools/class_means.py CONFIG CHECKPOINT.'))
            self._files[source] = f'file{len(self._files)}'
            self.class_means[self._files[source]] = StoredClassMeans(
                found.means)
        self.means_of[name] = self._files[source]
