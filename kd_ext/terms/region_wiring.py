"""Wires region taps: heads, common places, class means, terms."""

import os

from kd_ext.class_means.running import OnlineClassMeans
from kd_ext.class_means.stored import StoredClassMeans, load_class_means
from kd_ext.errors import value_error
from kd_ext.taps.heads import check_settings
from kd_ext.terms.entry import build_loss
from kd_ext.terms.region_term import RegionTerm

ONLINE = 'online'


class RegionWiring:
    """Makes the terms of region taps and the class means they share.

    Args:
        student, teacher (nn.Module): Probed where needed, not kept.
        classes (ClassMap): Of the two.
        prefix (str): Of the names of class means, where there are several teachers.

    Attributes:
        class_means (dict[str, nn.Module]): By name in the state dict; running means under the key of their tap.
        means_of (dict[str, str]): Name of the class means of a term.
        online (dict[str, str]): Key of the tap of running class means, by their name.
        own (set[str]): Those at which the teacher reads regions of its own.
        by_class (set[str]): Terms that need the classes of both to agree.
    """

    def __init__(self, student, teacher, classes, prefix=''):
        self.models = dict(student=student, teacher=teacher)
        self.classes, self.prefix = classes, prefix
        self.class_means, self.means_of = {}, {}
        self.online, self.own, self.by_class = {}, set(), set()
        self._heads, self._files = {}, {}

    def term(self, name, loss, tap, settings):
        """The :class:`RegionTerm` of an entry.

        Returns:
            RegionTerm | None: None where the term is by class and teacher and student have no class in common.

        Raises:
            ValueError: A head is not supported, class means do not fit, or see :class:`RegionTerm`.
        """
        student, teacher, shared = self._pair(tap)
        at = settings['at']
        width = teacher.width if at == 'embedding' else teacher.num_logits
        kind = loss['type']
        loss, traits = build_loss(name, loss)
        wants_means = traits.asks('class_means')
        if wants_means and at != 'embedding':
            raise value_error(f'distill.{name}.at', "'embedding', which class means are of", repr(at))
        if not wants_means and 'class_means' in settings:
            raise value_error(f'distill.{name}', f'without class_means, which {kind} does not take', 'class_means=')
        source = settings.get('class_means', ONLINE)
        if not isinstance(source, (str, os.PathLike)):
            raise value_error(f'distill.{name}.class_means', f'a file, or {ONLINE!r}', repr(source))
        own = wants_means and source == ONLINE and not shared
        if at == 'logits' or own or (wants_means and source != ONLINE):
            self.by_class.add(name)
        if at == 'logits' or own:
            self.classes.check(student.num_classes, teacher.num_classes)
            if self.classes.disjoint:
                return None
        if wants_means:
            self._add_means(name, source, tap.key, student, width, shared)
        return RegionTerm(
            name, loss, traits, at, tap.key, student, teacher, shared, width, self.classes, settings.get('connector')
        )

    def _pair(self, tap):
        """Heads of both models, and whether they have places in common."""
        if tap.key not in self._heads:
            heads = {role: tap.head(model, role) for role, model in self.models.items()}
            student, teacher = heads['student'], heads['teacher']
            check_settings(tap.stage, tap.levels, student, teacher)
            self._heads[tap.key] = student, teacher, teacher.shares_places(student)
        return self._heads[tap.key]

    def _add_means(self, name, source, key, student, width, shared):
        if source == ONLINE:
            means = self.prefix + key
            if means not in self.class_means:
                self.class_means[means] = OnlineClassMeans(student.num_labels, width)
            self.means_of[name] = means
            self.online[means] = key
            if not shared:
                self.own.add(key)
            return
        if source not in self._files:
            found = load_class_means(source).of_classes(student.num_classes, self.classes, source)
            if found.shape[1] != width:
                raise value_error(
                    f'distill.{name}.class_means',
                    f"of width {width}, as the teacher's embeddings are",
                    f'{found.shape[1]} in {source!r}',
                    'Compute them with this teacher: tools/class_means.py CONFIG CHECKPOINT.',
                )
            self._files[source] = f'{self.prefix}file{len(self._files)}'
            self.class_means[self._files[source]] = StoredClassMeans(found)
        self.means_of[name] = self._files[source]
