"""Every block of README.md and docs/ as its reader runs it: in order, page by page.

`blocks` reads the pages, `environment` makes what `pip install` would make, `reader` runs a page,
and `pages` is the table of what a test must know beside the text: files that a reader has, what is
replaced by something shorter, and what cannot be run, each with its reason.
"""
