"""The report: one file, that says what the tables say, to everybody, and runs nothing that it was given."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest

from price.problems import studies
from report.makers import facts
from sweeper.price import Mode, SpaceShape, break_even_text, edge_cells, price_text, sentence
from sweeper.report import Sheet, page
from sweeper.report.html import data_table, drawing, joined, raw, tag

VOID = {"meta", "br"}


class Reader(HTMLParser):
    """What a browser would see: elements with their attributes and parents, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(html)
        self.close()
        assert self.open == [], "an element is not closed"

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes), tuple(self.open)))
        if name not in VOID:
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.elements.append((name, dict(attributes), tuple(self.open)))

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, text):
        if not {"script", "style", "svg"} & set(self.open):
            self.texts.append(text)

    @property
    def text(self):
        return " ".join(self.texts)

    def every(self, name):
        return [attributes for found, attributes, _ in self.elements if found == name]


@pytest.fixture(scope="module")
def told():
    return facts()


@pytest.fixture(scope="module")
def html(told):
    return page(told)


@pytest.fixture(scope="module")
def read(html):
    return Reader(html)


def test_the_report_says_what_the_tables_say(told, read):
    price = told.prices.prices[0]
    assert sentence(price) in read.text
    for words in (*edge_cells(price).values(), price_text(price.headline), break_even_text(price.break_even)):
        assert words in read.text


def test_sentences_come_before_tables_and_tables_before_pictures(html):
    places = [html.index(mark) for mark in ('<ul class="sentences"', "<table", "<svg", "<pre")]
    assert places == sorted(places)


def test_nothing_is_fetched_from_elsewhere(html, read):
    without_names = re.sub(r'xmlns(:\w+)?="[^"]*"', "", html)
    assert "http:" not in without_names
    assert "https:" not in without_names
    assert not [name for name, _, _ in read.elements if name in ("link", "img", "iframe", "object")]
    assert [attributes for attributes in read.every("script") if attributes] == []
    assert all(attributes["href"].startswith("#") for attributes in read.every("a"))


def test_the_policy_lets_only_our_own_script_run(html, read):
    policy = next(meta["content"] for meta in read.every("meta") if "http-equiv" in meta)
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


def test_what_a_sweep_file_holds_is_shown_and_not_run():
    evil = "name: x # </code></pre><script>alert(1)</script><img src=x onerror='y'>&amp;"
    html = page(facts(file_text=evil, workload=evil, numerics={evil: evil}, file_path=evil))
    read = Reader(html)
    assert html.count("<script") == 1
    assert not read.every("img")
    assert evil in "".join(read.texts)


def test_a_space_s_name_can_t_break_a_picture():
    evil = '"/><script>&'
    rng = np.random.default_rng(1)
    shapes = {"shared": SpaceShape("shared", "fixed", 1), evil: SpaceShape("per_layer", "fixed", 3)}
    html = page(facts(studies={space: studies(rng.random((10, 16))) for space in shapes}, shapes=shapes))
    assert html.count("<script") == 1
    assert Reader(html).every("svg")


def test_every_id_is_there_once_and_every_reference_has_its_target(html, read):
    ids = [attributes["id"] for _, attributes, _ in read.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {attributes["href"][1:] for attributes in read.every("a")}
    labels = {a["aria-labelledby"] for _, a, _ in read.elements if "aria-labelledby" in a}
    assert links | labels | set(re.findall(r"url\(#([^)]+)\)", html)) <= set(ids)


def test_headings_go_down_one_step_at_a_time(read):
    levels = [int(name[1]) for name, _, _ in read.elements if re.fullmatch(r"h\d", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_tables_have_captions_and_heads_for_columns_and_rows(read):
    tables = read.every("table")
    assert len(read.every("caption")) == len(tables) >= 4
    assert {attributes.get("scope") for attributes in read.every("th")} == {"col", "row"}


def test_every_picture_says_its_figures_in_words(told, read):
    pictures = [a for _, a, _ in read.elements if a.get("role") == "img"]
    assert len(pictures) == len(read.every("svg")) >= 9
    assert all(re.search(r"\d", picture["aria-label"]) for picture in pictures)
    assert any(price_text(told.prices.prices[0].headline) in picture["aria-label"] for picture in pictures)
    assert read.text.count("How to read this") == 9  # seven pictures, importance and accounts


def test_what_scrolls_can_be_reached_with_the_keyboard(read):
    regions = [a for _, a, _ in read.elements if a.get("role") == "region"]
    assert regions
    assert all(a["tabindex"] == "0" and ("aria-labelledby" in a or "aria-label" in a) for a in regions)


def test_a_smoke_sized_sweep_says_that_it_supports_no_claim(read):
    assert "support no claim" in Reader(page(facts(replicates=5))).text
    assert "support no claim" not in read.text


def test_an_unfinished_sweep_says_what_is_missing():
    assert "7 trials are missing" in Reader(page(facts(finished=633, planned=640))).text


def test_product_mode_is_named_in_the_report():
    text = Reader(page(facts(mode=Mode.PRODUCT))).text
    assert "product mode: the sampler learns" in text
    assert "single traces (product mode)" in text


def test_importance_and_accounts_stand_with_how_to_read_them(html, read):
    for words in ("Importance in per_layer", "keep_prob_1", "Seconds by kind", "balanced: 4.00 s are accounted for."):
        assert words in read.text
    assert html.index("fANOVA asks") < html.index("Importance in per_layer")
    assert html.index("Every attempt of every trial") < html.index("Seconds by kind") < html.index("balanced: 4.00 s")


def test_without_importance_or_accounts_the_report_says_why_or_nothing():
    text = Reader(page(facts(importance=Sheet("importance", (), "too few trials"), accounts=(), balance=""))).text
    assert "Not measured: too few trials" in text
    assert "Every attempt of every trial" not in text
    assert "energy" in text


def test_a_sweep_without_a_finished_trial_has_a_report_that_says_so():
    text = Reader(page(facts(studies={}))).text
    assert "No edge between two spaces has a price yet." in text
    assert "not measured: shared and per_layer share no replicate" in text
    assert "Not drawn: " in text


def test_failures_everywhere_can_be_reported():
    failed = studies(np.full((10, 8), np.inf))
    text = Reader(page(facts(studies={"shared": failed, "per_layer": failed}))).text
    assert "not measurable" in text


def test_a_hundred_times_the_trials_make_no_larger_pictures(html):
    large = page(facts(replicates=2, trials=4000))
    assert len(large) < 3 * len(html)


def test_text_is_escaped_and_markup_is_not():
    assert tag("p", "<&>", tag("b", "x"), title='"') == '<p title="&quot;">&lt;&amp;&gt;<b>x</b></p>'
    assert joined("<", ["a", None, tag("i")]) == "&lt;a<i></i>"
    assert "&lt;b&gt;" in data_table("t", "c", [{"<b>": "1"}])


def test_a_script_that_would_end_its_element_is_refused():
    with pytest.raises(ValueError, match="can't hold '</script'"):
        raw("script", "'</SCRIPT>'")


def test_two_drawings_share_no_id():
    svg = '<?xml?><svg><clipPath id="clip0"/><g clip-path="url(#clip0)"/></svg>'
    assert drawing(svg, "a") == '<svg><clipPath id="a-clip0"/><g clip-path="url(#a-clip0)"/></svg>'
