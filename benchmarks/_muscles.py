"""Tables of the CT and the MR bundle in README, docs and their pages; `python -m benchmarks.readme` writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks._bundles import ROOT, parameters_table
from benchmarks._pages import markdown, plus_minus, write_blocks
from grn_monai.files import write_whole

BUNDLES = {"ct_lumbar_muscle": "ct", "mri_paraspinal_muscle": "mri"}
DEFAULTS = {"ct": "ct_unet/raw", "mri": "mri_2d/raw"}
TITLES = {
    "ct_unet": "CT, U-Net",
    "ct_grn_plus": "CT, GRN+",
    "mri_2d": "MR, 2D",
    "mri_grn_plus": "MR, 2D, GRN+",
    "mri_2d_augment": "MR, 2D, augmentation",
    "mri_3d": "MR, 3D",
    "mri_3d_augment": "MR, 3D, augmentation",
}
CASES = {
    "ct": "CT, U-Net",
    "ct_grn_plus": "CT, GRN+ with SGE",
    "mri_2d": "MR, 2D",
    "mri_grn_plus": "MR, 2D, GRN+ with SGE",
    "mri_3d": "MR, 3D",
}


def _or_dash(values: dict[str, Any] | None, *how: Any) -> str:
    return "–" if values is None else plus_minus(values, *how)


def muscle_table(result: dict[str, Any], modality: str | None = None) -> str:
    """Dice and ICC of each method, by the share of the labels; of one modality or of both."""
    head = ["network", "predicts", "labels", "Dice (%)", "minus the network without G (points)", "ICC of the volumes"]
    rows = [head, ["---", "---", "---:", "---:", "---:", "---:"]]
    seeds = max(entry["dice"]["n"] for entry in result["summary"].values())
    for name, title in TITLES.items():
        if modality and not name.startswith(modality):
            continue
        for key, entry in result["summary"].items():
            method, mode, percent = key.split("/")
            if method == name:
                fewer = "" if entry["dice"]["n"] == seeds else f" ({entry['dice']['n']} of {seeds} seeds)"
                change = entry.get("dice_minus_plain")
                predicts = "S(G(x))" if mode == "sge" else "S(x)"
                cells = [plus_minus(entry["dice"]), _or_dash(change, "+"), _or_dash(entry.get("icc"), "", 1, 3)]
                rows.append([title + fewer, predicts, f"{percent} %", *cells])
    training, _, test = result["settings"]["subjects"]
    over = "one seed" if seeds == 1 else f"mean ± standard deviation over {seeds} seeds"
    note = (
        f"Mean Dice over muscles and {test} simulated test scans, {over} (labelled subjects, first weights, order); "
        f"{training} training subjects; {result['settings']['steps']} training steps each, far fewer than published. "
        "ICC(2,1) of predicted and true volumes, mean over the muscles. Phantoms, not patients."
    )
    real = [entry for entry in result.get("real_ct", []) if entry]
    if real and modality != "mri":
        values = ", ".join(f"{100 * entry['dice']:.1f}" for entry in real)
        note += (
            f" The CT U-Net, trained on the phantoms alone, has a Dice of {values} % on the real CT of "
            "TotalSegmentator (3 mm voxels, thorax to abdomen; its labels are probably model output)."
        )
    return markdown(rows) + "\n\n" + note


def times_table(result: dict[str, Any]) -> str:
    """Seconds of a training step and of one volume, and what is not the network's."""
    head = ["", "batch", "training step (s)", "over `loop`", "volume (s)", "over `network`", "peak memory (GiB)"]
    rows = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for name, title in CASES.items():
        if name not in result["training_step"]:
            continue
        step, volume = result["training_step"][name], result["volume"][name]
        batch = " × ".join(str(n) for i, n in enumerate(step["batch"]) if i != 1)
        rows.append(
            [title, batch, f"{step['seconds']:.2f}", f"{step['ratio_to_loop']:.2f}", f"{volume['seconds']:.1f}",
             f"{volume['ratio_to_network']:.2f}", f"{volume['peak_gib']:.2f}"]
        )  # fmt: skip
    shapes = {name.split("_")[0]: " × ".join(volume["shape"]) for name, volume in result["volume"].items()}
    sizes = " and ".join(f"{'MR' if name == 'mri' else 'CT'} {shape}" for name, shape in shapes.items())
    note = (
        f"Float32 on {result['threads']} CPU threads, medians of {result['rounds']} rounds. `loop`: a bare loop of the "
        "same network, for GRN+ of S alone; `network`: the volume's forward passes alone. One volume from file to "
        f"label file: {sizes} voxels. Memory is that of the process so far."
    )
    return markdown(rows) + "\n\n" + note


def _cost(result: dict[str, Any], modality: str) -> str:
    kept = {
        key: {name: value for name, value in result[key].items() if name.startswith(modality)}
        for key in ("training_step", "volume")
    }
    return times_table({**result, **kept})


def write(results: Path) -> None:
    """Write the blocks into the two bundles' pages, and the default's scores into their metadata."""
    scores, times = (_read(results / f"{name}.json") for name in ("muscles", "muscle_times"))
    source = "Measured by `python -m benchmarks.muscles`, with weights that are not in the bundle."
    for bundle, modality in BUNDLES.items():
        folder = ROOT / "bundles" / bundle
        contents = {"parameters": parameters_table(bundle)}
        if scores:
            contents["performance"] = f"{muscle_table(scores, modality)}\n\n{source}"
        if times:
            contents["cost"] = _cost(times, modality)
        write_blocks(folder / "docs" / "README.md", contents)
        default = scores.get("summary", {}).get(f"{DEFAULTS[modality]}/100")
        if default:
            file = folder / "configs" / "metadata.json"
            metrics = {"simulated_test_mean_dice": round(default["dice"]["mean"], 4)}
            if "icc" in default:
                metrics["simulated_test_volume_icc"] = round(default["icc"]["mean"], 4)
            metadata = json.loads(file.read_text()) | {"eval_metrics": metrics}
            write_whole(file, json.dumps(metadata, indent=4, ensure_ascii=False) + "\n")


def _read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    return content
