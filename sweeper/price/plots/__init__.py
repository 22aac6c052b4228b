"""The pictures of a price. Altair's and vl-convert's one doorway in the house.

    canvas     colours, headings, files            curves     test loss against trials, the winner's curse
    edges      ladder, plane, hits                 spaces     hyperparameters that matter

Each picture of a whole sweep comes with its heading (`..._chart`, for papers and slides) and as layers (`..._layers`,
for a page that has its own); a `..._panel` is one of several small ones.
"""

from sweeper.price.plots.canvas import page_svg, save_chart, side_by_side, unchecked
from sweeper.price.plots.curves import curse_panel, curve_chart, curve_layers, edge_panel
from sweeper.price.plots.edges import hits_panel, ladder_chart, ladder_layers, plane_chart, plane_layers
from sweeper.price.plots.spaces import effective_chart, effective_layers

__all__ = [
    "curse_panel",
    "curve_chart",
    "curve_layers",
    "edge_panel",
    "effective_chart",
    "effective_layers",
    "hits_panel",
    "ladder_chart",
    "ladder_layers",
    "page_svg",
    "plane_chart",
    "plane_layers",
    "save_chart",
    "side_by_side",
    "unchecked",
]
