"""Makes a report: gathers, judges, draws and writes."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any

from kd_ext.engine.whole_files import write_text
from kd_ext.report.gather import Asked, Gathered, Gathering
from kd_ext.report.page import page
from kd_ext.report.pictures import pictures
from kd_ext.report.verdict import verdict


def write_report(
    asked: Asked,
    out: str | os.PathLike,
    json_file: str | os.PathLike | None = None,
    predictions: str | os.PathLike | None = None,
    command: str | None = None,
) -> dict[str, Any]:
    """Writes the page of a distillation.

    Args:
        asked: What it is about.
        out: The HTML file.
        json_file: Where the figures go too.
        predictions: Folder for the detections, in COCO's form.
        command: Shown on the page.

    Returns:
        The figures.

    Raises:
        FileNotFoundError: No run can be read.
    """
    gathering = Gathering(asked)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools tells of each file it reads
        gathered = gathering.run()
    content = gathered.content
    content.update(command=command, verdict=verdict(content))
    shown = None
    with gathering.part('Images side by side'):
        shown = pictures(gathered)
    write_text(out, page(content, shown))
    if json_file is not None:
        write_text(json_file, json.dumps(content, indent=1) + '\n')
    if predictions is not None:
        write_predictions(gathered, Path(predictions))
    return content


def write_predictions(gathered: Gathered, folder: Path) -> None:
    """Writes ``dataset.json``, a COCO data set of the images with their ground truth, and COCO results for each model.

    pycocotools reads them (``COCO('dataset.json').loadRes('teacher.json')``), and so do viewers that take COCO.
    """
    if gathered.images is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / 'dataset.json', json.dumps(gathered.images.truth))
    for name, results in gathered.detections.items():
        file = ''.join(letter if letter.isalnum() else '_' for letter in name.replace(', ', '_'))
        write_text(folder / f'{file}.json', json.dumps(results))
