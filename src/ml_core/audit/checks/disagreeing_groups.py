"""Groups of patches that look like each other and whose label is not that of their surroundings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import xlogy

from ml_core.findings import Finding

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]

# How many nearest patches make a ball, and from which log likelihood ratio on it is strange. Clean
# real patches reach at most 11, 21, 39 and 32 (1,000 to 19,171 patches of each split); a flipped
# group in pure surroundings gives 70 % or more of 2.5 per patch.
_STRANGE = {12: 18.0, 25: 30.0, 50: 52.0, 100: 52.0}
_RING = 5  # a ball of m patches is compared with the patches from there to the 5 m nearest
_FOREIGN = 0.25  # of the ring at most this share may have the ball's label
_CELL_SIZE = 4096  # patches among which neighbours are sought: bounds the pairs to 4096 per patch
_CHUNK = 512  # rows of distances at once: 8 MB
_LEAST_PATCHES = 1000  # of a split: among fewer, clean real patches can look like a group
_NUM_EXAMPLES = 12
_NUM_SHOWN = 6  # patches of a group


class Scan(NamedTuple):
    """For each row the ball around it that is strangest, and how strange it is."""

    strangeness: Floats32  # log likelihood ratio over the one from which a ball is strange
    size: Ints  # patches in that ball; 0 where no ball has a label foreign to its surroundings
    cell: Ints  # rows of one cell have the same number


def check_disagreeing_groups(patches: pd.DataFrame, features: Floats32) -> list[Finding]:
    """Return one warning per split that has groups whose label is not that of their surroundings.

    `features` are aligned with `patches`; exact repeats count once; label -1 is left out. Every
    patch is looked at, together with its neighbours in a cell of at most 4096.

    Sees: 30 to 100 patches that look alike and were flipped together where at least 85 % of what is
    around them is of their class (of such balls among 5,000 real patches nine in ten are found).
    Cannot see: anything in a split of fewer than 1,000 patches; fewer than about 10; a group where
    the classes mix anyway, for there is nothing to disagree with (at 70 to 85 % a quarter is found,
    below none); a look flipped as a whole, a slide for example, which has no unflipped patches
    around it; scattered flips (`check_label_errors` sees those); and it may miss the part of a
    group that a cell cuts off. A real look that is rare and distinct can be found too: hence a
    warning, and no exclusion.
    """
    findings = []
    known = patches[(patches["label"] >= 0) & ~patches.duplicated(["split", "content_hash"])]
    for split in patches["split"].unique():
        own = known["split"] == split
        rows = np.flatnonzero(patches.index.isin(known.index[own]))
        if len(rows) < _LEAST_PATCHES:
            continue
        labels = patches["label"].to_numpy()[rows].astype(np.int64)
        inputs = _standardise(features[rows])
        groups = find_groups(inputs, labels, scan_balls(inputs, labels))
        if groups:
            index = patches["index"].to_numpy()[rows]
            findings.append(_describe(str(split), groups, labels, index))
    return findings


def _describe(split: str, groups: list[Ints], labels: Ints, index: Ints) -> Finding:
    members = np.unique(np.concatenate(groups))
    largest = max(groups, key=len)
    in_groups = "one group" if len(groups) == 1 else f"{len(groups)} groups"
    name = ("normal", "tumour")[labels[largest[0]]]
    return Finding(
        "disagreeing-groups",
        "warning",
        f"{split}: {len(members):,} patches in {in_groups} of like patches are labelled "
        f"unlike the patches around them; the largest holds {len(largest)} labelled {name}.",
        "Look at the examples: were these flipped on purpose or by a batch mistake, or are they a "
        "rare look of their own?",
        split=split,
        count=len(members),
        share=len(members) / len(labels),
        indices=tuple(sorted(index[members].tolist())),
        examples=tuple(
            tuple((split, int(each)) for each in index[group[:_NUM_SHOWN]])
            for group in groups[:_NUM_EXAMPLES]
        ),
        facts={
            "groups": [
                {"num_patches": len(group), "label": int(labels[group[0]])} for group in groups
            ],
            "num_examined": len(labels),
            "cell_size": _CELL_SIZE,
            "ball_sizes": list(_STRANGE),
        },
    )


def _standardise(features: Floats32) -> Floats32:
    """Return a copy with mean 0 and standard deviation 1 per column, constants as 0."""
    if len(features) == 0:
        return features
    scale = features.std(axis=0, dtype=np.float64)
    scaled: Floats32 = features - features.mean(axis=0, dtype=np.float64).astype(np.float32)
    scaled /= np.where(scale > 1e-6, scale, 1).astype(np.float32)
    return scaled


def scan_balls(features: Floats32, labels: Ints) -> Scan:
    """Return the strangest ball of neighbours around each row of features (n, d), labels 0 or 1.

    Strangeness is the log likelihood ratio of Kulldorff's spatial scan statistic ("A spatial scan
    statistic", 1997), Bernoulli model: the row's own label is frequent inside the ball and
    infrequent in the ring around it, against one frequency for both. Neighbours are sought within a
    cell of at most 4096 rows that are cut by principal directions.
    """
    strangeness = np.zeros(len(labels), np.float32)
    size = np.zeros(len(labels), np.int64)
    cell = np.zeros(len(labels), np.int64)
    for number, inside in enumerate(_cells(features)):
        cell[inside] = number
        for chunk, by_distance in _labels_by_distance(features[inside], labels[inside]):
            rows = inside[chunk]
            # of the label of the row, among the nearest 1, 2, 3, ...
            counts = np.cumsum(by_distance == labels[rows, None], axis=1, dtype=np.int64)
            for ball, strange in _STRANGE.items():
                if _RING * ball > counts.shape[1]:
                    break
                ratio = _log_ratio(counts[:, ball - 1], counts[:, _RING * ball - 1], ball) / strange
                better = ratio > strangeness[rows]
                strangeness[rows[better]] = ratio[better]
                size[rows[better]] = ball
    return Scan(strangeness, size, cell)


def find_groups(features: Floats32, labels: Ints, scan: Scan) -> list[Ints]:
    """Return the rows of each strange group, the strangest group first.

    A group is what the strange balls of one label that share patches hold of that label.
    """
    centres = np.flatnonzero(scan.strangeness > 1)
    centres = centres[np.argsort(-scan.strangeness[centres], kind="stable")]
    if len(centres) == 0:
        return []
    pairs = _balls(features, labels, scan, centres)
    ball = np.repeat(np.arange(len(centres)), [len(members) for members in pairs])
    members = np.concatenate(pairs)
    shape = (len(labels) + len(centres),) * 2
    graph = coo_array((np.ones(len(ball)), (len(labels) + ball, members)), shape=shape)
    component = connected_components(graph.tocsr(), directed=False)[1]
    of_centre = component[len(labels) :]
    first = np.sort(np.unique(of_centre, return_index=True)[1])
    return [np.unique(members[component[members] == of_centre[each]]) for each in first]


def _balls(features: Floats32, labels: Ints, scan: Scan, centres: Ints) -> list[Ints]:
    """Return for each centre the rows of its ball that have its label."""
    balls = {}
    for number in np.unique(scan.cell[centres]):
        rows = np.flatnonzero(scan.cell == number)
        inside = features[rows]
        for centre in centres[scan.cell[centres] == number]:
            distance = ((inside - features[centre]) ** 2).sum(axis=1)
            nearest = rows[np.argpartition(distance, scan.size[centre])[: scan.size[centre] + 1]]
            balls[centre] = nearest[labels[nearest] == labels[centre]]
    return [balls[centre] for centre in centres]


def _labels_by_distance(features: Floats32, labels: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Yield rows, and the labels of the other rows nearest to each, the nearest first.

    As many as the largest ball and its ring need, or all there are.
    """
    num = min(_RING * max(_STRANGE), len(labels) - 1)
    squares = (features**2).sum(axis=1)
    for start in range(0, len(labels), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(labels)))
        distance = -2 * features[rows] @ features.T
        distance += squares[rows, None]
        distance += squares
        np.maximum(distance, 0, out=distance)  # rounding
        distance[np.arange(len(rows)), rows] = 0
        # The bits of a float that is not negative rise with it: with the label in the last bit,
        # sorting integers, which is vectorised, replaces an argsort of the distances.
        keys = distance.view(np.int32)
        keys &= ~1
        keys |= labels.astype(np.int32)
        keys[np.arange(len(rows)), rows] = -1  # the row itself comes first, and is dropped
        keys.partition(num, axis=1)
        yield rows, np.sort(keys[:, : num + 1], axis=1)[:, 1:] & 1


def _log_ratio(inside: Ints, both: Ints, ball: int) -> Floats:
    """Return the log likelihood ratio of `inside` of `ball`, where ball and ring hold `both`."""
    ring = (_RING - 1) * ball
    outside = both - inside
    ratio = (
        _log_likelihood(inside, ball)
        + _log_likelihood(outside, ring)
        - _log_likelihood(both, _RING * ball)
    )
    foreign = (inside * ring > outside * ball) & (outside <= _FOREIGN * ring)
    return np.where(foreign, ratio, 0)


def _log_likelihood(count: Ints, num: int) -> Floats:
    result: Floats = xlogy(count, count / num) + xlogy(num - count, 1 - count / num)
    return result


def _cells(features: Floats32) -> list[Ints]:
    """Return the rows cut into halves along principal directions until 4096 or fewer are left."""
    cells, done = [np.arange(len(features))], []
    while cells:
        rows = cells.pop()
        if len(rows) <= _CELL_SIZE:
            done.append(rows)
            continue
        inside = features[rows]
        centred = inside - inside.mean(axis=0)
        direction = np.linalg.eigh(centred.T @ centred)[1][:, -1]
        order = np.argsort(centred @ direction, kind="stable")
        half = len(rows) // 2
        cells += [np.sort(rows[order[:half]]), np.sort(rows[order[half:]])]
    return done
