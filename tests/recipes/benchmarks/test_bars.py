from megatron_biollm.recipes.benchmarks.bars import bars_table, least, most


def test_a_bar_is_met_on_its_own_side():
    assert [least("x", v, 1.0).met for v in (0.9, 1.0, None)] == [False, True, None]
    assert [most("x", v, 0.1).met for v in (0.1, 0.2, None)] == [True, False, None]


def test_what_was_not_measured_stays_empty():
    text = bars_table([least("speed", None, 1.15).row(), most("error", 0.05, 0.1).row()])
    assert "| speed |  | ≥ 1.15 |  |" in text
    assert "| error | 0.05 | ≤ 0.1 | yes |" in text
