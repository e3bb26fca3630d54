"""Says what a pushed version was made of: `make lineage VERSION=…`, or `python -m pipeline.version_lineage --help`.

Data, code, settings, library versions, the runs that took part, and what the gate decided, all from ML Metadata: for
a version that was pushed long ago as for the last one.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline import terminal
from pipeline.metadata_store import NotFoundError

if TYPE_CHECKING:
    from components.model_report.lineage import Execution, Provenance

NOT_RECORDED = "not recorded"


def main() -> int:
    """Print the lineage; return the exit status."""
    parser = terminal.argument_parser("pipeline.version_lineage", "Say which data, code and settings made a version.")
    parser.add_argument("version", nargs="?", help="A pushed version, e.g. 1795410615; the last one without it.")
    parser.add_argument("--profile", help="Whose versions; of all profiles without it.")
    arguments = parser.parse_args()
    return terminal.run_command(lambda: _show(arguments))


def _show(arguments: argparse.Namespace) -> None:
    profile, provenance = _find(arguments)
    facts = describe(profile, provenance)
    if arguments.json:
        terminal.print_json(facts)
        return
    out = terminal.console()
    out.print(f"[bold]Version {provenance.version}[/bold] of profile {profile}")
    for section, values in facts.items():
        if isinstance(values, dict):
            table = terminal.table({section.replace("_", " "): "left", "": "wrap"})
            for name, value in values.items():
                table.add_row(f"  {name}", _text(value))
            out.print()
            out.print(table)


def _find(arguments: argparse.Namespace) -> tuple[str, Provenance]:
    """The profile that pushed the version, and how the version came to be.

    Raises:
        NotFoundError: no profile has pushed it; says which versions there are.
    """
    from components.model_report import lineage  # here, and the next line: half a second, and --help should not wait
    from pipeline import metadata_store, runs

    places = {
        profile: place
        for profile, place in runs.profiles(arguments.output_dir).items()
        if arguments.profile in (None, profile)
    }
    stores = {profile: metadata_store.open_store(place) for profile, place in places.items()}
    pushed = {
        profile: list(lineage.pushed_versions(stores[profile], metadata_store.own_pipeline(place)))
        for profile, place in places.items()
    }
    every = [(version, profile) for profile, versions in pushed.items() for version in versions]
    wanted = [pair for pair in every if arguments.version in (None, pair[0])]
    if not wanted:
        known = "; ".join(f"{profile}: {', '.join(versions) or 'none'}" for profile, versions in pushed.items())
        raise NotFoundError(
            f"No run has pushed version {arguments.version or 'any'}. "
            f"Pushed versions below {arguments.output_dir}: {known or 'none'}."
        )
    version, profile = max(wanted, key=lambda pair: int(pair[0]))
    return profile, lineage.provenance(stores[profile], version)


def describe(profile: str, provenance: Provenance) -> dict[str, Any]:
    """Everything that ML Metadata knows of how a version was made, by section, as values that JSON can hold."""
    executions = provenance.executions
    pushed = provenance.pushed_by.outputs["pushed_model"].properties
    facts: dict[str, Any] = {
        "profile": profile,
        "version": provenance.version,
        "pushed": {
            "at": _time(provenance.pushed_by.started_s),
            "by_run": f"{profile}/{provenance.run.id}",
            "to": pushed.get("pushed_destination"),
        },
    }
    if "Cifar10ExampleGen" in executions:
        facts["data"] = _data(executions["Cifar10ExampleGen"])
    facts["code"] = {name: digest for name, e in executions.items() if (digest := e.properties.get("source_digest"))}
    for name in ("PreTrainer", "Trainer"):
        if name in executions:
            facts |= _training(name, executions[name])
    facts["gate"] = _gate(executions)
    facts["made_by"] = {
        name: f"run {execution.run_id}, {_time(execution.started_s)}, {execution.seconds:.1f} s"
        for name, execution in executions.items()
    }
    return facts


def _data(example_gen: Execution) -> dict[str, Any]:
    from components.cifar10_example_gen import duplicates
    from pipeline import runs

    settings = runs.example_gen_settings(example_gen)
    found = example_gen.outputs["examples"].properties
    counts = {name: value for name, value in found.items() if name.endswith("_examples")}
    return {
        "path": settings.get("data"),
        "sha256": found.get("data_sha256"),
        "fingerprint": found.get("input_fingerprint"),  # a folder has no digest: sizes and times of its files
        **dict(sorted(counts.items())),
        duplicates.TEST_OVERLAP: found.get(duplicates.TEST_OVERLAP),
        "validation_fraction": settings.get("validation_fraction"),
    }


def _training(name: str, trainer: Execution) -> dict[str, Any]:
    config = trainer.json("custom_config") or {}
    made = trainer.outputs["model"].properties
    recipe = dict(config.get("hyperparameters", {}))
    recipe |= {key: config[key] for key in ("validation_split", "label_fraction") if key in config}
    versions = json.loads(made["library_versions"]) if "library_versions" in made else {"tfx": made.get("tfx_version")}
    return {
        f"{name.lower()}_settings": recipe,
        f"{name.lower()}_libraries": {**versions, "machine": made.get("machine")},
    }


def _gate(executions: Mapping[str, Execution]) -> dict[str, Any]:
    """What the version had to reach, and did."""
    facts: dict[str, Any] = {}
    if "Evaluator" in executions:
        evaluator = executions["Evaluator"]
        blessing, evaluation = (evaluator.outputs[key].properties for key in ("blessing", "evaluation"))
        facts |= {
            "accuracy": evaluation.get("accuracy"),
            **_thresholds(evaluator.json("eval_config") or {}),
            "compared_with": blessing.get("baseline_model") or evaluation.get("not_compared", "none: it was the first"),
            "Evaluator": "blessed" if blessing.get("blessed") else "not blessed",
        }
    for name in ("ServingValidator", "InfraValidator"):
        if name in executions:
            blessed = executions[name].outputs["blessing"].properties.get("blessed")
            facts[name] = "blessed" if blessed else "not blessed"
    return facts


def _thresholds(eval_config: Mapping[str, Any]) -> dict[str, float]:
    """The gate's settings, from TFMA's configuration."""
    facts = {}
    metrics = itertools.chain.from_iterable(spec.get("metrics", ()) for spec in eval_config.get("metrics_specs", ()))
    for limit in itertools.chain.from_iterable(metric.get("per_slice_thresholds", ()) for metric in metrics):
        by_class = any(spec.get("feature_keys") for spec in limit["slicing_specs"])
        threshold = limit["threshold"]
        if "value_threshold" in threshold:
            name = "class_recall_floor" if by_class else "accuracy_floor"
            facts[name] = threshold["value_threshold"].get("lower_bound")
        if "change_threshold" in threshold:
            facts["accuracy_tolerance"] = -threshold["change_threshold"].get("absolute", 0.0)
    return facts


def _text(value: Any) -> str:
    if value is None or value == "":
        return NOT_RECORDED
    return f"{value:,}" if type(value) is int and value >= 10_000 else f"{value}"


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")


if __name__ == "__main__":
    from surroundings import streams

    streams.prepare(only_prints=True)
    sys.exit(main())
