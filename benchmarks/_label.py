"""The table of `benchmarks.label_server`."""

from __future__ import annotations

from typing import Any


def label_table(result: dict[str, Any]) -> str:
    """Times and memory of the server, and what several clients got."""
    memory, many = result["memory_gib"], result["endurance"]
    rows = [
        ("start to first answer", f"{result['start_seconds']:.1f} s"),
        ("first request, from asking to the label on disk", f"{result['first_request_seconds']:.2f} s"),
        ("later requests", f"{result['later_request_seconds']:.2f} s"),
        ("later requests without SGE", f"{result['later_request_without_sge_seconds']:.2f} s"),
        ("memory of the server, just started", f"{memory['started']:.2f} GiB"),
        ("memory after requests (peak)", f"{memory['after_requests']:.2f} ({memory['peak']:.2f}) GiB"),
        (f"{many['clients']} clients for {many['seconds'] / 60:.0f} minutes: answers", f"{many['requests']}"),
        ("of them wrong, lost", f"{many['wrong']}, {many['lost']}"),
        ("answers a minute", f"{many['per_minute']:.1f}"),
        ("waiting for one, median (longest)", f"{many['latency_median']:.1f} ({many['latency_max']:.1f}) s"),
        ("memory after that (peak)", f"{many['memory_gib']['now']:.2f} ({many['memory_gib']['peak']:.2f}) GiB"),
    ]
    shape, size = (" × ".join(map(str, result[key])) for key in ("shape", "slice_size"))
    text = "\n".join(["| MONAI Label server | |", "| --- | ---: |", *(f"| {name} | {value} |" for name, value in rows)])
    note = f"{shape} voxels, slices of {size}, GRN+ with SGE and quality numbers, {result['threads']} threads."
    return f"{text}\n\n{note}"
