"""Few labelled scans of the back to segmentations and measurements: GRN, GRN+ and SGE on MONAI."""

__version__ = "0.1.0"
