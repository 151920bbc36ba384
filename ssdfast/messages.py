"""Exceptions of other libraries as part of a sentence."""

from __future__ import annotations


def one_line(error: BaseException, limit: int = 0) -> str:
    """The message of an exception on one line; the name of its type where it has none.

    limit: the number of characters after which the message ends with …; 0 for no limit.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{text[:limit]} …" if 0 < limit < len(text) else text
