"""Write the tables of README and docs from measured results, so that no number there is typed by hand.

    python -m benchmarks.readme                    # from benchmarks/results/*.json
    python -m benchmarks.readme --demo runs/demo   # take over the demo's report first

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`. The bundles' pages and metadata are those of _bundles.py.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks import _bundles, _muscles
from benchmarks._active import active_table
from benchmarks._backends import backends_table
from benchmarks._label import label_table
from benchmarks._pages import markdown, plus_minus, write_blocks
from benchmarks._study import study_table
from grn_monai.files import write_whole
from grn_monai.labels import LAYER_NAMES, LAYERS

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
KINDS = {"slice": "slices", "sagittal": "sagittal only", "volume": "fused", "decoded": "decoded"}


def short_report(report: dict[str, Any]) -> dict[str, Any]:
    """What the README needs of a report.json."""
    keep = ("title", "dice", "mean", "ci", "subject_ci", "n", "n_subjects", "n_scans", "hd95_mm_mean", "asd_mm_mean")
    methods = {
        name: {
            "title": m.get("title", name),
            **{
                k: {x: m[k][x] for x in (*keep, "thickness_error_mm_mean") if x in m[k]}
                for k in m
                if isinstance(m[k], dict) and "dice" in m[k]
            },
        }
        for name, m in report["methods"].items()
    }
    return {"simulated": report["simulated"], "methods": methods}


def run_settings(folder: Path) -> dict[str, Any]:
    """Settings, labelled scans and training time of the demo's runs, from their run.json."""
    runs = {name: json.loads((folder / name / "run.json").read_text()) for name in ("unet", "grn_plus")}
    keys = ("fraction", "epochs", "slice_size", "amp")
    return {
        name: {
            "scans": len(r["scans"]),
            "seconds": r["seconds"],
            "threads": r["threads"],
            **{k: r["resolved"].get(k, r["config"].get(k)) for k in keys},
        }
        for name, r in runs.items()
    }


def _interval(ci: list[float] | None) -> str:
    return "" if ci is None else f" ({100 * ci[0]:.1f}–{100 * ci[1]:.1f})"


def demo_table(report: dict[str, Any]) -> str:
    """Mean Dice of each method by kind of prediction, and the layers of the decoded volumes."""
    head = ["method", *(f"{label}" for label in KINDS.values()), "thickness error (mm)"]
    rows = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for m in report["methods"].values():
        cells = [f"{100 * m[k]['mean']:.1f}{_interval(m[k].get('subject_ci'))}" for k in KINDS]
        rows.append([m["title"], *cells, f"{m['decoded']['thickness_error_mm_mean']:.2f}"])
    layers = [["method", *(LAYER_NAMES[i] for i in LAYERS)], ["---"] + ["---:"] * len(LAYERS)]
    for m in report["methods"].values():
        layers.append([m["title"], *(f"{100 * m['decoded']['dice'][LAYER_NAMES[i]]:.1f}" for i in LAYERS)])
    first = next(iter(report["methods"].values()))
    note = (
        f"Mean Dice of the six layers in percent on {first['decoded']['n']} simulated test scans of "
        f"{first['decoded']['n_subjects']} subjects ({first['slice']['n']} slices), in brackets the 95 % interval of a "
        "bootstrap over subjects; thickness error of the decoded volumes. " + _trained(report["runs"])
    )
    return "\n\n".join((markdown(rows), note, "By layer, decoded:", markdown(layers)))


def _trained(runs: dict[str, Any]) -> str:
    unet, grn = runs["unet"], runs["grn_plus"]
    height, width = unet["slice_size"]
    return (
        f"Trained on the labels of {unet['scans']} scans ({100 * unet['fraction']:.0f} % of the training set), "
        f"{unet['epochs']} epochs at {height} × {width}, one seed: U-Net in float32 ({unet['seconds']:.0f} s), GRN+ in "
        f"{'bfloat16' if grn['amp'] else 'float32'} ({grn['seconds']:.0f} s, {grn['threads']} threads)."
    )


TITLES = {
    "unet": "U-Net",
    "grn_plus_joint": "GRN+ (`joint`)",
    "grn_plus_alternate": "GRN+ (`alternate`)",
    "grn_plus_single_stage": "GRN+, single stage",
    "grn_sel_alternate": "GRN-SEL (`alternate`)",
    "grn_sel_joint": "GRN-SEL (`joint`)",
    "grn_sel_no_seg_feedback": "GRN-SEL, no feedback of S",
    "grn_sel_negated_seg_feedback": "GRN-SEL, feedback negated",
    "grn_ssl_alternate": "GRN-SSL (`alternate`)",
    "grn_ssl_joint": "GRN-SSL (`joint`)",
    "unet_augment": "U-Net, augmentation",
    "unet_gan_augment": "U-Net, GAN augmentation",
}


def methods_table(result: dict[str, Any]) -> str:
    """Mean Dice of each method over the seeds, with S alone and with SGE, and the difference to the U-Net."""
    head = ["method", "predicts", "slices", "decoded", "slices, minus U-Net", "decoded, minus U-Net"]
    rows = [head, ["---", "---"] + ["---:"] * (len(head) - 2)]
    summary = result["summary"]
    seeds = max(group["slice"]["n"] for group in summary.values())
    for name, title in TITLES.items():
        for mode, label in (("raw", "S(x)"), ("sge", "S(G(x))")):
            if not (group := summary.get(f"{name}/{mode}")):
                continue
            change = group.get("minus_unet")
            differences = [plus_minus(change[kind], "+") if change else "" for kind in ("slice", "decoded")]
            fewer = "" if group["slice"]["n"] == seeds else f" ({group['slice']['n']} seeds)"
            cells = [plus_minus(group[kind]) for kind in ("slice", "decoded")]
            rows.append([title + fewer, label, *cells, *differences])
    settings, cohort = result["settings"], result["cohort"]
    note = (
        f"Mean Dice of the six layers in percent on {cohort['test']} simulated test scans: mean ± standard deviation "
        f"over {seeds} seeds (each with its own labelled subjects, first weights and order of images), and the "
        f"difference to the U-Net of the same seed. Labels of {' or '.join(map(str, result['labelled_scans']))} of "
        f"{cohort['training']} training scans ({100 * settings['fraction']:g} % asked, whole subjects); "
        f"{settings['epochs']} passes over the labelled images at "
        f"{settings['size']} × {settings['size']}, the best epoch by validation. The papers' clinical data are private."
    )
    failed = result.get("failures")
    return markdown(rows) + "\n\n" + note + (f" Failed runs: {', '.join(failed)}." if failed else "")


def training_table(result: dict[str, Any]) -> str:
    """Seconds and ratios of a training step."""
    rows = [["training step", "seconds", "over `unet`", "over `unet_bf16`"], ["---", "---:", "---:", "---:"]]
    for name, seconds in result["seconds"].items():
        ratios = (f"{result[k][name]:.2f}" for k in ("ratio_to_unet", "ratio_to_unet_bf16"))
        rows.append([f"`{name}`", f"{seconds:.3f}", *ratios])
    shares = ", ".join(f"`{k}` {100 * v['share_of_matrix_peak']:.0f} %" for k, v in result["forward_float32"].items())
    saved = ", ".join(f"`{k}` {100 * v:.0f} %" for k, v in result["saved_by_sharing"].items())
    peak = result["matrix_peak_gflops"]
    note = (
        f"Batch {result['batch']} at {result['size']} × {result['size']}, {result['threads']} threads; the papers "
        f"print {result['printed_ratio']['grn_plus']:.1f} for GRN+ and {result['printed_ratio']['grn_ssl']:.1f} for "
        f"GRN. One pass of S for several losses saves {saved} of a step. Share of the measured matrix-product peak "
        f"({peak['float32']:.0f} GFLOP/s) that a float32 forward pass reaches: {shares}."
    )
    return markdown(rows) + "\n\n" + note


def inference_table(result: dict[str, Any]) -> str:
    """Seconds, ratio and memory of one scan."""
    head = ["one scan with SGE", "seconds", "over `plain`", "networks and fusion", "decode", "peak memory (GiB)"]
    rows = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for name, seconds in result["seconds"].items():
        parts = result["parts_seconds"][name]
        cells = [f"{parts[k]:.2f}" if k in parts else "" for k in ("networks_and_fusion", "decode")]
        memory = f"{result['memory'][name]['peak_gib']:.2f}"
        rows.append([f"`{name}`", f"{seconds:.2f}", f"{result['ratio_to_plain'][name]:.2f}", *cells, memory])
    x, y, z = result["shape"]
    return markdown(rows) + f"\n\n{x} × {y} × {z} voxels, from the file to the label file, {result['threads']} threads."


def thickness_table(result: dict[str, Any]) -> str:
    """Error of the mean thickness of each layer, raw and decoded."""
    names = list(result["layers"])
    head = ["layer", "truth (mm)", *(f"{name}: bias, MAE (mm)" for name in names)]
    rows = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for layer in (LAYER_NAMES[i] for i in LAYERS[:-1]):
        cells = [f"{result['layers'][names[0]][layer]['truth_mm']:.2f}"]
        for name in names:
            found = result["layers"][name][layer]["a_line"]
            cells.append(f"{found['bias_mm']:+.2f}, {found['mae_mm']:.2f}" if found["n"] else "not found")
        rows.append([layer, *cells])
    for title, measure, key in (
        ("mean of the five", "a_line", "mae_mm"),
        ("mean of the five, along the normal", "normal", "mae_mm"),
        ("mean of the five, single A-lines", "a_line", "each_a_line_mae_mm"),
    ):
        rows.append([title, "", *(f"{result['mean_above_muscle'][name][measure][key]:.2f}" for name in names)])
    note = (
        f"Mean thickness of a scan against the truth, {result['scans']} simulated test scans of {result['subjects']} "
        "subjects: bias and mean absolute error (MAE). Single A-lines: mean of |predicted − true|. The muscle is left "
        "out, as the field of view cuts it off."
    )
    return markdown(rows) + "\n\n" + note


def convert_table(result: dict[str, Any]) -> str:
    """Seconds and memory of reading and converting one volume, against the format's library alone."""
    head = ["format", "on disk (MiB)", "library (s)", "reader (s)", "convert (s)", "library (GiB)", "reader (GiB)",
            "convert (GiB)"]  # fmt: skip
    rows = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for name, m in result["formats"].items():
        seconds = [f"{m[task]['seconds']:.2f}" for task in ("library", "reader", "convert")]
        memory = [f"{m[task]['peak_gib']:.2f}" for task in ("library", "reader", "convert")]
        rows.append([FORMATS[name], f"{m['mib_on_disk']:.0f}", *seconds, *memory])
    x, y, z = result["shape"]
    rounds = "one round" if result["rounds"] == 1 else f"medians of {result['rounds']} rounds"
    note = (
        f"A volume of {x} × {y} × {z} voxels: in memory by the format's library alone, by this project's reader, and "
        f"as a whole conversion (read, B-mode, checked, written as .nii.gz); {rounds}, "
        "imports left out, memory above what the process held before."
    )
    return markdown(rows) + "\n\n" + note


FORMATS = {
    "nifti": "NIfTI, gzipped", "mha": "MHA, compressed", "nrrd": "NRRD, compressed", "mat_v5": ".mat v5, float32",
    "mat_v73": ".mat v7.3, float32, compressed", "uff": "UFF, complex64", "raw": "raw, uint8",
    "slices": "256 PNG slices", "us_multi_frame": "DICOM US multi-frame, JPEG",
    "us_enhanced": "DICOM Enhanced US Volume, JPEG", "ct_series": "DICOM series, 512 files",
}  # fmt: skip


def fuzz_table(result: dict[str, Any]) -> str:
    """Damaged files and how reading them ended."""
    ends = list(next(iter(result["formats"].values())))
    rows = [["format", "cases", *ends], ["---"] + ["---:"] * (len(ends) + 1)]
    for name, counts in result["formats"].items():
        rows.append([name, str(sum(counts.values())), *(str(counts[end]) for end in ends)])
    total = {end: sum(counts[end] for counts in result["formats"].values()) for end in ends}
    rows.append(["all", str(sum(total.values())), *(str(total[end]) for end in ends)])
    note = (
        f"Truncated, changed, mislabelled, pickled and exaggerated files. Refused: with one error that names the file. "
        f"Valid: read, as where a grey value has changed. Slowest case {result['slowest_s']:.1f} s."
    )
    return markdown(rows) + "\n\n" + note


TABLES = {
    "demo": demo_table, "methods": methods_table, "training_step": training_table, "inference": inference_table,
    "measurements": thickness_table, "convert": convert_table, "fuzz": fuzz_table,
    "active_learning": active_table, "label_server": label_table, "backends": backends_table,
    "study": study_table, "muscles": _muscles.muscle_table, "muscle_times": _muscles.times_table,
}  # fmt: skip
PAGES = {
    **dict.fromkeys(TABLES, ROOT / "README.md"),
    **dict.fromkeys(("convert", "fuzz"), ROOT / "docs" / "formats.md"),
    "methods": ROOT / "docs" / "joint_training.md",
    "active_learning": ROOT / "docs" / "active_learning.md",
    "label_server": ROOT / "docs" / "monai_label.md",
    "backends": ROOT / "docs" / "export.md",
}
"""The page on which each table stands."""


def source(name: str) -> Path:
    """The file that a table is made from; of a study its report."""
    return ROOT / "docs" / "results" / "laptop" / "report.json" if name == "study" else RESULTS / f"{name}.json"


def main() -> None:
    """Write the tables."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--demo", type=Path, help="a run folder whose report.json is taken over into benchmarks/results")
    args = p.parse_args()
    if args.demo:
        report = short_report(json.loads((args.demo / "report.json").read_text()))
        report["runs"] = run_settings(args.demo)
        write_whole(RESULTS / "demo.json", json.dumps(report, indent=2) + "\n")
    for name, table in TABLES.items():
        file = source(name)
        if file.is_file():
            write_blocks(PAGES[name], {name: table(json.loads(file.read_text()))})
    _bundles.write(RESULTS)
    _muscles.write(RESULTS)


if __name__ == "__main__":
    main()
