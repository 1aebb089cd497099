"""One self-contained HTML page on a workspace: `page(gather(workspace))`."""

from desireline.report.gather import Report, gather
from desireline.report.page import page

__all__ = ["Report", "gather", "page"]
