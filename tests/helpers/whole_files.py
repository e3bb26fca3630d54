"""Files that other threads and processes read while they are written."""

from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Writes a file so that a reader finds the old text or the new one: never a part, which might be applied."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text)
    part.replace(path)
