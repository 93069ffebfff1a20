"""The paper's tables and figures, as grids of runs that are defined in TOML files.

experiment.py defines a grid, grid.py lists its runs, run.py trains them, results.py scores them,
and tables.py, figures.py and page.py write a page, with the published values of published.py.
"""
