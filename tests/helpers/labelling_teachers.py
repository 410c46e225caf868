"""Teachers that label: tiny detectors whose random weights detect something, their files, and the tool."""

import json
import signal

import torch

from kd_ext.cli import pseudo_label
from tests.helpers import class_means_by_hand as by_hand
from tests.helpers import tiny_detectors as tiny

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
CLASSES = ['disk', 'square', 'triangle', 'star', 'ring', 'cross']


def fcos_files(folder, shapes, name='teacher', bias=2.0, classes=None):
    """Config and checkpoint of an FCOS that detects; ``classes`` are named in the checkpoint."""
    model = tiny.fcos(num_classes=len(classes or CLASSES))
    files = by_hand.files(folder, shapes, model, name)
    content = torch.load(files[1])
    generator = torch.Generator().manual_seed(1)
    weight = content['state_dict']['bbox_head.conv_cls.weight']
    # classes and places differ, so that scores do
    weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
    content['state_dict']['bbox_head.conv_cls.bias'].fill_(bias)
    content['state_dict']['bbox_head.conv_centerness.bias'].fill_(2.0)
    content['state_dict']['bbox_head.conv_reg.bias'].fill_(2.0)  # boxes of some pixels
    if classes:
        content['meta'] = dict(dataset_meta=dict(classes=classes))
    torch.save(content, files[1])
    return files


def some_labelled(folder, shapes):
    """A folder with the labelled images and, under the names of the validation's, four that nobody labelled."""
    folder.mkdir()
    for path in (shapes / 'VOC2007/JPEGImages').iterdir():
        # what follows the end of a JPEG is not read, but it is another file
        (folder / path.name).write_bytes(path.read_bytes() + b'new' * path.name.startswith('val'))
    return folder


def label(*args):
    """Calls the tool in this process: the content of its file."""
    handlers = {one: signal.getsignal(one) for one in SIGNALS}
    try:
        pseudo_label.main.__wrapped__([*map(str, args), '--workers', '0'])
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
    return json.loads(open(args[args.index('--out') + 1]).read())
