"""The page: a run, looked at instead of read. Opens from disk, with no network.

source   a run's folder, one curve, or what a command has just computed
views    a curve in every way that people look at it
marks    where a curve is worth a look
episode  an episode as JSON
run      a run's results as JSON
compare  two runs side by side
film     small films and thumbnails
write    one file, or a folder with side files
assets/  the document, its style and its script: they draw, and compute no number
"""

from topreward.report.page.source import Source, of_curve, of_run, open_source
from topreward.report.page.write import Written, check_place, write_page

__all__ = ["Source", "Written", "check_place", "of_curve", "of_run", "open_source", "write_page"]
