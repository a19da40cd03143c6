"""Images in: nominal folders, and data sets as others lay them out."""
