"""File names in text: a name is any bytes, text is not."""

from __future__ import annotations


def printable(name: str) -> str:
    r"""A file name as it can be printed anywhere, on one line: `caf\xe9.png` for the bytes of `café.png` in Latin-1.

    Python holds bytes of a name that are not UTF-8 as U+DC80 to U+DCFF (PEP 383), which no stream takes.

    Args:
        name: as the operating system, an archive or a command line gives it; may hold control characters.
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1].replace(r"\udc", r"\x") for c in name)
