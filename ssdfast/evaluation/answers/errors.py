"""The error of text that is no answer."""


class Unparsable(ValueError):
    """The text is no answer that the grammar knows."""
