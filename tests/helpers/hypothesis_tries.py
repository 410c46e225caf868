"""How many inputs a property is tried on, and which.

They are the same every time, so that no test fails by chance.
``KD_EXT_TRIES=20`` tries 20 times as many, others each time; what fails is
printed with how to try it again. ``--hypothesis-show-statistics`` counts.
"""

import os

from hypothesis import HealthCheck, settings

FACTOR = float(os.environ.get('KD_EXT_TRIES', 0))


def tries(count):
    """Settings of a property that is tried on ``count`` inputs."""
    return settings(
        max_examples=int(count * (FACTOR or 1)),
        derandomize=not FACTOR,
        print_blob=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
