"""Partial sums over a data set, in files beside the output, so that a stopped job can resume.

Each process writes its own file, ``<output>.partial.<rank>``. The next start merges them, whatever the number of
processes. The merged file lists what it absorbed, so a crash before the others are deleted counts nothing twice.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from kd_ext.class_means.moments import Sums
from kd_ext.engine.whole_files import replacing
from kd_ext.errors import explaining, value_error

REMEDY = 'Go on with the same arguments as before, or start anew with --fresh, which deletes it.'


@dataclass
class Partial:
    """Sums over some images of a data set.

    Attributes:
        done: Which of the M images are included (M,), bool.
        absorbed: Ids of the files merged into this one.
    """

    sums: Sums
    done: Tensor
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    absorbed: list[str] = field(default_factory=list)


class Partials:
    """Reads, writes and merges the partial files of one output.

    Args:
        out: File that the finished result goes to.
        identity: What the sums depend on: model, data, settings. Files with another identity are refused.
        rows, width, images: Shape of the sums, and M.
    """

    def __init__(self, out: str | Path, identity: dict[str, str], rows: int, width: int, images: int) -> None:
        self.out, self.identity = Path(out), dict(identity)
        self.rows, self.width, self.images = rows, width, images

    def empty(self) -> Partial:
        """A :class:`Partial` that includes no image."""
        return Partial(Sums(self.rows, self.width), torch.zeros(self.images, dtype=torch.bool))

    def path(self, rank: int) -> Path:
        """The file of a rank."""
        return self.out.with_name(f'{self.out.name}.partial.{rank}')

    def files(self, ending: str = '') -> list[Path]:
        """The existing partial files; ``ending`` is a pattern for what follows the rank."""
        form = re.compile(re.escape(self.out.name) + r'\.partial\.\d+' + ending)
        return sorted(path for path in self.out.parent.iterdir() if form.fullmatch(path.name))

    def write(self, rank: int, partial: Partial) -> None:
        """Replaces the file of a rank atomically."""
        content = dict(
            identity=self.identity,
            id=partial.id,
            absorbed=partial.absorbed,
            done=partial.done,
            counts=partial.sums.counts,
            sums=partial.sums.sums,
        )
        with replacing(self.path(rank)) as part:
            torch.save(content, part)

    def read(self, path: Path) -> Partial:
        """Reads a partial file; raises a ``ValueError`` if it cannot be read or has another identity."""
        with explaining('the partial result', 'one that can be read', f'{str(path)!r} ({{}})', REMEDY):
            content = torch.load(path, map_location='cpu', weights_only=True)
            identity = content['identity']
        other = [key for key in {**self.identity, **identity} if self.identity.get(key) != identity.get(key)]
        if other:
            rule = f'of the same {", ".join(self.identity)}'
            raise value_error(f'the partial result {str(path)!r}', rule, f'one of another {", ".join(other)}', REMEDY)
        sums = self.empty().sums
        sums.counts, sums.sums = content['counts'], content['sums']
        return Partial(sums, content['done'], content['id'], content['absorbed'])

    def merge(self) -> Partial:
        """Merges all files into rank 0's and deletes the others.

        Raises:
            ValueError: See :meth:`read`; or two files include the same image.
        """
        files = self.files()
        found = [self.read(path) for path in files]
        merged = self.empty()
        absorbed = {one for partial in found for one in partial.absorbed}
        for partial in found:
            if partial.id in absorbed:  # a crash came before it was deleted
                continue
            if bool((merged.done & partial.done).any()):
                shared = 'files with images in common: ' + ', '.join(path.name for path in files)
                raise value_error('the partial results', 'of different images', shared, REMEDY)
            merged.sums.merge(partial.sums)
            merged.done |= partial.done
        merged.absorbed = sorted(absorbed | {one.id for one in found})
        if found:
            self.write(0, merged)
            for path in files:
                if path != self.path(0):
                    path.unlink()
        return merged

    def remove(self) -> None:
        """Deletes all files, half-written ones too."""
        for path in self.files(r'(\.part)?'):
            path.unlink()
