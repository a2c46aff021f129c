"""Where a model fails, as the page shows it: slices, errors, uncertainty, and what it looks at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, TypeVar

from ml_core.evaluation.plots import METRIC_LABELS
from ml_core.evaluation.report.failures_errors import ErrorsPart, build_errors_part
from ml_core.evaluation.report.failures_files import Content, read_contents
from ml_core.evaluation.report.failures_looks import (
    SaliencyPart,
    VisibilityPart,
    build_saliency_part,
    build_visibility_part,
)
from ml_core.evaluation.report.failures_pictures import Pictures, Place, first_of, take_pictures
from ml_core.evaluation.report.failures_probes import (
    RobustnessPart,
    ShortcutsPart,
    build_robustness_part,
    build_shortcuts_part,
)
from ml_core.evaluation.report.failures_slices import SlicesPart, build_slices_part
from ml_core.evaluation.report.failures_trust import TrustPart, build_trust_part
from ml_core.evaluation.report.gallery import ReadPatches
from ml_core.evaluation.report.known_patches import KnownPatches
from ml_core.evaluation.report.run_facts import RunFacts
from ml_core.findings import Finding
from ml_core.page.text import percent

T = TypeVar("T")

MAX_PICTURES = 240  # of 4 to 6 KB each; four small ones of neighbours count as one
MAX_SMALL = 120


@dataclass(frozen=True)
class FailuresPage:
    """The part of one split of one run; `anchor` starts each of its ids.

    Each part is None where its file, or that part of it, is not there; `contents` says why. Of
    test there is no explain.json, which its stage refuses to make.
    In a template: {% from "failures.html.j2" import failures_block %}, then
    failures_block(page, level); the style sheet is `failures_css()`.
    """

    anchor: str
    split: str
    folder: str
    contents: Mapping[str, Content]
    slices: SlicesPart | None
    errors: ErrorsPart | None
    trust: TrustPart | None
    saliency: SaliencyPart | None
    visibility: VisibilityPart | None
    robustness: RobustnessPart | None
    shortcuts: ShortcutsPart | None
    known: KnownPatches
    pictures: Pictures
    findings: Sequence[Finding]

    def notes_of(self, what: str) -> list[str]:
        """Return what a file notes beside its numbers; graver findings are in the verdict."""
        if what not in self.contents:
            return []
        found = self.contents[what].findings
        return [finding.message for finding in found if finding.severity == "info"]

    def said_of_seeds(self, share: float) -> str:
        """Return which share of the other seeds agrees: how many, where their number is known."""
        others = self.trust.seeds.num_runs - 1 if self.trust and self.trust.seeds else 0
        agreeing = share * others
        if others < 1 or abs(agreeing - round(agreeing)) > 0.01:
            return f"seeds agree {percent(share, 0)}"
        agree = "agrees" if round(agreeing) == 1 else "agree"
        seeds = "seed" if others == 1 else "seeds"
        return f"{round(agreeing)} of {others} other {seeds} {agree}"

    @property
    def other_notes(self) -> list[Finding]:
        """Notes that are of none of the files."""
        known = {finding for content in self.contents.values() for finding in content.ids}
        return [f for f in self.findings if f.severity == "info" and f.id not in known]

    @property
    def metric_labels(self) -> Mapping[str, str]:
        return METRIC_LABELS

    @property
    def unread(self) -> list[Content]:
        """The files that nothing is shown of."""
        return [content for content in self.contents.values() if not content.values]


def failures_css() -> str:
    """Return the style sheet of this part, beyond the page's."""
    return resources.files(__package__).joinpath("failures.css").read_text(encoding="utf-8")


def build_failures_page(
    facts: RunFacts,
    anchor: str,
    read_patches: ReadPatches | None,
    split: str = "valid",
    *,
    max_pictures: int = MAX_PICTURES,
) -> FailuresPage:
    """Return everything the page shows of the four files of `split`, figures drawn.

    slices.json, errors.json, uncertainty.json and explain.json may each be absent, of another
    format, damaged, or of other weights than were scored: it is said, never raised.
    `read_patches(split, index)` gives patches at rising rows, (N, H, W, 3) uint8; at most
    `max_pictures` are shown, the worst first. The template's heading has the id `anchor`.
    """
    contents = read_contents(facts, split)
    findings = [finding for content in contents.values() for finding in content.findings]

    def saliency_part(values: Mapping[str, Any], anchor: str, source: str) -> SaliencyPart:
        return build_saliency_part(values, anchor, source, split, read_patches)

    def part(what: str, key: str, build: Callable[[Mapping[str, Any], str, str], T]) -> T | None:
        content = contents.get(what)
        if content is None:
            return None
        values = content.values.get(key) if key else content.values
        if not values:
            return None
        try:
            return build(values, anchor, content.name)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            findings.append(_damaged(content, key, error))
            return None

    slices = part("slices", "", lambda values, *_: build_slices_part(values))
    errors = part("errors", "", lambda values, *_: build_errors_part(values))
    saliency = part("explain", "saliency", saliency_part)
    pictures = _pictures(read_patches, anchor, split, slices, errors, saliency, max_pictures)
    if pictures.problem:
        message = f"Not all patches are shown: some could not be read. {pictures.problem}"
        findings.append(Finding("patches-not-read", "info", message))
    return FailuresPage(
        anchor=anchor,
        split=split,
        folder=facts.folder,
        contents=contents,
        slices=slices,
        errors=errors,
        trust=part("uncertainty", "", build_trust_part),
        saliency=saliency,
        visibility=part("explain", "visibility", build_visibility_part),
        robustness=part("explain", "robustness", build_robustness_part),
        shortcuts=part("slices", "shortcuts", build_shortcuts_part),
        known=KnownPatches.of(facts, split, contents["slices"].values),
        pictures=pictures,
        findings=findings,
    )


def _damaged(content: Content, key: str, error: Exception) -> Finding:
    where = f"the part {key!r} of {content.name}" if key else content.name
    message = (
        f"{where} is not as this version writes it ({type(error).__name__}: {error}), so nothing "
        f"is shown of it. Write it again with: {content.command}"
    )
    return Finding(f"damaged-{content.name}", "error", message)


def _pictures(
    read_patches: ReadPatches | None,
    anchor: str,
    split: str,
    slices: SlicesPart | None,
    errors: ErrorsPart | None,
    saliency: SaliencyPart | None,
    most: int,
) -> Pictures:
    """Return the pictures in the order in which they are needed until there are enough."""
    wishes: list[list[Place]] = []
    small: list[Place] = []
    if slices is not None:
        wishes.append([(split, index) for index in slices.wanted_first])
    if errors is not None:
        for gallery in errors.galleries:
            wishes.append([(split, card.index) for card in gallery.cards])
            small += [(n.split, n.index) for card in gallery.first for n in card.neighbours]
    if saliency is not None:
        wishes.insert(0, [(split, example.index) for example in saliency.examples])
    if slices is not None:
        wishes.append([(split, index) for index in slices.wanted_then])
    neighbours = first_of(small, most=min(MAX_SMALL, most))
    whole = first_of(*wishes, most=most - len(neighbours) // 4)
    return take_pictures(read_patches, whole, anchor, neighbours)
