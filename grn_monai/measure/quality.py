"""Signs that a scan or its segmentation needs a look: each a value, a limit and one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from grn_monai.errors import InputError
from grn_monai.measure.agreement import order_faults
from grn_monai.measure.layers import last_labels

__all__ = ["CHECKS", "check_limits", "quality_flags", "view_numbers"]

Labels = npt.NDArray[np.integer]

DARK_SHARE = 0.5
"""An A-line counts as dark where its mean echo level is below this share of that of the 90th percentile of A-lines.

The median would itself be dark where more than half of the probe has no contact."""


class Check(NamedTuple):
    """A sign of quality: what it is called, its unit, its limit, and sentences for a good and a bad value."""

    title: str
    unit: str
    limit: float
    ok: str
    check: str


CHECKS: dict[str, Check] = {
    "plane_disagreement": Check(
        "Planes disagree", "% of tissue voxels", 7.0,
        "The sagittal and the transverse prediction differ in {value} % of the tissue.",
        "The sagittal and the transverse prediction differ in {value} % of the tissue (limit {limit} %): look at the "
        "boundaries.",
    ),
    "sge_disagreement": Check(
        "S(x) and S(G(x)) disagree", "% of tissue voxels", 6.0,
        "Segmenting the scan with and without enhancement differs in {value} % of the tissue.",
        "Segmenting the scan with and without enhancement differs in {value} % of the tissue (limit {limit} %): the "
        "scan may be unlike those of the training.",
    ),
    "compared_disagreement": Check(
        "Differs from the compared labels", "% of tissue voxels", 6.0,
        "These and the compared labels differ in {value} % of the tissue.",
        "These and the compared labels differ in {value} % of the tissue (limit {limit} %).",
    ),
    "out_of_order": Check(
        "Layers out of order before decoding", "% of A-lines", 25.0,
        "Before decoding, layers were out of order on {value} % of the A-lines.",
        "Before decoding, layers were out of order on {value} % of the A-lines (limit {limit} %): the decode had to "
        "choose.",
    ),
    "field_of_view_bottom": Check(
        "Field of view ends above the deepest layer", "% of A-lines", 5.0,
        "{value} % of the A-lines end above the {last}.",
        "{value} % of the A-lines end in a layer above the {last} (limit {limit} %): that layer's thickness is a lower "
        "bound; scan deeper.",
    ),
    "field_of_view_top": Check(
        "Field of view begins below the first layer", "% of A-lines", 5.0,
        "{value} % of the A-lines begin below the {first}.",
        "{value} % of the A-lines begin in a layer below the {first} (limit {limit} %): the skin is cut off.",
    ),
    "dark_lines": Check(
        "Dark A-lines", "% of A-lines", 5.0,
        "{value} % of the A-lines are dark.",
        "{value} % of the A-lines are dark (limit {limit} %): poor contact of the probe, or air.",
    ),
    "layers_missing": Check(
        "Labels missing", "labels", 0.0,
        "Labels not found: {count}{names}.",
        "Labels not found: {count}{names}.",
    ),
    "layer_gaps": Check(
        "Gaps in a layer", "% of A-lines", 25.0,
        "The layer with most gaps, the {gappy}, is missing on {value} % of the A-lines.",
        "The {gappy} is missing on {value} % of the A-lines (limit {limit} %).",
    ),
    "order_violations": Check(
        "Layers out of order in the labels", "% of A-lines", 0.0,
        "Layers are out of order or interrupted on {value} % of the A-lines.",
        "Layers are out of order or interrupted on {value} % of the A-lines{decode}.",
    ),
}  # fmt: skip
"""Every check by name. A value above the limit asks for a look.

The limits of the first three are rounded from a simulated cohort: 40 scans of 14 subjects, segmented by a small GRN+
trained on 16 others. They are the 95th percentiles (6.4, 5.6 and 21.8 %) of the 17 scans with a mean Dice of at least
0.8, as is the limit of gaps (25.4 %; the true layers had gaps of up to 7 %). Over all 40 the plane disagreement went
with Dice at a rank correlation of −0.78, gaps at −0.70, S(x) against S(G(x)) at −0.65 and order at −0.62. These limits
depend on the network and the scans: set them anew on your own. That of compared labels is that of S(x) and S(G(x)),
which are the labels most often compared. Those of the field of view and of dark A-lines let a corner of the scan pass
(a simulated bubble darkens up to 4 %); missing labels and violated order never do."""

_LAYERED = (
    *("out_of_order", "field_of_view_bottom", "field_of_view_top", "dark_lines", "layer_gaps", "order_violations"),
)
_UNKNOWN = {
    "plane_disagreement": "Not known: inference wrote no numbers of two planes beside the labels.",
    "sge_disagreement": "Not known: inference wrote no numbers of S(x) and S(G(x)), or ran without enhancement.",
    "compared_disagreement": "Not known: there are no labels to compare.",
    "out_of_order": "Not known: inference wrote no quality file beside the labels.",
    "dark_lines": "Not known without the image.",
}
_INFERRED = ("plane_disagreement", "sge_disagreement", "out_of_order")
_NO_PREDICTION = "Not known: the cohort's own labels were measured, which are no prediction."


def check_limits(limits: Mapping[str, float] | None) -> dict[str, float]:
    """All limits, with those given in place of the defaults.

    Raises:
        InputError: an unknown name, or a limit that is not a number from 0.
    """
    chosen = {name: check.limit for name, check in CHECKS.items()}
    for name, value in (limits or {}).items():
        if name not in CHECKS:
            raise InputError("--limit", repr(name), f"one of {', '.join(CHECKS)}", "Correct the name.")
        if not (np.isfinite(value) and value >= 0):
            raise InputError("--limit", f"{name}={value}", "a number from 0", "Correct the limit.")
        chosen[name] = float(value)
    return chosen


def view_numbers(
    labels: Labels, echo_percent: npt.NDArray[np.floating] | None, layers: Sequence[int]
) -> dict[str, Any]:
    """What the labels and the image tell about the field of view and the order.

    Args:
        labels: (X, Y, Z) labels, Z = depth increasing away from the probe.
        echo_percent: (X, Y, Z) echo level in percent of the dynamic range, or None.
        layers: labels superficial to deep; the last is the muscle.

    Returns:
        Values of the checks ``field_of_view_bottom`` (an A-line ends above the deepest layer, by the last voxel or by
        black below the picture), ``field_of_view_top``, ``dark_lines``, ``layers_missing``,
        ``layer_gaps`` (of the layer with most) and ``order_violations``; ``missing``, the labels of the missing layers,
        and ``gappy``, that of the layer with most gaps. Shares are of the A-lines with tissue, for dark ones of all.
    """
    labels = np.asarray(labels)
    tissue, unordered, interrupted = order_faults(labels)
    lines = int(tissue.sum())

    def share(mask: npt.NDArray[np.bool_]) -> float | None:
        return 100 * int(np.count_nonzero(mask)) / lines if lines else None

    gaps = {label: lines - int(np.count_nonzero((labels == label).any(axis=2))) for label in layers}
    missing = [label for label in layers if gaps[label] == lines]
    found = {label: count for label, count in gaps.items() if count < lines}
    gappy = max(found, key=found.__getitem__, default=None)
    dark = None
    if echo_percent is not None:
        mean = np.stack([slab.mean(axis=1, dtype=np.float64) for slab in echo_percent])
        dark = 100 * float(np.mean(mean < DARK_SHARE * np.percentile(mean, 90)))
    return {
        "field_of_view_bottom": share(np.isin(last_labels(labels), layers[:-1])),
        "field_of_view_top": share(np.isin(labels[:, :, 0], layers[1:])),
        "dark_lines": dark,
        "layers_missing": len(missing),
        "missing": missing,
        "layer_gaps": None if gappy is None else 100 * found[gappy] / lines,
        "gappy": gappy,
        "order_violations": share(unordered | interrupted),
    }


def quality_flags(
    values: Mapping[str, Any],
    limits: Mapping[str, float],
    names: Mapping[int, str],
    notes: Mapping[str, str] | None = None,
    layered: bool = True,
    predicted: bool = True,
) -> dict[str, Any]:
    """Judges the values of a scan.

    Args:
        values: check to value, None or missing where it is not known, with ``missing`` and ``gappy``; as
            `view_numbers` gives. ``compared_disagreement`` is a check only where it is named.
        limits: as `check_limits` gives.
        names: label to layer name, superficial to deep for layers.
        notes: check to why its value is not known, in place of the usual sentence.
        layered: whether the labels are layers; otherwise the checks of order and field of view do not apply.
        predicted: whether the labels are a prediction; true labels have no numbers of inference, and no decode.

    Returns:
        ``status``, "check" if any flag asks for a look, else "ok"; ``flags`` with ``name``, ``title``, ``level``
        ("ok", "check" or "unknown"), ``value``, ``limit``, ``unit`` and ``text``; those to look at come first, then
        the unknown ones.
    """
    flags = []
    ends = list(names.values()) or [""]
    missing = ", ".join(names.get(label, str(label)) for label in values.get("missing", ()))
    words = {
        "first": ends[0],
        "last": ends[-1],
        "gappy": names.get(values.get("gappy", 0), "layer"),
        "names": f" ({missing})" if missing else "",
        "decode": ": use the ordered decode" if predicted else "",
    }
    for name, check in CHECKS.items():
        if (not layered and name in _LAYERED) or (name == "compared_disagreement" and name not in values):
            continue
        value, limit = values.get(name), limits[name]
        if value is None:
            level = "unknown"
            usual = _NO_PREDICTION if name in _INFERRED and not predicted else _UNKNOWN.get(name)
            text = (notes or {}).get(name) or usual or "Not known: the labels hold no tissue."
        else:
            level = "check" if value > limit else "ok"
            shown = {"value": _shown(value, limit), "limit": f"{limit:g}", "count": f"{value:g}"}
            text = getattr(check, level).format(**shown, **words)
        flags.append(
            {
                "name": name,
                "title": check.title,
                "level": level,
                "value": value,
                "limit": limit,
                "unit": check.unit,
                "text": text,
            }
        )
    flags.sort(key=lambda flag: ("check", "unknown", "ok").index(str(flag["level"])))
    return {"status": "check" if any(flag["level"] == "check" for flag in flags) else "ok", "flags": flags}


def _shown(value: float, limit: float) -> str:
    """One decimal, or as many as it takes that the text lies on the side of the limit, and of 0, on which the value is.

    Below a billionth that ends, and the number is given as it is.
    """
    for decimals in range(1, 10):
        text = f"{value:.{decimals}f}"
        if all(np.sign(float(text) - mark) == np.sign(value - mark) for mark in (limit, 0.0)):
            return text
    return repr(value)
