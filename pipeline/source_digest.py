"""A digest of the source that a component runs.

User code reaches TFX as a dotted name, and TFX's cache key sees the name only. Each component therefore gets this
digest as a parameter: edited code makes another key, and a cached output of the old code is not used.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("components", "models", "serving")
"""Our packages whose code components run."""


def source_digest(*modules: str, root: Path = PROJECT_ROOT) -> str:
    """Digest modules and everything of ours that they import, directly or not.

    What is digested is the syntax tree: an edited comment or another line break changes nothing.

    Args:
      modules: Dotted names, e.g. `models.training`; a package stands for all the modules in it.
      root: Folder that holds the packages.

    Returns:
      The first 16 hexadecimal digits of a SHA-256.

    Raises:
      FileNotFoundError: A module does not exist.
    """
    digest = hashlib.sha256()
    for name, tree in sorted(_closure(modules, root).items()):
        digest.update(f"{name}\n{ast.dump(tree)}\n".encode())
    return digest.hexdigest()[:16]


def file_digest(path: Path) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _closure(modules: tuple[str, ...], root: Path) -> dict[str, ast.Module]:
    """Syntax trees by module name, of the modules and of all of ours that they import."""
    trees: dict[str, ast.Module] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        path = _path(name, root)
        if path is None:
            raise FileNotFoundError(f"no module {name} below {root}")
        if path.name == "__init__.py" and name in modules:
            waiting += [f"{name}.{file.stem}" for file in path.parent.glob("*.py") if file.name != "__init__.py"]
        if name not in trees:
            trees[name] = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            waiting += [found for found in _imports(trees[name], package) if _path(found, root)]
    return trees


def _path(module: str, root: Path) -> Path | None:
    """The file of one of our modules, None where there is none."""
    if module.split(".")[0] not in PACKAGES:
        return None
    base = root.joinpath(*module.split("."))
    candidates = (base / "__init__.py", base.with_suffix(".py"))
    return next((path for path in candidates if path.is_file()), None)


def _imports(tree: ast.Module, package: str) -> Iterator[str]:
    """Names that a module imports and that may be modules: `from a import b` gives `a` and `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base]).rstrip(".")
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
