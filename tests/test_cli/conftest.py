import pytest


@pytest.fixture(scope='module')
def stock_coco(shapes, tmp_path_factory):
    """The shapes in the formats of COCO, under names of its classes."""
    from tests.helpers.stock_configs import write_coco

    return write_coco(shapes, tmp_path_factory.mktemp('coco'))
