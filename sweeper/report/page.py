"""The report as one HTML file: sentences first, then tables, pictures, and what they were made from."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files

from sweeper.price import Mode, budget_cells, edge_cells, sentence, space_cells
from sweeper.price.pairs import CLAIM_REPLICATES
from sweeper.report.facts import Facts, Machine
from sweeper.report.figures import Figure, Panel, figures
from sweeper.report.html import Child, Markup, data_table, drawing, joined, raw, tag

_MODES = {
    Mode.MEASUREMENT: "measurement mode: settings are drawn at random and nothing is pruned, so any order of a study's "
    "trials is as good as any other and curves average over all of them",
    Mode.PRODUCT: "product mode: the sampler learns or trials are pruned, so each study is one trace, compared as it "
    "ran; prices that hold in general take measurement mode",
}
UNKNOWN = "not measured"
_SECTIONS = {
    "words": "In words",
    "prices": "Price of each edge",
    "spaces": "Spaces",
    "importance": "Hyperparameters that decide",
    "figures": "Pictures",
    "costs": "What it cost",
    "environment": "Where it ran",
    "file": "The sweep file",
}
_SHARES = (
    "Each row is a hyperparameter of the largest space, with the layers that it acts on. fANOVA asks what share of the "
    "loss's variance over the whole space it explains, PED-ANOVA what decides whether a trial is among the best tenth. "
    "Either's shares add up to 100 % whatever happens: they compare hyperparameters and don't say that any of them "
    "matters. Groups of studies are judged apart; where their ranges [least, most] overlap, the order may be chance."
)
_ACCOUNTS = (
    "Every attempt of every trial is charged, also those that failed, were pruned or were lost with their worker; fits "
    "that trained side by side share the device's time by their steps, and “device-s alone” is what they would have "
    "taken one by one. What the workers did for no trial in particular stands under “(no trial's own)” and among the "
    "kinds. The last line compares the sum with the time for which the workers held their devices, measured apart: "
    "within 1 % the accounts balance."
)


def page(facts: Facts, drawn: Sequence[Figure] | None = None) -> str:
    """The whole file.

    Args:
        facts: what to tell.
        drawn: `figures(facts)`, where they are at hand.

    Returns:
        HTML that opens from disk, asks for nothing from elsewhere, and can do without its script.
    """
    style, script = (files("sweeper.report").joinpath(name).read_text("utf-8") for name in ("page.css", "tips.js"))
    title = f"{facts.name}: what extra hyperparameters cost"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(script)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        raw("style", style),
    )
    body = tag(
        "body",
        _header(facts, title),
        tag("main", _sections(facts, figures(facts) if drawn is None else drawn), id="main"),
        _footer(facts),
        raw("script", script),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _policy(script: str) -> str:
    """Nothing is loaded, and no script runs but our own: what a sweep file holds can't do anything."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'"


def _header(facts: Facts, title: str) -> Markup:
    links = [tag("li", tag("a", name, href=f"#{id_}")) for id_, name in _SECTIONS.items()]
    return tag(
        "header",
        tag("a", "Skip to the results", class_="skip", href="#words"),
        tag("h1", title),
        tag(
            "p", f"{facts.workload}. {facts.finished} of {facts.planned} trials, {_replicates(facts)}.", class_="quiet"
        ),
        tag("p", f"This sweep ran in {_MODES[facts.mode]}."),
        [tag("p", warning, class_="warn", role="note") for warning in _warnings(facts)],
        tag("nav", tag("ul", links), aria_label="Sections"),
    )


def _replicates(facts: Facts) -> str:
    return f"R = {facts.replicates} replicate{'' if facts.replicates == 1 else 's'}"


def _warnings(facts: Facts) -> Iterable[str]:
    if not facts.supports_claims:
        yield (
            f"{_replicates(facts)}: fewer than {CLAIM_REPLICATES} support no claim. Take the figures for a rehearsal "
            "of the real sweep."
        )
    if facts.finished < facts.planned:
        missing = facts.planned - facts.finished
        yield f"The sweep is not finished: {missing} trials are missing, and figures will change."


def _sections(facts: Facts, drawn: Sequence[Figure]) -> Sequence[Markup]:
    made: Mapping[str, Sequence[Child]] = {
        "words": _words(facts),
        "prices": _prices(facts),
        "spaces": _spaces(facts),
        "importance": _importance(facts),
        "figures": [_figure(figure) for figure in drawn],
        "costs": _costs(facts),
        "environment": _environment(facts),
        "file": [_note(f"{facts.file_path}, as it was launched."), _listing(facts.file_text, "The sweep file")],
    }
    return [
        tag("section", tag("h2", _SECTIONS[id_], id=f"{id_}-title"), parts, id=id_, aria_labelledby=f"{id_}-title")
        for id_, parts in made.items()
    ]


def _words(facts: Facts) -> list[Markup]:
    said = [tag("li", sentence(price)) for price in facts.prices.prices]
    said += [
        tag("li", f"{missing.edge.smaller} -> {missing.edge.larger}: not measured: {missing.reason}")
        for missing in facts.prices.unmeasured
    ]
    return [tag("ul", said, class_="sentences") if said else _note("This sweep has no two spaces that nest.")]


def _prices(facts: Facts) -> list[Child]:
    prices = facts.prices.prices
    if not prices:
        return [_note("No edge between two spaces has a price yet.")]
    budgets = [row for price in prices for row in budget_cells(price)]
    return [
        _note(
            "BUYS is the test loss saved at the same number of trials, positive where the larger space is better; the "
            "PRICE says how many times the smaller space's n0 trials the larger needs for the same test loss, and "
            "left of 1 it is cheaper. Intervals are 95 % over replicates; p is Holm-adjusted over "
            f"{facts.prices.comparisons} comparisons, and only BUYS claims anything."
        ),
        data_table("t-edges", "What each larger space buys and costs", _same_columns([edge_cells(p) for p in prices])),
        _measured("t-budgets", "The price at each n0, in every currency", budgets),
        _note(
            "The column “all edges” has the price in trials with intervals that hold for all edges of the "
            "table at once. A price in another currency is the one in trials times what a trial of the larger space "
            "costs over one of the smaller."
        ),
    ]


def _same_columns(rows: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """Rows under one head: where edges are read at other budgets, the budget moves from the head into the cell."""
    if all(list(row) == list(rows[0]) for row in rows):
        return list(rows)
    return [{_bare(column): _placed(column, cell) for column, cell in row.items()} for row in rows]


def _measured(id_: str, caption: str, rows: Sequence[Mapping[str, str]]) -> list[Markup]:
    """A table without the columns that were not measured anywhere, which a line below it names."""
    empty = [column for column in rows[0] if all(row[column] == UNKNOWN for row in rows)]
    left = [{column: cell for column, cell in row.items() if column not in empty} for row in rows]
    made = [data_table(id_, caption, left)]
    return [*made, _note(f"Not measured: {', '.join(empty)}.")] if empty else made


def _bare(column: str) -> str:
    return column.split(" at ")[0]


def _placed(column: str, cell: str) -> str:
    return f"{cell} at {column.split(' at ')[1]}" if " at " in column else cell


def _spaces(facts: Facts) -> list[Child]:
    if not facts.spaces:
        return [_note("No space has two finished trials in a study yet.")]
    rows = _same_columns([space_cells(space) for space in facts.spaces])
    return [
        _note(
            "The selection gap is how much worse the chosen trial tests than it validated, beyond what trials differ "
            "anyway; overtuning is how much worse the last choice tests than the best choice on the way. “That "
            "matter” is the effective number of hyperparameters, with those that the data leave open."
        ),
        _measured("t-spaces", "Each space on its own", rows),
    ]


def _figure(figure: Figure) -> Markup:
    heading = tag("h3", figure.title, id=f"f-{figure.name}")
    how = _reading(figure.reading)
    if figure.missing:
        return joined(heading, _note(f"Not drawn: {figure.missing}"))
    panels = [_panel(f"{figure.name}{i}", panel) for i, panel in enumerate(figure.panels)]
    if not figure.panels[0].title:
        return joined(heading, how, panels)
    return joined(heading, how, tag("div", panels, class_="panels"))


def _panel(name: str, panel: Panel) -> Markup:
    from sweeper.price.plots import page_svg

    slim = panel.slim is not None
    pictures = [_picture(name, page_svg(panel.wide), panel.words, "picture wide" if slim else "picture")]
    if slim:
        pictures.append(_picture(f"{name}s", page_svg(panel.slim), panel.words, "picture slim"))
    title = tag("h4", panel.title) if panel.title else None
    return tag("figure", title, pictures, tag("figcaption", panel.words))


def _picture(name: str, svg: str, words: str, class_: str) -> Markup:
    return tag("div", drawing(svg, name), class_=class_, role="img", aria_label=words)


def _importance(facts: Facts) -> list[Child]:
    sheet = facts.importance
    if sheet.missing:
        return [_note(f"Not measured: {sheet.missing}")]
    caption = f"{sheet.caption[:1].upper()}{sheet.caption[1:]}"
    return [_reading(_SHARES), data_table("t-importance", caption, sheet.rows)]


def _costs(facts: Facts) -> list[Child]:
    tables = [
        _measured(f"t-costs{i}", f"Seconds {sheet.caption}", sheet.rows) for i, sheet in enumerate(facts.accounts)
    ]
    told = [_reading(_ACCOUNTS), *tables, _note(f"{facts.balance}.")] if tables else []
    return [*told, _pairs(facts.amounts)]


def _environment(facts: Facts) -> list[Markup]:
    made = [
        _pairs(
            [
                ("report made", f"{facts.made_at:%Y-%m-%d %H:%M} UTC"),
                *((name, version) for name, version in facts.versions.items()),
                ("data, SHA-256", facts.data_sha256),
                *((f"numerics: {name}", value) for name, value in facts.numerics.items()),
            ]
        )
    ]
    for machine in facts.machines:
        made += [tag("h3", f"{machine.device} on {machine.host}"), _pairs(_machine(machine))]
    return made


def _machine(machine: Machine) -> list[tuple[str, str]]:
    until = "still at work" if machine.ended is None else f"{machine.ended:%Y-%m-%d %H:%M} UTC"
    return [
        ("workers", str(machine.workers)),
        ("from", f"{machine.began:%Y-%m-%d %H:%M} UTC"),
        ("until", until),
        *machine.details.items(),
    ]


def _pairs(rows: Sequence[tuple[str, str]]) -> Markup:
    return tag("dl", [joined(tag("dt", name), tag("dd", value)) for name, value in rows])


def _listing(text: str, name: str) -> Markup:
    return tag("pre", tag("code", text), tabindex="0", role="region", aria_label=name)


def _reading(words: str) -> Markup:
    return tag("p", tag("strong", "How to read this: "), words)


def _note(words: str) -> Markup:
    return tag("p", words)


def _footer(facts: Facts) -> Markup:
    return tag(
        "footer", tag("p", f"Made by sweeper on {facts.made_at:%Y-%m-%d}. Everything that it shows is in this file.")
    )
