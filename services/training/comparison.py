"""What would change if a candidate took the place of the bundle that is served."""

from typing import Final

import numpy as np

from services.scoring.registry import Bundle
from services.training.applications import LabelledApplications
from services.training.evaluation import METRICS, OutOfFold, interval, splits
from services.training.models import Probabilities

_SHOWN: Final = {"log_loss": "log-loss", "accuracy": "accuracy", "auc": "AUC"}


def nothing_new(version: str) -> str:
    """The sentence for a training that came out with the bundle that is served."""
    return f"Nothing new came out: the candidate is the bundle that is served, {version}."


def comparison(
    data: LabelledApplications, out_of_fold: OutOfFold, candidate: Bundle, served: Bundle
) -> str:
    """Compare the champions of both, on the rows that each fold held out, and their decisions.

    The candidate's probabilities are out of fold. The served champion answers as it is served: it
    may know some of the rows from its own training, which flatters it.
    """
    if candidate.manifest.version == served.manifest.version:
        return nothing_new(served.manifest.version)
    now, then = (_probabilities(data, bundle) for bundle in (served, candidate))
    name, folds = candidate.manifest.champion, out_of_fold.folds
    held_out = [
        test
        for _, test in splits(data.approved, folds=folds, repeats=len(out_of_fold.approvals[name]))
    ]
    lines = [f"{'':<10}{'candidate':>12}{'served':>12}   difference, 95 % interval"]
    for metric, title in _SHOWN.items():
        ours = out_of_fold.scores[name][metric]
        theirs = np.array([METRICS[metric](data.approved[test], now[test]) for test in held_out])
        gap = interval(ours - theirs, folds=folds)
        lines.append(
            f"{title:<10}{ours.mean():>12.4f}{theirs.mean():>12.4f}"
            f"   {gap.mean:+.4f} ({gap.low:+.4f} to {gap.high:+.4f})"
        )
    approved_now = now >= served.manifest.threshold
    approved_then = then >= candidate.manifest.threshold
    table = "\n".join(lines)
    known = "All" if served.manifest.data.sha256 == data.sha256 else "Some"
    return f"""\
Candidate {candidate.manifest.version} ({_champion(candidate)}) and served \
{served.manifest.version} ({_champion(served)}), means over the same {len(held_out)} folds:
{table}
{known} rows may be known to the served bundle from its own training, which flatters it.
Of {len(now):,} applications, the candidate would approve \
{(approved_then & ~approved_now).sum():,} that are rejected now, and reject \
{(approved_now & ~approved_then).sum():,} that are approved now."""


def _champion(bundle: Bundle) -> str:
    return bundle.manifest.models[bundle.manifest.champion].title


def _probabilities(data: LabelledApplications, bundle: Bundle) -> Probabilities:
    champion = bundle.champion
    return np.array(
        [champion.approval_probability(bundle.row_of(each)) for each in data.applications]
    )
