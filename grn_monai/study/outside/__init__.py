"""Methods of other projects on the cohort of a study, scored as its own methods are."""

from __future__ import annotations
