"""The report of a sweep: one HTML file that says what extra hyperparameters cost and bought, and shows why.

    facts      all that a report tells           figures    the pictures, each with how to read it
    html       elements, escaped by construction page       the file
    files      the same pictures as PNG, trials and fits as CSV and Parquet

The file needs nothing beside it: no network, no script that it could not do without. Its pictures are inline SVGs in
the page's own colours, light, dark or printed; a script of a few lines shows the figures under the pointer.
"""

from sweeper.report.facts import Facts, Machine, Sheet
from sweeper.report.figures import Figure, figures
from sweeper.report.files import write_pictures, write_table
from sweeper.report.page import page

__all__ = ["Facts", "Figure", "Machine", "Sheet", "figures", "page", "write_pictures", "write_table"]
