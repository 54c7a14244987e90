"""Every key that a table or figure can show has one display name."""

from __future__ import annotations

import re

import pytest

from gence import calibration, losses, metrics
from gence.lab.results import names, sources


def test_every_loss_metric_and_calibrator_has_a_name_of_its_own():
    for keys, name_of in (
        (losses.REGISTRY, names.loss_name),
        (metrics.METRICS, names.metric_name),
        (calibration.CALIBRATORS, names.calibrator_name),
    ):
        shown = [name_of(key) for key in keys]
        assert len(set(shown)) == len(shown)
        assert not any(re.search(r"[a-z]_[a-z]", name) for name in shown), "a display name, not an identifier"


def test_the_columns_of_calibrated_records_have_names():
    shown = [names.metric_name(column) for column in sources.calibrated_columns("cifar10", "resnet50")]
    assert len(set(shown)) == len(shown)
    assert "AdaECE after ATS (25 bins)" in shown


def test_a_variant_is_named_after_its_loss():
    assert names.loss_name("gence:strength=0.5") == "half-strength GenCE"
    assert names.loss_name("gence:balanced:strength=0.2") == "GenCE, class-balanced batches, strength 0.2"


@pytest.mark.parametrize(
    ("name_of", "wrong", "near"),
    [
        (names.loss_name, "gense", "gence"),
        (names.metric_name, "nlll", "nll"),
        (names.calibrator_name, "temperatur", "temperature"),
        (names.metric_name, "ats_nonsense", None),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(name_of, wrong, near):
    said = f"{wrong}.*has no display name" + (f".*did you mean '{near}'" if near else "")
    with pytest.raises(ValueError, match=said):
        name_of(wrong)
