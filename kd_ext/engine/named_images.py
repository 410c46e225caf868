"""An image that cannot be read is named, whatever stops the reading.

OpenCV's error for an empty file, say, comes without a name, out of a process that has a thousand files to read.
"""

import functools

from kd_ext.errors import expected


def name_images(module):
    """Changes ``LoadImageFromFile`` of ``mmcv.transforms.loading``."""
    kind = module.LoadImageFromFile
    original = kind.transform
    if hasattr(original, '__wrapped__'):
        return

    @functools.wraps(original)
    def transform(self, results):
        try:
            return original(self, results)
        except Exception as error:
            raise OSError(
                expected(
                    f'the image {results.get("img_path")!r}',
                    'one that can be read',
                    f'{type(error).__name__}: {str(error).strip(". ")}',
                    'Fetch it again, or take it out of the annotations.',
                )
            ) from error

    kind.transform = transform
