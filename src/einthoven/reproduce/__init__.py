"""The paper's tables and figures: a grid of runs, resumable and shared between processes."""
