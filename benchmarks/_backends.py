"""What `benchmarks.backends` measured, as the tables of docs/export.md."""

from __future__ import annotations

from typing import Any

TITLES = {
    "eager": "`torch`", "channels_last": "`torch`, all weights channels-last", "torchscript": "TorchScript, frozen",
    "compiled": "`compiled`", "onnxruntime": "`onnxruntime`", "openvino": "`openvino`",
    "eager_bf16": "`torch`, `amp`", "openvino_bf16": "`openvino`, `amp`",
}  # fmt: skip
NETWORKS = {"sge": "S(G(x))", "unet": "U-Net"}


def backends_table(result: dict[str, Any]) -> str:
    """Start-up, seconds of a scan, and how far a backend is from eager torch."""
    x, y, z = result["shape"]
    voxels = x * y * z
    head = [
        "backend", "slices", "start-up (s)", "one scan (s)", "over `torch`", "pays from scan", "largest difference",
        "voxels of another label",
    ]  # fmt: skip
    texts = []
    for network, title in NETWORKS.items():
        rows = [[title, *head[1:]], ["---", "---", *["---:"] * (len(head) - 2)]]
        for case, kinds in result["cases"].items():
            if case.partition("_")[0] == network:
                size = case.partition("_")[2]
                rows += [_row(kind, f"{size} × {size}", entry) for kind, entry in kinds.items()]
        texts.append("\n".join("| " + " | ".join(row) + " |" for row in rows))
    again = [
        f"{entry['start_up_again']:.0f}"
        for kinds in result["cases"].values()
        for entry in kinds.values()
        if "start_up_again" in entry
    ]
    rounds = "one round" if result["rounds"] == 1 else f"medians of {result['rounds']} rounds"
    note = (
        f"The networks of the demo on one of its test scans, stretched to {x} × {y} × {z} voxels: networks and "
        f"fusion of both planes, batches of {result['batch_size']}, {result['threads']} threads; {rounds}, all "
        "backends in turn in one process. Start-up: the first batch of a new process (imports, export, compilation) "
        "less a later one. "
        "Pays from scan: the first scan of a process by the end of which the backend has taken less time than "
        "`torch`. Largest difference of a probability to `torch`, and voxels whose largest probability is another "
        f"layer's, of {voxels:,}."
    )
    if again:
        note += f" With what torch's compiler keeps on disk, `compiled` starts in {' to '.join(_ends(again))} s."
    return "\n\n".join([*texts, note])


def _row(kind: str, size: str, entry: dict[str, Any]) -> list[str]:
    pays = entry["pays_from_scan"]
    return [
        TITLES[kind], size, f"{entry['start_up']:.2f}", f"{entry['seconds']:.2f}", f"{entry['over_eager']:.2f}",
        "" if kind == "eager" else "never" if pays is None else str(pays),
        "" if kind == "eager" else f"{entry['max_difference']:.0e}",
        "" if kind == "eager" else f"{entry['different_labels']:,}",
    ]  # fmt: skip


def _ends(values: list[str]) -> list[str]:
    ordered = sorted(set(values), key=float)
    return [ordered[0], ordered[-1]] if len(ordered) > 1 else ordered
