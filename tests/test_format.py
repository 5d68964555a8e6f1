"""Numbers as people read them: every shape that occurs, and the dash."""

import pytest

from spectro.evaluation import format as fmt


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (fmt.format_number(0.891, 0.8, 0.97), "0.89 [0.80, 0.97]"),
        (fmt.format_number(0.891), "0.89"),
        (fmt.format_number(0.08, -0.01, 0.15, signed=True), "+0.08 [-0.01, 0.15]"),
        (fmt.format_number(None, 0.1, 0.2), "–"),
        (fmt.format_interval(0.8, 0.97), "0.80–0.97"),
        (fmt.format_interval(None, None), "–"),
        (fmt.format_p(0.0004), "< 0.001"),
        (fmt.format_p(0.0342), "0.034"),
        (fmt.format_p(0.214), "0.21"),
        (fmt.format_amount(0.12345), "0.123"),
        (fmt.format_amount(21_600_000), "21,600,000"),
        (fmt.format_amount(None), "–"),
        (fmt.markdown_table(["", "n"], [["a", "1"]]), "|  | n |\n| --- | ---: |\n| a | 1 |"),
        (fmt.markdown_text("a|b *c*\n<d>"), "a\\|b \\*c\\* \\<d>"),
    ],
)
def test_a_number_is_written_in_one_way_everywhere(text, expected):
    assert text == expected
