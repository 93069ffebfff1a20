"""HTML from small functions."""

from __future__ import annotations

from einthoven.report.markup import element, fragment, joined, table


def test_text_is_escaped_once_and_markup_never() -> None:
    inner = element("b", "<&>")
    assert inner == "<b>&lt;&amp;&gt;</b>"
    assert element("p", "a < b ", inner) == "<p>a &lt; b <b>&lt;&amp;&gt;</b></p>"
    assert fragment(fragment("<")) == "&lt;"
    assert joined(["<", inner], " & ") == "&lt; &amp; <b>&lt;&amp;&gt;</b>"


def test_attributes() -> None:
    made = element("td", class_="x", aria_label='a "b"', open=True, hidden=False, id=None)
    assert made == '<td class="x" aria-label="a &quot;b&quot;" open></td>'
    assert element("meta", charset="utf-8") == '<meta charset="utf-8">'


def test_a_table_names_its_region_rows_and_columns() -> None:
    made = table("t", "A <caption>", head=["x", "y"], rows=[["1", "2"]])
    assert 'aria-labelledby="t-caption"' in made
    assert '<caption id="t-caption">A &lt;caption&gt;</caption>' in made
    assert '<th scope="col">x</th>' in made
    assert '<tr><th scope="row">1</th><td>2</td></tr>' in made
