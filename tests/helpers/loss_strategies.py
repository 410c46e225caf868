"""Hypothesis strategies for what losses are given: one for all of them."""

import torch
from hypothesis import strategies as st

from tests.helpers.loss_calls import PYRAMID, Batch, D, K

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
HALVES = DTYPES[2:]
FILLS = ('normal', 'relu', 'sparse', 'constant', 'zeros', 'one channel')
LAYOUTS = ('contiguous', 'permuted', 'sliced', 'offset', 'expanded')


def _filled(fill, shape, generator):
    """Values of the kinds that features have, in float64."""
    normal = torch.randn(shape, generator=generator, dtype=torch.float64)
    if fill == 'relu':
        return normal.relu()
    if fill == 'sparse':
        return normal * (torch.rand(shape, generator=generator) < 0.2)
    if fill == 'constant':
        return normal.new_full(shape, float(normal.flatten()[:1].sum()))
    if fill == 'zeros':
        return torch.zeros_like(normal)
    if fill == 'one channel':
        normal[:, 1:] = 0
    return normal


def laid_out(tensor, layout):
    """The same values in other strides; ``expanded`` repeats the first."""
    if layout == 'permuted' and tensor.dim() == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    if layout == 'permuted':
        return tensor.t().contiguous().t()
    if layout == 'sliced':
        wide = tensor.new_full((*tensor.shape[:-1], 2 * tensor.shape[-1]), 7.0)
        wide[..., ::2] = tensor
        return wide[..., ::2]
    if layout == 'offset':
        long = tensor.new_full((tensor.numel() + 3,), 7.0)
        long[3:] = tensor.flatten()
        return long[3:].view(tensor.shape)
    if layout == 'expanded':
        return tensor[:1].expand(tensor.shape)
    return tensor


@st.composite
def tensors(draw, shape, dtype=None, exponents=(-4, 4)):
    """A tensor of this shape: any fill, dtype, layout, scale and sign."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    values = _filled(draw(st.sampled_from(FILLS)), shape, generator)
    scale = 10.0 ** draw(st.integers(*exponents))
    dtype = dtype or draw(st.sampled_from(DTYPES))
    return laid_out((values * scale).to(dtype), draw(st.sampled_from(LAYOUTS)))


sizes = st.integers(1, 7)
batches = st.integers(1, 3)
widths = st.integers(1, 5)


@st.composite
def _maps(draw, dtype=None, exponents=(-4, 4)):
    """One or two levels, alike on both sides."""
    shapes = [(draw(batches), draw(widths), draw(sizes), draw(sizes)) for _ in range(draw(st.integers(1, 2)))]
    return Batch(*(tuple(draw(tensors(shape, dtype, exponents)) for shape in shapes) for _ in range(2)))


@st.composite
def _logits(draw, dtype=None, exponents=(-4, 4)):
    shape = draw(st.integers(1, 6)), draw(widths)
    return Batch(*((draw(tensors(shape, dtype, exponents)),) for _ in range(2)))


@st.composite
def _stages(draw, dtype=None, exponents=(-4, 4)):
    """Two or three stages of any widths, sizes that halve or do not."""
    count, images = draw(st.integers(2, 3)), draw(batches)
    sides = []
    for _ in range(2):
        side = []
        for _ in range(count):
            shape = images, draw(widths), draw(sizes), draw(sizes)
            side.append(draw(tensors(shape, dtype, exponents)))
        sides.append(tuple(side))
    return Batch(*sides)


@st.composite
def _pyramid(draw, dtype=None, exponents=(-4, 4)):
    """Levels of any sizes with more than one value a channel, which BN needs."""
    images = draw(st.integers(2, 3))
    return Batch(
        *(
            tuple(draw(tensors((images, width, draw(sizes), draw(sizes)), dtype, exponents)) for width in side)
            for side in PYRAMID
        )
    )


@st.composite
def _regions(draw, dtype=None, exponents=(-4, 4)):
    """Embeddings, labels (ignored and unknown ones too), K + 1 means."""
    count = draw(st.integers(1, 6))
    sides = [(draw(tensors((count, D), dtype, exponents)),) for _ in range(2)]
    labels = draw(st.lists(st.integers(-1, K + 1), min_size=count, max_size=count))
    means = draw(tensors((K + 1, D), dtype and torch.float32, exponents))
    return Batch(*sides, torch.tensor(labels), means)


KINDS = dict(maps=_maps, logits=_logits, stages=_stages, images=_stages, pyramid=_pyramid, regions=_regions)


def batch_of(kind, **settings):
    """Strategy for a :class:`Batch` of a kind."""
    return KINDS[kind](**settings)


def each(batch, change):
    """A batch with ``change`` made to every feature tensor."""
    return batch._replace(student=tuple(map(change, batch.student)), teacher=tuple(map(change, batch.teacher)))
