"""The serving benchmark's figures as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

COLOURS = {"gRPC": "#0072B2", "REST": "#E69F00"}
"""Okabe and Ito's palette, which colour-blind people can tell apart."""


def draw(figures: Mapping[str, Any], path: Path) -> None:
    """Draws latency at concurrency 1 and throughput at the highest concurrency, beside the model in process.

    Args:
        figures: content of serving.json.
        path: of the picture; its ending says the format.
    """
    from components.model_report.figures import Figure

    server = figures["served"][-1]["server"]  # the last one measured: with batching
    served = [row for row in figures["served"] if row["server"] == server]
    in_process = {row["batch_size"]: row for row in figures["in_process"]}
    sizes = sorted(in_process)
    most = max(row["concurrency"] for row in served)
    figure = Figure(figsize=(10, 4), layout="constrained")
    latency, rate = figure.subplots(1, 2)
    for index, protocol in enumerate(COLOURS):
        rows = {(row["batch_size"], row["concurrency"]): row for row in served if row["protocol"] == protocol}
        at = [position + (index - 0.5) * 0.36 for position in range(len(sizes))]
        style = {"width": 0.34, "color": COLOURS[protocol], "label": protocol}
        latency.bar(at, [rows[size, 1]["latency_s"]["p50"] * 1e3 for size in sizes], **style)
        rate.bar(at, [rows[size, most]["images_per_s"]["median"] for size in sizes], **style)
    in_process_ms = [in_process[size]["latency_s"]["p50"] * 1e3 for size in sizes]
    places = range(len(sizes))
    latency.hlines(in_process_ms, [at - 0.4 for at in places], [at + 0.4 for at in places], color="black", linewidth=2)
    batched = in_process[max(sizes)]["images_per_s"]["median"]
    rate.axhline(batched, color="black", linewidth=2, label=f"in process (right: batches of {max(sizes)})")
    figure.suptitle(f"Local server {server}")
    latency.set(title="Median latency at concurrency 1", ylabel="milliseconds")
    rate.set(title=f"Throughput at concurrency {most}", ylabel="images a second")
    for axes in (latency, rate):
        axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
        axes.set_xlabel("images a request")
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*rate.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=120)
