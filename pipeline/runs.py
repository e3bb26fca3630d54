"""Runs of all profiles, as ML Metadata knows them: which there are, what each came to, and finding one by a short name.

A run is written as `68` (its number, as `make runs` lists it), as a pushed version, e.g. `1795410615`, or as `last`;
`smoke/68` is a run of another profile than the one asked about.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from components.model_report import lineage
from components.model_report.lineage import Execution, Run
from pipeline import folder_lock, metadata_store
from pipeline.metadata_store import NotFoundError
from pipeline.settings import Settings

LAST = "last"

BLESSED = "blessed"

_RESOLVER = "LastBlessedModel"
"""It is asked anew in every run, so it says nothing about whether a run was cached."""

_REPORT = "ModelReport"
"""It comes after the push: a run without it has done all that counts."""

_BLESSING_COMPONENTS = ("Evaluator", "ServingValidator", "InfraValidator")


@dataclass(frozen=True)
class Summary:
    """A run in a line.

    Attributes:
        profile: whose run it is.
        run: number of the run, among those of the profile's database.
        started_s: Unix time, in seconds.
        seconds: from the first component's start to the last one's end.
        data: name of the archive or folder that the images came from; empty where the run did not get that far.
        num_examples: images of all splits; 0 where the run did not get that far.
        test_overlap: test images that are in train or validation as well; 0 also where nobody counted.
        accuracy: on the test split, in [0, 1]; None where nothing was evaluated or it was not recorded.
        verdict: `blessed` or `not blessed (<who refused>)`, with `, report failed` or `, report interrupted` where that
            is so; else `failed in <component>`, `interrupted in <component>` or `under way: <component>`.
        version: the version that was pushed, or that had been pushed before; empty where none was.
        components: how many took part.
        cached: how many of them had nothing to do.
    """

    profile: str
    run: int
    started_s: float
    seconds: float
    data: str
    num_examples: int
    test_overlap: int
    accuracy: float | None
    verdict: str
    version: str
    components: int
    cached: int

    @property
    def started(self) -> datetime.datetime:
        """When it began, in the local time zone."""
        return datetime.datetime.fromtimestamp(self.started_s).astimezone()


def last_run(settings: Settings, name: str = "") -> dict[str, Execution]:
    """Return the components of the profile's latest run, by name, in the order in which they ran.

    Args:
        settings: of the profile.
        name: that of another run, as ML Metadata has it.

    Raises:
        FileNotFoundError: the profile has not been run.
    """
    store = metadata_store.open_store(settings)
    run = lineage.run_named(store, name) if name else lineage.last_run(store, metadata_store.own_pipeline(settings))
    return run.executions


def profiles(output_dir: Path) -> dict[str, Settings]:
    """Where each profile that has been run keeps things, by its name.

    Returns:
        Settings that say where: of their fields, profile, output_dir and metadata_connection only are those of the
        runs.

    Raises:
        NotFoundError: none has been run.
    """
    files = [*output_dir.glob("*/metadata.db"), *output_dir.glob("*/metadata_connection")]
    names = sorted({file.parent.name for file in files})
    if not names:
        raise NotFoundError(f"{output_dir} holds no run yet: `make run` makes one.")
    return {name: metadata_store.found(Settings(profile=name, output_dir=str(output_dir))) for name in names}


def runs_of(output_dir: Path, profile: str) -> list[Run]:
    """All runs of a profile, the oldest first.

    Raises:
        NotFoundError: the profile has not been run; says which have.
    """
    known = profiles(output_dir)
    if profile not in known:
        raise NotFoundError(f"{output_dir} holds no run of profile {profile}; there are runs of {', '.join(known)}.")
    return [run for run in metadata_store.list_runs(known[profile]) if run.executions]


def find(output_dir: Path, profile: str, reference: str) -> tuple[str, Run]:
    """Find a run by the name that a person gives it.

    Args:
        output_dir: where all that runs write goes.
        profile: whose runs to look in, where the reference does not say.
        reference: a run's number, a pushed version or `last`, each with or without `<profile>/` before it.

    Returns:
        The profile and the run; for a version the run that pushed it first.

    Raises:
        NotFoundError: there is no such run; says which there are.
    """
    own_profile, _, name = reference.rpartition("/")
    profile = own_profile or profile
    runs = runs_of(output_dir, profile)
    if name == LAST and runs:
        return profile, runs[-1]
    for run in runs:
        if name in (str(run.id), pushed_version(run)):
            return profile, run
    numbers = ", ".join(str(run.id) for run in runs) or "none"
    versions = ", ".join(dict.fromkeys(filter(None, map(pushed_version, runs)))) or "none"
    raise NotFoundError(
        f"Profile {profile} has neither run nor version {name!r}. Runs: {numbers}; versions: {versions}. "
        "`make runs` lists the runs of all profiles."
    )


def summaries(output_dir: Path, profile: str) -> list[Summary]:
    """A line a run of a profile, the oldest first.

    Raises:
        NotFoundError: the profile has not been run; says which have.
        ServerError: its runs are on a server that cannot be used.
    """
    runs = runs_of(output_dir, profile)
    in_use = folder_lock.in_use(Settings(profile=profile, output_dir=str(output_dir)).profile_dir)
    return [summarize(profile, run, under_way=in_use and run is runs[-1]) for run in runs]


def summarize(profile: str, run: Run, under_way: bool = False) -> Summary:
    """Say in a line what a run came to, from its executions and their artifacts' properties alone.

    Args:
        profile: whose run it is.
        run: the run.
        under_way: whether it goes on; else a component that has not ended was interrupted.
    """
    executions = run.executions
    evaluation = executions["Evaluator"].outputs.get("evaluation") if "Evaluator" in executions else None
    examples = executions["Cifar10ExampleGen"].outputs.get("examples") if "Cifar10ExampleGen" in executions else None
    counts = examples.properties if examples else {}
    counted = [execution for name, execution in executions.items() if name != _RESOLVER]
    return Summary(
        profile=profile,
        run=run.id,
        started_s=run.started_s,
        seconds=run.seconds,
        data=PurePosixPath(data_path(run)).name,
        num_examples=sum(count for name, count in counts.items() if name.endswith("_examples")),
        test_overlap=counts.get("test_overlap", 0),
        accuracy=evaluation.properties.get("accuracy") if evaluation else None,
        verdict=verdict(run, under_way),
        version=pushed_version(run),
        components=len(counted),
        cached=sum(execution.cached for execution in counted),
    )


def verdict(run: Run, under_way: bool = False) -> str:
    """What became of a run, in a few words; see `Summary.verdict`."""
    if run.unfinished and under_way:
        return f"under way: {run.unfinished[0]}"
    if run.unfinished not in ([], [_REPORT]):
        return f"interrupted in {run.unfinished[0]}"
    # A run goes on after a failed Resolver, and has been worth nothing all the same.
    if run.failed not in ([], [_REPORT]):
        return f"failed in {run.failed[0]}"
    if "Pusher" not in run.executions:
        last = next(reversed(run.executions))
        return f"under way: after {last}" if under_way else f"interrupted after {last}"
    blessings = {
        name: run.executions[name].outputs["blessing"].properties.get("blessed")
        for name in _BLESSING_COMPONENTS
        if name in run.executions
    }
    refused = [name for name, blessed in blessings.items() if not blessed]
    report = ", report failed" if run.failed else ", report interrupted" if run.unfinished else ""
    return (f"not blessed ({', '.join(refused)})" if refused else BLESSED) + report


def data_path(run: Run) -> str:
    """Where a run's images came from; empty where it does not say."""
    example_gen = run.executions.get("Cifar10ExampleGen")
    return example_gen_settings(example_gen).get("data", "") if example_gen else ""


def example_gen_settings(execution: Execution) -> dict[str, Any]:
    """What a Cifar10ExampleGen was told: `data`, its path, and `validation_fraction`."""
    return (execution.json("custom_config") or {}).get("custom_config", {}).get("value", {})


def pushed_version(run: Run) -> str:
    """The version that a run's Pusher names: made by it, or found to be there already; empty for none."""
    pusher = run.executions.get("Pusher")
    pushed = pusher.outputs.get("pushed_model") if pusher else None
    return pushed.properties.get("pushed_version", "") if pushed else ""
