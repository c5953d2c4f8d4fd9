"""Comparisons, verdicts and claims on invented results whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from personae.errors import StudyError
from personae.study.comparison.claims import judge_claims
from personae.study.comparison.comparison import Comparison
from personae.study.comparison.limits import Limits
from personae.study.comparison.verdict import best_of, decide
from study_world import SHOTS, finished, write_finding

FOUR = ["lora", "dreambooth", "hypernetwork", "textual_inversion"]
FINDINGS = {
    "lora": {"likeness": 0.70, "agreement": 0.30, "seconds": 58, "file_bytes": 1_600_000},
    "dreambooth": {
        "likeness": 0.75,
        "agreement": 0.20,
        "seconds": 180,
        "file_bytes": 47_000_000,
        "peak_bytes": 2**30,
        "switch_seconds": 0.2,
    },
    "hypernetwork": {"likeness": 0.60, "agreement": 0.28, "seconds": 80, "file_bytes": 5_000_000},
    "textual_inversion": {
        "likeness": 0.50,
        "agreement": 0.30,
        "seconds": 70,
        "file_bytes": 8_000,
        "parameters": 100,
    },
    "untouched": {"likeness": 0.3, "agreement": 0.3, "medium_adherence": 0.2, "consistency": 0.4},
    "real": {"likeness": 0.8},
}


def compared(character, folder, findings=FINDINGS, **values):
    grid = {"character": str(character), "technique": FOUR, **values}
    return Comparison.of(finished(folder, grid, findings))


def test_rows_have_the_means_that_were_found_and_shares_of_the_ceiling(character, tmp_path):
    comparison = compared(character, tmp_path)
    assert [row.name for row in comparison.rows] == [*FOUR, "untouched", "real"]
    lora = comparison.row("lora")
    likeness = lora.mean("likeness")
    assert likeness == pytest.approx(0.70, abs=0.01)
    assert lora.mean("likeness_share") == pytest.approx(likeness / 0.8)
    assert lora.mean("seconds") == 58
    assert lora.intervals["likeness"].units == len(SHOTS)
    assert comparison.row("real").mean("likeness") == pytest.approx(0.8, abs=0.01)


def test_values_of_all_seeds_count_and_prompts_are_the_units(character, tmp_path):
    one = compared(character, tmp_path / "one")
    three = compared(character, tmp_path / "three", seed=[0, 1, 2])
    assert len(three.row("lora").values["likeness"]) == 3 * len(one.row("lora").values["likeness"])
    assert three.row("lora").intervals["likeness"].units == len(SHOTS)
    assert len(three.row("lora").costs["seconds"]) == 3


def test_the_highest_balance_is_advised_and_the_rest_is_told_in_words(character, tmp_path):
    comparison = compared(character, tmp_path)
    verdict = decide(comparison, Limits.parse(None))
    assert verdict.choice == "lora"
    assert "For mira on this machine: LoRA." in verdict.headline
    assert "58 s, 1.6 MB" in verdict.headline
    dreambooth = next(line for line in verdict.others if line.startswith("DreamBooth"))
    assert "takes 3.1x as long" in dreambooth
    assert "47 MB" in dreambooth
    assert "agrees less with prompts" in dreambooth


def test_a_technique_that_ignores_prompts_loses_however_alike_it_is(character, tmp_path):
    findings = {
        "lora": {"likeness": 0.6, "agreement": 0.53, "following": 0.9},
        "textual_inversion": {"likeness": 0.7, "agreement": 0.55, "following": 0.0},
    }
    comparison = compared(character, tmp_path, findings, technique=[*findings])
    inversion = comparison.row("textual_inversion")
    assert inversion.mean("agreement_share") == pytest.approx(0, abs=0.02)
    assert inversion.mean("balance") == pytest.approx(0, abs=0.02)
    verdict = decide(comparison, Limits.parse(None))
    assert verdict.choice == "lora"
    assert "90% of the agreement with prompts" in verdict.headline
    assert "agrees less with prompts" in verdict.others[0]
    assert not any("plain cosine" in each for each in verdict.cautions)


def test_results_without_a_scale_of_agreement_still_compare_and_say_so(character, tmp_path):
    findings = {name: {**FINDINGS[name]} for name in FOUR}
    findings["lora"]["following"] = 0.9  # a mixture is compared by what all of them have
    comparison = compared(character, tmp_path, findings)
    lora = comparison.row("lora")
    assert "agreement_share" not in lora.values
    assert lora.mean("balance") == pytest.approx(0.7 / 0.8 * 0.3, abs=0.02)
    assert "plain cosine" in " ".join(decide(comparison, Limits.parse(None)).cautions)


def test_limits_rule_techniques_out_and_say_why(character, tmp_path):
    comparison = compared(character, tmp_path)
    verdict = decide(comparison, Limits.parse("size=1MB"))
    assert verdict.choice == "textual_inversion"
    assert "LoRA is out: file size is 1.6 MB, above 1.0 MB." in " ".join(verdict.others)
    none = decide(comparison, Limits.parse("seconds=1"))
    assert none.choice is None
    assert "no technique is within seconds=1" in none.headline


def test_among_ties_the_fastest_is_advised(character, tmp_path):
    alike = {"likeness": 0.7, "agreement": 0.3}
    findings = {"lora": {**alike, "seconds": 60}, "hypernetwork": {**alike, "seconds": 30}}
    comparison = compared(character, tmp_path, findings, technique=["lora", "hypernetwork"])
    assert best_of(comparison.trained).name == "hypernetwork"
    assert comparison.row("lora").ranks["balance"].ties == ("hypernetwork",)
    verdict = decide(comparison, Limits.parse(None))
    assert verdict.choice is None
    assert "undecided. " in verdict.headline
    assert "Hypernetwork trains fastest of them" in verdict.headline


def test_a_lead_smaller_than_the_study_can_see_makes_no_winner(character, tmp_path):
    behind = 0.72 - 0.8 * np.repeat([0.0, 0.15, 0.2, 0.37], 2)  # a lead that four shots vary about
    findings = {
        "lora": {"likeness": 0.72, "following": 1.0},
        "dreambooth": {"likeness": behind, "following": 1.0},
    }
    comparison = compared(character, tmp_path, findings, technique=[*findings])
    lora, dreambooth = comparison.trained
    lead = comparison.difference("balance", lora, dreambooth)
    assert not lead.tie
    assert lead.interval.mean < comparison.visible("balance")
    verdict = decide(comparison, Limits.parse(None))
    assert verdict.choice is None
    assert "nearer to each other" in verdict.headline
    assert "LoRA and DreamBooth" in verdict.headline


def test_a_winner_of_one_encoder_alone_is_no_winner(character, tmp_path):
    findings = {
        "lora": {"likeness": 0.7, "second": 0.5, "following": 0.9},
        "dreambooth": {"likeness": 0.4, "second": 0.6, "following": 0.9},
    }
    comparison = compared(character, tmp_path, findings, technique=[*findings])
    assert comparison.row("lora").mean("balance") == pytest.approx(0.6 / 0.8 * 0.9, abs=0.03)
    verdict = decide(comparison, Limits.parse(None))
    assert verdict.choice is None
    assert "encoders disagree about the best" in verdict.headline
    assert "LoRA by invented and DreamBooth by invented too" in verdict.headline
    order = "by invented LoRA 88%, DreamBooth 50%; by invented too DreamBooth 75%, LoRA 63%"
    assert order in " ".join(verdict.cautions)


def test_a_winner_by_both_encoders_is_announced_with_what_each_saw(character, tmp_path):
    findings = {
        "lora": {"likeness": 0.7, "second": 0.6, "following": 0.9},
        "dreambooth": {"likeness": 0.4, "second": 0.5, "following": 0.9},
        "untouched": {"likeness": 0.1, "second": 0.1, "following": 1.0},
    }
    comparison = compared(character, tmp_path, findings, technique=["lora", "dreambooth"])
    verdict = decide(comparison, Limits.parse(None))
    assert verdict.choice == "lora"
    assert "by the second encoder) and 90% of the agreement" in verdict.headline
    told = " ".join(verdict.cautions)
    assert "disagree" not in told
    assert "one encoder alone" not in told
    one = compared(character, tmp_path / "one")
    assert "one encoder alone" in " ".join(decide(one, Limits.parse(None)).cautions)


def test_the_verdict_warns_of_copies_and_of_a_likeness_the_base_has_too(character, tmp_path):
    findings = {"lora": {"likeness": 0.3, "copies": 4}, "untouched": {"likeness": 0.31}}
    comparison = compared(character, tmp_path, findings, technique="lora")
    verdict = decide(comparison, Limits.parse(None))
    assert "50% of its pictures copy a training picture" in " ".join(verdict.cautions)
    assert "nothing is decided" in verdict.headline
    assert "no more like the character than the untouched base" in verdict.headline


def test_what_is_pending_or_failed_is_listed_and_the_rest_is_compared(character, tmp_path):
    grid = {"character": str(character), "technique": FOUR}
    study = finished(tmp_path, grid, {"lora": FINDINGS["lora"]})
    broken = next(c for c in study.cells if c.spec.row == "dreambooth")
    broken.fail("out of memory")
    comparison = Comparison.of(study)
    assert [row.name for row in comparison.rows] == ["lora"]
    assert comparison.unusable[broken.name] == "out of memory"
    assert sorted(comparison.unusable.values()).count("is pending") == 4


def test_nothing_to_compare_is_said(character, tmp_path):
    grid = {"character": str(character), "technique": FOUR}
    with pytest.raises(StudyError, match="no technique has a result"):
        Comparison.of(finished(tmp_path, grid, {}))


def test_results_of_two_versions_of_a_base_are_not_mixed(character, tmp_path):
    grid = {"character": str(character), "technique": "lora", "seed": [0, 1]}
    study = finished(tmp_path, grid, FINDINGS)
    write_finding(study.cells[-1], {"fingerprint": "fedcba9876543210"})
    with pytest.raises(StudyError, match="another version of base"):
        Comparison.of(study)


def test_swept_settings_are_rows_of_their_own(character, tmp_path):
    grid = {"technique": "lora", "lora": {"rank": [4, 16]}}
    findings = {"lora lora.rank=4": {"likeness": 0.6}, "lora lora.rank=16": {"likeness": 0.7}}
    comparison = compared(character, tmp_path, findings, **grid)
    assert [row.title for row in comparison.trained] == ["LoRA (rank 4)", "LoRA (rank 16)"]
    better = comparison.difference("likeness", comparison.rows[1], comparison.rows[0])
    assert better.interval.mean == pytest.approx(0.1)
    assert not better.tie


def test_claims_are_confirmed_refuted_or_left_open_by_the_numbers(character, tmp_path):
    judged = {claim.id: claim for claim in judge_claims(compared(character, tmp_path))}
    assert judged["dreambooth_fidelity"].outcome == "confirmed"
    assert judged["dreambooth_costs"].outcome == "confirmed"
    assert judged["inversion_lightest"].outcome == "confirmed"
    assert judged["inversion_precision"].outcome == "confirmed"
    assert judged["lora_efficient"].outcome == "refuted"  # its file is not the smallest
    assert judged["hypernetwork_switching"].outcome == "confirmed"
    assert judged["together"].outcome == "confirmed"
    fidelity = judged["dreambooth_fidelity"].evidence[0].text
    assert "DreamBooth and LoRA" in fidelity
    assert "difference +0.050" in fidelity


def test_a_claim_within_the_noise_is_undecided(character, tmp_path):
    alike = {name: {**FINDINGS[name], "likeness": 0.6, "seconds": 60} for name in FOUR}
    judged = {claim.id: claim for claim in judge_claims(compared(character, tmp_path, alike))}
    assert judged["dreambooth_fidelity"].outcome == "undecided"
    assert "together" not in judged  # there is no untouched base to compare with


def test_one_of_several_comparisons_refutes_a_claim_only_beyond_the_noise_of_all(
    character, tmp_path
):
    def outcomes(last_shot):
        behind = 0.7 - 0.01 * np.repeat([1, 2, 3, last_shot], 2)  # two seeds of four shots
        likeness = {"lora": 0.7, "hypernetwork": 0.5, "textual_inversion": 0.5}
        likeness["dreambooth"] = behind
        findings = {name: {**FINDINGS[name], "likeness": likeness[name]} for name in FOUR}
        comparison = compared(character, tmp_path / str(last_shot), findings)
        pair = [comparison.row(name) for name in ("dreambooth", "lora")]
        judged = {claim.id: claim.outcome for claim in judge_claims(comparison)}
        return comparison.difference("likeness", *pair).tie, judged["dreambooth_fidelity"]

    assert outcomes(4) == (False, "refuted")
    assert outcomes(-0.5) == (False, "undecided")  # seen alone, but not as one of three


@pytest.mark.parametrize(
    ("second", "outcome"), [(0.8, "confirmed"), (0.6, "undecided"), (0.5, "undecided")]
)
def test_a_claim_about_likeness_is_decided_only_where_the_encoders_agree(
    second, outcome, character, tmp_path
):
    seen = {name: {**FINDINGS[name], "second": 0.6} for name in FOUR}
    seen["dreambooth"]["second"] = second
    comparison = compared(character, tmp_path, seen)
    judged = {claim.id: claim for claim in judge_claims(comparison)}["dreambooth_fidelity"]
    assert judged.outcome == outcome
    titles = {each.text.split(", DreamBooth")[0] for each in judged.evidence}
    assert titles == {"likeness to held-out pictures", "likeness, by a second encoder"}


def test_claims_are_left_out_where_techniques_are_swept(character, tmp_path):
    findings = {f"lora lora.rank={rank}": {"likeness": 0.6} for rank in (4, 16)}
    comparison = compared(character, tmp_path, findings, technique="lora", lora={"rank": [4, 16]})
    assert judge_claims(comparison) == []
