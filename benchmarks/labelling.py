"""What labelling images costs beside the teacher's own inference on them.

    python -m benchmarks.labelling TEACHER.py TEACHER.pth DIR --images 64 --json results/labelling.json

``inference`` is what mmdet does in a test, without a metric: the images in their order, read by the pipeline of the
validation, in batches through ``test_step``. ``labelling`` is all that ``kd_ext pseudo-label`` does with the same
images: finding them, batches by size, detections, partial results on disk, and the COCO file. Both run in this
process, in turn; medians of the seconds and of their ratio in the same repeat are shown. ``--clock cpu`` counts
processor seconds, for a machine that others use.
"""

from __future__ import annotations

# ahead of all else: importing kd_ext makes mmrazor importable
import kd_ext  # noqa: F401

# isort: split
import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, Callable

import torch
from mmengine.dataset import pseudo_collate

from benchmarks.timing import CLOCKS, add_clock, interleave, machine, summarise
from kd_ext.build.configs import read_config, type_name
from kd_ext.cli.models import load_model, own_model
from kd_ext.data.images import LOADS_LABELS, plain_pipeline
from kd_ext.engine.whole_files import write_text
from kd_ext.pseudo_labels.coco_file import coco_content
from kd_ext.pseudo_labels.images import ImageBatches, find_images, in_batches
from kd_ext.pseudo_labels.job import DetectionJob
from kd_ext.pseudo_labels.thresholds import choose_thresholds

SUFFIXES = ('.jpg', '.jpeg', '.png')


def candidates(config: str, checkpoint: str, images: Path, batch_size: int, out: Path) -> dict[str, Callable]:
    """The two calls on a folder of images."""
    cfg = read_config(config)
    model = load_model(own_model(cfg), checkpoint)
    steps = [one for one in plain_pipeline(cfg) if not LOADS_LABELS.fullmatch(type_name(one))]
    paths = sorted(str(path) for path in images.iterdir())
    classes = [f'class {index}' for index in range(1000)]
    thresholds = choose_thresholds(classes, given={'': 0.3})

    def inference() -> None:
        size = range(0, len(paths), batch_size)
        own = ImageBatches(cfg, paths, [range(len(paths))[first : first + batch_size] for first in size], steps)
        with torch.no_grad():
            for index in range(len(own)):
                model.test_step(pseudo_collate([sample for _, sample in own[index]]))

    def labelling() -> None:
        found = find_images([str(images)])
        batches = ImageBatches(cfg, found.paths, in_batches(found.paths, batch_size), steps)
        job = DetectionJob(model, batches, out, dict(images=str(len(paths))), fresh=True)
        job.run()
        results = job.results()
        ordered = [results[index] for index in range(len(found.names))]
        write_text(out, json.dumps(coco_content(found.names, ordered, classes, thresholds, 0.5, {})))
        job.finish()

    return dict(inference=inference, labelling=labelling)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Medians, quartiles and ratios of both."""
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / 'images'
        images.mkdir()
        found = sorted(path for path in Path(args.dir).rglob('*') if path.suffix.lower() in SUFFIXES)
        for number, path in enumerate(found[: args.images]):
            shutil.copy(path, images / f'{number:05d}{path.suffix}')
        both = candidates(args.config, args.checkpoint, images, args.batch_size, Path(folder) / 'labels.json')
        times = interleave(both, args.repeats, {}, clock=CLOCKS[args.clock])
        count = len(list(images.iterdir()))
    settings = dict(images=count, batch_size=args.batch_size, repeats=args.repeats, clock=args.clock)
    return dict(**settings, config=Path(args.config).name, rows=summarise(times, 'inference'), machine=machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help="the teacher's config")
    parser.add_argument('checkpoint', help='its weights')
    parser.add_argument('dir', help='folder of images')
    parser.add_argument('--images', type=int, default=64, help='how many of them (default: %(default)s)')
    parser.add_argument('--batch-size', type=int, default=8, help='images at a time (default: %(default)s)')
    parser.add_argument('--repeats', type=int, default=5, help='turns of both (default: %(default)s)')
    parser.add_argument('--json', type=Path, help='file to write')
    add_clock(parser)
    args = parser.parse_args()
    report = measure(args)
    for name, row in report['rows'].items():
        low, high = row['ratio_quartiles']
        print(f'{name:10}{row["median_ms"] / 1e3:8.2f} s   ratio {row["ratio"]:.3f} ({low:.3f} to {high:.3f})')
    if args.json:
        write_text(args.json, json.dumps(report, indent=1) + '\n')


if __name__ == '__main__':
    main()
