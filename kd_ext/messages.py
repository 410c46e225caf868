"""The one form of every error text: what was expected, what came, the fix."""

import difflib


class Message(str):
    """A text written here for people; an error is told by it from others."""


def expected(name, rule, value, remedy=''):
    """Formats ``Expected <name> to be <rule>, but got <value>. <remedy>``.

    Returns:
        Message: Handed to an error as it is, :func:`is_ours` knows it.
    """
    text = f'Expected {name} to be {rule}, but got {value}.'
    return Message(f'{text} {remedy}' if remedy else text)


def is_ours(error):
    """Whether an error's text is a :class:`Message`, whatever its type."""
    return bool(error.args) and isinstance(error.args[0], Message)


def near_matches(word, choices, count=5):
    """Formats the choices nearest to ``word``: ``Did you mean: a, b?``.

    Falls back to the first choices where nothing is near.
    """
    choices = list(dict.fromkeys(map(str, choices)))
    near = difflib.get_close_matches(str(word), choices, count, cutoff=0.5)
    if near:
        return f'Did you mean: {", ".join(near)}?'
    shown = ', '.join(choices[:count])
    more = len(choices) - count
    return f'Known: {shown}' + (f', and {more} more.' if more > 0 else '.')
