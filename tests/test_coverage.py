"""Every cell of the README's table of methods and heads is a training step."""

import head_coverage as coverage
import pytest
import zoo


@pytest.mark.parametrize('method', coverage.METHODS)
@pytest.mark.parametrize('head', zoo.CONFIGS)
def test_step(head, method):
    assert coverage.outcome(head, method) == coverage.recorded()[head][method]


def test_readme_shows_what_is_recorded():
    assert coverage.readme_table() == coverage.table(coverage.recorded())
