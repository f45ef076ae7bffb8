"""Transforms: each as an array transform and as its dictionary twin with the suffix ``d``."""

from __future__ import annotations

from .bmode import BMode, BModed, envelope, log_compress
from .decide import DecideLabelsd
from .depth import DepthLast, DepthLastd, depth_order
from .echo import ScaleEcho, ScaleEchod, echo_range, scale_echo
from .fit import FitSlices, FitSlicesd
from .flip_sides import FlipSides, FlipSidesd, RandFlipSidesd, side_pairs
from .found import ReportMissingd
from .largest import LargestPart, LargestPartd
from .load import LoadScan, LoadScand
from .ordered import OrderedLayers, OrderedLayersd, decode_ordered
from .quality import ArgmaxLabelsd, SaveQualityd, ScanQualityd, SplitOutputsd, argmax_labels
from .slices import (
    PLANES,
    SlicesToVolume,
    SlicesToVolumed,
    VolumeToSlices,
    VolumeToSlicesd,
    plane_axis,
    planes_within,
    resize_slices,
    slices_to_volume,
    take_slice,
    volume_to_slices,
)

__all__ = [
    "PLANES",
    "ArgmaxLabelsd",
    "BMode",
    "BModed",
    "DecideLabelsd",
    "DepthLast",
    "DepthLastd",
    "FitSlices",
    "FitSlicesd",
    "FlipSides",
    "FlipSidesd",
    "LargestPart",
    "LargestPartd",
    "LoadScan",
    "LoadScand",
    "OrderedLayers",
    "OrderedLayersd",
    "RandFlipSidesd",
    "ReportMissingd",
    "SaveQualityd",
    "ScaleEcho",
    "ScaleEchod",
    "ScanQualityd",
    "SlicesToVolume",
    "SlicesToVolumed",
    "SplitOutputsd",
    "VolumeToSlices",
    "VolumeToSlicesd",
    "argmax_labels",
    "decode_ordered",
    "depth_order",
    "echo_range",
    "envelope",
    "log_compress",
    "plane_axis",
    "planes_within",
    "resize_slices",
    "scale_echo",
    "side_pairs",
    "slices_to_volume",
    "take_slice",
    "volume_to_slices",
]
