"""The `convert` command."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from grn_monai.errors import InputError, count_scans

__all__ = ["add_parser"]

_LAYOUTS = ("auto", "files", "slice-pairs", "leg-3d-us", "luminous", "totalsegmentator", "spider")

# A label value, or the file of one structure.
_NUMBER_OR_FILE = re.compile(r"-?[0-9.e+]+|.+\.(nii|nii\.gz|mha|mhd|nrrd)")

_DETAILS = """\
Turns the files of a lab into a cohort: images/ and labels/ as NIfTI, dataset.json, a preview to look at, and a record
of what was done. Sources are only read. Formats: NIfTI, MHA/MHD, NRRD; Verasonics .mat (v5, v7.3); UFF/USTB .uff; raw
voxels with a JSON sidecar; DICOM ultrasound (multi-frame, single frames, Enhanced Volume), CT and MR series; pictures
of slices (PNG, JPEG, TIFF) with masks.

Nothing that identifies a person enters OUT: files are written anew from voxels and geometry, DICOM attributes stay
behind, and of an ultrasound frame only the image region is kept. Names of subjects and scans are those of your files
and folders, so give --pseudonym-key where those tell too much. What came from where stands in OUT.link.json beside OUT;
keep it to yourself.

A spacing that a file does not hold is asked for, never invented. Scans that fail are listed at the end (exit code 1);
mend them and run the same command again: finished ones are kept.
"""

_EXAMPLES = """\
examples:
  python -m data_prep convert scans/ cohort/
      everything below scans/, labels in folders labels/ or files NAME_seg.*
  python -m data_prep convert export.mat cohort/ --variable ImgData --spacing 0.2 0.2 0.15 --data linear
      a Verasonics volume of envelopes, shown over 60 dB
  python -m data_prep convert dicom/ cohort/ --pseudonym-key ~/key.txt --frame-spacing 0.5 --section test
      an archive of ultrasound sweeps to be segmented and measured, under pseudonyms
  python -m data_prep convert slices/ cohort/ --table pairs.csv --spacing 0.2 0.2 0.15
      columns image_path,mask_path: slices put together to a volume for each scan
  python -m data_prep convert Totalsegmentator_dataset/ cohort/
      a public set, recognised by its folders

table: CSV with a column `image` (a path below SRC; a folder for a series) and any of
  label, subject, scan, section, modality, side, site, status, repeat, index, spacing ("0.2 0.2 0.15"), frame_spacing,
  region, frames, crop, variable, label_variable, axes, volume, plane, data, dynamic_range_db, reference, whole_frame
  ("yes"), mask_order, colour
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `convert` to the command line."""
    parser = commands.add_parser(
        "convert",
        help="turn a lab's own files into a cohort, without what identifies people",
        description=_DETAILS,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("src", metavar="SRC", type=Path, help="folder of scans, or one scan")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder of the cohort; a stopped run goes on")

    which = parser.add_argument_group("which file is whose scan")
    which.add_argument("--layout", default="auto", choices=_LAYOUTS, help="how SRC is laid out (default: auto)")
    which.add_argument("--table", type=Path, metavar="CSV", help="tells subject, scan, label and more of each file")
    which.add_argument(
        "--pattern", metavar="REGEX",
        help="named groups subject, scan, side, site, status, repeat, searched for in the path below SRC",
    )  # fmt: skip
    which.add_argument(
        "--section", choices=("training", "validation", "test", "unlabeled"),
        help="section for scans that name none (default: training with a label, unlabeled without)",
    )  # fmt: skip
    which.add_argument(
        "--modality", choices=("US", "CT", "MR"), help="where neither file nor table tells (default: US)"
    )
    which.add_argument(
        "--label-names", metavar="FILE", type=Path, help='JSON {"1": "dermis", …}; default: the six layers'
    )
    which.add_argument(
        "--label-values", metavar="FILE", type=Path,
        help='JSON {"value in the files": value in the cohort}, for labels that are numbered differently',
    )  # fmt: skip

    how = parser.add_argument_group("what the files do not say")
    how.add_argument("--spacing", type=float, nargs=3, metavar=("X", "Y", "Z"), help="voxel size in mm, Z is depth")
    how.add_argument("--frame-spacing", type=float, metavar="MM", help="between the frames of a sweep")
    how.add_argument("--region", type=int, metavar="N", help="which region of a frame with several, from 1")
    how.add_argument("--frames", type=int, nargs=2, metavar=("FIRST", "LAST"), help="of a sweep to take, from 1")
    how.add_argument(
        "--crop", type=int, nargs=4, metavar=("X0", "Y0", "X1", "Y1"), help="pixels of an ultrasound frame to keep"
    )
    how.add_argument("--variable", metavar="NAME", help="variable of a .mat file, object of a .uff file")
    how.add_argument("--label-variable", metavar="NAME", help="the same in the label's file")
    how.add_argument(
        "--axes", metavar="ORDER", help="order of the axes in a .mat file (default: by its PData, else zxy)"
    )
    how.add_argument("--volume", type=int, metavar="N", help="which volume of a file with several, from 1")
    how.add_argument("--plane", choices=("transverse", "sagittal"), help="plane of stacked slices")
    how.add_argument(
        "--mask-order", choices=("columns-first", "rows-first"),
        help="of square NIfTI masks of slices: columns-first as the format has it, rows-first as a picture's array",
    )  # fmt: skip
    how.add_argument("--colour", choices=("luminance",), help="take colour pictures of slices, by their luminance")
    how.add_argument(
        "--whole-frame", action="store_true", default=None,
        help="take ultrasound frames whole where nothing tells where the picture is; names may be burned in",
    )  # fmt: skip

    echo = parser.add_argument_group("echo to grey values")
    echo.add_argument(
        "--data", choices=("rf", "iq", "linear", "db", "grey"),
        help="what the numbers are: rf signals, iq (complex), linear envelope, db, or grey values as they are",
    )  # fmt: skip
    echo.add_argument("--dynamic-range", type=float, metavar="DB", help="shown by black to white (default: 60)")
    echo.add_argument("--reference", metavar="P", help="percentile that becomes white (default: the maximum)")

    private = parser.add_argument_group("privacy")
    private.add_argument("--pseudonym-key", metavar="FILE", type=Path, help="secret; subjects become a keyed hash")
    private.add_argument("--link", metavar="FILE", type=Path, help="where to write the link file (OUT.link.json)")
    private.add_argument("--no-link", action="store_true", help="write none; the run cannot be continued then")

    run = parser.add_argument_group("running")
    run.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    run.add_argument("--memory", type=float, default=8.0, metavar="GIB", help="one scan may take (default: 8)")
    run.add_argument("--timeout", type=float, default=600.0, metavar="S", help="one scan may take (default: 600)")
    parser.set_defaults(run=_run)


def _mapping(path: Path | None, option: str) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(path, f"no readable JSON ({error})", "a JSON object", f"Correct {option}.") from error
    if not isinstance(content, dict) or not content:
        raise InputError(path, f"a JSON {type(content).__name__}", "a JSON object", f"Correct {option}.")
    return content


def _label_names(path: Path | None) -> dict[int, str] | None:
    content = _mapping(path, "--label-names")
    if content is None:
        return None
    expected = 'label values 0 to 255 to names, such as {"1": "dermis"}'
    values = [key for key in content if re.fullmatch("[0-9]{1,3}", key) and int(key) < 256]
    if len(values) < len(content) or not all(isinstance(n, str) and n.strip() for n in content.values()):
        raise InputError(path or "", "other keys or names", expected, "Correct it.")
    if len({int(key) for key in values}) < len(values):
        raise InputError(path or "", "one value twice", expected, "Correct it.")
    return {0: "background", **{int(key): name for key, name in sorted(content.items(), key=lambda i: int(i[0]))}}


def _label_values(path: Path | None) -> dict[str, int]:
    values = {}
    for key, value in (_mapping(path, "--label-values") or {}).items():
        if type(value) is not int or not 0 <= value < 256:
            raise InputError(path or "", f"the value {value!r}", "values 0 to 255 of the cohort", "Correct it.")
        try:
            name = f"{float(key):g}"  # as labels are read: "2.0" is 2
        except ValueError:
            name = key
        if name in values or (name == key and not _NUMBER_OR_FILE.fullmatch(name)):
            expected = 'numbers in the files, each once, such as {"100": 1}'
            raise InputError(path or "", f"the key {key!r}", expected, "Correct it.")
        values[name] = value
    return values


def _run(args: argparse.Namespace) -> int:
    from data_prep.convert.cohort import convert_cohort
    from data_prep.convert.isolated import Limits
    from data_prep.convert.link import default_link
    from data_prep.convert.plan import Request
    from data_prep.convert.source import ReadOptions

    options = ReadOptions(
        spacing=None if args.spacing is None else (args.spacing[0], args.spacing[1], args.spacing[2]),
        frame_spacing=args.frame_spacing, region=args.region, variable=args.variable,
        frames=None if args.frames is None else (args.frames[0], args.frames[1]),
        crop=None if args.crop is None else (args.crop[0], args.crop[1], args.crop[2], args.crop[3]),
        label_variable=args.label_variable, axes=args.axes, volume=args.volume, plane=args.plane, data=args.data,
        dynamic_range_db=args.dynamic_range, reference=args.reference, whole_frame=args.whole_frame,
        mask_order=args.mask_order, colour=args.colour,
    )  # fmt: skip
    link = None if args.no_link else args.link or default_link(args.out)
    request = Request(
        args.src, args.out, layout=args.layout, table=args.table, pattern=args.pattern, options=options,
        section=args.section, modality=args.modality, label_names=_label_names(args.label_names),
        label_values=_label_values(args.label_values), key=args.pseudonym_key, link=link, workers=args.workers,
        limits=Limits(args.memory, args.timeout),
    )  # fmt: skip
    summary = convert_cohort(request)
    kept = f", {summary.kept} kept from before" if summary.kept else ""
    print(f"{args.out}: {count_scans(summary.converted)} converted{kept}; the cohort has")
    print("  " + ", ".join(f"{section} {count}" for section, count in summary.sections.items()))
    if any(summary.sections.values()):
        print(f"  look at {args.out / 'preview.png'}; what was removed stands in {args.out / 'deidentification.csv'}")
    if link is not None:
        print(f"  {link} tells where each scan came from: keep it to yourself")
    for note in summary.notes:
        print(f"note: {note}")
    if not summary.failures:
        return 0
    print(f"{count_scans(len(summary.failures))} failed:", file=sys.stderr)
    for problem in summary.failures.values():
        print(f"  - {problem}", file=sys.stderr)
    return 1
