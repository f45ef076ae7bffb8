"""What a study is asked: the effects of the GRN paper, and the families of comparisons that are corrected together.

Every comparison of a report is in one family at most, so it has one corrected p wherever it stands. A family has its
planned size from the start. Results from outside are in none: they are trained under other conditions.
"""

from __future__ import annotations

from dataclasses import dataclass

from grn_monai.report.study.collect import StudyResults
from grn_monai.report.study.entrants import Entrant, Place, entrants_of, roles

__all__ = ["Effect", "Family", "effects", "families"]


@dataclass(frozen=True)
class Effect:
    """One effect: `entrant` less `reference` at the same fraction; `key` names it among the printed ones."""

    key: str
    title: str
    entrant: Entrant
    reference: Entrant

    @property
    def kind(self) -> str:
        """ "raug", "sge" or "ssl"."""
        return self.key.partition("_")[0]

    def asked_at(self, fraction: float) -> bool:
        """Whether there is a question: with all labels there are no unlabelled images that could help."""
        return self.kind != "ssl" or fraction < 1


def effects(results: StudyResults) -> list[Effect]:
    """RAug, SGE and SSL of the GRN paper, and SGE of every method that has both modes."""
    who = roles(results)
    found = []
    for name, method in (("raug", who.grn_sel), ("raug_grn_plus", who.grn_plus)):
        if method and who.reference and "raw" in method.modes:
            title = f"RAug: {method.title} S(x) − {who.reference.title}"
            found.append(Effect(name, title, Entrant(method, "raw"), who.reference))
    names = {id(who.grn_sel): "sge_sel", id(who.grn_ssl): "sge_ssl"}
    for method in results.methods.values():
        if {"raw", "sge"} <= set(method.modes) and method.group != "ablation":
            key = names.get(id(method), f"sge_{method.key}")
            title = f"SGE: {method.title}, S(G(x)) − S(x)"
            found.append(Effect(key, title, Entrant(method, "sge"), Entrant(method, "raw")))
    if who.grn_ssl and who.grn_sel:
        for mode, end in (("raw", ""), ("sge", " with SGE")):
            if mode in who.grn_ssl.modes and mode in who.grn_sel.modes:
                title = f"SSL: {who.grn_ssl.title} − {who.grn_sel.title}{end}"
                key = "ssl" if mode == "raw" else "ssl_sge"
                found.append(Effect(key, title, Entrant(who.grn_ssl, mode), Entrant(who.grn_sel, mode)))
    return found


@dataclass(frozen=True)
class Family:
    """Comparisons that are corrected together: (place, reference) pairs as planned, scored or not."""

    name: str
    fraction: float
    pairs: tuple[tuple[Place, Place], ...]


def families(results: StudyResults) -> list[Family]:
    """The families of every fraction; a pair that several would have belongs to the first."""
    who = roles(results)
    reference, proposed = who.reference, who.proposed

    def against(target: Entrant | None, groups: tuple[str, ...], others: bool = False) -> list[tuple[Entrant, Entrant]]:
        return [(e, target) for e in entrants_of(results, groups, others) if target and e.method.group != "outside"]

    found = []
    for fraction in results.fractions:
        every = {
            "methods": against(reference, ("supervised", "semi-supervised", "grn"), others=True),
            "effects": [(e.entrant, e.reference) for e in effects(results) if e.asked_at(fraction)],
            "comparators": against(proposed, ("semi-supervised",)),
            "controls": against(proposed, ("supervised", "control")),
            "networks": against(proposed, ("network", "grn")),
            "sizes": against(reference, ("network", "control")),
            "ablations": against(reference, ("ablation",)),
        }
        titles = {
            "methods": f"methods against {reference.title if reference else ''}",
            "effects": "effects of SGE and SSL",
            "comparators": f"{proposed.title if proposed else ''} against semi-supervised methods",
            "controls": f"{proposed.title if proposed else ''} against controls",
            "networks": f"{proposed.title if proposed else ''} against networks and other GRN methods",
            "sizes": f"networks and controls against {reference.title if reference else ''}",
            "ablations": f"ablations against {reference.title if reference else ''}",
        }
        seen: set[frozenset[Entrant]] = set()
        for name, pairs in every.items():
            own = []
            for a, b in pairs:
                planned = results.select(a.method.key, fraction) and results.select(b.method.key, fraction)
                if a != b and planned and frozenset((a, b)) not in seen:
                    seen.add(frozenset((a, b)))
                    own.append((Place(a, fraction), Place(b, fraction)))
            if own:
                found.append(Family(titles[name], fraction, tuple(own)))
    return found
