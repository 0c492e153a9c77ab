"""The report's parts, one module per subject; `write_report` puts them together.

`inputs` reads the files, `page` makes HTML and `drawing` pictures. Each subject module gives
functions that take what was read and return HTML, empty where there is nothing to show.
"""
