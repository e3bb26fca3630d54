"""All that the model report shows, as plain values. Gathered by `gather`, drawn by `page`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from components.model_report.data import SplitStatistics
from components.model_report.gallery import Gallery
from components.model_report.predictions import Predictions
from components.model_report.results import Results
from models import features

REPORT_FILE = "report.html"
"""In the folder of the artifact `report`: the page. The charts are beside it."""


@dataclass(frozen=True)
class ServingCheck:
    """One thing that the candidate was held to while it served on trial: its name, the outcome, the finding."""

    name: str
    reached: bool
    finding: str


@dataclass(frozen=True)
class Push:
    """What the Pusher did.

    Attributes:
        version: The version that serves this model; empty where nothing was pushed.
        destination: Its folder.
        new: Whether this push made it, or it was there already.
    """

    version: str = ""
    destination: str = ""
    new: bool = False


@dataclass(frozen=True)
class ComponentTime:
    """One component's part in the run.

    Attributes:
        name: Its id in the pipeline.
        state: As `lineage.Execution.state`.
        seconds: That its work has taken: in this run, or in the earlier one whose outputs it has reused.
    """

    name: str
    state: str
    seconds: float


@dataclass(frozen=True)
class Source:
    """An artifact that the page was made from: the component's input key, type, URI and properties."""

    key: str
    type: str
    uri: str
    properties: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Contents:
    """One run.

    Attributes:
        pipeline: The pipeline's name.
        run: The run's name in ML Metadata; empty where it is not known.
        written_at: When the page was made, ISO 8601.
        results: What the Evaluator measured of the candidate.
        not_compared: Why the candidate was compared with no earlier model; empty where it was.
        baseline_results: The same of the last blessed model; None where there was none to compare with.
        serving_blessed: Whether the candidate has served on trial as it has to.
        serving_checks: How that was found; empty where TFX's InfraValidator has done it.
        push: What the Pusher did.
        history: A mapping an epoch: `models.checkpoint.Epoch`'s fields, as texts or numbers.
        gallery: The test images that are shown.
        image_files: By position in the test split, the files of those, as they came: PNG or JPEG.
        predictions: The candidate's answers to the test split.
        baseline_predictions: The last blessed model's; None where there was none to compare with.
        statistics: By split.
        anomalies: By split, a line each; none is an empty list.
        settings: Of the run: `pipeline.settings.Settings` as a dictionary; `training` is what the Trainer has used.
        source_digests: By component that runs code of the project.
        sources: The artifacts that the page was made from.
        versions: Of Python and the libraries that made the page, by name.
        trained_with: The same of those that trained the model; empty where that was not recorded.
        trained_on: The machine that trained it; empty where that was not recorded.
        tuned: Names of the settings of the training that the Tuner has found; empty where there was none.
        components: In the order in which they ran; None where ML Metadata is out of the component's reach.
    """

    pipeline: str
    run: str
    written_at: str
    results: Results
    not_compared: str
    baseline_results: Results | None
    serving_blessed: bool
    serving_checks: Sequence[ServingCheck]
    push: Push
    history: Sequence[Mapping[str, Any]]
    gallery: Gallery
    image_files: Mapping[int, bytes]
    predictions: Predictions
    baseline_predictions: Predictions | None
    statistics: Mapping[str, SplitStatistics]
    anomalies: Mapping[str, Sequence[str]]
    settings: Mapping[str, Any]
    source_digests: Mapping[str, str]
    sources: Sequence[Source]
    versions: Mapping[str, str]
    trained_with: Mapping[str, str] = field(default_factory=dict)
    trained_on: str = ""
    tuned: Sequence[str] = ()
    components: Sequence[ComponentTime] | None = None

    @property
    def blessed(self) -> bool:
        """Whether the model may be served: by the Evaluator's verdict and by that of the serving trial."""
        return self.results.blessed and self.serving_blessed

    @property
    def validation_split(self) -> str:
        """What the epochs were compared on: the test split where the settings hold nothing out."""
        return features.VALIDATION_SPLIT if features.VALIDATION_SPLIT in self.statistics else features.TEST_SPLIT

    @property
    def exported_epoch(self) -> int:
        """The epoch whose weights the model has, counted from 1."""
        if self.settings["training"]["export_weights"] == "last":
            return int(self.history[-1]["epoch"])
        return int(max(self.history, key=lambda epoch: float(epoch["val_accuracy"]))["epoch"])
