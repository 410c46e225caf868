"""Checkpoints of a distilled student are checkpoints of the student."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from kd_ext.algorithms.saved_run import describe_run, taken_over
from kd_ext.errors import expected

STUDENT = 'architecture.'  # the name mmrazor's algorithm base gives it
ENTRY, RUN = 'kd_ext', 'kd_ext_run'


class PlainStudentMixin(nn.Module):
    """Makes the algorithm look like its student alone: in checkpoints and by the names of its parts.

    ``state_dict`` has the keys and values of the student alone, so every file written from it (epoch, best, last,
    EMA) loads in stock mmdet. What else resuming needs (projectors, class means, schedules: the state of
    ``self.distiller``) goes into ``_metadata`` of the state dict, which torch saves, passes to
    ``_load_from_state_dict`` and otherwise ignores. The teacher is in neither.

    ``named_children``, ``named_modules``, ``named_parameters`` and ``named_buffers`` give the student's own names
    (``backbone.conv1.weight``), then ``distiller.*``. Optimizer constructors and ``custom_keys`` use these names,
    so they form the same groups as for the plain student. ``children`` and ``modules`` follow the real tree, in
    which the student is ``architecture``; torch uses them to switch modes and move tensors.

    FSDP looks for every parameter in ``state_dict`` under its real name, so it would fail at the first checkpoint.
    It is refused at the first step instead.
    """

    architecture: Any  # the student
    distiller: Any
    teacher_digests: dict[str, str]

    def children(self) -> Iterator[nn.Module]:
        """The student, the distiller and the data preprocessor."""
        for _, module in super().named_children():
            yield module

    def modules(self, *args: Any, **kwargs: Any) -> Iterator[nn.Module]:
        """All modules, the student itself included."""
        for _, module in super().named_modules(None, '', *args, **kwargs):
            yield module

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        """The student's children, then the distiller."""
        yield from self.architecture.named_children()
        yield 'distiller', self.distiller

    def named_modules(
        self, memo: set | None = None, prefix: str = '', remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """This module, then the student's without the student itself, then the distiller's."""
        memo = set() if memo is None else memo
        if remove_duplicate and self in memo:
            return
        memo.add(self)
        yield prefix, self
        dotted = f'{prefix}.' if prefix else ''
        for start, part in ((prefix, self.architecture), (f'{dotted}distiller', self.distiller)):
            for name, module in part.named_modules(memo, start, remove_duplicate):
                if module is not self.architecture:
                    yield name, module

    def _named_members(
        self, get_members_fn: Callable, prefix: str = '', recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Any]]:
        yield from self.architecture._named_members(get_members_fn, prefix, recurse, remove_duplicate)
        if recurse:
            prefix = f'{prefix}.distiller' if prefix else 'distiller'
            yield from self.distiller._named_members(get_members_fn, prefix, recurse, remove_duplicate)

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """Replaces a child by its name in ``named_children``; the conversion to SyncBN needs it."""
        student = self._modules.get('architecture')
        if student is not None and name in student._modules and name not in self._modules:
            student.add_module(name, module)
        else:
            super().add_module(name, module)

    def forward(self, inputs: Any, data_samples: list | None = None, mode: str = 'tensor') -> Any:
        """The forward pass of every MMEngine model; raises a ``RuntimeError`` if FSDP has split the parameters."""
        # torch marks what ``FullyShardedDataParallel`` or ``fully_shard`` has
        if self.__dict__.get('_is_fsdp_managed_module'):
            remedy = (
                'Leave out the FSDPStrategy or model_wrapper_cfg of the config: a checkpoint could not be saved as a '
                'plain student. The teacher is outside of what DDP copies and averages.'
            )
            wrapper = expected('the wrapper of DetectionDistill', 'MMDistributedDataParallel', 'FSDP', remedy)
            raise RuntimeError(wrapper)
        return super().forward(inputs, data_samples, mode)

    def state_dict(
        self, *args: Any, destination: dict | None = None, prefix: str = '', keep_vars: bool = False
    ) -> Any:
        """The student's state dict, with the distiller's as metadata."""
        state = self.architecture.state_dict(*args, destination=destination, prefix=prefix, keep_vars=keep_vars)
        metadata = state._metadata
        # torch looks the versions of submodules up under our own names
        for name in [key for key in metadata if key.startswith(prefix)]:
            metadata[f'{prefix}{STUDENT}{name[len(prefix) :]}'.rstrip('.')] = metadata[name]
        own = metadata.get(prefix[:-1], {})
        state_of_ours = OrderedDict(self.distiller.state_dict(keep_vars=keep_vars))
        metadata[prefix[:-1]] = {**own, ENTRY: state_of_ours, RUN: describe_run(self.distiller, self.teacher_digests)}
        return state

    def _load_from_state_dict(self, state_dict: dict, prefix: str, local_metadata: dict, *args: Any) -> None:
        # both torch and MMEngine load our submodules from ``state_dict`` after this call, so it is rewritten in
        # place to our own names
        for key in [key for key in state_dict if key.startswith(prefix)]:
            name = key[len(prefix) :]
            if not name.startswith((STUDENT, 'distiller.')):
                state_dict[f'{prefix}{STUDENT}{name}'] = state_dict.pop(key)
        run = describe_run(self.distiller, self.teacher_digests)
        distiller = taken_over(self.distiller, run, local_metadata.get(ENTRY), local_metadata.get(RUN))
        for name, value in distiller.items():
            state_dict.setdefault(f'{prefix}distiller.{name}', value)
        # data_preprocessor is registered twice, here and in the student
        own = f'{prefix}{STUDENT}data_preprocessor.'
        for key in [key for key in state_dict if key.startswith(own)]:
            state_dict[key.replace(STUDENT, '', 1)] = state_dict[key]
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)
