"""A page with a text colored by the activation of a unit."""

from itertools import groupby

import numpy as np

from quickfox.evaluation.activations import LEVELS, activation_levels
from quickfox.report.markup import element, join, paragraph, quote, section
from quickfox.report.page import render_page


def render_activations(unit: str, model: str, text: str, activations: np.ndarray) -> str:
    """The HTML of a page.

    Args:
        unit: its name.
        model: the name of the model.
        text: any text.
        activations: (characters,) after the network has read each character.
    """
    largest = float(np.abs(activations).max(initial=0.0))
    colored = []
    start = 0
    for level, run in groupby(activation_levels(activations).tolist()):
        end = start + len(list(run))
        colored.append(element("span", text[start:end], class_=_color(level)) if level else join([text[start:end]]))
        start = end
    scale = [
        element("span", f"{level * largest / LEVELS:+.2f}", class_=_color(level) if level else None)
        for level in range(-LEVELS, LEVELS + 1)
    ]
    body = section(
        "Activation",
        paragraph(
            "The background of each character shows the activation of the unit after the network has read it: ",
            *scale,
            class_="scale",
        ),
        element("div", element("p", *colored, dir="auto", class_="text"), class_="passage"),
    )
    return render_page(f"Unit {unit}", join(["Model ", quote(model)]), [body])


def _color(level: int) -> str:
    return f"{'p' if level > 0 else 'n'}{abs(level)}"
