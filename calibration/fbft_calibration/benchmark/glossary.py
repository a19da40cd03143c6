"""What the words of reports and comparisons mean, as a part of a page.

Knows nothing about results.
"""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import Markup

from fbft_calibration.benchmark.tables import MISSING, NOT_THERE
from fbft_calibration.pages.page import fact_table, heading

_WORDS = (
    ("anomaly map", "a number for every pixel, larger where the part looks less like good ones."),
    ("image score", "mean of the largest 0.1 % of the anomaly map; of a peer, the score that it gives."),
    ("marked", "pixels whose anomaly map exceeds the bundle's pixel threshold, and around those, connected to them, "
     "pixels where it exceeds half of the image's largest value."),
    ("flagged", "an image whose score exceeds the image threshold, or in which something is marked."),
    ("false alarm", "a good image that was flagged."),
    ("defect", "a connected part of a true mask; an image may show several."),
    ("touched", "a defect with at least one marked pixel; how well it is outlined does not count."),
    ("false region", "a connected marked part that touches no defect."),
    ("diameter", "of the disc with the same area; images are sorted by their largest defect."),
    ("in the long run", "the range in which the true share lies with 95 % confidence (Clopper and Pearson), if what is "
     "to come is like these images; few of them make it wide. Defects of one image count as if independent."),
    ("AUROC", "chance that a defective image (or pixel) scores higher than a good one; 0.5 is guessing, 1 is perfect."),
    ("F1 max", "best balance of defects found against false alarms at any threshold: harmonic mean of recall and "
     "precision."),
    ("AP", "average precision: the share of what is found that is truly defective, averaged over recall."),
    ("AUPRO 5 %", "mean share of each defect that is covered, large and small defects alike, averaged over thresholds "
     "that wrongly mark at most 5 % of the good pixels; other limits likewise."),
    ("Q1 to Q4", "the smallest quarter of the defects, the smaller half, three quarters, all of them."),
    ("rho", "robustness to size: mean AUPRO over Q1 to Q4, times how close Q1 and Q4 are."),
    ("paper's thresholds", "99 of them, at equidistant ranks of the good pixels' scores. Few lie below a small limit, "
     "and straight lines between them may pass above or below the true curve: to compare with published numbers only."),
    ("s per image", "median seconds from pixels to verdict, of a peer to map and score. Other work on the machine adds "
     "to them: only times taken in quiet compare."),
    ("peak memory", "largest resident memory of a process that inspects, libraries included."),
    ("teacher", "the pretrained network whose features of good parts are learnt; blocks are the two of its layers "
     "that they are taken from."),
    ("tiles", "overlapping squares that an image is cut into for the teacher."),
    (NOT_THERE, "these images cannot tell: there is no good one, no defective one, or no mask."),
    (MISSING, "the run has no result of this category."),
)  # fmt: skip


def glossary() -> Iterator[Markup]:
    """HTML, part by part."""
    yield heading("Words", 2)
    yield fact_table(_WORDS)
