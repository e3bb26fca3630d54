"""What is reached, beside what others have published, as Markdown: the results table of the project's README."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import accuracy_table, time_to_accuracy_table
from benchmarks import markdown as markdown_page
from benchmarks.rows import Row
from benchmarks.time_to_accuracy_table import NOTEBOOK

HEADER = (
    "model",
    "parameters",
    "training images",
    "epochs",
    "n",
    "test accuracy, %",
    "training, min",
    "measured by",
)

OURS = ("cifar10_fit", "cifar10", "seed", "sample", "smoke")
"""Rows of accuracy.json, in the order of the table."""


@dataclass(frozen=True)
class Published:
    """Somebody else's result on CIFAR-10's test split.

    Attributes:
        model: Markdown.
        parameters: as published; empty where not.
        epochs: as published; empty where not.
        accuracy: in percent, as published.
        source: Markdown.
    """

    model: str
    parameters: str
    epochs: str
    accuracy: str
    source: str


ITS_AUTHORS = Published("the notebook that this project started from", "2,915,338", "20", "61.5", "its own output")

PUBLISHED = (
    ITS_AUTHORS,
    Published(
        "AlexNet in PyTorch",
        "2.47 M",
        "164",
        "77.2",
        "[bearpaw/pytorch-classification](https://github.com/bearpaw/pytorch-classification)",
    ),
    Published(
        "AlexNet in TensorFlow 2",
        "9.63 M",
        "100",
        "78.4",
        "[dyfcalid/DeepLearning-CNN-Models](https://github.com/dyfcalid/DeepLearning-CNN-Models)",
    ),
    Published("cuda-convnet, `18pct`", "", "", "82", "[cuda-convnet](https://code.google.com/archive/p/cuda-convnet/)"),
    Published("cuda-convnet, `11pct`", "", "", "89", "[cuda-convnet](https://code.google.com/archive/p/cuda-convnet/)"),
)
"""Networks like AlexNet, on the original images, from the lowest accuracy to the highest."""


def markdown(found: Sequence[Row], timed: Sequence[Row] = ()) -> str:
    """The table.

    Args:
        found: content of accuracy.json; not empty.
        timed: content of time_to_accuracy.json, which has the notebook's script, run on the machine and data of ours.
    """
    groups = accuracy_table.newest(found)
    shown = {name: groups[name] for name in OURS if name in groups}
    hardware = {
        f"{row['devices']}: {row['machine']['processor']}, {row['threads']} of {row['machine']['cores']} cores"
        for members in shown.values()
        for row in members
    }
    versions = {
        f"TFX {row['versions']['tfx']}, TensorFlow {row['versions']['tensorflow']}"
        for members in shown.values()
        for row in members
    }
    tested = {row["data"]["name"]: row["data"]["test"] for members in shown.values() for row in members}
    whole = [row for row in timed if row["recipe"] == NOTEBOOK and len(row["history"]) == row["epochs"]]
    scripts = whole[-1:]
    rows = [
        *(_ours(name, members) for name, members in shown.items()),
        *(_script(row) for row in scripts),
        *(_published(each) for each in PUBLISHED),
    ]
    lines = [
        *markdown_page.table(HEADER, rows),
        "",
        "Ours: accuracy of the exported model, mean ± standard deviation over n seeds; trained on "
        f"{'; '.join(sorted(hardware))}; {'; '.join(sorted(versions))}. Tested on "
        f"{', '.join(f'{count:,} images ({name})' for name, count in tested.items())}. `cifar-10-jpeg.zip` holds all "
        "60,000 images as JPEG; the others trained on the original ones. Minutes of several seeds: the least and the "
        "most."
        + "".join(f" The script had {row['threads']} cores; its accuracy is the last epoch's." for row in scripts),
    ]
    return "\n".join(lines) + "\n"


def _ours(name: str, members: Sequence[Row]) -> list[object]:
    first = members[0]
    return [
        f"`{name}`",
        f"{first['parameters']:,}",
        f"{first['data']['name']}, {first['data']['train']:,}",
        first["hyperparameters"]["epochs"],
        len(members),
        f"**{accuracy_table.spread([row['test_accuracy'] for row in members]).percent()}**",
        accuracy_table.times(members, 60, ".1f"),
        f"`{members[-1]['command']}`",
    ]


def _script(row: Row) -> list[object]:
    return [
        "the notebook's script, run again",
        ITS_AUTHORS.parameters,
        f"{row['data']['name']}, {row['data']['train']:,}",
        row["epochs"],
        1,
        f"{100 * time_to_accuracy_table.accuracies(row)[-1]:.1f}",
        f"{time_to_accuracy_table.seconds(row)[-1] / 60:.1f}",
        f"`{row['command']}`",
    ]


def _published(each: Published) -> list[object]:
    return [each.model, each.parameters, "CIFAR-10", each.epochs, "", each.accuracy, "", each.source]
