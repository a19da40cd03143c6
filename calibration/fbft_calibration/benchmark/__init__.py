"""How small a defect is found: every category of a data set fitted, inspected, judged and reported.

`run` says the order of it all. Knows nothing about cameras or the line.
"""
