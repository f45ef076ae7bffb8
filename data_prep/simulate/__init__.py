"""Simulated 3D ultrasound scans of the low back, with their layer labels. See docs/simulator.md."""
