"""Makes docs/evidence.md and its figures from the JSON of the settings.

python -m studies.report
"""

from __future__ import annotations

# ahead of all else: importing kd_ext makes mmrazor importable
import kd_ext  # noqa: F401

# isort: split
import argparse
from pathlib import Path

from studies import setting
from studies.page import page
from studies.results import FOLDER, Results
from studies.setting import ROOT
from studies.training import write_whole

PAGE = ROOT / 'docs' / 'evidence.md'


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--results', type=Path, default=FOLDER, help='folder of the JSON (default: results/studies)')
    parser.add_argument('--out', type=Path, default=PAGE, help='the page (default: docs/evidence.md)')
    return parser.parse_args(argv)


def collect(folder: Path = FOLDER) -> list[Results]:
    """The results of every declared setting, empty ones too."""
    order = ('few_labels', 'few_labels_many_images', 'look_alike', 'photographs', 'other_family', 'all_labels')
    names = sorted(setting.names(), key=lambda name: (order.index(name) if name in order else len(order), name))
    return [Results.read(setting.load(name), folder) for name in names]


def main(argv: list[str] | None = None) -> None:
    """Writes the page, and a figure for each setting that has curves."""
    args = parse_args(argv)
    found = collect(args.results)
    write_whole(args.out, page(found, args.out.stem))
    for results in found:
        if any(results.of(name) for name in results.setting.arms):
            from studies.plot import draw

            draw(results, args.out.with_suffix('') / f'{results.setting.name}.png')


if __name__ == '__main__':
    main()
