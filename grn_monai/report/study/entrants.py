"""The rows of the tables: a method in one mode of prediction, found by its group and bundle, never by its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grn_monai.report.study.collect import StudyResults
from grn_monai.report.study.plan import PlannedMethod

__all__ = ["GROUPS", "Entrant", "Place", "Roles", "all_entrants", "entrants_of", "roles"]

GROUPS = ("supervised", "semi-supervised", "grn", "ablation", "network", "control", "outside")
"""The groups that tables know; methods of any other group stand beside the comparators."""

_MODES = {"raw": "", "sge": " w. SGE"}


@dataclass(frozen=True)
class Entrant:
    """A method in one mode: "raw" S(x), "sge" S(G(x))."""

    method: PlannedMethod
    mode: str

    @property
    def title(self) -> str:
        """What tables call it, as the papers do."""
        return self.method.title + _MODES.get(self.mode, f" ({self.mode})")

    @property
    def key(self) -> str:
        """Method and mode for a file: `grn_plus_sge`."""
        return self.method.key if self.mode == "raw" else f"{self.method.key}_{self.mode}"


@dataclass(frozen=True)
class Place:
    """Where a comparison is made: one row of a table at one fraction of labels."""

    entrant: Entrant
    fraction: float


def all_entrants(results: StudyResults) -> list[Entrant]:
    """Every method in each of its modes, in the order of the plan."""
    return [Entrant(method, mode) for method in results.methods.values() for mode in method.modes]


def entrants_of(results: StudyResults, groups: Sequence[str], others: bool = False) -> list[Entrant]:
    """Entrants of some groups, in the order of the groups, then of the plan.

    Args:
        results: the study.
        groups: names of groups.
        others: groups that no table knows too, before "outside".
    """
    wanted = list(groups)
    if others:
        unknown = dict.fromkeys(m.group for m in results.methods.values() if m.group not in GROUPS)
        place = wanted.index("outside") if "outside" in wanted else len(wanted)
        wanted[place:place] = unknown
    every = all_entrants(results)
    return [entrant for group in wanted for entrant in every if entrant.method.group == group]


@dataclass(frozen=True)
class Roles:
    """Who is who in the papers' comparisons; None for what the study lacks.

    Attributes:
        supervised: the supervised U-Net: the first method of group "supervised".
        grn_plus, grn_sel, grn_ssl: the plainest method of group "grn" on that bundle, the first of equals.
    """

    supervised: PlannedMethod | None
    grn_plus: PlannedMethod | None
    grn_sel: PlannedMethod | None
    grn_ssl: PlannedMethod | None

    @property
    def reference(self) -> Entrant | None:
        """The supervised U-Net as a row."""
        return Entrant(self.supervised, self.supervised.modes[0]) if self.supervised else None

    @property
    def proposed(self) -> Entrant | None:
        """The papers' last word: GRN+ with SGE; where the study lacks GRN+, GRN-SSL or GRN-SEL."""
        method = self.grn_plus or self.grn_ssl or self.grn_sel
        return Entrant(method, "sge" if "sge" in method.modes else method.modes[0]) if method else None


def roles(results: StudyResults) -> Roles:
    """Find the papers' methods among those of a study."""

    def first(group: str, end: str = "") -> PlannedMethod | None:
        own = [m for m in results.methods.values() if m.group == group and m.bundle.endswith(end)]
        # The plain method goes before its variants, which have more overlays or options.
        return min(own, key=lambda m: (len(m.overlays), len(m.options)) if end else (0, 0), default=None)

    return Roles(first("supervised"), first("grn", "grn_plus"), first("grn", "grn_sel"), first("grn", "grn_ssl"))
