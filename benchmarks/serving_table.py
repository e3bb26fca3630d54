"""The serving benchmark's figures as a page of Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import spreads
from benchmarks.markdown import table, verdict

MAX_ADDED_LATENCY_S = 1e-3
"""Aim: what gRPC may cost over the call in process, at the median, at concurrency 1."""

MIN_RATE_RATIO = 0.8
"""Aim: the part of the batched rate in process that gRPC has to reach at concurrency 32."""

Row = Mapping[str, Any]


def markdown(figures: Mapping[str, Any]) -> str:
    """The page.

    Args:
        figures: content of serving.json.
    """
    machine, settings = figures["machine"], figures["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    model = f"{settings.get('model', 'not named')}, SHA-256 {settings['saved_model_sha256'][:12]}"
    servers = list(dict.fromkeys(row["server"] for row in figures["served"]))
    lines = [
        "# Serving benchmark",
        "",
        f"{figures['date']}, {machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"{machine['system']}; load average {machine['load_average_1min']} before it began (what else the machine was "
        f"doing) and {figures['load_average_1min_after']} in the end. {versions}.",
        "",
        f"`python -m benchmarks.serving --seconds {settings['seconds']:g}`: {settings['rounds']} rounds, in each of "
        f"which every line has {settings['stretch_s']:.2f} s or more and is compared with the model in process, timed "
        f"before each server and protocol. Model: {model}. Client and server share the cores with each "
        "other and with TensorFlow. n: requests; latency: of all of them; the rest: median of the rounds [least to "
        "most]. CPU: processor time of an image, in the client and in the server, TensorFlow's included.",
        "",
        "## In process",
        "",
        *table(
            ("batch", "n", "p50 ms", "p90 ms", "p99 ms", "images/s", "CPU ms/image"),
            [
                (row["batch_size"], row["requests"], *_latency(row), _rate(row), _ms(row["client_cpu_s_per_image"]))
                for row in figures["in_process"]
            ],
        ),
        "",
        "## The first request after loading",
        "",
        *table(
            ("server", "starts", "first request, ms", "median of the next, ms"),
            [
                (name, row["starts"], _ms_spread(row["first_s"]), _ms_spread(row["later_s"]))
                for name, row in figures["first_request"].items()
            ],
        ),
        "",
        "## Aims",
        "",
        *table(("aim", "server", "measured", ""), _aims(figures["served"])),
    ]
    for server in servers:
        flags = " ".join(settings["server_flags"][server])
        lines += [
            "",
            f"## Server {server}" + (f" (`{flags}`)" if flags else ""),
            "",
            *table(
                (
                    "protocol",
                    "batch",
                    "concurrency",
                    "n",
                    "p50 ms",
                    "p90 ms",
                    "p99 ms",
                    "added ms",
                    "images/s",
                    "of in-process batched",
                    "CPU ms/image client",
                    "server",
                ),
                [_served(row) for row in figures["served"] if row["server"] == server],
            ),
        ]
    return "\n".join(lines) + "\n"


def _aims(served: Sequence[Row]) -> list[tuple[object, ...]]:
    """Each aim's measurements, and whether they reach it."""
    rows: list[tuple[object, ...]] = []
    for row in served:
        if row["protocol"] != "gRPC":
            continue
        if row["concurrency"] == 1 and row["batch_size"] == 1:
            aim = f"concurrency 1: at most {MAX_ADDED_LATENCY_S * 1e3:g} ms over the call in process"
            reached = row["added_latency_s"]["median"] <= MAX_ADDED_LATENCY_S
            rows.append((aim, row["server"], f"{_added(row)} ms", verdict(reached)))
        elif row["concurrency"] == 32:
            aim = f"concurrency 32, batch {row['batch_size']}: at least {MIN_RATE_RATIO:.0%} of the batched rate"
            reached = row["rate_ratio"]["median"] >= MIN_RATE_RATIO
            rows.append((aim, row["server"], _ratio(row), verdict(reached)))
    return sorted(rows, key=lambda row: str(row[0]))


def _served(row: Row) -> tuple[object, ...]:
    return (
        row["protocol"],
        row["batch_size"],
        row["concurrency"],
        row["requests"],
        *_latency(row),
        # Above concurrency 1, latency is waiting for the others, which no call in process does.
        _added(row) if row["concurrency"] == 1 else "",
        _rate(row),
        _ratio(row),
        _ms(row["client_cpu_s_per_image"]),
        _ms(row["server_cpu_s_per_image"]),
    )


def _latency(row: Row) -> list[str]:
    return [_ms(row["latency_s"][name]) for name in ("p50", "p90", "p99")]


def _added(row: Row) -> str:
    return _ms_spread(row["added_latency_s"])


def _ms_spread(spread: Row) -> str:
    return f"{_ms(spread['median'])} [{_ms(spread['min'])} to {_ms(spread['max'])}]"


def _rate(row: Row) -> str:
    return spreads.text(row["images_per_s"])


def _ratio(row: Row) -> str:
    return spreads.text(row["rate_ratio"], ".0%")


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f}"
