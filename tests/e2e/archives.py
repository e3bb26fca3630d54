"""Archives in the layout of CIFAR-10's binary version, from the bundled sample."""

import io
import tarfile
from pathlib import Path

from pipeline.settings import BUNDLED_SAMPLE

RECORD_BYTES = 1 + 3 * 32 * 32
BATCHES = {**{f"data_batch_{index}.bin": 120 for index in range(1, 6)}, "test_batch.bin": 200}


def read_sample() -> dict[str, bytes]:
    """Bytes of the batches of the bundled sample, by file name."""
    batches = {}
    with tarfile.open(BUNDLED_SAMPLE) as archive:
        for name in BATCHES:
            file = archive.extractfile(f"cifar-10-batches-bin/{name}")
            assert file is not None
            batches[name] = file.read()
    return batches


def write_archive(path: Path, batches: dict[str, bytes]) -> Path:
    """An archive in the layout of CIFAR-10's binary version."""
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in batches.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
