"""The bundle contract for the U-Net baseline."""

from __future__ import annotations

from tests.bundles.contract import BundleContract


class TestSupervised(BundleContract):
    bundle = "us_layers_supervised"
