"""The bundles in MONAI Label: an app that serves them, trains them on saved labels, and ranks what to label next.

Everything but `layout` and `scores` needs the package ``monailabel``, which lives in an environment of its own
(``make label``).
"""
