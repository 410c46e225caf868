"""The checks in order, and how they are shown."""

from mmengine.dataset import pseudo_collate
from rich.console import Console
from rich.table import Table

from kd_ext.analysis.labelled_data import LabelledData, class_names, spread
from kd_ext.analysis.region_stream import undisturbed
from .classes import compare_classes
from .finding import Finding
from .step_check import StepCheck
from .teacher_score import TeacherScore

IMAGES = 6


class Preflight:
    """Looks at a distillation before it runs.

    Args:
        cfg (Config): Of the training.
        model (DetectionDistill): Built from it.
        images (int): How many to look at, of the validation's where there
            are any.
        size (int): Their longer side; smaller is faster.
    """

    def __init__(self, cfg, model, images=IMAGES, size=320):
        self.cfg, self.model = cfg, model
        split = 'val' if cfg.get('val_dataloader') else 'train'
        data = LabelledData(_resized(cfg, size), split)
        samples = []
        for index in spread(len(data), 4 * images):
            sample = data[index]
            if sample is not None and len(
                    sample['data_samples'].gt_instances):
                samples.append(sample)
            if len(samples) == images:
                break
        self.batches = [pseudo_collate([sample]) for sample in samples]
        self.joined = pseudo_collate(samples[:2])
        self.console = Console()

    def classes(self):
        """list[Finding] on the class lists."""
        taps = [entry.get('at') for entry in self.cfg.model.distill.values()]
        return compare_classes(class_names(self.cfg), getattr(
            self.model.teacher, 'class_names', None), taps)

    def sizes(self):
        """list[Finding] on a teacher smaller than its student."""
        counts = [sum(p.numel() for p in model.parameters())
                  for model in (self.model.student, self.model.teacher)]
        if counts[1] >= counts[0]:
            return []
        return [Finding(False, (
            f'The teacher has {counts[1]:,} parameters and the student '
            f'{counts[0]:,}: are they swapped?'))]

    def teacher(self, thorough=True):
        """The :class:`TeacherScore` on these images."""
        with undisturbed(self.model.teacher):
            return TeacherScore(self.model, self.batches, thorough)

    def step(self):
        """The :class:`StepCheck` on two of them."""
        with undisturbed(self.model):
            self.model.train()
            return StepCheck(self.model, self.joined)

    def short(self):
        """The checks that take seconds: list[Finding]."""
        return [*self.classes(), *self.sizes(),
                *self.teacher(thorough=False).findings()]

    def run(self):
        """All checks, shown on the way: list[Finding]."""
        findings = [*self.classes(), *self.sizes()]
        self.console.print(match_table(self.model))
        score = self.teacher()
        self.console.print(_table(
            f'the teacher\'s own loss on {len(self.batches)} images',
            ('inputs', 'loss'), ((name, f'{loss:.3f}') for name, loss
                                 in score.rows())))
        step = self.step()
        self.console.print(_table(
            'one step', ('', 'value', 'share', 'gradient norm'),
            ((name, f'{value:.4f}', f'{share:.1%}', f'{norm:.3g}')
             for name, value, share, norm in step.rows())))
        self.console.print(_table(
            'a step of two small images', ('', 'seconds', 'MiB'),
            ((name, f'{seconds:.2f}', '' if memory is None else
              f'{memory:.0f}') for name, (seconds, memory)
             in step.costs().items())))
        return [*findings, *score.findings(), *step.findings()]


def _resized(cfg, size):
    """The config with every Resize of its test pipeline at ``size``."""
    cfg = cfg.copy()
    for split in ('val', 'test'):
        dataset = (cfg.get(f'{split}_dataloader') or {}).get('dataset') or {}
        for step in dataset.get('pipeline') or ():
            if str(step.get('type')).endswith('Resize') and 'scale' in step:
                scale = step['scale']
                larger = max(scale) if isinstance(scale, (list, tuple)) else (
                    scale)
                if larger > size:
                    step['scale'] = (size, size)
    return cfg


def match_table(model):
    """What is matched with what: shapes, projectors, parameters."""
    lines = model.distiller.matches
    table = _table('matches', ('term', 'student <- teacher'),
                   (line.split(': ', 1) for line in lines))
    added = sum(p.numel() for p in model.distiller.parameters())
    table.caption = f'{added:,} added parameters'
    return table


def _table(title, columns, rows):
    table = Table(title=title)
    for index, column in enumerate(columns):
        table.add_column(column, justify='right' if index else 'left',
                         overflow='fold')
    for row in rows:
        table.add_row(*row)
    return table
