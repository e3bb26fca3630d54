"""ModelReport: what a run came to, on one page; and the readers of its results and its lineage."""
