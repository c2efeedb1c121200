"""The model card shows the manifest and nothing else."""

import re

from services.scoring.manifest import MODEL_CARD_FILE, Fairness, Manifest, Timing
from services.training.card import accuracy_table, model_card
from services.training.train import Published
from shared.contract.application import MONITORED


def with_gender_ratio(manifest: Manifest, ratio: float | None) -> Manifest:
    """Return the manifest with another selection-rate ratio for one model."""
    model = manifest.models["random_forest"]
    gender = model.fairness["Gender"].model_copy(update={"selection_rate_ratio": ratio})
    changed = model.model_copy(update={"fairness": model.fairness | {"Gender": gender}})
    return manifest.model_copy(update={"models": manifest.models | {"random_forest": changed}})


def without_groups(manifest: Manifest, attribute: str) -> Manifest:
    """Return the manifest as it is when no row has the attribute."""
    nothing = Fairness(
        groups={},
        selection_rates={},
        selection_rate_ratio=None,
        true_positive_rates={},
        true_positive_rate_gap=None,
    )
    models = {
        name: model.model_copy(update={"fairness": model.fairness | {attribute: nothing}})
        for name, model in manifest.models.items()
    }
    return manifest.model_copy(update={"models": models})


def test_published_card_is_made_from_the_published_manifest(trained: Published) -> None:
    """The manifest alone is enough to make the card again."""
    published = (trained.folder / MODEL_CARD_FILE).read_text(encoding="utf-8")
    assert published == model_card(trained.manifest)


def test_every_picture_of_the_card_is_in_the_bundle(trained: Published) -> None:
    """No link is broken, and every picture is shown."""
    shown = set(re.findall(r"\]\((.+?)\)", model_card(trained.manifest)))
    assert shown == {name for name in trained.manifest.files if name.endswith(".png")}
    for name in shown:
        assert (trained.folder / name).read_bytes().startswith(b"\x89PNG")


def test_card_says_what_every_model_is_worth(trained: Published) -> None:
    """All verdicts and the reason for the champion appear word for word."""
    card = model_card(trained.manifest)
    assert trained.manifest.champion_reason in card
    for model in trained.manifest.models.values():
        assert all(sentence in card for sentence in model.verdict)


def test_accuracy_table_has_the_baselines_beside_the_models(trained: Published) -> None:
    """There are six rows, each mean with its interval."""
    table = accuracy_table(trained.manifest)
    assert len(table.splitlines()) == 2 + 4 + 2
    rule = trained.manifest.baselines["credit_history_rule"].cross_validation.accuracy
    assert f"| Credit_History rule | {rule.mean:.3f} ({rule.low:.3f} to {rule.high:.3f}) |" in table
    assert "(champion)" in table


def test_only_the_last_section_depends_on_the_clock(trained: Published) -> None:
    """Other timings leave everything before the section Times as it is."""
    slow = Timing(training_time_s=99, prediction_time_per_row_ms=88)
    slower = trained.manifest.model_copy(
        update={"timings": dict.fromkeys(trained.manifest.timings, slow)}
    )
    before, times = model_card(trained.manifest).split("## Times")
    slower_before, slower_times = model_card(slower).split("## Times")
    assert before == slower_before
    assert times != slower_times


def test_card_names_who_falls_below_four_fifths(trained: Published) -> None:
    """A low selection-rate ratio is named in words; one that cannot be computed is n/a."""
    finding = "Below the four-fifths rule's 0.8: Random forest by Gender"
    assert finding in model_card(with_gender_ratio(trained.manifest, 0.79))
    assert finding not in model_card(with_gender_ratio(trained.manifest, 0.8))
    assert "| n/a |" in model_card(with_gender_ratio(trained.manifest, None))


def test_card_says_what_is_never_scored(trained: Published) -> None:
    """Gender and Married are named, with the law that forbids scoring them."""
    card = model_card(trained.manifest)
    assert " and ".join(MONITORED) in card
    assert "Equal" in card.split("**Never scored:**")[1].split("\n")[0]


def test_fairness_of_groups_that_the_data_do_not_hold_cannot_be_told(trained: Published) -> None:
    """A lender may not hold Gender: the card says that it knows nothing, and shows no empty row."""
    card = model_card(without_groups(trained.manifest, "Gender"))
    fairness = card.split("## Fairness")[1].split("\n## ")[0]
    assert "by Gender cannot be told: the training data do not hold it." in fairness
    assert "| Gender |" not in fairness
    assert "| Married |" in fairness
    card = model_card(without_groups(without_groups(trained.manifest, "Gender"), "Married"))
    fairness = card.split("## Fairness")[1].split("\n## ")[0]
    assert "by Gender and Married cannot be told" in fairness
    assert "four-fifths" not in fairness


def test_card_says_which_model_is_fitted_on_a_sample(trained: Published) -> None:
    machine = trained.manifest.models["support_vector_machine"]
    models = trained.manifest.models | {
        "support_vector_machine": machine.model_copy(update={"fitted_on": 200})
    }
    sentence = " is fitted on a stratified sample of "
    card = model_card(trained.manifest.model_copy(update={"models": models}))
    assert f"Support vector machine{sentence}200 rows" in card
    assert card.count(sentence) == 1
    assert sentence not in model_card(trained.manifest)
