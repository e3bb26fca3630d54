"""What StatisticsGen says of a split, in the page's terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from models import features

if TYPE_CHECKING:
    from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatisticsList, FeatureNameStatistics

BYTES_STATISTICS = "bytes_stats"


@dataclass(frozen=True)
class SplitStatistics:
    """One split.

    Attributes:
        examples: Number of examples.
        labels: Number of examples by class, in label order.
        missing_labels: Examples without a label.
        missing_images: Examples without an image; None where the statistics leave images out, as for the next two.
        distinct_images: Number of different images; None where nobody counted them.
        mean_image_bytes: Mean size of an image file, in bytes.
        also_in: Number of examples whose image is in another split as well, by that split; empty where nobody counted.
    """

    examples: int
    labels: tuple[int, ...]
    missing_labels: int
    missing_images: int | None = None
    distinct_images: int | None = None
    mean_image_bytes: float | None = None
    also_in: Mapping[str, int] = field(default_factory=dict)


def split_statistics(statistics: DatasetFeatureStatisticsList) -> SplitStatistics:
    """Read the statistics of one split. The schema has the label as categorical, so that TFDV counts its values.

    Raises:
        ValueError: They lack the label.
    """
    (dataset,) = statistics.datasets
    by_name = {feature.name or feature.path.step[0]: feature for feature in dataset.features}
    if features.LABEL_KEY not in by_name:
        raise ValueError(f"The statistics are of {sorted(by_name)}; they lack {features.LABEL_KEY!r}.")
    label, image = by_name[features.LABEL_KEY], by_name.get(features.IMAGE_KEY)
    counts = {int(bucket.label): round(bucket.sample_count) for bucket in label.string_stats.rank_histogram.buckets}
    of_labels = SplitStatistics(
        examples=dataset.num_examples,
        labels=tuple(counts.get(index, 0) for index in range(features.NUM_CLASSES)),
        missing_labels=dataset.num_examples - label.string_stats.common_stats.num_non_missing,
    )
    return of_labels if image is None else _with_images(of_labels, image)


def _with_images(statistics: SplitStatistics, image: FeatureNameStatistics) -> SplitStatistics:
    """Adds what is known of the images: TFDV takes them for texts, and counts those, unless the schema says no."""
    distinct_images: int | None
    if image.WhichOneof("stats") == BYTES_STATISTICS:
        found, distinct_images, mean_bytes = image.bytes_stats, None, image.bytes_stats.avg_num_bytes
    else:
        found, mean_bytes = image.string_stats, image.string_stats.avg_length
        distinct_images = image.string_stats.unique
    return SplitStatistics(
        statistics.examples,
        statistics.labels,
        statistics.missing_labels,
        missing_images=statistics.examples - found.common_stats.num_non_missing,
        distinct_images=distinct_images,
        mean_image_bytes=mean_bytes,
    )
