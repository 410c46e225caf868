def FormatCode(text, **style):  # noqa: N802  yapf's name
    return text, False
