"""One HTML page and one set of charts for every report."""
