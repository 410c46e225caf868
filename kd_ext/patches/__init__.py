"""What the supported versions of torch, MMEngine, mmdet and mmrazor need to work together; nothing else is patched.

``import kd_ext`` calls :func:`install`. Each shim says why it exists, and changes nothing where it is not needed.
How a training saves, reads and scores is no matter of versions: see :mod:`kd_ext.engine.policies`.
"""

from kd_ext.ops import provide_missing_ops
from kd_ext.patches.checkpoints import trust_mmengine_checkpoints
from kd_ext.patches.config_names import find_editable_packages, name_package
from kd_ext.patches.quantization import stub_razor_quantization
from kd_ext.patches.razor_limit import lift_razor_limit
from kd_ext.patches.ssd import let_ssd_predict


def install() -> None:
    """Installs every shim; calling it again changes nothing."""
    provide_missing_ops()
    name_package()
    find_editable_packages()
    trust_mmengine_checkpoints()
    stub_razor_quantization()
    lift_razor_limit()
    let_ssd_predict()
