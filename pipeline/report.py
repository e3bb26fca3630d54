"""What a run came to, in the console's words; every figure is read back from artifacts and ML Metadata."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from components.cifar10_example_gen import duplicates
from components.model_report.contents import REPORT_FILE
from components.model_report.lineage import Execution
from models import features
from pipeline import evaluation, runs
from pipeline.settings import DEFAULT_PROFILE, ENVIRONMENT_PREFIX, PROJECT_ROOT, Settings, field_types


def component_line(settings: Settings, component: str, run_name: str = "") -> str:
    """Say in a line what a component of a run has produced and in how many seconds.

    Args:
        settings: of the run.
        component: that has ended.
        run_name: the run's, as ML Metadata has it; empty for the latest.

    Raises:
        RuntimeError: it has failed, and TFX's runner has not stopped for that.
    """
    run = runs.last_run(settings, run_name)[component]
    if run.failed:
        raise RuntimeError(f"{component} failed; the run's log file says why")
    time = "cached" if run.cached else f"{run.seconds:.1f} s"
    try:
        produced = _PRODUCED.get(component, _nothing_to_say)(run)
    except Exception as error:  # it has done its work all the same
        logging.getLogger(__name__).exception("What %s has made cannot be read.", component)
        produced = f"what it has made cannot be read: {error}"
    return f"  {component:<20} {time:>8}  {produced}".rstrip()


def last_lines(settings: Settings, total_s: float, run_name: str = "") -> str:
    """Say the verdict of a run: accuracy, gate, version, seconds by component, what to type next.

    Args:
        settings: of the run.
        total_s: that it took.
        run_name: its name, as ML Metadata has it; empty for the latest.
    """
    run = runs.last_run(settings, run_name)
    pushed = run["Pusher"].outputs["pushed_model"].properties
    lines = [""]
    try:
        lines += _verdict(run)
    except Exception as error:  # the push is said all the same
        logging.getLogger(__name__).exception("The verdict cannot be read.")
        lines.append(f"The verdict cannot be read: {error}")
    if pushed["pushed"]:
        new = pushed.get("new") and not run["Pusher"].cached
        destination = Path(pushed["pushed_destination"])
        lines.append(f"{'Pushed' if new else 'Already pushed'}: version {destination.name} in {_short(destination)}")
    else:
        lines.append(f"Nothing pushed; what {_short(settings.serving_dir)} held before stays.")
    seconds = " · ".join(f"{c.name} {c.seconds:.1f}" for c in run.values() if not c.cached)
    lines.append(f"Seconds by component: {seconds or 'all cached'}; {total_s:.1f} in all")
    lines.append(_next_step(settings, blessed=bool(pushed["pushed"])))
    return "\n".join(lines)


def _verdict(run: Mapping[str, Execution]) -> list[str]:
    """Accuracy and gate, and a line a check."""
    verdict = evaluation.read_verdict(run["Evaluator"])
    serving_blessed, serving_checks = _serving_verdict(run)
    blessed = verdict.blessed and serving_blessed
    lines = [
        f"Test accuracy {verdict.accuracy:.4f}   gate: {'BLESSED' if blessed else 'NOT BLESSED'}",
        *(f"  {check}" for check in (*verdict.checks, *serving_checks)),
    ]
    if overlap := duplicates.overlap_note(run["Cifar10ExampleGen"].outputs["examples"].properties):
        lines.append(f"  –   {overlap}: the accuracy counts them")
    return lines


def _serving_verdict(run: Mapping[str, Execution]) -> tuple[bool, list[str]]:
    """Whether the candidate has served as it has to, and a line a check."""
    if "ServingValidator" not in run:
        blessed = bool(run["InfraValidator"].outputs["blessing"].properties["blessed"])
        return blessed, [f"{'ok ' if blessed else 'NO '} TFX's InfraValidator"]
    blessing = run["ServingValidator"].outputs["blessing"]
    checks = json.loads((Path(blessing.uri) / "checks.json").read_text(encoding="utf-8"))
    lines = [f"{'ok ' if check['reached'] else 'NO '} {check['name']}: {check['finding']}" for check in checks]
    return bool(blessing.properties["blessed"]), lines


def _next_step(settings: Settings, blessed: bool) -> str:
    if not blessed:
        return "Next: see the lines above that begin with NO; the README says how to change the recipe and the gate"
    profile = "" if settings.profile == DEFAULT_PROFILE else f" PROFILE={settings.profile}"
    return f"Next: make serve{profile}"


def _nothing_to_say(run: Execution) -> str:
    return ""


def _examples(run: Execution) -> str:
    counts = run.outputs["examples"].properties
    splits = (features.TRAIN_SPLIT, features.VALIDATION_SPLIT, features.TEST_SPLIT)
    produced = " · ".join(f"{s} {counts[f'{s}_examples']:,}" for s in splits if f"{s}_examples" in counts)
    return "\n  –   ".join([produced, *duplicates.notes(counts)])


def _pretraining(run: Execution) -> str:
    epochs = _history(run)
    return f"{_count(epochs)}, tells {float(epochs[-1]['val_accuracy']):.4f} of the rotations"


def _training(run: Execution) -> str:
    epochs = _history(run)
    best = max(epochs, key=lambda epoch: float(epoch["val_accuracy"]))
    return f"{_count(epochs)}, best validation accuracy {float(best['val_accuracy']):.4f} (epoch {best['epoch']})"


def _tuning(run: Execution) -> str:
    trials = json.loads((Path(run.outputs["tuner_results"].uri) / "tuner_results.json").read_text(encoding="utf-8"))
    best = max(trials, key=lambda trial: trial["score"])
    found = " ".join(
        f"{ENVIRONMENT_PREFIX}{name.upper()}={value}" for name, value in best.items() if name in field_types()
    )
    return f"validation accuracy {best['score']:.4f}, best of {len(trials)} trials; to use it again: {found}"


def _history(run: Execution) -> list[dict[str, str]]:
    """The rows of a training's history.csv, one an epoch."""
    with open(Path(run.outputs["model_run"].uri) / "history.csv", encoding="utf-8", newline="") as history:
        return list(csv.DictReader(history))


def _count(epochs: list[dict[str, str]]) -> str:
    return f"{len(epochs)} epoch{'s' if len(epochs) > 1 else ''}"


def _baseline(run: Execution) -> str:
    return f"model {run.outputs['model'].id}" if "model" in run.outputs else "none yet"


def _blessing(run: Execution) -> str:
    return "blessed" if run.outputs["blessing"].properties["blessed"] else "not blessed"


def _pushed(run: Execution) -> str:
    pushed = run.outputs["pushed_model"].properties
    return f"version {pushed['pushed_version']}" if pushed["pushed"] else "nothing pushed"


_PRODUCED: dict[str, Callable[[Execution], str]] = {
    "Cifar10ExampleGen": _examples,
    "ExampleValidator": lambda run: "no anomalies",
    "PreTrainer": _pretraining,
    "Tuner": _tuning,
    "Trainer": _training,
    "LastBlessedModel": _baseline,
    "Evaluator": _blessing,
    "InfraValidator": _blessing,
    "ServingValidator": _blessing,
    "Pusher": _pushed,
    "ModelReport": lambda run: _short(Path(run.outputs["report"].uri) / REPORT_FILE),
}


def _short(path: Path) -> str:
    """A path as a person would type it: relative to the project where it is inside."""
    return str(path.relative_to(PROJECT_ROOT)) if path.is_relative_to(PROJECT_ROOT) else str(path)
