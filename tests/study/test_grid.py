"""Which runs the lists of a study file give."""

from __future__ import annotations

from personae.study.grid import expand


def test_a_technique_s_table_concerns_only_its_own_cells():
    grid = {
        "technique": ["lora", "dreambooth"],
        "lora": {"rank": 4, "schedule": {"learning_rate": 1e-3}},
        "schedule": {"learning_rate": 1e-5, "batch_size": 2},
    }
    (lora, _), (dreambooth, _) = expand(grid)
    assert lora["lora"] == {"rank": 4}
    assert lora["schedule"] == {"learning_rate": 1e-3, "batch_size": 2}
    assert "lora" not in dreambooth
    assert dreambooth["schedule"]["learning_rate"] == 1e-5


def test_a_field_that_takes_a_list_is_swept_by_a_list_of_lists():
    plain = list(expand({"preview_prompts": ["a", "b"]}))
    swept = list(expand({"preview_prompts": [["a"], ["b"]]}))
    assert [values["preview_prompts"] for values, _ in plain] == [["a", "b"]]
    assert [values["preview_prompts"] for values, _ in swept] == [["a"], ["b"]]
