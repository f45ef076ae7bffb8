"""What `benchmarks.backends` measured, as the tables of docs/export.md."""

from __future__ import annotations

from typing import Any

from benchmarks._pages import markdown
from grn_monai.inferers import BACKENDS

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
        if len(rows) > 2:
            texts.append(markdown(rows))
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
        "less a later one, the lower of two processes. "
        "Pays from scan: the first scan of a process by the end of which the backend has taken less time than "
        "`torch`. Largest difference of a probability to `torch`, and voxels whose largest probability is another "
        f"layer's, of {voxels:,}."
    )
    if again:
        note += f" With what torch's compiler keeps on disk, `compiled` starts in {' to '.join(_ends(again))} s."
    weights, seconds = result["digest"]["weights"], result["digest"]["seconds"]
    note += (
        f" All backends but `torch` look at all weights at every scan, which takes {1000 * seconds:.0f} ms for "
        f"{weights / 1e6:.1f} million and is in their times."
    )
    return "\n\n".join([*texts, note, _exactness(result), _verdict(result)])


def _exactness(result: dict[str, Any]) -> str:
    """Which rows stay within the limit, and what the rows in bfloat16 are worth."""
    names = dict.fromkeys(kind for kinds in result["cases"].values() for kind in kinds if kind != "eager")
    within = {k: all(kinds[k]["exact"] for kinds in result["cases"].values() if k in kinds) for k in names}
    text = f"Within {result['exact']:.0e} of `torch` in all rows: {_listed([TITLES[k] for k in names if within[k]])}. "
    text += f"Not so: {_listed([TITLES[k] for k in names if not within[k]])}."
    if any(kind.endswith("_bf16") for kind in names):
        has = {True: "computes with bfloat16 itself", False: "has no bfloat16, and one that has will be faster"}
        known = has.get(result["processor_has_bfloat16"], "may or may not compute with bfloat16 itself")
        text += f" Rows with `amp`: the processor {known}."
    return text


def _verdict(result: dict[str, Any]) -> str:
    """Which backend pays, by the rule: exact in float32 in all rows, and from which scan on."""
    pays: dict[str, list[int | None]] = {}
    for kind in BACKENDS:
        entries = [kinds[kind] for kinds in result["cases"].values() if kind in kinds]
        if kind != "torch" and entries and all(entry["exact"] for entry in entries):
            pays[kind] = [entry["pays_from_scan"] for entry in entries]
    lines = []
    for kind, scans in pays.items():
        found = [str(scan) for scan in scans if scan is not None]
        when = f"from scan {' to '.join(_ends(found))} on in {len(found)}" if found else "in none"
        lines.append(f"{TITLES[kind]} {when} of {len(scans)} {'row' if len(scans) == 1 else 'rows'}")
    at_once = [TITLES[kind] for kind, scans in pays.items() if all(scan == 1 for scan in scans)]
    text = f"**What pays**, start-up included, of the exact backends in float32: {_listed(lines)}. "
    if at_once:
        return text + (
            f"{_listed(at_once)} would pay from the first scan in all rows; `torch` is the default all the same, as "
            "what is installed always and runs on every device."
        )
    return text + "None pays from the first scan in all rows: `torch` is the default."


def _listed(names: list[str]) -> str:
    return "; ".join(names) or "none"  # some of the names have a comma


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
